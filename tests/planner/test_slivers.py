"""What little shows of an object that is nearly covered, and what else has its colours."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from runtime.interfaces import Tracker
from runtime.messages import ColorImage, Mask
from tests.planner.pictures import RGB, table
from tests.planner.test_perception import CONFIG, frame, iou
from tests.planner.test_scene_reader import jpeg

X, Y, HALF = 300, 120, 16
JAWS = (215, 215, 210)


def pictured(left: int, *others: tuple[str, str, int, int], color: str = "red") -> tuple[ColorImage, Mask]:
    """A cube of which jaws leave so many columns; as a JPEG leaves it, and the true mask."""
    clean = table((color, "cube", X, Y), *others)
    clean[Y - 24 : Y + 25, X - HALF + left : X + 40] = JAWS
    truth = np.zeros(clean.shape[:2], np.uint8)
    truth[Y - HALF : Y + HALF + 1, X - HALF : X - HALF + left] = 1
    return jpeg(clean), truth


def begun(*others: tuple[str, str, int, int], color: str = "red") -> Tracker:
    """A tracker that has seen the whole cube for a second."""
    clean = table((color, "cube", X, Y), *others)
    mask = np.zeros(clean.shape[:2], np.uint8)
    mask[Y - HALF : Y + HALF + 1, X - HALF : X + HALF + 1] = 1
    tracker = CONFIG.tracker.build()
    tracker.init(frame(jpeg(clean)), mask)
    for step in range(1, 31):
        assert tracker.update(frame(jpeg(clean), step)).confidence > 0.9
    return tracker


@pytest.mark.parametrize("color", RGB)
def test_what_little_is_left_in_view_keeps_its_mask(color: str) -> None:
    tracker = begun(color=color)
    for left in (20, 2, 0, 3, 0, 2):
        image, truth = pictured(left, color=color)
        for _ in range(7):  # more than it may be unseen before the whole picture is searched
            seen = tracker.update(frame(image))
        if left:
            assert iou(seen.mask, truth) > 0.6  # a JPEG makes two columns three
            assert 0 < seen.confidence < left / (2 * HALF + 1) + 0.05
        else:
            assert not seen.mask.any()
            assert seen.confidence == 0
    whole = jpeg(table((color, "cube", X + 5, Y)))
    assert tracker.update(frame(whole)).confidence > 0.9


def test_little_is_nothing_where_something_else_has_its_colours() -> None:
    tracker = begun(("red", "cuboid", 500, 300))
    image, truth = pictured(20, ("red", "cuboid", 500, 300))
    assert iou(tracker.update(frame(image)).mask, truth) > 0.8
    for left in (1, 0):
        image, _ = pictured(left, ("red", "cuboid", 500, 300))
        for _ in range(12):
            assert not tracker.update(frame(image)).mask.any()


@pytest.mark.parametrize("away", [60, 200])
def test_what_lay_beside_it_is_not_taken_for_it_when_it_is_hidden(away: int) -> None:
    other = ("red", "cube", X - away, Y)
    tracker = begun(other)
    image, _ = pictured(0, other)
    for _ in range(20):
        seen = tracker.update(frame(image))
        assert not seen.mask.any()
        assert seen.confidence == 0
    moved = jpeg(table(other, ("red", "cube", 500, 400)))
    assert cv2.boundingRect(tracker.update(frame(moved)).mask) == pytest.approx((484, 384, 33, 33), abs=2)


def test_an_arm_of_its_colour_that_passes_leaves_no_trace() -> None:
    """What passed over a place does not hide the object there later."""
    tracker = begun()
    for step in range(20):
        image = table(("red", "cube", X, Y))
        cv2.rectangle(image, (380, 20 * step), (420, 20 * step + 100), RGB["red"], cv2.FILLED)
        tracker.update(frame(jpeg(image)))
    gone = jpeg(table())
    for _ in range(12):
        assert not tracker.update(frame(gone)).mask.any()
    there = jpeg(table(("red", "cube", 400, 200)))
    assert cv2.boundingRect(tracker.update(frame(there)).mask) == pytest.approx((384, 184, 33, 33), abs=2)
