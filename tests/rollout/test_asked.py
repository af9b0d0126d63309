"""The score of a rollout is of what its policy was asked last."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from dexrun.app import _judge
from dexrun.config.load import load
from dexrun.modes.rollout import RolloutMode
from dexrun.modes.tally import EpisodeTally
from dexrun.run_record import RunRecord
from drivers.world.judge import JudgeReport, ObjectReport
from runtime.stepped import SteppedClock
from tests.rollout.test_controls import CONFIG, unrecorded

TASK, OTHER = "put the red cube in the tray", "put the green cube in the tray"


class GreenIsIn:
    """A table on which the green cube, and it alone, lies in the tray."""

    def judge(self, timeout_s: float) -> JudgeReport:
        assert timeout_s > 0
        cubes = [
            ObjectReport(color, color, "cube", (0.2, 0.0, 0.0), color == "green", held=False, fallen=False)
            for color in ("red", "green")
        ]
        return JudgeReport(2, 1, False, tuple(cubes))


@pytest.mark.parametrize(("told", "success"), [("", False), (OTHER, True)])
def test_the_last_words_are_judged(told: str, success: bool) -> None:
    clock = SteppedClock()
    settings = load(["--config", str(CONFIG), "--task", TASK], {})
    model = SimpleNamespace(names=("pan",), joints=1, grippers=())
    robot: Any = SimpleNamespace(
        clock=clock,
        control=None,
        world=GreenIsIn(),
        leader=None,
        leaders={},
        force=None,
        settings=settings,
        model=model,
        faults=SimpleNamespace(spare=lambda names: None),
    )
    episodes = unrecorded(clock)
    mode = RolloutMode(robot, episodes, cast("Any", None))
    assert mode.asked() == TASK
    mode._in_the_way = ""
    episodes.start(TASK)
    assert episodes.on is not None
    mode._tallies.append(EpisodeTally(episodes.on))
    if told:
        mode.tell(told)
    episodes.stop("failure", "a test")
    record = RunRecord(asked=mode.asked)

    async def main() -> None:
        await _judge(robot, record)

    clock.run(main)
    assert record.judge is not None
    assert (record.judge["asked"], record.judge["success"]) == ([(told or TASK).split()[2]], success)
