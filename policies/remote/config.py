"""The parts: each protocol's table, and how its client is built."""

from __future__ import annotations

from typing import TYPE_CHECKING

from policies.remote.options import ActRemoteTable, GrootTable, LerobotTable, OpenpiTable, RemoteOptions
from runtime.part_context import PolicyContext

if TYPE_CHECKING:
    from policies.remote.client import RemotePolicy


class _Built(RemoteOptions):
    """Whatever the protocol, its client is found by the table's type."""

    def build(self, context: PolicyContext) -> RemotePolicy:
        """The client; it connects when it is warmed up."""
        from policies.remote.make import make_remote

        return make_remote(self, context.joints, context.clock)


class GrootOptions(GrootTable, _Built):
    """GR00T's policy server (ZeroMQ and msgpack)."""


class LerobotOptions(LerobotTable, _Built):
    """LeRobot's asynchronous inference (gRPC and pickle)."""


class OpenpiOptions(OpenpiTable, _Built):
    """openpi's policy server (websocket and msgpack)."""


class ActRemoteOptions(ActRemoteTable, _Built):
    """The ACT server of the seed (ZeroMQ and pickle), and the community's variant of it."""
