"""The part: its table, and how it is built."""

from __future__ import annotations

from typing import TYPE_CHECKING

from policies.dexgrasp.options import DexGraspOptions
from runtime.part_context import PolicyContext

if TYPE_CHECKING:
    from policies.dexgrasp.policy import DexGraspPolicy


class DexGraspConfig(DexGraspOptions):
    """``[policy] type = "dexgrasp"``."""

    def build(self, context: PolicyContext) -> DexGraspPolicy:
        from policies.dexgrasp.policy import DexGraspPolicy

        return DexGraspPolicy(self, context.joints)
