"""What can be set about a leader without an arm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from runtime.options import Options
from runtime.parts import LeaderTable

Axis = Annotated[str, Field(pattern=r"^([+-]?\d{1,2})?$")]


class PadOptions(Options):
    """Table ``[leader.pad]``: what moves what. The defaults are an Xbox pad's.

    An axis is its number, with ``-`` where it counts the other way; empty: none.

    Attributes:
        forward, left, up: axes for the base frame's x, y and z: the left stick, the right one's up and down.
        roll, pitch, yaw: axes for turning: the cross, and the right stick's left and right.
        open, close: axes that open and close the gripper: the triggers, which rest at one end.
        dead_zone: of a stick's travel, around its middle, in which it says nothing.
        deadman_button: a button that is to be held for anything to move, by key and by hand, too; -1: none.
    """

    forward: Axis = "-1"
    left: Axis = "-0"
    up: Axis = "-4"
    roll: Axis = "6"
    pitch: Axis = "7"
    yaw: Axis = "-3"
    open: Axis = "5"
    close: Axis = "2"
    dead_zone: float = Field(default=0.15, ge=0.0, lt=0.9)
    deadman_button: int = Field(default=-1, ge=-1, le=255)


class JogOptions(LeaderTable):
    """A leader without an arm, for teleoperation and for taking over: keys, a gamepad, or a hand in space.

    Attributes:
        gamepad: its device (``/dev/input/js0``, or better the path below ``/dev/input/by-id`` that ends in
            ``-joystick``); empty: none.
        pad: which of its axes moves what.
        rate_hz: how often the gripper's point is moved on.
        linear_m_s, angular_rad_s: how fast it moves and turns at most. gripper_s: travels of the gripper a
            second at most.
        joint_rad_s: what would ask a joint to be faster is not done, so that the arm does not turn over.
        leash_m, leash_rad: the point, and each joint, are ahead of the follower by so much at most.
        hand_scale: metres that the point moves for a metre of the hand.
        valid_s: what was asked for by key or by hand counts for so long: silence is standing still.
    """

    jogged: ClassVar[bool] = True

    driver: Literal["jog"] = "jog"
    gamepad: str = ""
    pad: PadOptions = PadOptions()
    rate_hz: float = Field(default=50.0, ge=10, le=200)
    linear_m_s: float = Field(default=0.15, gt=0, le=2)
    angular_rad_s: float = Field(default=1.0, gt=0, le=10)
    gripper_s: float = Field(default=1.0, gt=0, le=10)
    joint_rad_s: float = Field(default=2.0, gt=0, le=10)
    leash_m: float = Field(default=0.05, gt=0, le=0.3)
    leash_rad: float = Field(default=0.2, gt=0, le=1)
    hand_scale: float = Field(default=1.0, gt=0, le=10)
    valid_s: float = Field(default=0.2, gt=0, le=0.5)

    @model_validator(mode="after")
    def _a_pad_that_is_there(self) -> JogOptions:
        if not self.gamepad and self.pad != PadOptions():
            raise ValueError(
                "gamepad is not given, so that nothing of pad counts: name its device, or leave pad out"
            )
        return self

    def addresses(self) -> Mapping[str, str]:
        return {"gamepad": self.gamepad} if self.gamepad else {}

    @property
    def simulated(self) -> bool:
        return not self.gamepad
