"""The language hint: where the instruction's object was seen last."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from runtime.messages import CameraInfo, Frame, Intrinsics, Mask
from runtime.tip import begun_anew, lacking, located, with_tip

POSE = np.eye(4)
POSE[:3, 3] = [0.1, 0.2, 0.3]
INFO = CameraInfo("head", Intrinsics(12, 10, 20.0, 20.0, 5.5, 4.5), 0.001, POSE)
COLOR = np.zeros((10, 12, 3), np.uint8)


def at(row: int, column: int) -> Mask:
    mask = np.zeros((10, 12), np.uint8)
    mask[row : row + 3, column : column + 3] = 1
    return mask


def frame(stamp_ns: int, depth: int = 500) -> Frame:
    return Frame("head", stamp_ns, COLOR, np.full((10, 12), depth, np.uint16))


def test_an_object_that_is_hidden_is_where_it_was_seen_last() -> None:
    first = located(frame(1), at(1, 1), INFO, None)
    moved = located(frame(2, 400), at(1, 7), INFO, first)
    assert first is not None
    assert moved is not None
    assert located(frame(3), at(0, 0) * 0, INFO, moved) is moved
    assert located(frame(4, 0), at(1, 1), INFO, moved) is moved, "no reading of its depth"
    np.testing.assert_allclose(first.point_m, [0.1 - 3.5 / 20 * 0.5, 0.2 - 2.5 / 20 * 0.5, 0.8])
    np.testing.assert_allclose(moved.point_m, [0.1 + 2.5 / 20 * 0.4, 0.2 - 2.5 / 20 * 0.4, 0.7])
    assert (moved.first_m == first.point_m).all()
    assert moved.stamp_ns == 2
    assert (moved.sigma_m > 0.001).all()
    assert located(frame(4), at(5, 5) * 0, INFO, None) is None


def test_another_attempt_begins_where_it_is_now() -> None:
    moved = located(frame(2), at(1, 7), INFO, located(frame(1), at(1, 1), INFO, None))
    again = begun_anew(moved)
    assert moved is not None
    assert again is not None
    assert (again.first_m == moved.point_m).all()
    assert (again.point_m == moved.point_m).all()
    assert begun_anew(None) is None


@pytest.mark.parametrize(
    "info", [replace(INFO, base_from_camera=None), replace(INFO, depth_scale_m=None)], ids=["pose", "depth"]
)
def test_a_camera_that_cannot_tell_tells_nothing(info: CameraInfo) -> None:
    assert located(frame(1), at(1, 1), info, None) is None
    assert located(Frame("head", 2, COLOR), at(1, 1), INFO, None) is None
    assert lacking(info) in ("depth", "pose relative to the arm")
    assert not lacking(INFO)


def test_the_hint_is_a_sentence_after_the_task() -> None:
    point = np.array([0.2119, -0.0338, -0.0001])
    said = "The object is at x 0.212 m, y -0.034 m, z 0.000 m."
    assert with_tip("put the cup away.", point) == f"put the cup away. {said}"
    assert with_tip("", point) == said
