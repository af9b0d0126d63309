"""The part: its table, and how it is built."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from policies.act.options import ActOptions, ActTraining
from runtime.part_context import PolicyContext

if TYPE_CHECKING:
    from policies.act.policy import ActPolicy
    from policies.act.recipe import ActRecipe


class ActConfig(ActOptions):
    """``[policy] type = "act"``."""

    def build(self, context: PolicyContext) -> ActPolicy:
        from policies.act.policy import ActPolicy

        return ActPolicy(self, context.joints)

    def recipe(self, given: Mapping[str, Any]) -> ActRecipe:
        training = ActTraining.model_validate(given)
        from policies.act.recipe import ActRecipe

        return ActRecipe(self, training)
