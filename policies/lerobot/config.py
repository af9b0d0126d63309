"""The part: its table, and how it is built."""

from __future__ import annotations

from typing import TYPE_CHECKING

from policies.lerobot.options import LerobotFolderOptions
from runtime.part_context import PolicyContext

if TYPE_CHECKING:
    from policies.lerobot.policy import FolderPolicy


class LerobotFolderConfig(LerobotFolderOptions):
    """``[policy] type = "lerobot"``: a policy that LeRobot trained, from its folder, without LeRobot."""

    def build(self, context: PolicyContext) -> FolderPolicy:
        from policies.lerobot.policy import FolderPolicy

        return FolderPolicy(self, context.joints, context.cameras)
