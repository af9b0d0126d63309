"""The part: its table, and how it is built."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from policies.smolvla.options import SmolVlaOptions, SmolVlaTraining
from runtime.part_context import PolicyContext

if TYPE_CHECKING:
    from policies.smolvla.policy import SmolVlaPolicy
    from policies.smolvla.recipe import SmolVlaRecipe


class SmolVlaConfig(SmolVlaOptions):
    """``[policy] type = "smolvla"``."""

    def build(self, context: PolicyContext) -> SmolVlaPolicy:
        from policies.smolvla.policy import SmolVlaPolicy

        return SmolVlaPolicy(self, context.joints, context.cameras)

    def recipe(self, given: Mapping[str, Any]) -> SmolVlaRecipe:
        training = SmolVlaTraining.model_validate(given)
        self.check_packages()
        from policies.smolvla.recipe import SmolVlaRecipe

        return SmolVlaRecipe(self, training)
