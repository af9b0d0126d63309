"""Arms that stand on a table as one MuJoCo model, compiled for queries of distance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from runtime.joints import SEPARATOR
from runtime.messages import Floats

TABLE = "table plane"
_PROBES = 16


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


def compiled(spec: Any, table_height_m: float | None, reach_m: float) -> Any:
    """The model of `spec` with a plane for the table; contacts are reported from `reach_m` on."""
    import mujoco

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
