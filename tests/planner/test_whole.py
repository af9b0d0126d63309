"""Plan, planner, server and scene reader together, on the simulated table with hands that never miss.

Only the arm is left out: what is grasped is taken off the table, and what is placed appears in the tray.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from drivers.arms import describe
from drivers.world.config import RenderOptions, WorldConfig
from drivers.world.layout import TRAY_CENTER_M, draw_objects
from drivers.world.physics import Tabletop
from drivers.world.render import Renderer, prepare_environment
from planner import plan
from planner.client import Planner
from planner.config import PlannerConfig
from planner.errors import PlannerError
from planner.questions.question import View
from planner.scene_reader import vision
from runtime.messages import ColorImage
from runtime.stepped import SteppedClock
from tests.planner.test_scene_reader import rendered

prepare_environment(RenderOptions())
AWAY = (3.0, 3.0, 0.02)


class Hands:
    """The table, seen by its camera, and a grasp that takes whatever is in the box."""

    def __init__(self, seed: int) -> None:
        config = WorldConfig(seed=seed)
        self.world = Tabletop(config, draw_objects(config), describe())
        self.renderer = Renderer(self.world.model, config)
        self.names = [each.name for each in self.world.objects if each.present]
        self.held: int | None = None
        self.placed: list[str] = []
        self.slips = 0
        self._color = np.empty((config.head.height, config.head.width, 3), np.uint8)
        self._depth = np.empty(self._color.shape[:2], np.uint16)

    def head(self) -> ColorImage:
        self.renderer.head(self.world.data, self._color, self._depth)
        return self._color.copy()

    def wrist(self) -> ColorImage:
        return rendered("wrist_3_empty" if self.held is None else "wrist_3_held")

    def move(self, step: plan.Motion) -> plan.StepResult:
        if isinstance(step, plan.Home):
            return plan.Done()
        if isinstance(step, plan.Place):
            assert self.held is not None
            x = TRAY_CENTER_M[0] + 0.03 * (len(self.placed) % 3 - 1)
            y = TRAY_CENTER_M[1] + 0.03 * (len(self.placed) // 3)
            self.world.move_object(self.held, (x, y, 0.02))
            self.placed.append(self.names[self.held])
            self.held = None
            return plan.Done()
        if self.slips > 0:
            self.slips -= 1
            return plan.Lifted(0.1)
        thing = max(vision.read(self.head()).objects, key=lambda each: overlap(each.box, step.box.bbox_2d))
        self.held = self.names.index(f"{thing.color} {thing.shape}")
        self.world.move_object(self.held, AWAY)
        return plan.Lifted(0.1)


def overlap(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(0.0, width) * max(0.0, height)


@pytest.fixture
def hands() -> Iterator[Hands]:
    made = Hands(seed=3)
    yield made
    made.renderer.close()


def carry_out(prompt: str, hands: Hands, **options: object) -> tuple[plan.GraspPlan, dict[str, object]]:
    clock = SteppedClock()
    whole = plan.GraspPlan(prompt)

    async def main() -> dict[str, object]:
        async with Planner(PlannerConfig(**options), clock) as planner:  # type: ignore[arg-type]
            while not isinstance(step := whole.step, plan.Finished):
                if isinstance(step, plan.Motion):
                    whole.tell(hands.move(step))
                else:
                    try:
                        pictures = {View.HEAD: hands.head(), View.WRIST: hands.wrist()}
                        whole.tell(await planner.ask(step, pictures))
                    except PlannerError as error:
                        whole.tell(plan.Failed.of(error))
            return planner.statistics()

    return whole, clock.run(main)


def test_clear_the_table(hands: Hands) -> None:
    whole, statistics = carry_out("clear the table", hands)
    assert whole.step == plan.Finished(True, "the table is empty")
    assert sorted(hands.placed) == sorted(hands.names)
    assert all(each.completed and each.attempt == 1 for each in whole.attempts)
    assert statistics["calls"] == 1 + 5 * len(hands.names)
    assert statistics["errors"] == 0


def test_one_object(hands: Hands) -> None:
    whole, _ = carry_out("put the red cube in the tray", hands)
    assert isinstance(whole.step, plan.Finished)
    assert whole.step.completed
    assert hands.placed == ["red cube"]


def test_grasps_that_slip_are_repeated(hands: Hands) -> None:
    hands.slips = 2
    whole, _ = carry_out("first the purple cube, then the green cylinder", hands)
    assert hands.placed == ["purple cube", "green cylinder"]
    assert [each.grasped for each in whole.attempts] == [False, False, True, True]


def test_an_object_that_is_not_there(hands: Hands) -> None:
    whole, _ = carry_out("the yellow teapot", hands)
    assert whole.step == plan.Finished(False, "nothing on the table fits the prompt")
    assert hands.placed == []


def test_proposals_of_what_is_not_there_do_no_harm(hands: Hands) -> None:
    whole, _ = carry_out("tidy up", hands, scene_reader={"fault": "unknown_object", "fault_requests": 2})
    assert isinstance(whole.step, plan.Finished)
    assert whole.step.completed
    assert [each.grasped for each in whole.attempts].count(False) == 1
