"""What a depth camera sees, as coloured points in the arm's base frame."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from dexrun.panel.server import messages
from runtime.ring import Sample

MOST_POINTS = 20_000
_FARTHEST_M = 2.0


def has_cloud(camera: Mapping[str, Any]) -> bool:
    """Whether a camera of a run's link measures depth, and it is known where it stands."""
    return bool(camera["depth"] and camera.get("intrinsics") and camera.get("pose"))


def cloud_of(picture: Sample, camera: Mapping[str, Any]) -> bytes:
    """A message of at most `MOST_POINTS`: ``xyz`` float32 ``[n, 3]``, then ``rgb`` uint8 ``[n, 3]``."""
    depth, lens = picture["depth"], camera["intrinsics"]
    step = max(1, math.ceil(math.sqrt(depth.size / MOST_POINTS)))
    rows, columns = np.mgrid[0 : depth.shape[0] : step, 0 : depth.shape[1] : step]
    z = depth[rows, columns] * np.float32(camera.get("depth_scale_m") or 0.001)
    seen = (z > 0) & (z < _FARTHEST_M)
    z, rows, columns = z[seen], rows[seen], columns[seen]
    x, y = (columns - lens["cx"]) / lens["fx"] * z, (rows - lens["cy"]) / lens["fy"] * z
    pose = np.asarray(camera["pose"], np.float64)
    points = np.stack((x, y, z), axis=1) @ pose[:3, :3].T + pose[:3, 3]
    colors = picture["color"][rows, columns]
    head = {"kind": "cloud", "points": len(points), "stamp_ns": picture.stamp_ns}
    return messages.binary(head, points.astype("<f4").tobytes(), np.ascontiguousarray(colors).tobytes())
