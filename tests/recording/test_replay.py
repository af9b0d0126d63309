"""Whole simulated runs: recorded twice, replayed once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mcap.reader import make_reader
from mcap.writer import Writer

from dexrun.__main__ import main
from dexrun.app import run
from dexrun.data.recorded import differences, local_settings, recorded_settings
from dexrun.data.replay import main as replay
from dexrun.data.verify import verify
from dexrun.exit_codes import NOT_DONE, STOPPED
from dexrun.export.options import ExportOptions
from dexrun.modes import opening
from policies.data.recorded import describe
from policies.data.sampled import sample
from runtime.clock import NS_PER_S
from runtime.recording import schemas
from runtime.recording.reader import Episode, Recording
from runtime.tick import TickFlag
from tests.dexrun.rig import arguments, play, settings

SHORT = {"mode": "teleop", "teleop__duration_s": "4", "recording__task": "reach"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The first seconds of an episode, recorded twice with one seed."""
    folders = tmp_path_factory.mktemp("first"), tmp_path_factory.mktemp("second")
    for folder in folders:
        code, summary = play(folder, **SHORT)
        assert code == 0
        assert summary["recording"]["episodes"][0]["drops"] == {}
    return folders


def messages(episode: Episode, topic: str) -> list[tuple[object, ...]]:
    return [
        (
            sample.time_ns,
            sample.stamp_ns,
            sample.index,
            {
                key: bytes(value) if isinstance(value, memoryview) else repr(schemas.plain(value))
                for key, value in sample.values.items()
            },
        )
        for sample in episode.samples(topic)
    ]


def test_one_seed_gives_one_recording(runs: tuple[Path, Path]) -> None:
    first, second = (Recording(folder / "latest").episodes[0] for folder in runs)
    with first, second:
        assert first.topics == second.topics
        assert {topic for topic, n in first.topics.items() if n == 0} == {"/chunks", "/planner"}
        assert first.topics["/ticks"] > 60
        for topic in first.topics:
            assert messages(first, topic) == messages(second, topic), topic
        assert first.task == "reach"
        assert first.cameras == ["head", "wrist"]
        assert first.depth_cameras == ["head"]
        assert len(first.robot["joint_names"]) == 6
        assert set(first.calibration) == {"arm", "leader"}
        assert first.config["recording"]["task"] == "reach"
        assert first.config["arm"]["port"] == "world:follower"
        assert first.camera_info("head").base_from_camera is not None
        assert (first.depth("head", 0) == 0).any()
        kinds = [sample["kind"] for sample in first.samples("/events")]
        assert kinds[0] == "episode_start"
        assert "force_tare" in kinds


def test_the_episode_that_the_end_of_the_run_cut_off_is_counted(runs: tuple[Path, Path]) -> None:
    summary = json.loads((runs[0] / "latest" / "summary.json").read_text())
    assert summary["recording"]["recorded"] == len(summary["recording"]["episodes"]) == 1
    assert summary["recording"]["episodes"][0]["stop_reason"] == "the run ended"


def test_an_autonomous_run_that_cannot_be_recorded_is_not_begun(tmp_path: Path) -> None:
    code, summary = play(tmp_path, recording__min_free_mib="1e12")
    assert (code, summary["outcome"]) == (NOT_DONE, "incomplete")
    assert summary["stop_reason"].startswith("not begun, since it cannot be recorded: ")
    assert summary["stop_reason"].endswith("min_free_mib is 1e+12")
    assert summary["attempts"] == summary["recording"]["episodes"] == []


