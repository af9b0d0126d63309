"""Camera geometry against librealsense's own functions."""

from __future__ import annotations

import numpy as np
import pyrealsense2 as rs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from runtime.geometry import deproject, look_at, project, rays
from runtime.geometry_options import Extrinsics, base_from_camera
from runtime.messages import Intrinsics

PLAIN = Intrinsics(64, 48, 60.0, 61.0, 31.2, 24.7)
MODELS = {
    "brown_conrady": rs.distortion.brown_conrady,
    "inverse_brown_conrady": rs.distortion.inverse_brown_conrady,
}
COEFFICIENT = st.floats(-0.05, 0.05, allow_subnormal=False)


def native(intrinsics: Intrinsics) -> rs.intrinsics:
    out = rs.intrinsics()
    out.width, out.height = intrinsics.width, intrinsics.height
    out.fx, out.fy, out.ppx, out.ppy = intrinsics.fx, intrinsics.fy, intrinsics.cx, intrinsics.cy
    out.model = MODELS[intrinsics.model]
    out.coeffs = list(intrinsics.coefficients)
    return out


@settings(max_examples=60, deadline=None)
@given(
    model=st.sampled_from(sorted(MODELS)),
    coefficients=st.tuples(*[COEFFICIENT] * 5),
    column=st.integers(0, 63),
    row=st.integers(0, 47),
    units=st.integers(1, 65535),
)
def test_deprojection_and_projection_are_librealsense_s(model, coefficients, column, row, units):
    camera = Intrinsics(64, 48, 60.0, 61.0, 31.2, 24.7, coefficients, model)
    depth = np.zeros((48, 64), np.uint16)
    depth[row, column] = units
    (point,) = deproject(depth, camera, 0.0001)
    expected = rs.rs2_deproject_pixel_to_point(native(camera), [column, row], units * 0.0001)
    assert point == pytest.approx(expected, rel=2e-4, abs=2e-5)
    (pixel,) = project(np.array([point]), camera)
    assert pixel == pytest.approx(rs.rs2_project_point_to_pixel(native(camera), list(point)), abs=2e-3)


def test_holes_and_masked_pixels_give_no_point():
    depth = np.full((48, 64), 500, np.uint16)
    depth[10, 20] = 0
    mask = np.zeros((48, 64), np.uint8)
    mask[10, 20:23] = 1
    points = deproject(depth, PLAIN, 0.001, mask)
    assert points == pytest.approx(
        np.array([[(c - 31.2) / 60 * 0.5, (10 - 24.7) / 61 * 0.5, 0.5] for c in (21, 22)])
    )
    assert deproject(depth, PLAIN, 0.001).shape == (48 * 64 - 1, 3)
    assert deproject(np.zeros((48, 64), np.uint16), PLAIN, 0.001).shape == (0, 3)


def test_shapes_that_do_not_agree_are_refused():
    with pytest.raises(ValueError, match=r"\(480, 640\).*\(48, 64\)"):
        deproject(np.zeros((480, 640), np.uint16), PLAIN, 0.001)
    with pytest.raises(ValueError, match="mask"):
        deproject(np.zeros((48, 64), np.uint16), PLAIN, 0.001, np.zeros((4, 4), np.uint8))
    with pytest.raises(ValueError, match="fisheye"):
        rays(Intrinsics(4, 4, 1, 1, 1, 1, (0.1, 0, 0, 0, 0), "fisheye"), [[0.0, 0.0]])


def test_points_behind_the_camera_have_no_pixel():
    assert np.isnan(project(np.array([[0.0, 0.0, -1.0], [0.0, 0.0, 0.0]]), PLAIN)).all()


def test_look_at_centres_the_target_and_keeps_up_up():
    pose = look_at((0.0, 0.0, 0.5), (0.3, 0.1, 0.0))
    assert pose[:3, :3] @ pose[:3, :3].T == pytest.approx(np.eye(3))
    assert np.linalg.det(pose[:3, :3]) == pytest.approx(1.0)
    inverse = np.linalg.inv(pose)
    points = np.array([[0.3, 0.1, 0.0], [0.3, 0.1, 0.05]])
    target, above = points @ inverse[:3, :3].T + inverse[:3, 3]
    assert target == pytest.approx([0.0, 0.0, np.linalg.norm([0.3, 0.1, 0.5])])
    assert above[1] < -0.01  # y points down in the image
    assert above[0] == pytest.approx(0.0)


def test_a_matrix_is_taken_as_it_is():
    pose = look_at((0.1, 0.2, 0.3), (0.4, 0.0, 0.0))
    assert base_from_camera(Extrinsics(matrix=pose.tolist())) == pytest.approx(pose)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "either both"),
        ({"position_m": (0, 0, 1)}, "either both"),
        ({"position_m": (0, 0, 1), "look_at_m": (0, 0, 1)}, "same point"),
        ({"position_m": (0, 0, 1), "look_at_m": (0, 0, 0)}, "line of sight"),
        ({"matrix": np.zeros((4, 4)).tolist()}, "no rigid motion"),
        ({"matrix": np.diag([1.0, 1, -1, 1]).tolist()}, "no rigid motion"),
        ({"position_m": (0, 0, 1), "look_at_m": (1, 0, 0), "matrix": np.eye(4).tolist()}, "either both"),
    ],
)
def test_extrinsics_that_mean_nothing_are_refused(options, says):
    with pytest.raises(ValidationError, match=says):
        Extrinsics(**options)
