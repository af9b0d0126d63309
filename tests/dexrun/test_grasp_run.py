"""Whole runs that go well: one object, one among several, a person at the leader; and twice the same."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dexrun import app
from dexrun.__main__ import main
from dexrun.data.recorded import recorded_settings
from dexrun.data.verify import verify
from dexrun.exit_codes import BAD_CONFIGURATION, NOT_DONE, OK
from dexrun.robot import Robot
from runtime.realtime import Realtime
from runtime.recording.reader import Recording
from tests.dexrun.rig import Stage, arguments, perform

THREE = (
    '[{shape="cube", color="red", x_m=0.2, y_m=-0.05, yaw_rad=0.3},'
    ' {shape="cube", color="green", x_m=0.26, y_m=0.05},'
    ' {shape="cylinder", color="blue", size_m=[0.026, 0.026, 0.03], x_m=0.2, y_m=-0.13}]'
)
WALL_CLOCK = {"recording"}
"""What a summary says about wall time."""

CONTRACT: dict[str, Any] = {
    "mode": "grasp",
    "prompt": "clear the table",
    "outcome": "completed",
    "stop_reason": "the table is empty",
    "duration_s": float,
    "ticks": int,
    "missed_ticks": 0,
    "starved_ticks": int,
    "period_error_us": {"p50": float, "p99": float, "max": float},
    "work_us": {"p50": float, "p99": float, "max": float},
    "loop_lag_us": {"p50": float, "p99": float, "max": float},
    "sensor_rates_hz": {"arm": float, "head": float, "wrist": float, "force": float},
    "device_faults": {},
    "clips": dict,
    "planner": {"calls": 6, "retries": 0, "errors": 0, "latency_s": {"p50": float, "max": float}},
    "policy": {
        "chunks": int,
        "dropped_chunks": int,
        "inference_s": {"p50": float, "max": float},
        "seam_rad": {"p50": float, "p99": float, "max": float},
    },
    "attempts": list,
    "judge": {"objects_total": 1, "objects_in_tray": 1, "success": True},
}
"""Every field that a run promises: its value, or its type."""


def assert_fits(found: Any, promised: Any, where: str = "summary") -> None:
    """`found` has all that is promised; it may have more."""
    if isinstance(promised, dict) and promised:
        for key, value in promised.items():
            assert key in found, f"{where} lacks {key}"
            assert_fits(found[key], value, f"{where}.{key}")
    elif isinstance(promised, type):
        assert type(found) is promised, where
    else:
        assert found == promised, where


def test_one_object_ends_in_the_tray_and_the_recording_replays(tmp_path: Path) -> None:
    first = perform(tmp_path)
    assert first.code == OK
    assert_fits(first.summary, CONTRACT)
    # As configured, to two samples.
    seconds = first.summary["ticks"] / 30
    rates = {"arm": 60.0, "head": 10.0, "wrist": 6.0, "force": 60.0}
    assert first.summary["sensor_rates_hz"] == pytest.approx(rates, abs=2 / seconds)
    attempt = first.summary["attempts"][0]
    assert attempt["grasped"] is True
    assert attempt["completed"] is True
    assert attempt["instruction"].startswith("the red cube")
    assert first.servos is not None
    assert first.servos.holding()
    for name in ("log.txt", "config.json", "planner/exchanges.jsonl", "grasp-000.png"):
        assert (first.folder / name).stat().st_size > 0, name
    (report,) = first.summary["recording"]["episodes"]
    assert (report["label"], report["drops"]) == ("success", {})
    with Recording(first.folder) as recording:
        (episode,) = recording.episodes
        assert episode.task == "clear the table"
        lines = (first.folder / "planner/exchanges.jsonl").read_text(encoding="utf-8").splitlines()
        asked = [json.loads(line) for line in lines]
        assert [said["reply"] for said in episode.samples("/planner")] == [one["reply"] for one in asked]
        # Its reply ends run and episode at one stamp.
        assert asked[-1]["task"] == "check_user_prompt_complete"
        assert episode.topics["/chunks"] >= 2
        stamps = set(episode.stamps("/cameras/head/color").tolist())
        assert set(episode.stamps("/mask/head").tolist()) <= stamps
        assert episode.mask("head", 0).any()
        verdict = verify(episode, recorded_settings(episode))
        assert verdict.same, verdict.difference


@pytest.mark.slow
def test_two_runs_are_the_same(tmp_path: Path) -> None:
    first, second = perform(tmp_path / "first"), perform(tmp_path / "second")
    assert second.digest() == first.digest()
    assert second.up.records.published == first.up.records.published
    told = [{k: v for k, v in s.summary.items() if k not in WALL_CLOCK} for s in (first, second)]
    assert told[0] == told[1]


@pytest.mark.slow
def test_an_so101_clears_the_table_too(tmp_path: Path) -> None:
    stage = perform(tmp_path, arm__model="so101")
    assert stage.code == OK, stage.summary
    assert_fits(stage.summary, {key: CONTRACT[key] for key in ("outcome", "stop_reason", "judge")})


def test_the_recording_of_an_so101_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stage = perform(tmp_path, arm__model="so101", grasp__time_limit_s="2")
    assert stage.code == NOT_DONE, stage.summary
    assert stage.summary["ticks"] > 50
    with Recording(stage.folder) as recording:
        [episode] = recording.episodes
        assert episode.robot["model"] == "so101"
        assert len(episode.robot["model_sha256"]) == 64
        assert verify(episode, recorded_settings(episode)).same
    assert main(["replay", str(stage.folder), *arguments(tmp_path, arm__model="so100")]) == BAD_CONFIGURATION
    assert "recorded with the arm 'so101'; arm.model is 'so100'" in capsys.readouterr().err


@pytest.mark.slow
def test_a_named_object_is_the_only_one_taken(tmp_path: Path) -> None:
    stage = perform(tmp_path, world__placed=THREE, planner__prompt="put the red cube in the tray")
    assert stage.code == OK, stage.summary["stop_reason"]
    judge = stage.summary["judge"]
    assert (judge["objects_total"], judge["objects_in_tray"], judge["success"]) == (3, 1, True)
    assert judge["asked"] == ["red cube"]
    assert len(stage.summary["attempts"]) == 1


@pytest.mark.slow
def test_a_person_at_the_leader_clears_the_table(tmp_path: Path) -> None:
    stage = perform(tmp_path, mode="teleop")
    assert stage.code == OK, stage.summary["stop_reason"]
    assert stage.summary["outcome"] == "completed"
    assert stage.summary["prompt"] is None
    assert stage.summary["operator"]["succeeded"] == 1
    assert stage.summary["judge"]["success"]
    assert stage.summary["sensor_rates_hz"]["leader"] > 50
    assert stage.summary["sensor_rates_hz"]["force"] > 50
    assert stage.servos is not None
    assert stage.servos.holding()


@pytest.mark.parametrize("mode", [pytest.param("grasp", marks=pytest.mark.slow), "teleop"])
def test_garbage_is_collected_where_the_arm_rests_and_automatically_where_it_never_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    stages: list[Stage] = []
    rests: list[tuple[str, int]] = []
    promised: list[bool] = []

    class Noted(Realtime):
        def collect(self) -> None:
            rests.append((stages[0].step.split()[0], len(stages[0].up.control.horizon)))

    @contextlib.contextmanager
    def realtime(robot: Robot, *_: object, pauses: bool) -> Iterator[None]:
        promised.append(pauses)
        robot.realtime = Noted()
        yield

    async def script(stage: Stage) -> None:
        stages.append(stage)

    monkeypatch.setattr(app, "_realtime", realtime)
    keys = {"recording__teleop": "false", "recording__grasp": "false", "teleop__duration_s": "0.5"}
    perform(tmp_path, script, mode=mode, grasp__time_limit_s="3", **keys)
    assert promised == [mode == "grasp"]
    assert rests == ([("home", 0)] if mode == "grasp" else [])
