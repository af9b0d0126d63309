"""Several objects, followed by the colour tracker one by one."""

from __future__ import annotations

import numpy as np
import pytest

from planner.perception.config import ColorTrackerConfig
from runtime.interfaces import MultiTracker, PerceptionError, Prompt
from runtime.messages import Frame, Mask
from tests.planner.pictures import RGB, table
from tests.planner.test_perception import iou


def shown(step: int) -> tuple[Frame, dict[str, Mask]]:
    """A red and a blue cube that move apart, and their masks."""
    image = table(("red", "cube", 300 - 6 * step, 120), ("blue", "cube", 340 + 6 * step, 200))
    masks = {
        name: (image == np.array(RGB[name], np.uint8)).all(axis=2).astype(np.uint8)
        for name in ("red", "blue")
    }
    return Frame("head", step, image), masks


@pytest.fixture
def objects() -> MultiTracker:
    return ColorTrackerConfig().build_multi()


def test_each_is_followed_by_its_name_and_may_come_later(objects: MultiTracker) -> None:
    assert isinstance(objects, MultiTracker)
    frame, masks = shown(0)
    assert list(objects.update(frame, {"red": masks["red"]})) == ["red"]
    for step in range(1, 8):
        frame, masks = shown(step)
        found = objects.update(frame, {"blue": masks["blue"]} if step == 3 else {})
        assert set(found) == ({"red"} if step < 3 else {"red", "blue"})
        for name, seen in found.items():
            assert seen.stamp_ns == step
            assert iou(seen.mask, masks[name]) > 0.8


def test_the_newest_frame_is_corrected_and_looked_at_once(objects: MultiTracker) -> None:
    frame, masks = shown(0)
    first = objects.update(frame, {"red": masks["red"], "it": masks["red"]})
    again = objects.update(frame, {"it": masks["blue"]})
    assert again["red"] is first["red"]
    assert np.array_equal(again["it"].mask, masks["blue"])
    frame, masks = shown(1)
    assert iou(objects.update(frame)["it"].mask, masks["blue"]) > 0.8


def test_misuse_is_said(objects: MultiTracker) -> None:
    frame, masks = shown(0)
    with pytest.raises(PerceptionError, match="nothing to follow"):
        objects.update(frame)
    with pytest.raises(PerceptionError, match="takes masks"):
        objects.update(frame, {"red": Prompt((284, 104, 317, 137))})
    objects.update(frame, {"red": masks["red"]})
    objects.begin()
    with pytest.raises(PerceptionError, match="nothing to follow"):
        objects.update(frame)
