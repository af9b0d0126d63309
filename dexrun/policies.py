"""From the ``[policy]`` table to a policy."""

from __future__ import annotations

from collections.abc import Mapping

from runtime.arm_model import ArmModel
from runtime.clock import Clock
from runtime.interfaces import Policy, PolicyError
from runtime.joints import JointLayout
from runtime.messages import CameraInfo, Floats
from runtime.part_context import PolicyContext
from runtime.parts import PolicyTable


def policy_context(
    model: ArmModel,
    cameras: Mapping[str, CameraInfo],
    clock: Clock,
    joints: JointLayout | None = None,
) -> PolicyContext:
    """What a policy for this robot is made with; `model` is copied before it returns.

    `joints` are the model's, with the arms' calibration where it is known.
    """
    mine = model.copy()
    return PolicyContext(joints or mine.layout, mine.copy, cameras, clock)


def build_policy(table: PolicyTable, context: PolicyContext) -> Policy:
    """The configured policy, here or in a process of its own; not warmed up yet.

    Raises:
        PolicyError: it cannot be built for this robot, or a package that it needs is missing; one line.
    """
    table.check_packages()
    if table.worker == "process":
        from policies.process import ProcessPolicy

        return ProcessPolicy(table, context)
    try:
        return table.build(context)
    except ModuleNotFoundError as error:
        raise PolicyError(f"policy {table.type!r} needs the package {error.name}, which is missing") from None


def build_for(table: PolicyTable, context: PolicyContext, model: ArmModel, arm: str, still: Floats) -> Policy:
    """`build_policy` for a robot of several arms: one that moves one arm is made for `arm`.

    The others stand, and are asked to stay, where they are in `still` ``[D]``; `context` and `model` are of
    the whole robot.

    Raises:
        PolicyError: as `build_policy`.
    """
    if not (arm and table.one_arm):
        return build_policy(table, context)
    from policies.one_arm import OneArm

    joints = context.joints.part(arm)
    own = policy_context(model.arm(arm, still), context.cameras, context.clock, joints)
    return OneArm(build_policy(table, own), model.layout.of(arm), still)
