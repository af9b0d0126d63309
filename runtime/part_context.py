"""What a driver or a policy is made with besides its table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from runtime.beat import Beat
from runtime.joints import JointLayout
from runtime.latest import Latest
from runtime.messages import CameraInfo

if TYPE_CHECKING:
    from collections.abc import Callable

    from runtime.arm_model import ArmModel
    from runtime.clock import Clock
    from runtime.ring import Ring


@dataclass(frozen=True, slots=True)
class DeviceContext:
    """What a driver is made with besides its table.

    Attributes:
        name: the device's name in the configuration.
        clock: the only one that it waits on and stamps with.
        lent: what the simulated tabletop lends where the address is its own: to an arm its calibration by
            joint, to a colour camera its `runtime.messages.Intrinsics`, to a depth camera what its driver
            looks for it in. ``None`` otherwise.
        beat: holds, from the control loop's first tick on, when it ticks: what a driver reads just before a
            tick is as new as it can be. To be looked into (`runtime.latest.Latest.newest`), not taken.
    """

    name: str
    clock: Clock
    lent: Any = None
    beat: Latest[Beat] = field(default_factory=Latest)


@dataclass(frozen=True, slots=True)
class ArmContext(DeviceContext):
    """For an arm or a leader.

    Attributes:
        joints: its joints, in the order of every ``[D]``, with the ranges that the robot's model gives them.
        others: the tables of the other arms and leaders, by key: what is theirs is not this arm's.
        arm_model: makes a model of this arm where it stands, the driver's own; ``None`` where no robot is.
        follower: for a leader, the states of the arm that follows it.
    """

    joints: JointLayout = field(kw_only=True)
    others: Mapping[str, object] = field(default_factory=dict)
    arm_model: Callable[[], ArmModel] | None = None
    follower: Ring | None = None


@dataclass(frozen=True, slots=True)
class PolicyContext:
    """What a policy is made with besides its table.

    Attributes:
        joints: the robot's, in the order of every ``[D]``.
        arm_model: makes a model of the robot's body, the policy's own.
        cameras: by name, what is constant about the robot's cameras.
        clock: for policies that wait, for a server's answer for example.
    """

    joints: JointLayout
    arm_model: Callable[[], ArmModel]
    cameras: Mapping[str, CameraInfo]
    clock: Clock


@dataclass(frozen=True, slots=True)
class CameraNeed:
    """A camera that a policy looks through.

    Attributes:
        key: the key of the policy's table that names it. camera: the name there.
        depth: whether its depth is needed. mask: whether the tracked object's mask in it is.
        calibration: whether `PolicyContext.cameras` must have it when the policy is made.
    """

    key: str
    camera: str
    depth: bool = False
    mask: bool = False
    calibration: bool = False
