"""The part: its table, and how it is built."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from policies.lift.options import LiftOptions
from runtime.part_context import PolicyContext

if TYPE_CHECKING:
    from policies.lift.policy import LiftPolicy
    from policies.lift.recipe import LiftRecipe


class LiftConfig(LiftOptions):
    """``[policy] type = "lift"``."""

    def build(self, context: PolicyContext) -> LiftPolicy:
        from policies.lift.policy import LiftPolicy

        return LiftPolicy(self, context.joints, lambda: context.cameras[self.camera], context.arm_model)

    def recipe(self, given: Mapping[str, Any]) -> LiftRecipe:
        from policies.lift.recipe import LiftRecipe

        return LiftRecipe(self, given)
