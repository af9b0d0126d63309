"""Rotations as matrices and as vectors."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from runtime.rotations import rotation_matrix, rotation_vector


@settings(deadline=None)
@given(npst.arrays(np.float64, 3, elements=st.floats(-1.8, 1.8)))
def test_rotation_vectors_round_trip(vector: np.ndarray) -> None:
    angle = np.linalg.norm(vector)
    if angle > np.pi - 1e-3:
        vector = vector / angle * 3.0
    back = rotation_vector(rotation_matrix(vector))
    np.testing.assert_allclose(back, vector, atol=1e-6)


def test_half_a_turn_has_an_axis() -> None:
    for axis in np.eye(3):
        found = rotation_vector(rotation_matrix(axis * np.pi))
        np.testing.assert_allclose(np.abs(found), axis * np.pi, atol=1e-6)
