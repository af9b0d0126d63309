"""The arm in three dimensions: what its bodies look like, and where they are for a joint vector."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from loguru import logger

from runtime.body import COLLISION_GROUP, VISUAL_GROUP
from runtime.messages import Floats

_CONFIG = "config.json"


@dataclass(frozen=True)
class LookedAtModel:
    """A compiled model with looks, for one thread.

    Attributes:
        names: of its bodies, without the world; `described` and `poses` are in their order.
        described: what ``GET /api/model`` says of each.
    """

    model: Any
    data: Any
    where: Any
    to_native: Callable[[Floats], Floats]
    names: tuple[str, ...]
    described: list[dict[str, Any]]

    def poses(self, position: Floats) -> list[list[float]] | None:
        """``x, y, z, qw, qx, qy, qz`` of each body in the base frame at joints ``[D]``; ``None``: unknown."""
        import mujoco

        if len(position) != len(self.where) or not np.isfinite(position).all():
            return None
        self.data.qpos[self.where] = self.to_native(position)
        mujoco.mj_kinematics(self.model, self.data)
        poses = np.concatenate((self.data.xpos, self.data.xquat), axis=1)[1:]
        return [[round(value, 5) for value in pose] for pose in poses.tolist()]


class Bodies:
    """Those of the run that is followed; the model is compiled by a worker thread, once for each run."""

    def __init__(self) -> None:
        self._made: Future[LookedAtModel] | None = None

    def of_run(self, folder: Path, workers: Executor) -> None:
        """Begin to make the model of this run's arm."""
        self._made = workers.submit(model_of, folder / _CONFIG)
        self._made.add_done_callback(_complain)

    def _ready(self) -> LookedAtModel | None:
        made = self._made
        if made is None or not made.done() or made.cancelled() or made.exception() is not None:
            return None
        return made.result()

    def poses(self, position: Floats) -> list[list[float]] | None:
        """See `LookedAtModel.poses`; ``None`` as well while there is no model."""
        model = self._ready()
        return None if model is None else model.poses(position)

    def described(self) -> list[dict[str, Any]] | None:
        """See `LookedAtModel`; ``None`` while there is none, or if it cannot be had."""
        model = self._ready()
        return None if model is None else model.described


def _complain(made: Future[LookedAtModel]) -> None:
    if not made.cancelled() and (error := made.exception()) is not None:
        logger.warning("no arm in three dimensions: {}", error)


def model_of(config: Path) -> LookedAtModel:
    """The arm, or the arms, of a run's resolved configuration; without its meshes, as what may touch.

    Raises:
        ConfigError, ModelError: the configuration, or the model that it names, cannot be used.
    """
    import mujoco

    from dexrun.config.load import load_tables
    from dexrun.config.settings import Settings
    from drivers.arms.choice import robot_of_all
    from runtime.table_model import MeshesMissingError

    settings = load_tables(Settings, json.loads(config.read_text(encoding="utf-8")), [], str(config))
    robot = robot_of_all(settings.followers())
    try:
        model, group = robot.build(True).compile(), VISUAL_GROUP
    except MeshesMissingError:  # which its looks need
        model, group = robot.build(False).compile(), COLLISION_GROUP
    where = [int(model.joint(name).qposadr[0]) for name in robot.joints]
    names = tuple(model.body(index).name for index in range(1, model.nbody))
    described = [_described(model, index, group) for index in range(1, model.nbody)]
    return LookedAtModel(model, mujoco.MjData(model), where, robot.to_native, names, described)


_SHAPES = {2: "sphere", 3: "capsule", 4: "ellipsoid", 5: "cylinder", 6: "box", 7: "mesh"}
"""MuJoCo's geom types; planes and height fields are no part of an arm."""


def _described(model: Any, body: int, group: int) -> dict[str, Any]:
    first, count = int(model.body_geomadr[body]), int(model.body_geomnum[body])
    geoms = [index for index in range(first, first + count) if model.geom_type[index] in _SHAPES]
    looks = [index for index in geoms if model.geom_group[index] == group] or geoms
    return {"name": model.body(body).name, "geoms": [_geom(model, index) for index in looks]}


def _geom(model: Any, index: int) -> dict[str, Any]:
    material = int(model.geom_matid[index])
    rgba = model.geom_rgba[index] if material < 0 else model.mat_rgba[material]
    shape = _SHAPES[int(model.geom_type[index])]
    said = {
        "shape": shape,
        "position": _rounded(model.geom_pos[index]),
        "quaternion": _rounded(model.geom_quat[index]),
        "rgba": _rounded(rgba),
    }
    if shape != "mesh":
        return {**said, "size": _rounded(model.geom_size[index])}
    mesh = int(model.geom_dataid[index])
    vertices, faces = int(model.mesh_vertadr[mesh]), int(model.mesh_faceadr[mesh])
    points = model.mesh_vert[vertices : vertices + int(model.mesh_vertnum[mesh])]
    triangles = model.mesh_face[faces : faces + int(model.mesh_facenum[mesh])]
    return {**said, "vertices": _packed(points, "<f4"), "faces": _packed(triangles, "<u4")}


def _rounded(values: Any) -> list[float]:
    return [round(float(value), 6) for value in values]


def _packed(values: Any, dtype: str) -> str:
    return base64.b64encode(np.ascontiguousarray(values, dtype).tobytes()).decode()
