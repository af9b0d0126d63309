"""What a policy in a process of its own is made of, as JSON: its table, its context, and a file of the body.

The body's model is saved as MuJoCo compiled it, so that the child has the very same one, however it was
described here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, astuple
from pathlib import Path
from typing import Any

import numpy as np

from runtime.clock import RealClock
from runtime.joints import CalibratedJoint, JointLayout, Permitted
from runtime.messages import CameraInfo, Intrinsics
from runtime.part_context import PolicyContext
from runtime.parts import PolicyTable


def start_message(table: PolicyTable, context: PolicyContext, body: Path) -> dict[str, Any]:
    """What `started` needs; the body's model is written to `body`."""
    return {
        "table": as_given(table),
        "joints": {
            "names": context.joints.names,
            "ranges": context.joints.ranges.tolist(),
            "grippers": context.joints.grippers,
            "permitted": _permitted(context.joints.permitted),
            "calibration": {name: astuple(joint) for name, joint in context.joints.calibration.items()},
        },
        "cameras": {name: _camera(info) for name, info in context.cameras.items()},
        "body": str(body),
        "model": context.arm_model().save(body),
    }


def as_given(table: PolicyTable) -> dict[str, Any]:
    """What was given of `table`: units, joints and more are looked for elsewhere where nobody gave them."""
    return {"type": table.type, **table.model_dump(mode="json", exclude_unset=True)}


def started(message: Mapping[str, Any]) -> tuple[PolicyTable, PolicyContext]:
    """The table and the context; the clock is this process's own, of the same domain."""
    from runtime.arm_model import ArmModel

    joints = message["joints"]
    context = PolicyContext(
        JointLayout(
            tuple(joints["names"]),
            np.array(joints["ranges"]),
            tuple(joints["grippers"]),
            {name: CalibratedJoint(*values) for name, values in joints["calibration"].items()},
            _read_permitted(joints["permitted"]),
        ),
        lambda: ArmModel.load(Path(message["body"]), message["model"]),
        {name: _info(entry) for name, entry in message["cameras"].items()},
        RealClock(),
    )
    return PolicyTable.model_validate(message["table"]), context


def _permitted(known: Permitted | None) -> dict[str, Any] | None:
    return None if known is None else {key: np.asarray(part).tolist() for key, part in asdict(known).items()}


def _read_permitted(entry: Mapping[str, Any] | None) -> Permitted | None:
    if entry is None:
        return None
    ranges, velocity, acceleration = (np.array(entry[key]) for key in ("ranges", "velocity", "acceleration"))
    return Permitted(ranges, velocity, acceleration, entry["table_m"], entry["force_n"])


def _camera(info: CameraInfo) -> dict[str, Any]:
    pose = info.base_from_camera
    return {**asdict(info), "base_from_camera": None if pose is None else pose.tolist()}


def _info(entry: Mapping[str, Any]) -> CameraInfo:
    pinhole, pose = dict(entry["intrinsics"]), entry["base_from_camera"]
    pinhole["coefficients"] = tuple(pinhole["coefficients"])
    pose = None if pose is None else np.array(pose)
    return CameraInfo(entry["name"], Intrinsics(**pinhole), entry["depth_scale_m"], pose)
