"""What the lift policy sees: numbers and heights of a box that lies where it lies."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from policies.lift.config import LiftConfig
from policies.lift.sight import HEIGHT_UNIT_M, heights, look
from policies.nudged.level import levelled
from policies.nudged.view import DepthView, thinned
from runtime.messages import CameraInfo
from tests.geometric.synthetic import INFO, Box, view

OPTIONS = LiftConfig(checkpoint="", picture_width=400)


def seen(box: Box, info: CameraInfo = INFO) -> DepthView:
    depth, mask = view(box)
    return DepthView(depth, mask, info)


def tilted(info: CameraInfo, degrees: float, axis: int) -> CameraInfo:
    """A camera that is not quite as it was calibrated: turned about its own `axis`."""
    angle = math.radians(degrees)
    turn = np.eye(4)
    a, b = [i for i in range(3) if i != axis]
    turn[a, a] = turn[b, b] = math.cos(angle)
    turn[a, b], turn[b, a] = -math.sin(angle), math.sin(angle)
    return replace(info, base_from_camera=info.base_from_camera @ turn)


def test_the_middle_and_the_height_of_the_top_are_where_they_are():
    found = look(seen(Box(x=0.2, y=-0.05, height=0.03)), OPTIONS)
    assert found.seen
    assert found.middle == pytest.approx([0.2, -0.05, 0.03], abs=0.0015)


@pytest.mark.parametrize("yaw", [0.0, 0.4, -0.7, 1.2])
def test_the_moments_say_which_way_a_long_box_and_a_square_one_are_turned(yaw: float):
    xx, xy, yy, real, imaginary = look(seen(Box(yaw=yaw, long=0.05, short=0.02)), OPTIONS).numbers[5:]
    assert math.remainder(0.5 * math.atan2(2 * xy, xx - yy) - yaw, math.pi) == pytest.approx(0.0, abs=0.03)
    real, imaginary = look(seen(Box(yaw=yaw, long=0.03, short=0.03)), OPTIONS).numbers[8:]
    # a square's fourth moment points along its diagonals
    turned = (math.atan2(imaginary, real) - math.pi) / 4
    assert math.remainder(turned - yaw, math.pi / 2) == pytest.approx(0.0, abs=0.04)


def test_of_a_disc_no_direction_is_seen():
    numbers = look(seen(Box(round=True, long=0.03)), OPTIONS).numbers
    assert abs(complex(numbers[8], numbers[9])) < 0.1
    assert numbers[5] == pytest.approx(numbers[7], rel=0.1)


def test_a_hidden_object_is_not_seen_and_too_little_of_one_neither():
    shown = seen(Box())
    assert not look(replace(shown, mask=np.zeros_like(shown.mask)), OPTIONS).seen
    assert not look(replace(shown, depth=np.zeros_like(shown.depth)), OPTIONS).seen


@pytest.mark.parametrize(("degrees", "axis"), [(2.0, 0), (-2.0, 0), (2.0, 1), (-1.5, 1)])
def test_a_camera_that_was_nudged_is_levelled_by_the_table_it_sees(degrees: float, axis: int):
    shown = seen(Box(x=0.21, y=0.03, height=0.03), tilted(INFO, degrees, axis))
    blind = look(shown, OPTIONS.model_copy(update={"level": False}))
    assert np.abs(blind.middle[:2] - [0.21, 0.03]).max() > 0.012
    assert look(shown, OPTIONS).middle == pytest.approx([0.21, 0.03, 0.03], abs=0.002)


def test_without_a_table_in_sight_the_camera_stays_as_it_is():
    depth, mask = view(Box())
    nothing = DepthView(np.zeros_like(depth), mask, INFO)
    assert levelled(nothing, 0.0) is INFO


def test_every_second_pixel_shows_the_same():
    box = Box(x=0.2, y=-0.05)
    half = thinned(seen(box), 200)
    assert half.depth.shape == (150, 200)
    whole, found = look(seen(box), OPTIONS), look(half, OPTIONS)
    assert found.numbers[1:4] == pytest.approx(whole.numbers[1:4], abs=0.002)
    assert found.numbers[4] == pytest.approx(whole.numbers[4], rel=0.15)
    assert thinned(half, 200) is half


def test_the_picture_of_heights_is_centred_and_turned():
    box = Box(x=0.2, y=-0.05, yaw=0.5, long=0.05, short=0.02, height=0.03)
    shown = seen(box)
    found = look(shown, OPTIONS)
    above, mask = heights(shown, found, box.yaw, 40, 0.0025, 0.0)
    assert above[20, 20] * HEIGHT_UNIT_M == pytest.approx(0.03, abs=0.002)
    assert abs(above[0, 0]) * HEIGHT_UNIT_M < 0.002
    along, across = mask.any(axis=1).sum(), mask.any(axis=0).sum()  # along the first axis, as turned
    assert (along, across) == (pytest.approx(20, abs=1), pytest.approx(8, abs=1))