def test_a_replay_asks_for_the_same_targets(
    runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert replay([str(runs[0] / "latest"), "--verify"]) == 0
    assert "every target the same" in capsys.readouterr().out


def test_a_replay_under_other_limits_does_not(
    runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    run_folder = str(runs[0] / "latest")
    assert replay([run_folder, "--verify", "--safety.max_velocity_rad_s", "0.3"]) == 1
    assert "clipped was" in capsys.readouterr().out


def test_one_flipped_bit_in_an_input_shows(runs: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    columns = Episode.columns

    def flipped(self: Episode, topic: str) -> dict[str, np.ndarray]:
        values = columns(self, topic)
        if topic == "/ticks":
            values["leader"][40, 1] = np.nextafter(values["leader"][40, 1], np.inf)
        return values

    monkeypatch.setattr(Episode, "columns", flipped)
    with Recording(runs[0] / "latest") as recording:
        episode = recording.episodes[0]
        verdict = verify(episode, recorded_settings(episode))
        assert verdict.ticks == 40
        assert verdict.difference is not None
        assert verdict.difference.field == "requested"


def local(runs: Path, **keys: str) -> list[str]:
    """A light local configuration, as a command line."""
    return arguments(runs, mode="teleop", **keys)


def test_the_targets_are_sent_again_and_what_was_replayed_stays_the_latest_run(
    runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    latest = runs[1] / "latest"
    recorded, before = latest.resolve(), set(runs[1].iterdir())
    assert replay([str(latest), "--episode", "0", *local(runs[1])]) == 0
    assert latest.resolve() == recorded
    assert main(["info", str(latest)]) == 0
    said = capsys.readouterr().out
    assert "1 episode" in said
    assert "when it was recorded" not in said
    (folder,) = set(runs[1].iterdir()) - before
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["outcome"] == "completed"
    assert "targets sent" in summary["stop_reason"]
    assert "recording" not in summary
    assert set(summary["sensor_rates_hz"]) == {"arm", "force"}  # no leader, and no camera, is needed


def rewritten(source: Path, target: Path, change: Callable[[dict[str, Any]], None]) -> Episode:
    """The episode at `source` with another configuration in it."""
    with Episode(source) as episode:
        config = episode.config
    change(config)
    with target.open("wb") as out, source.open("rb") as file:
        reader, writer = make_reader(file), Writer(out)
        writer.start()
        summary = reader.get_summary()
        assert summary is not None
        for record in reader.iter_metadata():
            there = {"json": json.dumps(config)} if record.name == "config" else record.metadata
            writer.add_metadata(record.name, there)
        schemas_by = {
            number: writer.register_schema(schema.name, schema.encoding, schema.data)
            for number, schema in summary.schemas.items()
        }
        channels = {
            number: writer.register_channel(
                each.topic, each.message_encoding, schemas_by[each.schema_id], dict(each.metadata)
            )
            for number, each in summary.channels.items()
        }
        for _, channel, message in reader.iter_messages():
            writer.add_message(
                channels[channel.id],
                message.log_time,
                message.data,
                message.publish_time,
                message.sequence,
            )
        writer.finish()
    return Episode(target)


def test_a_recording_decides_nothing_about_limits_registers_and_paths(
    runs: tuple[Path, Path], tmp_path: Path
) -> None:
    """What it says otherwise is told; what it was recorded with serves to verify it, which moves nothing."""

    def hostile(config: dict[str, Any]) -> None:
        config["safety"].update(max_velocity_rad_s=50.0, max_force_n=1e6)
        config["runs"] = str(tmp_path / "elsewhere")
        config["arm"].update(port="/dev/ttyACM0", write_calibration=True, p_gain=254)
        config["arm"]["calibration"] = str(tmp_path / "stolen.json")
        config["recording"]["resume"] = "/etc"
        config["cameras"]["head"]["serial"] = "/dev/video0"
        config["planner"]["base_url"] = "http://elsewhere/v1"
        config["world"]["seed"] = 5

    source = next((runs[0] / "latest" / "episodes").glob("*.mcap"))
    with rewritten(source, tmp_path / "crafted.mcap", hostile) as episode:
        here = settings(tmp_path / "runs", mode="teleop")
        replayed = local_settings(episode, local(tmp_path / "runs"))
        assert replayed.safety == here.safety
        assert (replayed.runs, replayed.arm, replayed.planner) == (here.runs, here.arm, here.planner)
        assert replayed.recording.resume is None
        assert replayed.world == here.world.model_copy(update={"seed": 5})  # a scene is only looked at
        given = local_settings(episode, local(tmp_path / "runs", world__seed="2"))
        assert given.world.seed == 2
        said = differences(episode, replayed)
        assert "safety.max_velocity_rad_s was 50.0 when it was recorded; 2.5 holds" in said
        assert "arm.write_calibration was true when it was recorded; false holds" in said
        assert any(line.startswith("runs was ") for line in said)
        # Numbers of the loop, and that is all: no file is looked for, no part is built.
        loop = recorded_settings(episode)
        assert loop.safety.max_velocity_rad_s == 50.0
        assert set(type(loop).model_fields) == {
            *("control", "safety", "policy", "teleop", "mode", "scene", "simulated")
        }


def test_an_episode_of_another_rate_is_refused_before_anything_moves(
    runs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert replay([str(runs[0] / "latest"), *local(tmp_path, control__rate_hz="50")]) == 2
    error = capsys.readouterr().err
    assert "control.rate_hz = 50: the episode was recorded at 30.0" in error
    assert error.count("\n") == 1


def test_what_cannot_be_replayed_is_said_in_one_line(
    runs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_folder = str(runs[0] / "latest")
    for given, message in (
        ([str(tmp_path)], "no recorded episodes here"),
        ([run_folder, "--episode", "5"], "no episode 5; there are 0"),
        ([run_folder, "--verify", "--safety.max_speed", "1"], "unknown key"),
        ([run_folder, "--verify", "--arm.port", "/dev/arm"], "unknown key"),
        ([run_folder, "--config", "/nowhere.toml"], "/nowhere.toml: no such file"),
    ):
        assert replay(given) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1


def test_a_crashed_run_is_mended_at_the_next_start(runs: tuple[Path, Path], tmp_path: Path) -> None:
    source = next((runs[0] / "latest" / "episodes").glob("*.mcap"))
    crashed = tmp_path / "2026-01-01T00-00-00" / "episodes"
    crashed.mkdir(parents=True)
    (crashed / "episode_000000.mcap.open").write_bytes(source.read_bytes()[:-5000])
    code, _ = play(tmp_path, mode="teleop", teleop__duration_s="0.3", recording__resume=str(crashed.parent))
    assert code == 0
    with Recording(crashed) as recording:
        assert recording.episodes[0].repaired
        assert [episode.index for episode in recording.episodes] == [0]


@pytest.mark.slow
def test_a_stretched_run_replays(tmp_path: Path) -> None:
    """How fast the horizon is played hangs on when chunks were asked for; the recording says when."""
    slow = {"policy__simulated_latency_s": "2.5", "policy__stretch": "true", "grasp__time_limit_s": "10"}
    _, summary = play(tmp_path, **slow)
    assert summary["stretched_ticks"] > 20
    with Recording(tmp_path / "latest") as recording:
        (episode,) = recording.episodes
        verdict = verify(episode, recorded_settings(episode))
        assert verdict.same, verdict.difference
        assert verdict.ticks > 100


@pytest.mark.slow
def test_a_run_of_two_rates_replays_and_exports(tmp_path: Path) -> None:
    """The loop at 100 Hz, the policy's rows at 30, the data set at 30."""
    code, summary = play(tmp_path, control__rate_hz="100", policy__rate_hz="30", grasp__time_limit_s="6")
    assert code == NOT_DONE
    assert summary["policy"]["chunks"] >= 3
    assert summary["policy"]["dropped_chunks"] == summary["starved_ticks"] == 0
    with Recording(tmp_path / "latest") as recording:
        (episode,) = recording.episodes
        chunks = list(episode.samples("/chunks"))
        assert {each["rate_hz"] for each in chunks} == {0.0, 30.0}  # prepared moves, and the policy's
        ticks = episode.columns("/ticks")
        assert np.median(np.diff(ticks["stamp_ns"])) == NS_PER_S // 100
        attempt = ticks["epoch"] == next(each["epoch"] for each in chunks if each["rate_hz"])
        steps = np.diff(ticks["step"][attempt][-100:])
        assert set(steps) == {0, 1}
        assert np.mean(steps) == pytest.approx(0.3, abs=0.02)
        verdict = verify(episode, recorded_settings(episode))
        assert verdict.same, verdict.difference
        assert verdict.ticks > 550
        path = episode.path
    ref = describe(path)
    assert ref is not None
    sampled = sample(ref, ExportOptions())
    assert set(np.diff(sampled.times)) <= {33_333_333, 33_333_334}
    assert 150 < len(sampled) < 190
    assert sampled.reports["action"].largest_error_s <= 0.02
    sampled.recording.close()


def test_a_parked_run_replays(tmp_path: Path) -> None:
    """A policy that answers too late: the arm is brought away, and so it is in the second run."""
    late = {"policy__simulated_latency_s": "30", "control__stop_after_starved_s": "1"}
    late["grasp__attempt_timeout_s"] = "60"
    code, summary = play(tmp_path, **late, control__park_rad="[1.2, -2.9, 2.6, 1.1, 0.0]")
    assert (code, summary["stop_reason"]) == (STOPPED, "no action for 1 s; parked")
    with Recording(tmp_path / "latest") as recording:
        (episode,) = recording.episodes
        flags = episode.columns("/ticks")["flags"]
        assert np.count_nonzero(flags & TickFlag.PARKING) > 10
        verdict = verify(episode, recorded_settings(episode))
        assert verdict.same, verdict.difference


@pytest.mark.slow
def test_a_run_given_up_between_two_attempts_replays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One call of the policy outlasts an attempt: the loop is told to give up while the arm goes home."""
    monkeypatch.setattr(opening, "Trial", lambda *_: None)  # it hangs only later
    late = {"policy__simulated_latency_s": "60", "control__stop_after_starved_s": "3"}
    late["grasp__attempt_timeout_s"] = "2"
    code, summary = play(tmp_path, **late, control__park_rad="[1.2, -2.9, 2.6, 1.1, 0.0]")
    assert (code, summary["stop_reason"]) == (STOPPED, "no action for 3 s; parked")
    with Recording(tmp_path / "latest") as recording:
        (episode,) = recording.episodes
        assert "give_up" in [sample["kind"] for sample in episode.samples("/control")]
        verdict = verify(episode, recorded_settings(episode))
        assert verdict.same, verdict.difference


@pytest.mark.slow
def test_five_scripted_episodes(tmp_path: Path) -> None:
    code = run(settings(tmp_path, mode="teleop", recording__episodes="5"))
    assert code == 0
    with Recording(tmp_path / "latest") as recording:
        assert [episode.index for episode in recording.episodes] == [0, 1, 2, 3, 4]
        assert {episode.label for episode in recording.episodes} <= {"success", "failure"}
        assert sum(episode.label == "success" for episode in recording.episodes) >= 4
        for before, after in zip(recording.episodes, recording.episodes[1:], strict=False):
            assert after.start_ns >= before.end_ns
        for episode in recording.episodes:
            assert episode.drops == {}
            assert verify(episode, recorded_settings(episode)).same
