"""Rotations as matrices and as vectors: the axis times the angle, in radians."""

from __future__ import annotations

import math

import numpy as np

from runtime.messages import Floats


def rotation_vector(rotation: Floats) -> Floats:
    """``[3]`` of a 3x3, at most half a turn."""
    sine = 0.5 * np.array(
        [
            rotation[2, 1] - rotation[1, 2],
            rotation[0, 2] - rotation[2, 0],
            rotation[1, 0] - rotation[0, 1],
        ]
    )
    size = float(np.linalg.norm(sine))
    angle = math.atan2(size, 0.5 * (float(np.trace(rotation)) - 1.0))
    if size > 1e-7:
        return np.asarray(sine * (angle / size))
    if angle < 1.0:
        return np.asarray(sine)
    # Half a turn: the axis is the eigenvector of 1, up to sign.
    column = int(np.argmax(np.diagonal(rotation)))
    axis = rotation[:, column] + np.eye(3)[:, column]
    return np.asarray(axis / np.linalg.norm(axis) * angle)


def rotation_matrix(vector: Floats) -> Floats:
    """3x3 of a vector ``[3]``: the inverse of `rotation_vector` (Rodrigues)."""
    angle = float(np.linalg.norm(vector))
    if angle < 1e-12:
        return np.eye(3)
    x, y, z = vector / angle
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    return np.asarray(np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross)
