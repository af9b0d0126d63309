"""The part: its table, and how it is built."""

from __future__ import annotations

from typing import TYPE_CHECKING

from planner.pointing.options import PointingOptions
from runtime.part_context import PolicyContext

if TYPE_CHECKING:
    from planner.pointing.policy import PointingPolicy


class PointingConfig(PointingOptions):
    """``type = "vlm"``, for the slow half of a policy: a vision-language model is asked where the
    instruction's object is. Its thought is where that lies, how large it is and what colour it has, and the
    model's words. Where it is followed itself the arm stays where it is.
    """

    def build(self, context: PolicyContext) -> PointingPolicy:
        from planner.pointing.policy import PointingPolicy

        return PointingPolicy(self, context.joints.joints, lambda: context.cameras[self.camera])
