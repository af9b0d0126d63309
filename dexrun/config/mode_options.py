"""Options of the modes and of the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from planner.plan import PlanConfig
from runtime.control_options import ControlOptions
from runtime.options import Options


class TakeOverOptions(Options):
    """How a person takes over, in a mode in which something else drives.

    Attributes:
        take_over: whether the leader arm is opened, so that a person can take over and give back.
        bring_leader: whether a leader that can move by itself is brought to the follower's pose; otherwise,
            or where it cannot, the person moves it there.
        match_rad: joints of the leader that are so near to the follower's match: then control passes.
        match_gripper: the same of grippers, which go from 0 to 1.
    """

    take_over: bool = False
    bring_leader: bool = True
    match_rad: float = Field(default=0.1, gt=0.0, le=1.0)
    match_gripper: float = Field(default=0.2, gt=0.0, le=1.0)


class GraspOptions(PlanConfig, TakeOverOptions):
    """The autonomous mode: how persistent its plan is (`planner.plan.PlanConfig`), and where it moves.

    Attributes:
        arm: of a robot of several arms, the one that works; the others hold still, unless a learned policy
            moves them all.
        head: name of the camera that the planner looks through.
        wrist: name of the camera that confirms a grasp, or empty.
        home_rad: joints of the pose from which the table is in view, radians, gripper 0 to 1; inside
            the limits of ``[safety]``. Empty: the arm's own (`runtime.body.RobotDescription`).
        place_m: where objects are let go, metres in the base frame: the grasp point when the jaws open. It is
            above the table and, with `place_spread_m`, within the arm's length. Without it, the arm's own.
        place_spread_m: objects are let go around `place_m`, so far apart in x and y.
        carry_height_m: height of the grasp point while something is carried.
        attempt_timeout_s: one attempt may take this long before it counts as failed. Neither it nor
            `time_limit_s` runs while a person drives, or has paused.
        time_limit_s: the whole run may take this long.
        move_speed_rad_s, move_acceleration_rad_s2: peak joint speed and acceleration of homing and placement.
        settle_s: how long the arm stands still before the planner looks at the table.
        stale_camera_s: without a head frame for this long, the arm holds; in rollout mode, without one of any
            camera that the policy looks through. The planner is shown no older picture: the head's is waited
            for, the wrist's is left out.
        stale_force_s: the same for the force sensor.
    """

    arm: str = ""
    head: str = "head"
    wrist: str = "wrist"
    home_rad: tuple[float, ...] = ()
    place_m: tuple[float, float, float] | None = None
    place_spread_m: tuple[float, float] = (0.035, 0.03)
    carry_height_m: float = Field(default=0.1, gt=0.0, le=1.0)
    attempt_timeout_s: float = Field(default=25.0, gt=0.0, le=600.0)
    time_limit_s: float = Field(default=300.0, gt=0.0, le=86400.0)
    move_speed_rad_s: float = Field(default=1.8, gt=0.0, le=10.0)
    move_acceleration_rad_s2: float = Field(default=6.0, gt=0.0, le=100.0)
    settle_s: float = Field(default=0.3, ge=0.0, le=10.0)
    stale_camera_s: float = Field(default=0.5, gt=0.0, le=60.0)
    stale_force_s: float = Field(default=0.5, gt=0.0, le=60.0)

    def spot(self, place_m: Sequence[float], number: int) -> tuple[float, float]:
        """Where object `number` (from 0) is let go: over a grid of six around `place_m`."""
        along, across = _SPOTS[number % len(_SPOTS)]
        return (
            place_m[0] + along * self.place_spread_m[0],
            place_m[1] + across * self.place_spread_m[1],
        )


_SPOTS = ((-1, 1), (1, -1), (-1, -1), (1, 1), (-1, 0), (1, 0))
SPOTS = len(_SPOTS)


class TeleopOptions(Options):
    """A person moves the leader arm.

    Attributes:
        duration_s: stop after this long; 0 goes on until stopped.
        scripted: with the simulated leader, a scripted operator picks and places every object, and the
            mode ends when it is done.
        gain: leader's joint angles are multiplied by this about `center_rad`.
        center_rad: joint angles about which `gain` scales, radians, one for each joint; empty means zero.
        engage_speed_rad_s: how fast a joint of the follower is brought to the leader's pose, at the beginning
            and after anything that held it; without it, `control.engage_speed_rad_s`.
        rate_hz: ticks per second in this mode; without it, `control.rate_hz`.
    """

    duration_s: float = Field(default=0.0, ge=0.0)
    scripted: bool = True
    gain: float = Field(default=1.0, gt=0.0, le=4.0)
    center_rad: tuple[float, ...] = ()
    engage_speed_rad_s: float | None = Field(default=None, gt=0.0, le=10.0)
    rate_hz: float | None = Field(default=None, gt=0, le=1000)

    def engages(self, control: ControlOptions) -> float:
        """How fast, rad/s."""
        return control.engage_speed_rad_s if self.engage_speed_rad_s is None else self.engage_speed_rad_s


class RolloutOptions(TakeOverOptions):
    """A policy drives, on a person's own words, in episodes; ``[recording]`` says how long and how many.

    Attributes:
        autostart: the first episode begins at once; otherwise a person begins it like any other.
        home: before every episode the arm moves to ``grasp.home_rad``, or else to its own home pose, as fast
            as ``grasp.move_speed_rad_s`` says.
        arm: of a robot of several arms, the one that a policy for one arm moves.
        phrase: the object whose mask or box the policy needs, in words; empty: what its task says.
        instructions: what the policy may be told besides while an episode is on: the key i goes from one to
            the next.
        judge: in simulation, whether the ground truth ends an episode as a success once everything that its
            task names lies in the tray, and says at any other end whether it does.
        put_back: in simulation, whether objects are put back where they were before the next episode.
    """

    autostart: bool = True
    home: bool = False
    arm: str = ""
    phrase: str = Field(default="", max_length=1000)
    instructions: tuple[Annotated[str, Field(min_length=1, max_length=1000)], ...] = ()
    judge: bool = True
    put_back: bool = True


class TerminalOptions(Options):
    """What a person sees while a run is on.

    Attributes:
        style: a live dashboard, plain lines, nothing, or whatever fits the terminal.
        refresh_s: time between two pictures of the dashboard.
        line_s: time between two plain lines.
        level: log messages of at least this level are shown.
    """

    style: Literal["auto", "live", "lines", "none"] = "auto"
    refresh_s: float = Field(default=0.25, ge=0.05, le=10.0)
    line_s: float = Field(default=5.0, ge=0.1, le=600.0)
    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"


class LogOptions(Options):
    """What is logged, where, and in which form.

    Attributes:
        format: ``text``; or ``json``, an object a line with ``time`` (UTC, ISO 8601), ``level``, ``message``,
            ``where`` (module and line) and ``traceback`` if there is one, for a program that collects logs.
            It holds for the terminal and for the file, which is then ``log.jsonl``.
        largest_mb: a file that has become so large is put aside as ``log.1.txt``, and a new one begun.
        kept: so many of those stay, the newest first.
    """

    format: Literal["text", "json"] = "text"
    largest_mb: float = Field(default=100.0, ge=0.001, le=100_000.0)
    kept: int = Field(default=3, ge=0, le=1000)
