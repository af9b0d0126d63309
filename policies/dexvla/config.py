"""The part: its table, and how it is built."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from policies.dexvla.options import DexVlaOptions, DexVlaTraining
from runtime.part_context import PolicyContext

if TYPE_CHECKING:
    from policies.dexvla.policy import DexVlaPolicy
    from policies.dexvla.recipe import DexVlaRecipe


class DexVlaConfig(DexVlaOptions):
    """``[policy] type = "dexvla"``."""

    def build(self, context: PolicyContext) -> DexVlaPolicy:
        from policies.dexvla.policy import DexVlaPolicy

        return DexVlaPolicy(self, context.joints)

    def recipe(self, given: Mapping[str, Any]) -> DexVlaRecipe:
        training = DexVlaTraining.model_validate(given)
        from policies.dexvla.recipe import DexVlaRecipe

        return DexVlaRecipe(self, training)
