"""Arms that stand on a table as one MuJoCo model, compiled for queries of distance."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from runtime.joints import SEPARATOR
from runtime.messages import Floats

TABLE = "table plane"
FIXED = "fixed things"
"""The body that holds `FixedBox`es in the compiled model."""
_PROBES = 16


@dataclass(frozen=True, slots=True)
class FixedBox:
    """Something that stands on the table and does not move: metres and radians in the common frame."""

    center_m: tuple[float, float, float]
    size_m: tuple[float, float, float]
    yaw_rad: float = 0.0


class MeshesMissingError(Exception):
    """An arm's model or its meshes are not installed. The message is one line that says what and where."""


def standing(arms: Mapping[str, tuple[Any, Floats]]) -> Any:
    """One ``mujoco.MjSpec`` of several: each arm's spec and where its base stands, 4x4 in the common frame.

    Everything that an arm brings along is called ``<arm>.<name>`` in it: joints, bodies, sites, meshes.
    The specs given are used up.
    """
    import mujoco

    whole = mujoco.MjSpec()
    whole.compiler.degree = False
    for name, (spec, pose) in arms.items():
        quaternion = np.zeros(4)
        mujoco.mju_mat2Quat(quaternion, np.ascontiguousarray(pose[:3, :3], np.float64).reshape(9))
        frame = whole.worldbody.add_frame(pos=pose[:3, 3], quat=quaternion)
        whole.attach(spec, prefix=f"{name}{SEPARATOR}", frame=frame)
    return whole


def compiled(spec: Any, table_height_m: float | None, reach_m: float, boxes: Sequence[FixedBox] = ()) -> Any:
    """The model of `spec` with a plane for the table, and `boxes`; contacts count from `reach_m` on."""
    import mujoco

    if boxes:
        _put_up(spec, boxes)

    if table_height_m is not None:
        spec.worldbody.add_geom(
            name=TABLE, type=mujoco.mjtGeom.mjGEOM_PLANE, size=[1, 1, 0.1], pos=[0, 0, table_height_m]
        )
    for geom in spec.geoms:
        geom.margin = reach_m
        geom.gap = 0.0
    model = spec.compile()
    if table_height_m is None:
        return model
    for body in _bodies_fixed_to_table(model):
        spec.add_exclude(bodyname1="world", bodyname2=body)
    return spec.compile()


def _put_up(spec: Any, boxes: Sequence[FixedBox]) -> None:
    """A body of their own: what turns on the table and is left out there may yet hit one of them."""
    import mujoco

    body = spec.worldbody.add_body(name=FIXED)
    for box in boxes:
        body.add_geom(
            type=mujoco.mjtGeom.mjGEOM_BOX,
            pos=box.center_m,
            size=[0.5 * length for length in box.size_m],
            quat=[math.cos(0.5 * box.yaw_rad), 0.0, 0.0, math.sin(0.5 * box.yaw_rad)],
        )


def _bodies_fixed_to_table(model: Any) -> list[str]:
    """Bodies whose distance to the table no joint changes (a turning base): nothing could avoid them."""
    import mujoco

    data = mujoco.MjData(model)
    table = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_GEOM, TABLE)
    geoms = [g for g in range(model.ngeom) if model.geom_bodyid[g] != 0 and model.geom_contype[g]]
    generator = np.random.default_rng(0)
    rows = []
    for _ in range(_PROBES):
        limited = np.where(model.jnt_limited[:, None].astype(bool), model.jnt_range, 0.0)
        data.qpos[model.jnt_qposadr] = generator.uniform(limited[:, 0], limited[:, 1])
        mujoco.mj_kinematics(model, data)
        rows.append([mujoco.mj_geomDistance(model, data, table, g, 10.0, None) for g in geoms])
    fixed = np.ptp(np.array(rows), axis=0) < 1e-6
    return sorted(
        {model.body(model.geom_bodyid[g]).name for g, still in zip(geoms, fixed, strict=True) if still}
    )
