"""A camera's tilt and its height, by the table that it sees."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from policies.nudged.view import DepthView
from policies.points import deproject
from runtime.messages import CameraInfo, Floats

_STRIDE = 8
_REACH_M = (0.04, 0.012, 0.005)
"""Points farther off the table than this, from one fit to the next, are none of the table's."""
_FEWEST = 100


def levelled(view: DepthView, table_height_m: float) -> CameraInfo:
    """The camera, turned about itself and moved up or down so that the table it sees is flat at its height.

    Its own numbers where too little of a table is seen. What no table tells stays as it was: where the
    camera is sideways, and which way it is turned about the vertical.
    """
    info = view.info
    if info.base_from_camera is None:
        return info
    sparse = np.zeros(view.depth.shape, bool)
    sparse[::_STRIDE, ::_STRIDE] = True
    points = deproject(view.depth, sparse & (view.mask == 0), info)
    plane = np.array([0.0, 0.0, table_height_m])
    for reach in _REACH_M:
        off = points[:, 2] - points[:, :2] @ plane[:2] - plane[2]
        near = points[np.abs(off) < reach]
        if len(near) < _FEWEST:
            return info
        rows = np.column_stack([near[:, :2], np.ones(len(near))])
        plane = np.linalg.lstsq(rows, near[:, 2], rcond=None)[0]
    return replace(info, base_from_camera=_turned(info.base_from_camera, plane, table_height_m))


def _turned(pose: Floats, plane: Floats, height: float) -> Floats:
    """`pose` after the smallest turn about the camera that makes ``z = plane . (x, y, 1)`` level."""
    normal = np.array([-plane[0], -plane[1], 1.0])
    normal /= np.linalg.norm(normal)
    axis = np.cross(normal, [0.0, 0.0, 1.0])
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    turn = np.eye(3) + cross + cross @ cross / (1.0 + normal[2])
    made = pose.copy()
    made[:3, :3] = turn @ pose[:3, :3]
    above = (pose[2, 3] - plane[0] * pose[0, 3] - plane[1] * pose[1, 3] - plane[2]) * normal[2]
    made[2, 3] = height + above
    return made
