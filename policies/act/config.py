"""The part: its table, and how it is built."""

from __future__ import annotations

from typing import TYPE_CHECKING

from policies.act.options import ActOptions
from runtime.part_context import PolicyContext

if TYPE_CHECKING:
    from policies.act.policy import ActPolicy


class ActConfig(ActOptions):
    """``[policy] type = "act"``."""

    def build(self, context: PolicyContext) -> ActPolicy:
        from policies.act.policy import ActPolicy

        return ActPolicy(self, context.joints)
