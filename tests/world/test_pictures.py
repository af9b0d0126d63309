"""The pictures of a world in real time, made by hand."""

from __future__ import annotations

import socket
from contextlib import closing
from pathlib import Path

from drivers.force.config import ForceConfig
from drivers.world.channel import ControlChannel
from drivers.world.process import RealTime
from drivers.world.render import prepare_environment
from drivers.world.world import World
from runtime.stepped import SteppedClock
from tests.world.rig import MS, ROBOT, one_object

_PICTURES, _EVERY = 24, 6


class _Starved(SteppedClock):
    """The physics gets the processor before every sixth picture alone."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.stamps = 0, list[int]()

    def pictures(self, server: RealTime) -> None:
        self.server, self.reader = server, server.world.ring.reader()
        server._pictures()
        self._look()

    def wait_until_ns(self, deadline_ns: int) -> None:
        super().wait_until_ns(deadline_ns)
        self._look()
        self.asked += 1
        if self.asked % _EVERY == 0:
            self.server.world.advance(self.now_ns())
        if self.asked == _PICTURES:
            self.server._stop.set()

    def _look(self) -> None:
        while (sample := self.reader.next()) is not None:
            self.stamps.append(sample.stamp_ns)


def test_where_the_physics_stood_still_there_is_no_second_picture_of_that_instant(tmp_path: Path) -> None:
    config = one_object()
    prepare_environment(config.render)
    ours, theirs = socket.socketpair()
    bell, door = socket.socketpair()
    with ours, theirs, bell, door, _Starved() as clock:
        with closing(World(config, ForceConfig(port="world:force"), tmp_path, 0, ROBOT)) as world:
            server = RealTime(world, ControlChannel(ours), bell, clock)
            clock.pictures(server)
        health = server.health
        assert clock.stamps == sorted(set(clock.stamps))
        assert len(clock.stamps) == health.head_frames > 3
        assert health.skipped_frames + health.head_frames + health.wrist_frames == _PICTURES
        assert clock.stamps[-1] > 300 * MS
