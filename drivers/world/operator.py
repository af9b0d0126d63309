"""A scripted person at the leader arm, who clears the table by looking at it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np

from drivers.world.config import OperatorOptions
from drivers.world.grasping import ScriptedGrasp, plan_grasp, plan_release, tray_slot
from drivers.world.judge import in_tray
from drivers.world.layout import ObjectSpec
from drivers.world.physics import Tabletop
from drivers.world.reach import TopDown, UnreachableError
from drivers.world.servos import ArmBank, Encoders
from runtime.body import RobotDescription
from runtime.messages import Floats

TICK_S = 0.005
_SPEED_RAD_S = 0.9
_FOLLOWED_RAD = 0.02
_PATIENCE_S = 1.5
_TRIES = 3


@dataclass(frozen=True, slots=True)
class OperatorReport:
    """What the person is doing.

    phase: ``waiting`` before the first move; then, episode by episode, ``approach``, ``grasp``, ``lift``,
    ``carry``, ``release``, ``return``, and ``rest`` for half a second; ``done`` at the end.
    """

    episode: int = 0
    """Counts from 1; 0 before the first."""
    phase: str = "waiting"
    object: str = ""
    succeeded: int = 0
    """Episodes so far that ended with their object in the tray."""

    @property
    def done(self) -> bool:
        """Whether nothing will move any more."""
        return self.phase == "done"

    def as_json(self) -> dict[str, Any]:
        """For the control channel."""
        return asdict(self)


class LeaderArm:
    """The leader's joints: moved by a hand while torque is off, by its servos while it is on."""

    def __init__(self, joints_rad: Floats, encoders: Encoders) -> None:
        self.bank = ArmBank(joints_rad, encoders)
        self.hand: Floats | None = None
        """Where a hand holds the joints ``[D]`` (the model's own positions); ``None`` if nobody does."""
        self._position = np.array(joints_rad, float)
        self._shoved = np.zeros(len(self._position))
        self._ends = encoders.ends

    def shove(self, joint: int, by_rad: float) -> None:
        """Move the hand, from now on, away from where it holds `joint`."""
        self._shoved[joint] += by_rad
        if self.hand is None:
            self._position = np.clip(self._position + self._shoved, *self._ends)
            self._shoved[:] = 0.0

    def clear(self) -> None:
        """The hand is where it wants to be again."""
        self._shoved[:] = 0.0

    def step(self, dt_s: float) -> None:
        """Move on by `dt_s`."""
        drive = self.bank.drive()
        reach = 2.0 * dt_s
        held = self._position if self.hand is None else np.clip(self.hand + self._shoved, *self._ends)
        goal = np.where(drive.torque > 0, drive.goal_rad, held)
        powered = drive.torque > 0
        moved = np.where(powered, np.clip(goal - self._position, -reach, reach), goal - self._position)
        self._position = self._position + moved
        self.bank.publish(self._position, moved / dt_s, np.zeros(len(moved)))


class _Hand:
    """The person's hand at one leader, and what it knows of the follower.

    Attributes:
        follower: its servos. rest: where it began, and goes back to. here: where it holds the leader.
    """

    def __init__(self, leader: LeaderArm, follower: ArmBank, robot: RobotDescription, base: Floats) -> None:
        self.leader = leader
        self.follower = follower
        self.rest = leader.bank.joints_rad()
        self.here = self.rest.copy()
        self.others = list(robot.carrying)
        self._robot = robot
        self._from_table = np.linalg.inv(base)
        self._yaw_rad = math.atan2(base[1, 0], base[0, 0])

    @cached_property
    def reach(self) -> TopDown:
        """Of the arm, in its base's frame."""
        return TopDown(self._robot)

    def take(self) -> None:
        """Hold the leader where it is."""
        self.here = self.leader.bank.joints_rad()
        self.rest = self.here.copy()

    def own(self, place: Floats) -> Floats:
        """A point ``[3]`` of the table in the frame of the arm's base."""
        return np.asarray(self._from_table[:3, :3] @ place + self._from_table[:3, 3])

    def plan(
        self, spec: ObjectSpec, place: Floats, yaw_rad: float, others: Sequence[Floats], slot: Floats
    ) -> tuple[ScriptedGrasp, Floats]:
        """How to take the object, and the joints ``[N]`` over `slot` ``[2]`` of the tray.

        Raises:
            UnreachableError: this arm cannot.
        """
        neighbours = [self.own(other) for other in others]
        grasp = plan_grasp(self.reach, spec, self.own(place), yaw_rad - self._yaw_rad, neighbours)
        return grasp, plan_release(self.reach, self.own(np.append(slot, 0.0))[:2])


