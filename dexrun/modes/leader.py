"""The leader arm as the follower sees it, and as it can be brought to the follower."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dexrun.config.mode_options import TeleopOptions
from dexrun.robot import Robot
from runtime.clock import NS_PER_S
from runtime.inputs import LeaderSource
from runtime.interfaces import GuidedLeader, JoggedLeader
from runtime.joints import posed
from runtime.messages import Floats


def to_follower(options: TeleopOptions, position: Floats, grippers: Sequence[int]) -> Floats:
    """Where the follower should be, ``[D]``, if the leader is at `position` ``[D]``; grippers as they are."""
    return _scaled(options, options.gain, position, grippers)


def to_leader(options: TeleopOptions, position: Floats, grippers: Sequence[int]) -> Floats:
    """Where the leader has to be, ``[D]``, for the follower to be at `position` ``[D]``."""
    return _scaled(options, 1.0 / options.gain, position, grippers)


def _scaled(options: TeleopOptions, gain: float, position: Floats, grippers: Sequence[int]) -> Floats:
    if gain == 1.0:
        return position.copy()
    center = np.zeros_like(position)
    center[posed(len(options.center_rad), position.size, grippers)] = options.center_rad
    scaled = center + gain * (position - center)
    scaled[list(grippers)] = position[list(grippers)]
    return np.asarray(scaled)


def leader_source(robot: Robot) -> LeaderSource:
    """The leader as a source of targets; the configuration has made sure that there is one."""
    assert robot.leader is not None  # noqa: S101 - as above
    options, grippers = robot.settings.teleop, robot.model.grippers
    return LeaderSource(
        robot.leader.states,
        robot.settings.control.state_max_age_s,
        lambda position: to_follower(options, position, grippers),
    )


class Leader:
    """Where a person's leader is, and, if it can move by itself, bringing it somewhere.

    Attributes:
        moves: whether every leader of the robot can be brought.
        jogged: whether none of them is an arm, that anybody would have to take in hand.
    """

    def __init__(self, robot: Robot) -> None:
        assert robot.leader is not None  # noqa: S101 - the configuration was checked
        self._states = robot.leader.states
        self._max_age_ns = round(robot.settings.control.state_max_age_s * NS_PER_S)
        self._clock = robot.clock
        self._options, self._grippers = robot.settings.teleop, robot.model.grippers
        layout = robot.model.layout
        guides = {name: leader for name, leader in robot.leaders.items() if isinstance(leader, GuidedLeader)}
        self.jogged = all(isinstance(leader, JoggedLeader) for leader in robot.leaders.values())
        self.moves = len(guides) == len(robot.leaders)
        self._guides = [
            (leader.guide, list(layout.of(name.partition(".")[2]))) for name, leader in guides.items()
        ]

    def position(self) -> Floats | None:
        """``[D]`` its joints, as it counts them; ``None`` while it does not report them."""
        sample = self._states.newest(now_ns=self._clock.now_ns(), max_age_ns=self._max_age_ns)
        return None if sample is None else sample["position"]

    def asks(self) -> Floats | None:
        """``[D]`` where the follower would be if it followed now."""
        position = self.position()
        return None if position is None else to_follower(self._options, position, self._grippers)

    def wanted(self, follower: Floats) -> Floats:
        """``[D]`` where the leader has to be for the follower to stay at `follower` ``[D]``."""
        return to_leader(self._options, follower, self._grippers)

    def bring(self, row: Floats) -> None:
        """Ask its motors to be at `row` ``[D]``; they hold it until `let_go`."""
        for guide, joints in self._guides:
            guide.post(self._clock.now_ns(), position=row[joints])

    def let_go(self) -> None:
        """Its motors let go: a person holds it."""
        for guide, joints in self._guides:
            guide.post(self._clock.now_ns(), position=np.full(len(joints), np.nan))
