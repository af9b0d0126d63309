"""Which object a task is about, in one of several pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from planner.config import PlannerConfig
from planner.perception.naming import ShownMoment, asked, detected, read_off
from planner.perception.one_thing import telling_of_several
from planner.perception.zero_shot_config import Owlv2Config
from runtime.interfaces import Box, Detection, PerceptionError
from runtime.messages import ColorImage

RED, BLUE = (200, 20, 20), (20, 40, 210)


def table(**things: tuple[int, int]) -> ColorImage:
    """Squares of 40 pixels by colour, on a plain table."""
    image = np.full((240, 320, 3), 150, np.uint8)
    for name, (x, y) in things.items():
        image[y : y + 40, x : x + 40] = {"red": RED, "blue": BLUE}[name]
    return image


def between(color: tuple[int, int, int]) -> ColorImage:
    """What the gripper's camera sees of something between the jaws."""
    image = np.full((240, 320, 3), 150, np.uint8)
    image[120:240, 60:260] = 90
    image[110:210, 130:190] = color
    return image


def test_of_several_things_the_one_between_the_jaws_is_meant() -> None:
    both = table(red=(60, 60), blue=(200, 60))
    with pytest.raises(PerceptionError, match="2 things fit 'clear the table'"):
        read_off([ShownMoment(both)], "clear the table")
    hidden = ShownMoment(table(red=(60, 60)), between(BLUE), held=True)  # the arm is over it
    found = read_off([hidden, ShownMoment(both)], "clear the table")
    assert found is not None
    assert (found.look, found.phrase, found.box) == (1, "blue cube", (200, 60, 240, 100))


def test_where_nothing_fits_there_is_none() -> None:
    assert read_off([ShownMoment(table(red=(60, 60)))], "pick up the blue cube") is None
    assert read_off([], "pick up the blue cube") is None


class Sees:
    """A detector that sees something in the second picture."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def detect(self, image: ColorImage, phrases: Sequence[str]) -> Sequence[Detection]:
        self.asked.append(list(phrases))
        return [Detection((1, 2, 3, 4), 0.7, "cup"), Detection((5, 6, 7, 8), 0.2, "cup")][
            : 2 * len(self.asked) - 2
        ]


def test_a_detectors_best_answer_is_taken_and_its_score_kept() -> None:
    detector = Sees()
    looks = [ShownMoment(table()), ShownMoment(table())]
    found = detected(looks, "red cup", detector, "grounding_dino")
    assert found is not None
    assert (found.look, found.box, found.by, found.model) == (1, (1, 2, 3, 4), "detector", "grounding_dino")
    assert found.confidence == 0.7
    assert detector.asked == [["red cup"]] * 2


@pytest.mark.parametrize(
    ("task", "phrase"),
    [
        ("red cup", "red cup"),
        ("Pick up the red cup and put it in the bowl.", "red cup"),
        ("grasp red cup", "red cup"),
        ("stack the red cube on the blue cube", "red cube"),
        ("I want you to pick up the cup of tea, please", "cup of tea"),
        ("unscrew the lid from the jar", "lid"),
        ("pick the 1.5 l bottle up", "1.5 l bottle"),
        ("pick up the box", "box"),
        ("grab a pen that is on the left", "pen"),
        ("turn on the lamp", "lamp"),
        ("switch the lamp off", "lamp"),
        ("flip the switch", "switch"),
        ("red cube, left of the bowl", "red cube"),
        ("red cube positioned near the tray, close to the edge", "red cube"),
        ("small blue cube lying on the table, in front of the gripper", "small blue cube"),
        ("the standing lamp", "standing lamp"),
        ("the red cube in the middle, about 66% across and 42% down the picture", "red cube"),
        ("blue cup to the left, 20 percent from the left edge of the image", "blue cup"),
        ("the 50% full bottle", "50% full bottle"),
        ("拿起红色的杯子", "拿起红色的杯子"),
    ],
)
def test_a_detector_is_asked_for_the_thing_alone(task: str, phrase: str) -> None:
    detector = Sees()
    detector.asked.append([])
    found = detected([ShownMoment(table())], task, detector, "owlv2")
    assert found is not None
    assert (found.phrase, found.prompt, detector.asked[1:]) == (phrase, phrase, [[phrase]])


@pytest.mark.parametrize(
    ("task", "why"),
    [
        ("take the cup and the bottle", "names 2 things: cup, bottle"),
        ("open the drawer, then put the cup into it", "names 2 things: drawer, cup"),
        ("clear the table", "names no thing"),
        ("put everything in the box", "names no thing"),
        ("", "names no thing"),
    ],
)
def test_a_task_of_several_things_or_none_is_not_asked_of_a_detector(task: str, why: str) -> None:
    detector = Sees()
    with pytest.raises(PerceptionError, match=why):
        detected([ShownMoment(table())], task, detector, "owlv2")
    assert detector.asked == []


class Answers:
    """A detector that gives what it is told to."""

    def __init__(self, *found: tuple[Box, float]) -> None:
        self._found = [Detection(box, score, "cup") for box, score in found]

    def detect(self, image: ColorImage, phrases: Sequence[str]) -> Sequence[Detection]:
        return self._found


def test_of_two_things_that_are_as_good_none_is_taken() -> None:
    looks = [ShownMoment(table())]
    here, same, there = (10.0, 10.0, 50.0, 50.0), (12.0, 10.0, 40.0, 52.0), (100.0, 10.0, 140.0, 50.0)
    with pytest.raises(
        PerceptionError, match=r"sees 2 things as 'cup' \(scores 0\.50, 0\.45\); a task names one"
    ):
        detected(looks, "cup", Answers((there, 0.45), (here, 0.5)), "owlv2")
    for others in ([(same, 0.5)], [(there, 0.3)]):
        found = detected(looks, "cup", Answers((here, 0.5), *others), "owlv2")
        assert found is not None
        assert found.box == here


def test_a_detector_that_keeps_the_best_box_alone_would_not_tell_of_others() -> None:
    options = Owlv2Config(path=Path("folder"))
    assert options.per_phrase == 1
    assert telling_of_several(options).model_dump() == {**options.model_dump(), "per_phrase": 10}
    more = Owlv2Config(path=Path("folder"), per_phrase=50)
    assert telling_of_several(more) == more


def test_a_model_is_asked_in_the_pictures_until_it_sees_it() -> None:
    """The embedded scene reader, over its wire."""
    looks = [ShownMoment(table(red=(60, 60))), ShownMoment(table(red=(60, 60), blue=(200, 60)))]
    found = asked(looks, "pick up the blue cube", PlannerConfig())
    assert found is not None
    assert (found.look, found.by) == (1, "vlm")
    assert found.box == pytest.approx((200, 60, 240, 100), abs=2)
    held = [ShownMoment(table(blue=(200, 60)), held=True)]
    again = asked(held, "pick up the blue cube", PlannerConfig())
    assert again is not None
    assert "the object that the robot's gripper holds" in again.prompt
    assert asked(looks[:1], "pick up the blue cube", PlannerConfig()) is None
