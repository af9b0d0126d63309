"""What sees beside the loop: models that hang, raise or give nothing, and what takes over."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from loguru import logger

from dexrun.modes.locating import located
from dexrun.modes.perception import DetectorFailedError, NotSegmentedError, Perception
from dexrun.modes.perception_parts import built
from dexrun.modes.sight_thread import PerceptionParts, Redetection
from planner.errors import PlannerError
from planner.perception.config import PerceptionConfig
from planner.perception.zero_shot_options import ZeroShotOptions
from planner.questions.mark import BoundingBox, Mark
from planner.questions.question import View
from runtime.clock import NS_PER_S, Clock, RealClock
from runtime.interfaces import Detection, PerceptionError, Prompt, Segmentation
from runtime.messages import CameraInfo, Frame, Intrinsics, Tip, TrackedMask
from runtime.ring import Ring
from runtime.stepped import SteppedClock

BOX = BoundingBox(bbox_2d=(1.0, 1.0, 5.0, 5.0))
DARK = np.zeros((8, 8, 3), np.uint8)
LENS = CameraInfo("head", Intrinsics(8, 8, 10.0, 10.0, 3.5, 3.5), 0.001, np.eye(4))


class Eye:
    """A camera whose pictures say by their brightness what is to be seen in them."""

    name = "head"

    def __init__(self, clock: Clock) -> None:
        self.frames = Ring({"color": ((8, 8, 3), "|u1"), "depth": ((8, 8), "<u2")}, 4)
        self._clock = clock

    async def show(self, brightness: int, times: int = 1, away_mm: int = 0) -> None:
        """So many pictures, each seen before the next one; of no depth where it is 0."""
        for _ in range(times):
            color, depth = np.full((8, 8, 3), brightness, np.uint8), np.full((8, 8), away_mm, np.uint16)
            self.frames.push(self._clock.now_ns(), color=color, depth=depth)
            await self._clock.sleep_until_ns(self._clock.now_ns() + NS_PER_S // 30)


class Model:
    """Detector, segmenter and tracker: an object is seen where it is brighter than 0; 13 is bad luck."""

    def __init__(self, value: int = 1, boxes: int = 1) -> None:
        self.value, self.boxes = value, boxes
        self.asked: list[str] = []
        self.inits = 0
        self.stuck: threading.Event | None = None
        self.broken = ""
        self.another = False

    def _trouble(self) -> None:
        if self.stuck is not None:
            self.stuck.wait()
        if self.broken:
            raise ValueError(self.broken)

    def detect(self, image: Any, phrases: Sequence[str]) -> Sequence[Detection]:
        self.asked += phrases
        self._trouble()
        there = [Detection((6.0, 6.0, 8.0, 8.0), 0.45, phrases[0])] if self.another else []
        return [Detection(BOX.bbox_2d, 0.5, phrases[0])] * self.boxes + there

    def segment(self, image: Any, prompt: Prompt) -> Segmentation:
        self._trouble()
        if not self.boxes:
            raise PerceptionError("nothing stands out")
        return Segmentation(np.full((8, 8), self.value, np.uint8), 1.0)

    def init(self, frame: Frame, mask: Any) -> TrackedMask:
        self.inits += 1
        return TrackedMask("head", frame.stamp_ns, np.full((8, 8), self.value, np.uint8), 1.0)

    def update(self, frame: Frame) -> TrackedMask:
        self._trouble()
        if frame.color[0, 0, 0] == 13:
            raise RuntimeError("the kernel\nfailed")
        seen = frame.color.max() > 0
        mask = np.full((8, 8), self.value * seen, np.uint8)
        return TrackedMask("head", frame.stamp_ns, mask, float(seen))


@pytest.fixture
def said() -> Iterator[list[str]]:
    lines: list[str] = []
    sink = logger.add(lambda message: lines.append(message.record["message"]), level="INFO")
    yield lines
    logger.remove(sink)


def away(tip: Tip | None) -> tuple[int, int]:
    assert tip is not None
    return round(1000 * tip.first_m[2]), round(1000 * tip.point_m[2])


class Bench:
    """Perception over two models: `model`, and `spare` where something is to take over."""

    def __init__(self, clock: Clock, *, spare: bool = True, detects: bool = True, **options: Any) -> None:
        self.clock, self.eye = clock, Eye(clock)
        self.model, self.spare, self.counts = Model(), Model(2), Counter[str]()
        self.kept: list[int] = []
        parts = PerceptionParts("big", self.model, self.model, self.model if detects else None)
        fallback = PerceptionParts("color", self.spare, self.spare) if spare else None
        self.perception = Perception(
            self.eye,  # type: ignore[arg-type]
            parts,
            clock,
            lambda mask: self.kept.append(int(mask.mask.max())),
            fallback=fallback,
            count=lambda kind: self.counts.update([kind]),
            **options,
        )

    def run(self, script: Callable[[Bench], Awaitable[None]]) -> None:
        async def main() -> None:
            self.perception.start()
            await script(self)
            await self.perception.stop()

        self.clock.run(main)

    def frame(self, away_mm: int = 0) -> Frame:
        return Frame("head", self.clock.now_ns(), DARK, np.full((8, 8), away_mm, np.uint16))

    def away_mm(self) -> tuple[int, int]:
        """How far away the object was seen first, and last."""
        mask = self.perception.newest("head")
        assert mask is not None
        return away(mask.tip)

    def seen(self) -> int:
        """By which model: 1 or 2; 0: nothing."""
        mask = self.perception.newest("head")
        return 0 if mask is None else int(mask.mask.max())


def test_the_detectors_box_is_segmented_and_tracked() -> None:
    async def script(bench: Bench) -> None:
        frame = bench.frame()
        found = await bench.perception.detect(frame, "red cup")
        assert found is not None
        assert (found.box, found.phrase) == (BOX.bbox_2d, "red cup")
        mask = await bench.perception.track(frame, BOX, 7, "red cup")
        assert (mask.attempt, mask.confidence) == (7, 1.0)
        await bench.eye.show(200, 2)
        assert bench.perception.failure(7) == ""

    bench = Bench(SteppedClock())
    bench.run(script)
    assert bench.kept == [1, 1, 1]
    assert bench.counts == {}


def test_what_raises_is_taken_over_in_one_line(said: list[str]) -> None:
    async def script(bench: Bench) -> None:
        bench.model.broken = "no\nkernel"
        with pytest.raises(DetectorFailedError, match=r"^big: ValueError: no kernel$"):
            await bench.perception.detect(bench.frame(), "red cup")
        mask = await bench.perception.track(bench.frame(), BOX, 1, "red cup")
        assert mask.mask.max() == bench.seen() == 2
        bench.model.broken = ""
        assert (await bench.perception.track(bench.frame(), BOX, 2, "red cup")).mask.max() == 1

    bench = Bench(SteppedClock())
    bench.run(script)
    assert said == ["perception: ValueError: no kernel; color takes over"]
    assert bench.counts == {"error": 2}


def test_what_gives_nothing_is_taken_over(said: list[str]) -> None:
    async def script(bench: Bench) -> None:
        bench.model.boxes = 0
        assert await bench.perception.detect(bench.frame(), "red cup") is None
        assert (await bench.perception.track(bench.frame(), BOX, 1)).mask.max() == 2

    bench = Bench(SteppedClock())
    bench.run(script)
    assert said == ["perception: nothing stands out; color takes over"]
    assert bench.counts == {"nothing": 2}


def test_without_anything_to_take_over_it_is_a_failure() -> None:
    async def script(bench: Bench) -> None:
        bench.model.boxes = 0
        with pytest.raises(NotSegmentedError, match="nothing stands out"):
            await bench.perception.track(bench.frame(), BOX, 1)
        bench.model.boxes = 1
        await bench.perception.track(bench.frame(), BOX, 2)
        await bench.eye.show(13)
        assert bench.perception.failure(2) == "RuntimeError: the kernel failed"
        assert bench.perception.failure(2) != ""
        assert bench.counts == {"nothing": 1, "error": 1}  # once, however often it is asked

    Bench(SteppedClock(), spare=False).run(script)


def test_a_tracker_that_fails_is_taken_over_from_where_it_last_saw_the_object(said: list[str]) -> None:
    async def script(bench: Bench) -> None:
        await bench.perception.track(bench.frame(), BOX, 3, "red cup")
        await bench.eye.show(200)
        await bench.eye.show(0)  # hidden: not where the other one begins
        await bench.eye.show(13)
        assert bench.perception.failure(3) == ""
        await bench.eye.show(200)
        assert (bench.seen(), bench.perception.failure(3)) == (2, "")
        mask = await bench.perception.keep_on(4)
        assert (mask.attempt, int(mask.mask.max())) == (4, 2)

    bench = Bench(SteppedClock())
    bench.run(script)
    assert said == ["perception: RuntimeError: the kernel failed; color takes over"]
    assert bench.spare.inits == 1


def test_what_hangs_is_given_up_and_what_it_says_later_has_no_effect(said: list[str]) -> None:
    async def script(bench: Bench) -> None:
        bench.model.stuck = stuck = threading.Event()
        with pytest.raises(DetectorFailedError, match=r"big: no box within 0\.05 s"):
            await bench.perception.detect(bench.frame(), "red cup")
        assert (await bench.perception.track(bench.frame(), BOX, 1)).mask.max() == 2
        with pytest.raises(DetectorFailedError, match="big still has not answered"):
            await bench.perception.detect(bench.frame(), "red cup")
        bench.model.stuck = None
        stuck.set()
        while bench.perception._models.busy_s():
            await bench.clock.sleep_until_ns(bench.clock.now_ns() + NS_PER_S // 100)
        assert bench.perception._models.detected.newest() is None
        assert (await bench.perception.track(bench.frame(), BOX, 2)).mask.max() == 1

    bench = Bench(RealClock(), timeout_s=0.05)
    bench.run(script)
    assert said == ["perception: big still has not answered; color takes over"]
    assert bench.counts == {"timeout": 1}


def test_a_tracker_that_hangs_is_taken_over_and_left_behind(said: list[str]) -> None:
    stuck = threading.Event()

    async def script(bench: Bench) -> None:
        await bench.perception.track(bench.frame(), BOX, 1)
        await bench.eye.show(200)
        bench.model.stuck = stuck
        for _ in range(20):
            await bench.eye.show(200)
            assert bench.perception.failure(1) == ""
        assert bench.seen() == 2

    bench = Bench(RealClock(), timeout_s=0.05)
    bench.run(script)
    stuck.set()
    assert said == [
        "perception: big: no mask within 0.05 s; color takes over",
        "perception: big still has not answered: it is left behind",
    ]
    assert bench.kept.count(1) == 2  # nothing more of the one that was given up


def test_an_object_that_is_lost_is_looked_for_again_but_not_all_the_time(said: list[str]) -> None:
    async def script(bench: Bench) -> None:
        await bench.perception.track(bench.frame(), BOX, 1, "red cup")
        bench.model.boxes = 0
        await bench.eye.show(0, 9)
        assert bench.model.asked == []
        await bench.eye.show(0, 50)  # at most once a second
        assert bench.model.asked == ["red cup"] * 2
        bench.model.boxes = 1
        bench.perception.holds(True)  # it is the hand that hides it
        await bench.eye.show(0, 40)
        assert len(bench.model.asked) == 2
        bench.perception.holds(False)
        await bench.eye.show(0, 2)
        assert (bench.model.inits, bench.seen()) == (2, 0)
        await bench.eye.show(200)
        assert (bench.seen(), bench.perception.failure(1)) == (1, "")

    bench = Bench(SteppedClock(), redetection=Redetection(10, 1.0))
    bench.run(script)
    assert said == ["perception: red cup is not seen: big looks for it"]


def test_of_two_things_that_fit_as_well_none_is_tracked_again() -> None:
    async def script(bench: Bench) -> None:
        await bench.perception.track(bench.frame(), BOX, 1, "pick up the red cup on the left")
        bench.model.another = True
        await bench.eye.show(0, 15)
        assert (bench.model.asked, bench.model.inits) == (["red cup"], 1)
        assert bench.perception.failure(1) == ""
        bench.model.another = False
        await bench.eye.show(0, 30)
        assert bench.model.inits == 2

    Bench(SteppedClock(), redetection=Redetection(10, 1.0)).run(script)


# --- where the object is in space


def test_where_it_was_seen_first_is_of_the_attempt_not_of_the_tracker() -> None:
    """A tracker that begins anew in mid-attempt changes nothing; what a person has moved is where it is."""

    async def script(bench: Bench) -> None:
        assert away((await bench.perception.track(bench.frame(500), BOX, 1, "red cup")).tip) == (500, 500)
        await bench.eye.show(200, away_mm=400)
        assert bench.away_mm() == (500, 400)
        await bench.eye.show(0, 4, away_mm=300)  # lost, looked for, and begun anew where there is no depth
        await bench.eye.show(0, 1)
        assert bench.model.inits > 1
        assert bench.away_mm()[0] == 500
        await bench.eye.show(200, away_mm=450)
        assert bench.away_mm() == (500, 450)
        assert away((await bench.perception.keep_on(2)).tip) == (450, 450)
        await bench.eye.show(200, away_mm=350)
        assert bench.away_mm() == (450, 350)
        assert away((await bench.perception.track(bench.frame(600), BOX, 3)).tip) == (600, 600)
        assert (await bench.perception.track(bench.frame(), BOX, 4)).tip is None, "another one, without depth"

    Bench(SteppedClock(), redetection=Redetection(3, 0.01), info=LENS).run(script)


def test_what_takes_over_in_an_attempt_knows_where_the_object_was() -> None:
    async def script(bench: Bench) -> None:
        await bench.perception.track(bench.frame(500), BOX, 3, "red cup")
        await bench.eye.show(200, away_mm=400)
        await bench.eye.show(200)  # without depth: where the other one begins
        await bench.eye.show(13)
        assert bench.perception.failure(3) == ""
        await bench.eye.show(200)
        assert (bench.seen(), bench.away_mm()) == (2, (500, 400))
        await bench.eye.show(200, away_mm=350)
        assert bench.away_mm() == (500, 350)

    Bench(SteppedClock(), info=LENS).run(script)


# --- where the box comes from


class Planner:
    def __init__(self) -> None:
        self.asked = 0

    async def ask(self, question: Mark, pictures: Any) -> BoundingBox:
        self.asked += 1
        return BoundingBox(bbox_2d=(0.0, 0.0, 2.0, 2.0), label="the planner's")


async def box_of(bench: Bench, planner: Planner) -> BoundingBox:
    frame = bench.frame()
    pictures = {View.HEAD: frame.color}
    return await located(Mark("red cup"), frame, pictures, planner, bench.perception)  # type: ignore[arg-type]


def test_a_detector_is_asked_before_the_planner() -> None:
    async def script(bench: Bench) -> None:
        planner = Planner()
        assert (await box_of(bench, planner)).bbox_2d == BOX.bbox_2d
        assert planner.asked == 0
        bench.model.boxes = 0
        assert (await box_of(bench, planner)).label == "the planner's"
        bench.model.broken = "no kernel"
        assert (await box_of(bench, planner)).label == "the planner's"
        assert planner.asked == 2

    Bench(SteppedClock()).run(script)


def test_without_a_fallback_the_planner_does_not_stand_in() -> None:
    async def script(bench: Bench) -> None:
        bench.model.boxes = 0
        with pytest.raises(PlannerError, match="the detector sees no 'red cup'") as error:
            await box_of(bench, Planner())
        assert error.value.kind == "no_object"
        bench.model.broken = "no kernel"
        with pytest.raises(DetectorFailedError, match="no kernel"):
            await box_of(bench, Planner())

    Bench(SteppedClock(), spare=False).run(script)


def test_without_a_detector_it_is_the_planners_box() -> None:
    async def script(bench: Bench) -> None:
        assert (await box_of(bench, Planner())).label == "the planner's"

    Bench(SteppedClock(), detects=False).run(script)


async def located_as(bench: Bench, instruction: str, planner: Planner) -> BoundingBox:
    frame = bench.frame()
    return await located(Mark(instruction), frame, {View.HEAD: frame.color}, planner, bench.perception)  # type: ignore[arg-type]


def test_of_an_instruction_a_detector_is_asked_for_the_thing_alone() -> None:
    async def script(bench: Bench) -> None:
        found = await located_as(bench, "grasp the red cup, left of the bowl", Planner())
        assert found.bbox_2d == BOX.bbox_2d
        assert bench.model.asked == ["red cup"]

    Bench(SteppedClock()).run(script)


@pytest.mark.parametrize(
    ("instruction", "why"),
    [
        ("the red cup on the left", "the detector sees 2 things as 'red cup'"),
        ("the cup and the jug", "2 things"),
    ],
)
def test_where_it_is_not_known_which_thing_is_meant_the_planner_says_it_or_nobody(
    instruction: str, why: str
) -> None:
    async def script(bench: Bench) -> None:
        bench.model.another = True
        if bench.perception.falls_back:
            assert (await located_as(bench, instruction, Planner())).label == "the planner's"
            return
        with pytest.raises(DetectorFailedError, match=why):
            await located_as(bench, instruction, Planner())

    for spare in (True, False):
        Bench(SteppedClock(), spare=spare).run(script)


def test_the_detector_of_a_run_tells_of_several_things() -> None:
    class Noted(ZeroShotOptions):
        type: str = "noted"

        def build(self) -> Any:
            return self

    table = Noted(path=Path("folder"))
    parts, _ = built(PerceptionConfig().model_copy(update={"detector": table}))
    assert table.per_phrase == 1
    assert parts.detector == table.model_copy(update={"per_phrase": 10})
