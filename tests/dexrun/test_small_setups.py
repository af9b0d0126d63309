"""What a person may not have: a force sensor, a depth camera, a second camera, any camera."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dexrun.app import run
from dexrun.config.load import load
from dexrun.config.sources import ConfigError
from dexrun.exit_codes import NOT_DONE, OK
from dexrun.export.command import main as export
from tests.dexrun.rig import CUBE, GRASPED_S, newest
from tests.dexrun.tables import ARMS, HEAD, WRIST
from tests.policies.test_grasp_mode import COMMON, TINY

SEE_WRIST = {"policy__type": "geometric", "policy__camera": "wrist"}
NO_DEPTH = "the geometric policy needs depth"


def play(folder: Path, tables: str, **keys: str) -> tuple[int, dict[str, Any]]:
    """One whole run of what is configured by `tables` alone."""
    file = folder / "config.toml"
    file.write_text(tables.format(runs=folder / "runs", cube=CUBE))
    words = [word for name, value in keys.items() for word in (f"--{name.replace('__', '.')}", value)]
    code = run(load(["--config", str(file), *words], {}))
    return code, json.loads((newest(folder / "runs") / "summary.json").read_text())


@pytest.mark.slow
def test_two_arms_and_nothing_else_are_teleoperated(tmp_path: Path) -> None:
    code, summary = play(tmp_path, ARMS, mode="teleop", teleop__duration_s="2")
    assert (code, summary["outcome"], summary["device_faults"]) == (OK, "completed", {})
    assert set(summary["sensor_rates_hz"]) == {"arm", "leader"}


@pytest.mark.slow
def test_one_ordinary_camera_and_no_force_are_enough_to_collect_data(tmp_path: Path) -> None:
    code, summary = play(tmp_path, ARMS + WRIST, mode="teleop", recording__episodes="1")
    assert (code, summary["device_faults"]) == (OK, {})
    assert summary["judge"]["success"]
    target = tmp_path / "set"
    assert export([str(tmp_path / "runs" / "latest"), "--format", "lerobot-v3", "--to", str(target)]) == OK
    features = json.loads((target / "meta" / "info.json").read_text())["features"]
    seen = {name for name in features if name.startswith("observation.")}
    assert seen == {"observation.state", "observation.images.wrist"}


@pytest.mark.slow
def test_it_is_grasped_without_force_and_wrist_camera(tmp_path: Path) -> None:
    keys = {"grasp__wrist": "", "grasp__time_limit_s": GRASPED_S}
    code, summary = play(tmp_path, ARMS + HEAD, mode="grasp", **keys)
    assert (code, summary["device_faults"]) == (NOT_DONE, {})
    assert [attempt["grasped"] for attempt in summary["attempts"]] == [True]


def test_a_learned_policy_needs_neither_depth_nor_force(tmp_path: Path) -> None:
    keys = {
        "policy__type": "act",
        **COMMON,
        **TINY["act"],
        "policy__cameras": '["wrist"]',
        "grasp__head": "wrist",
        "grasp__wrist": "",
        "grasp__time_limit_s": "4",
        "planner__prompt": "put the red cube in the tray",
    }
    code, summary = play(tmp_path, ARMS + WRIST, **keys)
    assert (code, summary["outcome"], summary["device_faults"]) == (NOT_DONE, "incomplete", {})


@pytest.mark.parametrize(
    ("tables", "keys", "message"),
    [
        (ARMS + WRIST, {"grasp__head": "wrist", "grasp__wrist": "", **SEE_WRIST}, NO_DEPTH),
        (ARMS + HEAD, {}, "grasp.wrist = 'wrist' is not a camera; [cameras] has: head"),
        (ARMS, {}, "grasp.head = 'head' is not a camera; [cameras] has: none"),
    ],
)
def test_what_a_mode_needs_is_said(tables: str, keys: dict[str, str], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        play(tmp_path, tables, mode="grasp", **keys)
    assert message in str(error.value)
    assert not (tmp_path / "runs").exists()
