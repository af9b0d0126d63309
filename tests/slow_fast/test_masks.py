"""Masks in the fresh picture, of what was pointed at a while ago."""

from __future__ import annotations

import numpy as np
import pytest

from policies.slow_fast.masks import PointedMasks
from runtime.geometry import look_at
from runtime.interfaces import PolicyError
from runtime.messages import ArmState, CameraInfo, Frame, Intrinsics, Observation, Thought
from runtime.pointed import PointedObject

HIGH_M, FOCAL, SIZE = 0.5, 300.0, (240, 320)
RED, BLUE, GREY, TABLE = (200, 20, 20), (20, 40, 200), (90, 90, 90), (150, 150, 150)
TOP_M, HALF_M = 0.03, 0.0125
INFO = CameraInfo(
    "head",
    Intrinsics(SIZE[1], SIZE[0], FOCAL, FOCAL, (SIZE[1] - 1) / 2, (SIZE[0] - 1) / 2),
    0.001,
    look_at((0.2, 0.0, HIGH_M), (0.2, 0.0, 0.0), (1.0, 0.0, 0.0)),
)

Thing = tuple[float, float, tuple[int, int, int]]


def picture(*things: Thing) -> Frame:
    """A table from above with blocks on it; the later ones over the others."""
    color = np.empty((*SIZE, 3), np.uint8)
    color[:] = TABLE
    depth = np.full(SIZE, 1000 * HIGH_M, np.uint16)
    pose = np.linalg.inv(INFO.base_from_camera)  # type: ignore[arg-type]
    for x, y, tint in things:
        at = pose[:3, :3] @ [x, y, TOP_M] + pose[:3, 3]
        column, row = FOCAL * at[:2] / at[2] + (INFO.intrinsics.cx, INFO.intrinsics.cy)
        half = FOCAL * HALF_M / at[2]
        where = (
            slice(round(row - half), round(row + half)),
            slice(round(column - half), round(column + half)),
        )
        color[where], depth[where] = tint, round(1000 * (HIGH_M - TOP_M))
    return Frame("head", 1, color, depth)


def thought(x: float, y: float, tint: tuple[int, int, int] = RED, number: int = 1) -> Thought:
    meant = PointedObject(np.array([x, y, TOP_M]), TOP_M, HALF_M, np.array(tint) / 255)
    return Thought(meant.as_latent(), 0, number=number)


def given(masks: PointedMasks, frame: Frame, told: Thought) -> tuple[int, tuple[float, float], bool]:
    """Pixels of the mask, what colour they have on average (red, blue), and whether it is another object."""
    zeros = np.zeros(6)
    shown, other = masks.given(
        Observation(0, 0, 1, ArmState(1, zeros, zeros, zeros), {"head": frame}, thought=told)
    )
    mask = shown.masks["head"].mask
    pixels = frame.color[mask > 0].reshape(-1, 3)
    mean = pixels.mean(axis=0) if len(pixels) else np.zeros(3)
    return int(mask.sum()), (float(mean[0]), float(mean[2])), other


@pytest.fixture
def masks() -> PointedMasks:
    return PointedMasks(["head"], {"head": INFO})


def test_it_is_where_it_is_now(masks: PointedMasks) -> None:
    """Pushed a centimetre a picture, it is followed with one old thought; its neighbour is none of it."""
    for step in range(6):
        frame = picture((0.2 + 0.01 * step, 0.0, RED), (0.2, 0.05, BLUE))
        count, (red, _), other = given(masks, frame, thought(0.2, 0.0))
        assert (red, other) == (200.0, False)
        assert 200 < count < 300


def test_what_hides_it_is_not_it(masks: PointedMasks) -> None:
    given(masks, picture((0.2, 0.0, RED)), thought(0.2, 0.0))
    assert given(masks, picture((0.2, 0.0, RED), (0.2, 0.0, GREY)), thought(0.2, 0.0)) == (
        0,
        (0.0, 0.0),
        False,
    )
    half = given(masks, picture((0.2, 0.0, RED), (0.21, 0.0, GREY)), thought(0.2, 0.0))
    assert half[1] == (200.0, 20.0)
    assert 20 < half[0] < 150


def test_a_thought_that_points_elsewhere_is_believed_the_second_time(masks: PointedMasks) -> None:
    frame = picture((0.2, 0.0, RED), (0.2, 0.1, BLUE))
    assert given(masks, frame, thought(0.2, 0.0))[1:] == ((200.0, 20.0), False)
    assert given(masks, frame, thought(0.2, 0.1, BLUE, 2))[1:] == ((200.0, 20.0), False)
    assert given(masks, frame, thought(0.2, 0.1, BLUE, 2))[1:] == ((200.0, 20.0), False)  # the same one
    assert given(masks, frame, thought(0.2, 0.1, BLUE, 3))[1:] == ((20.0, 200.0), True)
    assert given(masks, frame, thought(0.2, 0.1, BLUE, 4))[1:] == ((20.0, 200.0), False)


def test_of_what_is_not_seen_any_more_the_next_thought_is_believed(masks: PointedMasks) -> None:
    given(masks, picture((0.2, 0.0, RED)), thought(0.2, 0.0))
    moved = picture((0.25, 0.1, RED))
    assert given(masks, moved, thought(0.2, 0.0))[0] == 0
    assert given(masks, moved, thought(0.25, 0.1, RED, 2))[1:] == ((200.0, 20.0), True)


def test_of_another_attempt_nothing_is_followed(masks: PointedMasks) -> None:
    frame = picture((0.2, 0.0, RED), (0.2, 0.1, BLUE))
    given(masks, frame, thought(0.2, 0.0))
    masks.reset()
    assert given(masks, frame, thought(0.2, 0.1, BLUE, 2))[1:] == ((20.0, 200.0), False)


def test_a_thought_that_does_not_point_is_one_line(masks: PointedMasks) -> None:
    with pytest.raises(PolicyError, match=r"'pointed': a latent of \[2\]; one that points has 8"):
        given(masks, picture(), Thought(np.zeros(2, np.float32), 0, number=1))


def test_a_picture_whose_depth_has_a_hole_in_its_place_does_not_end_the_following(
    masks: PointedMasks,
) -> None:
    whole = picture((0.2, 0.0, RED))
    known = given(masks, whole, thought(0.2, 0.0))
    assert whole.depth is not None
    hollow = whole.depth.copy()
    hollow[(whole.color == RED).all(axis=-1)] = 0
    assert given(masks, Frame("head", 1, whole.color, hollow), thought(0.2, 0.0))[0] == 0
    assert given(masks, whole, thought(0.2, 0.0)) == known
