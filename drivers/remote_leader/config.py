"""The part: ``[leader]`` with ``driver = "remote"``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from drivers.remote_leader.options import RemoteLeaderOptions
from runtime.part_context import ArmContext

if TYPE_CHECKING:
    from drivers.remote_leader.driver import RemoteLeader


class RemoteLeaderConfig(RemoteLeaderOptions):
    """A leader on another machine, which runs ``dexrun lead --to HOST:PORT``."""

    def build(self, context: ArmContext) -> RemoteLeader:
        from drivers.remote_leader.driver import RemoteLeader

        return RemoteLeader(self, context)
