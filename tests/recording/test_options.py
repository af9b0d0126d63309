from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from dexrun.config.load import ConfigError, dump, load_tables
from dexrun.config.settings import Settings
from dexrun.episodes.recording import mend_runs, place_of
from dexrun.run_folder import RunFolder
from policies.data.recorded import episode_files
from runtime.clock import NS_PER_S
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


def run_folder(runs: Path, wall_s: int, *episodes: str) -> Path:
    """Of a run that began and recorded these."""
    folder = RunFolder(runs, wall_s * NS_PER_S)
    folder.write_json("config.json", {})
    folder.began()
    (folder.path / "episodes").mkdir()
    for name in episodes:
        (folder.path / "episodes" / name).touch()
    return folder.path


def test_the_latest_run_that_is_gone_on_with_is_the_one_before(tmp_path: Path) -> None:
    before = run_folder(tmp_path, 0)
    options = settings(tmp_path, recording__resume=str(tmp_path / "latest")).recording
    this = run_folder(tmp_path, 1)
    assert (tmp_path / "latest").resolve() == this
    assert options.resume == before


def test_a_chain_of_sessions_is_one_recording(tmp_path: Path) -> None:
    """Each goes on with `runs/latest`: the third finds the first one's episodes through the second."""
    first = run_folder(tmp_path, 0, "episode_000000.mcap", "episode_000001.mcap")
    for wall_s, number in ((1, 2), (2, 3), (3, 4)):
        options = settings(tmp_path, recording__resume=str(tmp_path / "latest"))
        folder = RunFolder(tmp_path, wall_s * NS_PER_S)
        folder.write_json("config.json", {})
        folder.began()
        assert place_of(options, folder.path) == (first / "episodes", number)
        (first / "episodes" / f"episode_{number:06d}.mcap").touch()
        assert sorted((tmp_path / "latest" / "episodes").iterdir())[-1].name == f"episode_{number:06d}.mcap"
    assert os.readlink(tmp_path / "latest" / "episodes") == f"../{first.name}/episodes"
    assert len(episode_files([tmp_path / "latest"])) == 5


def test_nothing_but_a_run_is_gone_on_with(tmp_path: Path) -> None:
    outside = tmp_path / "outside" / "episodes"
    outside.mkdir(parents=True)
    (outside / "thesis.txt").touch()
    run = run_folder(tmp_path / "runs", 0)
    (run / "episodes").rmdir()
    (run / "episodes").symlink_to(outside)  # a run of somebody else's making
    for resume in ("/etc", str(tmp_path), str(outside.parent), str(run)):
        with pytest.raises(ConfigError, match="is no run's folder") as caught:
            settings(tmp_path, recording__resume=resume)
        assert "\n" not in str(caught.value)
    assert [path.name for path in outside.iterdir()] == ["thesis.txt"]


def test_drafts_are_mended_in_runs_and_nowhere_else(tmp_path: Path) -> None:
    outside, runs = tmp_path / "outside", tmp_path / "runs"
    (outside / "episodes").mkdir(parents=True)
    draft = outside / "episodes" / "episode_000000.mcap.open"
    draft.write_bytes(b"")
    runs.mkdir()
    (runs / "linked").symlink_to(outside)
    (runs / "crafted").mkdir()
    (runs / "crafted" / "episodes").symlink_to(outside / "episodes")
    mend_runs(runs)
    assert draft.exists()
    mend_runs(outside.parent)
    assert not draft.exists()
