"""The parts: a follower's and a leader's table, and how they are built."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import model_validator

from drivers.feetech.options import FeetechOptions
from runtime.joints import JointLayout
from runtime.part_context import ArmContext
from runtime.parts import ArmTable, LeaderTable

if TYPE_CHECKING:
    from drivers.feetech.driver import FeetechArm


_OF_TORQUE = (
    "p_gain",
    "i_gain",
    "d_gain",
    "acceleration_100ticks_s2",
    "torque_limit_fraction",
    "joint_torque_limit_fraction",
    "torque_off_on_close",
    "trust_torque_s",
)


class FeetechFollowerConfig(FeetechOptions, ArmTable):
    """An arm of STS3215 servos on one serial bus, such as an SO-100 or SO-101: the follower."""

    is_default: ClassVar[bool] = True

    role: Literal["follower"] = "follower"

    def known_calibration(self, joints: JointLayout) -> Mapping[str, Any]:
        from drivers.feetech.build import described

        return described(self, joints)

    def build(self, context: ArmContext) -> FeetechArm:
        from drivers.feetech.build import build_arm

        return build_arm(self, context)


class FeetechLeaderConfig(FeetechOptions, LeaderTable):
    """An arm of STS3215 servos on one serial bus, such as an SO-100 or SO-101: moved by a person."""

    is_default: ClassVar[bool] = True

    role: Literal["leader"] = "leader"

    @model_validator(mode="after")
    def _moved_by_hand(self) -> FeetechLeaderConfig:
        for key in _OF_TORQUE:
            if getattr(self, key) != type(self).model_fields[key].get_default(call_default_factory=True):
                raise ValueError(f"{key} has no effect: a leader's torque is off")
        return self

    def build(self, context: ArmContext) -> FeetechArm:
        from drivers.feetech.build import build_arm

        return build_arm(self, context)
