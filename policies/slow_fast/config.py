"""The part: its table, and how it is built."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from policies.slow_fast.options import SlowFastOptions
from runtime.part_context import PolicyContext

if TYPE_CHECKING:
    from policies.slow_fast.policy import SlowFastPolicy


class SlowFastConfig(SlowFastOptions):
    """``[policy] type = "slow_fast"``: a slow model thinks at its own pace, a fast policy acts on its newest
    thought.
    """

    def build(self, context: PolicyContext) -> SlowFastPolicy:
        from policies.slow_fast.assembling import assembled

        return assembled(self, context)

    def recipe(self, given: Mapping[str, Any]) -> Any:
        """The fast half's: it is what is trained here."""
        return self.fast.recipe(given)