class Operator:
    """Picks and places every object, one episode each, by moving the leader.

    A person watches the follower: each move ends only once the follower has arrived, or patience does. Of
    several leaders, the person moves the one whose arm reaches both the object and the tray, the nearest
    first; the others stay where they are.
    """

    def __init__(self, table: Tabletop, leaders: Mapping[str, LeaderArm], options: OperatorOptions) -> None:
        self.report = OperatorReport()
        self._table = table
        robot = table.robot
        self._hands = {
            arm: _Hand(leader, table.banks.arms[arm], robot.singles[arm], robot.bases[arm])
            for arm, leader in leaders.items()
        }
        self._hand = next(iter(self._hands.values()))
        self._speed = _SPEED_RAD_S * options.speed
        self._wait_s = options.start_s
        self._script: Iterator[None] | None = None
        if options.enabled:
            self.start()

    def start(self) -> None:
        """Take the leaders in hand and clear the table from now on."""
        for hand in self._hands.values():
            hand.take()
        self.report = OperatorReport()
        self._script = self._clear_table()

    def stop(self) -> None:
        """Let go of the leaders."""
        self._script = None
        for hand in self._hands.values():
            hand.leader.hand = None

    def tick(self) -> None:
        """Move on by `TICK_S`."""
        if self._script is None:
            return
        next(self._script, None)
        for hand in self._hands.values():
            hand.leader.hand = hand.here

    # --- the script: each step of a generator is one tick

    def _clear_table(self) -> Iterator[None]:
        yield from self._pause(self._wait_s)
        for index in range(len(self._table.objects)):
            for _ in range(_TRIES):
                if not self._table.present[index] or self._inside(index):
                    break
                yield from self._episode(index)
        self._phase("done", "")

    def _episode(self, index: int) -> Iterator[None]:
        name = self._table.objects[index].name
        try:
            plan, over = self._plan(index)
        except UnreachableError:
            return
        whole, opened = self._hand.reach.whole, plan.opening
        self._phase("approach", name, episode=self.report.episode + 1)
        yield from self._move(whole(plan.above, opened))
        yield from self._move(whole(plan.at, opened))
        self._phase("grasp", name)
        yield from self._move(whole(plan.at, 0.0), wait=False)
        yield from self._pause(0.5)
        self._phase("lift", name)
        yield from self._move(whole(plan.above, 0.0))
        self._phase("carry", name)
        yield from self._move(whole(over, 0.0))
        self._phase("release", name)
        yield from self._move(whole(over, opened))
        yield from self._pause(0.4)
        self._phase("return", name)
        yield from self._move(self._hand.rest)
        self._phase("rest", name, won=self._inside(index))
        yield from self._pause(0.5)

    def _plan(self, index: int) -> tuple[ScriptedGrasp, Floats]:
        """How to take object `index` and where to let it go; takes the leader whose arm can.

        Raises:
            UnreachableError: none can.
        """
        table = self._table
        others = [
            table.object_pose(i)[0]
            for i in range(len(table.objects))
            if i != index and table.present[i] and not self._inside(i)
        ]
        place, _ = table.object_pose(index)
        slot, yaw_rad = tray_slot(self._in_tray()), table.yaw_rad(index)
        for hand in sorted(self._hands.values(), key=lambda hand: float(np.linalg.norm(hand.own(place)))):
            try:
                plan = hand.plan(table.objects[index], place, yaw_rad, others, slot)
            except UnreachableError:
                continue
            self._hand = hand
            return plan
        raise UnreachableError(f"{table.objects[index].name} at {np.round(place, 3).tolist()}")

    def _inside(self, index: int) -> bool:
        return in_tray(self._table.object_pose(index)[0])

    def _in_tray(self) -> list[Floats]:
        count = len(self._table.objects)
        return [self._table.object_pose(i)[0] for i in range(count) if self._inside(i)]

    def _phase(self, phase: str, name: str, *, episode: int | None = None, won: bool = False) -> None:
        self.report = OperatorReport(
            self.report.episode if episode is None else episode,
            phase,
            name,
            self.report.succeeded + won,
        )

    def _move(self, target: Floats, *, wait: bool = True) -> Iterator[None]:
        """A minimum-jerk move, as fast as the fastest joint may; then wait for the follower."""
        hand = self._hand
        start = hand.here.copy()
        peak = 1.875 * float(np.max(np.abs(target - start))) / self._speed
        ticks = max(1, round(max(0.3, peak) / TICK_S))
        for tick in range(1, ticks + 1):
            t = tick / ticks
            hand.here = start + (target - start) * (10 * t**3 - 15 * t**4 + 6 * t**5)
            yield
        if wait:
            yield from self._until_followed()

    def _until_followed(self) -> Iterator[None]:
        for _ in range(round(_PATIENCE_S / TICK_S)):
            error = np.abs(self._hand.follower.joints_rad() - self._hand.here)[self._hand.others]
            if float(error.max()) < _FOLLOWED_RAD:
                return
            yield

    def _pause(self, duration_s: float) -> Iterator[None]:
        for _ in range(round(duration_s / TICK_S)):
            yield
