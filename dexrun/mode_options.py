"""Options of the two modes and of the terminal."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from runtime.options import Options

Joints = Annotated[tuple[float, ...], Field(min_length=1, max_length=32)]


class GraspOptions(Options):
    """The autonomous mode.

    Attributes:
        head: name of the camera that the planner looks through.
        wrist: name of the camera that confirms a grasp, or empty.
        home: joints of the pose from which the table is in view, radians, gripper 0 to 1.
        place_m: where an object is let go, metres in the base frame; the gripper points down there.
        check_above_m: the planner judges a grasp only once the grasp point is above this height.
        attempts_per_object: failures after which an object is given up until the table is looked at again.
        attempt_timeout_s: one attempt may take this long before it counts as failed.
        time_limit_s: the whole run may take this long.
        move_speed_rad_s: peak joint speed of homing and placement.
        move_acceleration_rad_s2: peak joint acceleration of homing and placement.
        gripper_open: opening before a grasp and for letting go.
        settle_s: how long the arm stands still before the planner looks at the table.
        on_planner_failure: hold and try the next object, or stop.
    """

    head: str = "head"
    wrist: str = "wrist"
    home: Joints = (0.0, -3.0, 3.0, 0.6, 0.0, 0.6)
    place_m: tuple[float, float, float] = (0.16, 0.22, 0.12)
    check_above_m: float = Field(default=0.08, ge=0.0, le=1.0)
    attempts_per_object: int = Field(default=3, ge=1, le=20)
    attempt_timeout_s: float = Field(default=25.0, gt=0.0, le=600.0)
    time_limit_s: float = Field(default=300.0, gt=0.0, le=86400.0)
    move_speed_rad_s: float = Field(default=1.8, gt=0.0, le=10.0)
    move_acceleration_rad_s2: float = Field(default=6.0, gt=0.0, le=100.0)
    gripper_open: float = Field(default=0.7, ge=0.0, le=1.0)
    settle_s: float = Field(default=0.3, ge=0.0, le=10.0)
    on_planner_failure: Literal["continue", "stop"] = "continue"


class TeleopOptions(Options):
    """A person moves the leader arm.

    Attributes:
        duration_s: stop after this long; 0 goes on until stopped.
        gain: leader's joint angles are multiplied by this about `center`.
        center: joint angles about which `gain` scales, radians; empty means zero.
        engage_speed_rad_s: how fast the follower moves to the leader's pose before it follows it.
    """

    duration_s: float = Field(default=0.0, ge=0.0)
    gain: float = Field(default=1.0, gt=0.0, le=4.0)
    center: tuple[float, ...] = ()
    engage_speed_rad_s: float = Field(default=0.8, gt=0.0, le=10.0)


class TerminalOptions(Options):
    """What a person sees while a run is on.

    Attributes:
        style: a live panel, plain lines, nothing, or whatever fits the terminal.
        refresh_s: time between two pictures of the panel.
        line_s: time between two plain lines.
        level: log messages of at least this level are shown.
    """

    style: Literal["auto", "live", "lines", "none"] = "auto"
    refresh_s: float = Field(default=0.25, ge=0.05, le=10.0)
    line_s: float = Field(default=5.0, ge=0.1, le=600.0)
    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
