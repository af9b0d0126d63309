"""Where a camera is, as configuration."""

from __future__ import annotations

from typing import Self

import numpy as np
from pydantic import model_validator

from runtime.geometry import look_at
from runtime.messages import Floats
from runtime.options import Options

Vector3 = tuple[float, float, float]
Row4 = tuple[float, float, float, float]


class Extrinsics(Options):
    """The camera's optical frame (x right, y down, z forward) in the arm's base frame.

    Either `position_m` and `look_at_m` (a point that the middle of the image shows; `up` is the
    direction that is up in the image), or `matrix`, the rows of the 4x4 ``base_from_camera``.
    """

    position_m: Vector3 | None = None
    look_at_m: Vector3 | None = None
    up: Vector3 = (0.0, 0.0, 1.0)
    matrix: tuple[Row4, Row4, Row4, Row4] | None = None

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        by_points = self.position_m is not None and self.look_at_m is not None
        some_points = self.position_m is not None or self.look_at_m is not None
        if (self.matrix is not None) == some_points or some_points != by_points:
            raise ValueError("give either both position_m and look_at_m, or matrix")
        base_from_camera(self)
        return self


def base_from_camera(extrinsics: Extrinsics) -> Floats:
    """The 4x4 matrix that `extrinsics` describes.

    Raises:
        ValueError: it describes none (coinciding points, a matrix that is no rigid motion).
    """
    if extrinsics.matrix is None:
        return look_at(extrinsics.position_m or (), extrinsics.look_at_m or (), extrinsics.up)
    pose = np.asarray(extrinsics.matrix, float)
    rotation = pose[:3, :3]
    rigid = np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-3) and np.linalg.det(rotation) > 0
    if not rigid or not np.array_equal(pose[3], [0, 0, 0, 1]):
        raise ValueError("matrix is no rigid motion: rotation columns orthonormal, last row 0 0 0 1")
    return pose
