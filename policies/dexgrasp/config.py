"""The part: its table, and how it is built."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from policies.dexgrasp.options import DexGraspOptions, DexGraspTraining
from runtime.part_context import PolicyContext

if TYPE_CHECKING:
    from policies.dexgrasp.policy import DexGraspPolicy
    from policies.dexgrasp.recipe import DexGraspRecipe


class DexGraspConfig(DexGraspOptions):
    """``[policy] type = "dexgrasp"``."""

    def build(self, context: PolicyContext) -> DexGraspPolicy:
        from policies.dexgrasp.policy import DexGraspPolicy

        return DexGraspPolicy(self, context.joints)

    def recipe(self, given: Mapping[str, Any]) -> DexGraspRecipe:
        training = DexGraspTraining.model_validate(given)
        from policies.dexgrasp.recipe import DexGraspRecipe

        return DexGraspRecipe(self, training)
