"""The ``[safety]`` table: what an arm may be asked to do. Numbers only; `runtime.safety` enforces them."""

from __future__ import annotations

from pydantic import Field

from runtime.options import Options

LEAST_SPEED = 0.05
"""The smallest share of the velocity limits that a person may ask for: below it nothing seems to move."""


class JointOverride(Options):
    """Tighter limits of one joint; what is left out keeps the common value, and looser ones are refused.

    Attributes:
        lower_rad, upper_rad: a range inside the model's own (0 to 1 for a gripper).
        max_velocity_rad_s: speed of the target.
        max_acceleration_rad_s2: change of that speed.
        max_relative_target_rad: distance of the target from the measured position.
    """

    lower_rad: float | None = None
    upper_rad: float | None = None
    max_velocity_rad_s: float | None = Field(default=None, gt=0)
    max_acceleration_rad_s2: float | None = Field(default=None, gt=0)
    max_relative_target_rad: float | None = Field(default=None, gt=0)


class SafetyOptions(Options):
    """What every target is held to, in the order in which it is checked.

    Attributes:
        joints: per-joint overrides by joint name.
        range_margin_rad: kept free at both ends of every joint's range (not of the gripper's).
        max_relative_target_rad: how far a target may lie from the measured position; bounds how hard a
            position servo can push.
        max_relative_target_gripper: the same for the gripper, as a fraction of its travel; bounds the
            squeeze.
        max_velocity_rad_s, max_velocity_gripper_s: speed of the target (gripper: full travels a second).
        max_acceleration_rad_s2, max_acceleration_gripper_s2: change of that speed; also how early a joint
            brakes before the end of its range.
        self_clearance_m: least distance between parts of the arm that are not neighbours.
        table_clearance_m: least distance between the arm (fingers included) and the table, or what stands on
            it (``[scene]``), where the arm is asked to be: it must be more than the arm sags by.
        table_lag_m_per_rad: what is to be free there besides, for each radian (beyond 0.03) by which a target
            is ahead of its joint: near the table the arm is asked to go no faster than it can follow, and the
            way to its target is looked at, too. 0: targets alone are looked at.
        max_force_n: above it the gripper eases off, and the arm pushes no further and may only lift.
        soft_force_fraction: from this fraction of `max_force_n` on, the gripper closes no further.
        force_ease_rad_s: how fast the arm's targets are drawn back to where the arm is, as far as they lie
            beyond it by more than `stall_offset_rad`.
        force_ease_gripper_s: how fast the gripper eases off, in full travels a second.
        force_stop_s: a force above the limit for this long latches a stop.
        stall_load: a joint at or above this fraction of its stall torque counts as pushing.
        stall_motion_rad: a joint (gripper: fraction) that moved less than this counts as standing still.
        stall_s: so long a push without motion makes a stall.
        stall_offset_rad: how far beyond the measured position a stalled joint's target may stay.
        stall_offset_gripper: the same for the gripper; it is what keeps a grasped object held.
        stall_stop_s: an arm joint stalled for this long latches a stop (a gripper may hold for ever).
        max_step_s: the longest time between two targets that is credited for velocity and acceleration.
    """

    joints: dict[str, JointOverride] = Field(default_factory=dict)
    range_margin_rad: float = Field(default=0.01, ge=0, le=0.5)
    max_relative_target_rad: float = Field(default=0.6, gt=0)
    max_relative_target_gripper: float = Field(default=0.35, gt=0)
    max_velocity_rad_s: float = Field(default=2.5, gt=0)
    max_velocity_gripper_s: float = Field(default=2.5, gt=0)
    max_acceleration_rad_s2: float = Field(default=20.0, gt=0)
    max_acceleration_gripper_s2: float = Field(default=60.0, gt=0)
    self_clearance_m: float = Field(default=0.004, ge=0, le=0.02)
    table_clearance_m: float = Field(default=0.004, ge=0, le=0.02)
    table_lag_m_per_rad: float = Field(default=0.04, ge=0, le=0.2)
    max_force_n: float = Field(default=30.0, gt=0)
    soft_force_fraction: float = Field(default=0.8, gt=0, le=1)
    force_ease_rad_s: float = Field(default=0.5, gt=0)
    force_ease_gripper_s: float = Field(default=0.6, gt=0)
    force_stop_s: float = Field(default=3.0, gt=0)
    stall_load: float = Field(default=0.75, gt=0, le=1)
    stall_motion_rad: float = Field(default=0.01, gt=0)
    stall_s: float = Field(default=0.33, gt=0)
    stall_offset_rad: float = Field(default=0.05, gt=0)
    stall_offset_gripper: float = Field(default=0.12, gt=0)
    stall_stop_s: float = Field(default=3.0, gt=0)
    max_step_s: float = Field(default=0.1, gt=0, le=1)
