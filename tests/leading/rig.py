"""A leader's end and a follower's, real sockets between, and somebody in the middle who loses and forges."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from drivers.remote_leader.config import RemoteLeaderConfig
from drivers.remote_leader.driver import RemoteLeader
from drivers.remote_leader.sender import LeaderSender
from runtime.joints import JointLayout
from runtime.messages import Floats
from runtime.part_context import ArmContext
from runtime.ring import Sample
from tests.jog.rig import HandClock

JOINTS = JointLayout(("pan", "lift", "gripper"), np.array([[-1.0, 1.0], [-2.0, 2.0], [0.0, 1.0]]), (2,))
Middle = Callable[[list[bytes]], Iterable[bytes]]


def state(position: Floats) -> Sample:
    zero = np.zeros(position.size)
    return Sample(0, 0, {"position": position, "velocity": zero, "load": zero})


def drained(link: socket.socket) -> list[tuple[bytes, Any]]:
    found = []
    while True:
        try:
            found.append(link.recvfrom(65536))
        except BlockingIOError:
            return found


class Road:
    """What is between the two. `turn` lets everything go once there and back.

    Attributes:
        caught: all that went to the follower.
    """

    def __init__(self, joints: JointLayout = JOINTS, secret: bytes = b"", **options: Any) -> None:
        self.near, self.far = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
        for link in (self.near, self.far):
            link.bind(("127.0.0.1", 0))
            link.setblocking(False)
        self.here, self.there = HandClock(), HandClock()
        self.there.at_ns += 3_600_000_000_000  # the machines' clocks have nothing to do with each other
        table = RemoteLeaderConfig(listen="127.0.0.1:0", **options)
        self.follower = RemoteLeader(table, ArmContext("leader", self.there, joints=JOINTS))
        self.follower.open()
        self.secret = secret
        self.leader = self.restarted(joints)
        self.caught: list[bytes] = []
        self._sender: Any = None

    def restarted(self, joints: JointLayout = JOINTS) -> LeaderSender:
        return LeaderSender(("127.0.0.1", self.near.getsockname()[1]), self.secret, joints, self.here)

    def pass_ms(self, milliseconds: float) -> None:
        for clock in (self.here, self.there):
            clock.at_ns += round(milliseconds * 1e6)

    def turn(
        self,
        position: Floats | None = None,
        *,
        out: Middle = list,
        back: Middle = list,
        out_ms: float = 0.0,
        back_ms: float = 0.0,
    ) -> bool:
        """One datagram's way there and back, through the one in the middle; whether a state was published."""
        self.leader.turn(None if position is None else state(position))
        came = drained(self.near)
        if came:
            self._sender = came[-1][1]
        self.pass_ms(out_ms)
        there = list(out([data for data, _ in came]))
        published = self.deliver(there)
        self.pass_ms(back_ms)
        for data in back([data for data, _ in drained(self.far)]):
            self.near.sendto(data, self._sender)
        self.leader.turn(None)
        for data, _ in drained(self.near):  # a hello that was due again
            self.caught.append(data)
        return published

    def deliver(self, datagrams: Iterable[bytes]) -> bool:
        published = False
        for data in datagrams:
            self.caught.append(data)
            self.far.sendto(data, ("127.0.0.1", self.follower.port))
            published |= self.follower.poll()
        return published

    def agree(self, **way: Any) -> None:
        self.pass_ms(1100)
        self.turn(**way)
        assert self.leader.agreed

    @property
    def newest(self) -> Sample | None:
        return self.follower.states.newest()

    def close(self) -> None:
        self.follower.close()
        self.leader.close()
        self.near.close()
        self.far.close()
