"""The part: its table, and how it is built."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from runtime.part_context import PolicyContext
from runtime.parts import PolicyTable

if TYPE_CHECKING:
    from policies.still.policy import StillPolicy


class StillConfig(PolicyTable):
    """``[policy] type = "still"``: the arm is asked to stay where it is.

    Attributes:
        chunk_steps: rows of a chunk.
    """

    type: Literal["still"] = "still"
    chunk_steps: int = Field(default=30, ge=1, le=1000)

    def build(self, context: PolicyContext) -> StillPolicy:
        from policies.still.policy import StillPolicy

        return StillPolicy(self.chunk_steps, context.joints.joints)

    @property
    def remembers_episode(self) -> bool:
        return False
