"""Lighter copies of the arm's meshes for the pictures: a software rasteriser pays for every triangle."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.body import VISUAL_GROUP
from runtime.stl import read_triangles

_STRIDE = 1 << 20


def simplify(triangles: NDArray[np.float32], cell_m: float) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Vertices ``[V, 3]`` and faces ``[F, 3]`` with all corners in a cube of `cell_m` made one."""
    points = triangles.reshape(-1, 3).astype(np.float64)
    cells = np.round(points / cell_m).astype(np.int64) + _STRIDE // 2
    keys = (cells[:, 0] * _STRIDE + cells[:, 1]) * _STRIDE + cells[:, 2]
    _, corner, count = np.unique(keys, return_inverse=True, return_counts=True)
    vertices = np.stack([np.bincount(corner, points[:, axis]) / count for axis in range(3)], axis=1)
    faces = corner.reshape(-1, 3)
    a, b, c = faces.T
    faces = faces[(a != b) & (b != c) & (a != c)]
    _, first = np.unique(np.sort(faces, axis=1), axis=0, return_index=True)
    return vertices, faces[np.sort(first)]


def lighten(spec: Any, cell_m: float, fine_m: float | None = None, fine: Collection[str] = ()) -> None:
    """Have `spec`'s visual geoms use simplified copies of their meshes; collision keeps the originals.

    Those of the bodies named in `fine` are simplified to `fine_m`.
    """
    shown = [geom for geom in spec.geoms if geom.group == VISUAL_GROUP and geom.meshname]
    kept = {geom.meshname for geom in spec.geoms if geom.meshname and geom.group != VISUAL_GROUP}
    close = {geom.meshname for geom in shown if fine_m is not None and geom.parent.name in fine}
    originals = {mesh.name: mesh for mesh in spec.meshes}
    for name in dict.fromkeys(geom.meshname for geom in shown):
        cell = fine_m if fine_m is not None and name in close else cell_m
        if not cell:
            continue
        vertices, faces = simplify(read_triangles(Path(originals[name].file)), cell)
        copy = spec.add_mesh(name=f"{name}_looks")
        copy.uservert = vertices.ravel()
        copy.userface = faces.ravel()
        for geom in shown:
            if geom.meshname == name:
                geom.meshname = copy.name
        if name not in kept:
            spec.delete(originals[name])
