"""A move is done when the arm is there, and no question is asked of a view that it hides."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import anyio.lowlevel
import numpy as np
import pytest

from dexrun.modes.grasp_questions import TableQuestions
from dexrun.modes.moves import carry_out
from planner import plan
from planner.questions.check_grasp import CheckGrasp
from planner.questions.check_prompt import CheckPrompt
from runtime.messages import Clip
from tests.runtime.control_rig import D, Outcome, Rig

NAMES = ("pan", "lift", "gripper")
ROWS = np.repeat(np.linspace(0.02, 1.0, 50)[:, None], D, axis=1)


def robot(rig: Rig) -> Any:
    return SimpleNamespace(
        control=rig.loop,
        settings=SimpleNamespace(control=SimpleNamespace(rate_hz=100.0, arrived_rad=0.15)),
        model=SimpleNamespace(layout=SimpleNamespace(names=NAMES)),
        description=SimpleNamespace(carrying=(0, 1)),
    )


def test_a_move_is_done_when_the_arm_is_measured_there() -> None:
    rig, said = Rig(), []

    async def main() -> None:
        said.append(await carry_out(robot(rig), ROWS))
        assert rig.loop.position is not None
        assert rig.loop.position[0] >= 0.85

    rig.run(main)
    assert said == [""]


@pytest.mark.parametrize("clips", [Clip.FORCE, Clip.COLLISION])
def test_a_move_on_which_the_arm_is_held_is_not_done(clips: Clip) -> None:
    """Its rows are used up in the end, and the arm is where it was held."""
    rig, said = Rig(), []
    rig.guard.rule = lambda requested: Outcome(np.minimum(requested, [0.3, 9, 9]), clips)

    async def main() -> None:
        said.append(await carry_out(robot(rig), ROWS))
        said.append(rig.clock.now_ns() / 1e9)

    rig.run(main)
    assert said[0] == "the arm did not get there: pan is 0.70 rad off"
    assert said[1] == pytest.approx(0.75 + 5.0, abs=0.1)


def test_a_move_that_the_servos_do_not_follow_is_not_done() -> None:
    """Every row was asked for, and nothing clipped."""
    rig, said = Rig(), []
    rig.reach = 0.3

    async def main() -> None:
        said.append(await carry_out(robot(rig), ROWS))

    rig.run(main)
    assert rig.requested()[-1] == pytest.approx(1.0)
    assert said == ["the arm did not get there: pan is 0.70 rad off"]


def test_a_move_that_is_held_for_a_while_is_made_afterwards() -> None:
    rig, said = Rig(), []

    async def main() -> None:
        rig.guard.rule = lambda requested: Outcome(np.minimum(requested, 0.3), Clip.FORCE)
        rig.clock.spawn("relief", relief)
        said.append(await carry_out(robot(rig), ROWS))

    def relief() -> None:
        rig.clock.wait_until_ns(2_000_000_000)
        rig.guard.rule = lambda requested: Outcome(requested.copy())

    rig.run(main)
    assert said == [""]
    steps = np.abs(np.diff(rig.requested()))
    assert steps.max() <= 0.02 + 1e-9  # along its rows, none left out


def asked(off: str, moved: plan.StepResult) -> tuple[Any, list[str]]:
    """What is about to ask, whose arm is `off` home and goes there as `moved` says."""
    questions, did = object.__new__(TableQuestions), list[str]()
    state = {"off": off}

    async def home() -> plan.StepResult:
        did.append("home")
        state["off"] = off if isinstance(moved, plan.Failed) else ""
        return moved

    async def see(camera: str, since_ns: int = 0) -> Any:
        did.append("picture")
        raise InterruptedError

    vars(questions).update(
        _options=SimpleNamespace(head="head", wrist=""),
        _moves=SimpleNamespace(clear_ns=0, home=home, off_home=lambda: state["off"]),
        _see=see,
        _turns=SimpleNamespace(wait=anyio.lowlevel.checkpoint, lost=0),
    )
    return questions, did


@pytest.mark.anyio
async def test_nothing_is_asked_of_a_view_that_the_arm_hides() -> None:
    questions, did = asked("lift is 0.40 rad off", plan.Failed("motion", "the arm did not get there"))
    answer = await questions.ask(CheckPrompt())
    assert answer == plan.Failed("view_blocked", "the arm did not get there")
    assert did == ["home"]
    questions, did = asked("lift is 0.40 rad off", plan.Done())
    with pytest.raises(InterruptedError):
        await questions.ask(CheckPrompt())
    assert did == ["home", "picture"]
    questions, did = asked("lift is 0.40 rad off", plan.Done())
    with pytest.raises(InterruptedError):  # what is in the gripper is looked at where it is
        await questions.ask(CheckGrasp("cube"))
    assert did == ["picture"]
