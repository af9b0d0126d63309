"""Where a camera is, as configuration."""

from __future__ import annotations

from typing import Self

from pydantic import model_validator

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
        from runtime.geometry import base_from_camera

        base_from_camera(self)
        return self
