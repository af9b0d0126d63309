"""A planner that fails, on the whole robot: passing faults are survived, lasting ones end in a held arm."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import pytest

from dexrun.exit_codes import NOT_DONE, OK, STOPPED
from planner.config import FaultName
from planner.scene_reader import server
from planner.scene_reader.server import SceneReader
from tests.dexrun.rig import Stage, assert_tame, perform

QUICK = {
    "planner__timeout_s": "1",
    "planner__deadline_s": "5",
    "planner__retries": "2",
    "grasp__planner_failures": "1",
    "planner__scene_reader__slow_s": "1.5",
}
KINDS = {
    "prose": "malformed",
    "html": "malformed",
    "half_json": "malformed",
    "error_500": "http_500",
    "hang": "timeout",
    "slow": "timeout",
}
"""What an exchange under each fault counts as; the others are well-formed replies that are wrong."""


def assert_held(stage: Stage) -> None:
    assert stage.servos is not None
    assert stage.servos.holding()
    assert_tame(stage.up)


STORY: tuple[FaultName, ...] = (
    *("prose", "none"),  # the prompt's type
    *(
        "unknown_object",
        "none",
        "none",
    ),  # what next: a teapot; which is not found; and the table is not empty
    *("html", "none"),  # what next
    *("box_outside", "none"),  # where is it
    *("half_json", "none"),  # is it in the gripper
    *("error_500", "none"),  # has it left the table
    *("hang", "slow", "none"),  # is the table empty
)
"""What happens to the first requests of a run; every question is answered in the end."""


class Moody(SceneReader):
    """A reader that follows the story."""

    told = 0

    @property
    def fault(self) -> FaultName:
        self.told += 1
        return STORY[self.told - 1]

    @fault.setter
    def fault(self, value: FaultName) -> None:
        del value


@pytest.mark.slow
def test_every_passing_fault_is_survived(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "SceneReader", Moody)
    stage = perform(tmp_path, **QUICK)
    assert stage.code == OK, stage.summary["stop_reason"]
    assert stage.summary["judge"]["success"]
    planner = stage.summary["planner"]
    assert planner["calls"] == 9
    assert planner["retries"] == 7
    assert planner["errors"] == 1
    assert planner["faults"] == {"http_500": 1, "malformed": 4, "timeout": 2}
    assert [attempt["completed"] for attempt in stage.summary["attempts"]] == [False, True]
    assert_held(stage)


@pytest.mark.slow
def test_a_passing_fault_by_configuration(tmp_path: Path) -> None:
    reader = {"planner__scene_reader__fault": "error_500", "planner__scene_reader__fault_requests": "2"}

    async def script(stage: Stage) -> None:
        await stage.until(lambda: stage.step.startswith("grasp"))
        os.kill(os.getpid(), signal.SIGINT)

    stage = perform(tmp_path, script, **reader, **QUICK)
    planner = stage.summary["planner"]
    assert (planner["retries"], planner["errors"], planner["faults"]) == (2, 0, {"http_500": 2})


QUICKLY = ("prose",)


@pytest.mark.parametrize(
    "fault", [each if each in QUICKLY else pytest.param(each, marks=pytest.mark.slow) for each in KINDS]
)
def test_a_lasting_fault_ends_the_run_with_the_arm_held(tmp_path: Path, fault: str) -> None:
    stage = perform(tmp_path, planner__scene_reader__fault=fault, **QUICK)
    assert stage.code == NOT_DONE
    assert stage.summary["outcome"] == "incomplete"
    kind = KINDS[fault]
    assert kind in stage.summary["stop_reason"]
    planner = stage.summary["planner"]
    assert planner["errors"] == 2
    assert planner["calls"] <= 3
    assert list(planner["faults"]) == [kind]
    assert stage.summary["device_faults"]["planner"] == {kind: 2}
    assert stage.summary["judge"]["objects_in_tray"] == 0
    assert_held(stage)


@pytest.mark.parametrize("fault", [pytest.param("box_outside", marks=pytest.mark.slow), "unknown_object"])
def test_a_wrong_answer_that_stays_wrong_ends_the_run(tmp_path: Path, fault: str) -> None:
    stage = perform(tmp_path, planner__scene_reader__fault=fault, **QUICK)
    assert stage.code == NOT_DONE
    assert stage.summary["outcome"] == "incomplete"
    assert stage.summary["planner"]["errors"] > 0
    assert not any(attempt["grasped"] for attempt in stage.summary["attempts"])
    assert_held(stage)


def test_a_failing_planner_may_stop_the_run(tmp_path: Path) -> None:
    stage = perform(tmp_path, planner__scene_reader__fault="error_500", planner__on_failure="stop", **QUICK)
    assert stage.code == STOPPED
    assert stage.summary["outcome"] == "stopped"
    assert "http_500" in stage.summary["stop_reason"]
    assert stage.summary["device_faults"]["planner"] == {"http_500": 1}
    assert_held(stage)


@pytest.mark.slow
def test_a_rule_for_one_kind_of_failure_stops_the_run(tmp_path: Path) -> None:
    stage = perform(
        tmp_path, planner__scene_reader__fault="hang", faults__rules='{"planner.timeout" = "stop"}', **QUICK
    )
    assert stage.code == STOPPED
    assert "timeout" in stage.summary["stop_reason"]
    assert_held(stage)


def test_a_server_that_is_not_there_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:  # bound, not listening: nobody answers there, and nobody else gets it
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        stage = perform(tmp_path, planner__base_url=url, planner__on_failure="stop", **QUICK)
    assert stage.code == STOPPED
    assert url in stage.summary["stop_reason"]
    assert "unreachable" in stage.summary["stop_reason"]
    assert_held(stage)
