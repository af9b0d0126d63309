from __future__ import annotations

import json
from pathlib import Path

import pytest

from dexrun.config.load import ConfigError, dump, load_tables
from dexrun.config.settings import Settings
from dexrun.run_folder import RunFolder
from tests.dexrun.rig import settings


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("jpeg_quality", "101", "recording.jpeg_quality"),
        ("episodes", "-1", "recording.episodes"),
        ("api_port", "70000", "recording.api_port"),
        ("resume", "/nowhere/at/all", "no such folder: /nowhere/at/all; give a run's folder"),
        ("quality", "9", "recording.quality: unknown key"),
    ],
)
def test_wrong_values_are_refused_in_one_line(tmp_path: Path, key: str, value: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        settings(tmp_path, **{f"recording__{key}": value})
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_credentials_in_urls_are_in_no_dump(tmp_path: Path) -> None:
    urls = {
        "cameras__wrist__source": "rtsp://admin:hunter2@10.0.0.7:554/live?a=b@c",
        "planner__base_url": "http://me:p@ss@gpu:8000/v1",
        "export__vlm_url": "https://token@gpu/v1",
    }
    text = dump(settings(tmp_path, realtime__clock="real", **urls))
    for secret in ("hunter2", "admin", "ss@gpu", "token@"):
        assert secret not in text
    assert "rtsp://***@10.0.0.7:554/live?a=b@c" in text
    assert load_tables(Settings, json.loads(text), [], "episode").planner.base_url == "http://***@gpu:8000/v1"


def test_a_dumped_configuration_loads_again(tmp_path: Path) -> None:
    first = settings(tmp_path, mode="teleop", recording__task="stack")
    again = load_tables(Settings, json.loads(dump(first)), ["--recording.episodes", "3"], "episode")
    assert again.recording.episodes == 3
    assert again.model_copy(update={"recording": first.recording}) == first


def test_a_recording_that_holds_keys_by_their_earlier_names_loads(tmp_path: Path) -> None:
    pose = [0.1, -1.0, 1.0, 0.5, 0.0, 0.5]
    keys = {
        "grasp__home_rad": str(pose),
        "teleop__center_rad": str(pose),
        "arm__acceleration_100ticks_s2": "9",
        "policy__rate_hz": "25",
        "serve__policy__type": "geometric",
        "serve__policy__rate_hz": "20",
    }
    first = settings(tmp_path, **keys)
    tables = json.loads(dump(first))
    for table, before, now in (
        ("grasp", "home", "home_rad"),
        ("teleop", "center", "center_rad"),
        ("arm", "acceleration", "acceleration_100ticks_s2"),
        ("leader", "acceleration", "acceleration_100ticks_s2"),
    ):
        tables[table][before] = tables[table].pop(now)
    for policy in (tables["policy"], tables["serve"]["policy"]):
        policy["control_rate_hz"] = policy.pop("rate_hz")
    assert load_tables(Settings, tables, [], "episode") == first
    tables["leader"] = None
    assert load_tables(Settings, tables, [], "episode").leader is None


def test_the_latest_run_that_is_gone_on_with_is_the_one_before(tmp_path: Path) -> None:
    before = RunFolder(tmp_path, 0)
    options = settings(tmp_path, recording__resume=str(tmp_path / "latest")).recording
    this = RunFolder(tmp_path, 1_000_000_000)
    assert (tmp_path / "latest").resolve() == this.path
    assert options.resume == before.path
