"""The command: what it says, what it leaves behind, and what it never touches."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from dexrun.export import target
from dexrun.export.command import main
from dexrun.export.formats import FORMATS
from dexrun.export.options import ExportOptions
from policies.data.recorded import describe
from policies.data.sampled import sample
from runtime.recording.reader import Episode
from tests.export.synthetic import Made, S, Truth
from tests.small_disk import small_disk as mounted

Run = Callable[..., tuple[Path, list[Truth]]]
ZEROS = ("--missing-mask", "zeros")


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def call(*arguments: Any) -> tuple[int, str, str]:
        code = main([str(a) for a in arguments])
        out = capsys.readouterr()
        return code, out.out, out.err

    return call


def left_behind(folder: Path, *known: str) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.name not in known and p.suffix != ".npz")


def test_every_format_appears_whole_and_sources_are_untouched(run: Run, say: Any, tmp_path: Path) -> None:
    folder, _ = run(Made(seconds=0.2), Made(seconds=0.3, seed=1))
    before = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.rglob("*") if p.is_file()}
    for name in FORMATS:
        to = tmp_path / name
        code, out, err = say(folder, "--format", name, "--to", to, "--jobs", 1, *ZEROS)
        assert (code, err) == (0, "")
        assert out.splitlines()[-1] == f"{tmp_path / name}: 2 episodes, 17 rows"
        assert "largest stamp error" in out
    assert left_behind(tmp_path, "run") == sorted(FORMATS)
    assert {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in before} == before


def test_every_key_of_the_table_is_an_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    told = capsys.readouterr().out
    keys = [name.removesuffix("latency_s") or "latency" for name in ExportOptions.model_fields]
    assert [key for key in keys if f"--{key.replace('_', '-')}" not in told] == []


def test_a_camera_slower_than_the_rows_is_told_of(run: Run, say: Any, tmp_path: Path) -> None:
    folder, _ = run(Made(seconds=1.0, head_fps=10.0))
    to = tmp_path / "set"
    _, out, _ = say(folder, "--format", "act-hdf5", "--to", to, "--jobs", 1, "--cameras", "head")
    assert (
        "head came 10 times a second, and there are 30 rows: 67% of them repeat its last; "
        "--fps 10 has every sample once"
    ) in out.splitlines()
    _, out, _ = say(folder, "--format", "act-hdf5", "--to", tmp_path / "ten", "--fps", 10, "--jobs", 1)
    assert "repeat" not in out


def test_episodes_are_exported_in_parallel_with_the_same_result(run: Run, say: Any, tmp_path: Path) -> None:
    folder, _ = run(*[Made(seconds=0.3, seed=s) for s in range(3)])
    for jobs in (1, 2):
        assert say(folder, "--format", "act-hdf5", "--to", tmp_path / f"{jobs}", "--jobs", jobs)[0] == 0
    for number in range(3):
        with (
            h5py.File(tmp_path / f"1/episode_{number}.hdf5") as one,
            h5py.File(tmp_path / f"2/episode_{number}.hdf5") as two,
        ):
            assert (one["/action"][()] == two["/action"][()]).all()
            assert (one["/observations/images/head"][()] == two["/observations/images/head"][()]).all()


def test_discarded_and_unwanted_episodes_are_left_out(run: Run, say: Any, tmp_path: Path) -> None:
    folder, _ = run(Made(seconds=0.2), Made(discarded=True, seconds=0.2), Made(label="failure", seconds=0.2))
    code, out, _ = say(
        folder, "--format", "act-hdf5", "--to", tmp_path / "x", "--labels", "success", "--jobs", 1
    )
    assert code == 0
    assert "episode_000001.mcap: discarded" in out
    assert "episode_000002.mcap: label is failure" in out
    assert sorted(p.name for p in (tmp_path / "x").iterdir()) == ["dexrun.json", "episode_0.hdf5"]
    code, _, err = say(
        folder / "episodes/episode_000001.mcap", "--format", "act-hdf5", "--to", tmp_path / "y"
    )
    assert (code, err.count("\n")) == (1, 1)
    assert "no episode is left to export" in err


def test_gaps_and_stamp_errors_are_reported(run: Run, say: Any, tmp_path: Path) -> None:
    holes = {"head": set(range(10, 16))}
    folder, _ = run(Made(seconds=1.0, holes=holes), Made(seconds=0.5, phase_ns={"wrist": 4_000_000}))
    code, out, _ = say(folder, "--format", "act-hdf5", "--to", tmp_path / "x", "--jobs", 1)
    assert code == 0
    assert "largest stamp error 200.0 ms (head)" in out
    assert "gaps: head 0.23 s at 0.30 s" in out
    assert "29.3 ms (wrist)" in out
    report = json.loads((tmp_path / "x/dexrun.json").read_text())
    assert report["largest_stamp_error_s"] == pytest.approx(0.2)
    (gap,) = report["episodes"][0]["sensors"]["head"]["gaps"]
    assert gap["start_s"] == pytest.approx(0.3)
    code, out, _ = say(
        folder, "--format", "act-hdf5", "--to", tmp_path / "y", "--max-stamp-error-s", "0.05", "--jobs", 1
    )
    assert code == 0
    assert "left out run/episode_000000.mcap: a stamp error of 0.200 s is over 0.05 s" in out


def test_what_is_lost_at_an_episodes_edge_is_a_gap_that_an_option_catches(
    run: Run, say: Any, tmp_path: Path
) -> None:
    """The picture ends after 0.3 s of an episode that went on, and went well, for two."""
    lost = Made(seconds=2.0, holes={"head": set(range(10, 61))})
    late = Made(seconds=2.0, holes={"wrist": set(range(40))}, seed=1)
    folder, _ = run(Made(seconds=1.0, seed=2), lost, late)
    code, out, _ = say(folder, "--format", "act-hdf5", "--to", tmp_path / "x", "--jobs", 1)
    assert code == 0
    whole, cut, begun = out.splitlines()[:3]
    assert "gaps" not in whole
    assert "10 rows (0.3 s)" in cut
    assert "gaps: head 1.70 s at 0.30 s" in cut
    assert "gaps: wrist 1.33 s at -1.33 s" in begun
    assert json.loads((tmp_path / "x/dexrun.json").read_text())["gaps"] == 2
    code, out, _ = say(
        folder, "--format", "act-hdf5", "--to", tmp_path / "y", "--max-gap-s", 0.5, "--jobs", 1
    )
    assert code == 0
    assert "left out run/episode_000001.mcap: a gap of 1.70 s (head, at 0.30 s) is over 0.5 s" in out
    assert "y: 1 episodes" in out


def test_rows_hold_nothing_from_after_their_action(run: Run, say: Any, tmp_path: Path) -> None:
    """Pictures come 6.7 ms after every tick: the loop had the one of 26.7 ms before."""
    late = {"head": 6_666_667, "wrist": 30_000_000, "arm": 5_000_000, "force": 1_000_000}
    folder, (truth,) = run(Made(seconds=1.0, phase_ns=late))
    for name, fps in (("lerobot-v3", 30), ("act-hdf5", 10), ("act-hdf5", 20)):
        to = tmp_path / f"{name}-{fps}"
        arguments = [folder, "--format", name, "--to", to, "--fps", fps, "--units", "rad", "--jobs", 1]
        assert say(*arguments)[0] == 0
    ref = describe(folder / "episodes/episode_000000.mcap")
    assert ref is not None
    for fps in (30.0, 10.0, 20.0, 7.0, 100.0):
        sampled = sample(ref, ExportOptions(fps=fps))
        ticks, sent = np.array(truth.stamps["tick"]), np.array(truth.stamps["sent"])
        assert set(sampled.observed) <= set(ticks)
        for row, seen_ns in enumerate(sampled.observed):
            given = int(
                np.flatnonzero((np.stack(truth.values["sent"]) == sampled.action[row]).all(axis=1))[0]
            )
            assert 0 <= sent[given] - seen_ns < S // 30
            for camera in ("head", "wrist"):
                stamps = np.array(truth.stamps[f"{camera} color"])
                shown = stamps[sampled.frames[camera][row]]
                assert shown == stamps[stamps <= seen_ns][-1]
                if camera == "head":
                    assert seen_ns - shown == pytest.approx(26_666_667, abs=1000)
            before = [
                v
                for s, v in zip(truth.stamps["position"], truth.values["position"], strict=True)
                if s <= seen_ns
            ]
            assert (sampled.position[row] == before[-1]).all()
            pushed = [
                v for s, v in zip(truth.stamps["force"], truth.values["force"], strict=True) if s <= seen_ns
            ]
            assert (sampled.force[row] == pushed[-1]).all()
        sampled.recording.close()


def test_failures_are_left_out_unless_asked_for(run: Run, say: Any, tmp_path: Path) -> None:
    folder, _ = run(Made(seconds=0.2), Made(label="failure", seconds=0.2), Made(label="none", seconds=0.2))
    arguments = [folder, "--format", "act-hdf5", "--jobs", 1]
    code, out, _ = say(*arguments, "--to", tmp_path / "x")
    assert code == 0
    assert (
        "left out run/episode_000001.mcap: label is failure; --labels success,none,failure takes all" in out
    )
    assert "x: 2 episodes" in out
    _, out, _ = say(*arguments, "--to", tmp_path / "y", "--labels", "success,none,failure")
    assert "y: 3 episodes" in out
    code, _, err = say(folder / "episodes/episode_000001.mcap", *arguments[1:], "--to", tmp_path / "z")
    assert (code, err.count("\n")) == (1, 1)


def test_an_episode_that_cannot_be_exported_costs_itself_alone(run: Run, say: Any, tmp_path: Path) -> None:
    """Empty, cut off, without a topic, damaged where rows are or where pictures are: each is named."""
    folder, _ = run(
        Made(seconds=0.2),
        Made(seconds=0.02, seed=1),
        Made(seconds=0.2, without=("/ticks",)),
        Made(seconds=0.2, seed=3),
        Made(seconds=0.2, seed=4),
        Made(seconds=0.2, seed=5),
        Made(seconds=0.2, seed=6),
    )
    episodes = sorted((folder / "episodes").iterdir())
    for path, topic in ((episodes[3], "/arm/state"), (episodes[4], "/cameras/head/color")):
        with Episode(path) as episode:
            at = int(episode._source.topic(topic).chunks[0])
        content = bytearray(path.read_bytes())
        content[at + 3000 if "head" in topic else at + 100] ^= 0xFF
        path.write_bytes(content)
    truncated(episodes[5])
    for jobs in (1, 2):
        to = tmp_path / f"{jobs}"
        code, out, err = say(folder, "--format", "lerobot-v3", "--to", to, "--jobs", jobs)
        assert (code, err) == (0, "")
        for number, why in (
            ("000001", "less than two control ticks in common; an episode needs all"),
            ("000002", "topic /ticks is missing"),
            ("000003", "at byte"),
            ("000004", "at byte"),
        ):
            (line,) = [x for x in out.splitlines() if x.startswith(f"left out run/episode_{number}.mcap: ")]
            assert why in line
        assert "left out episodes/cut.mcap" in out or "left out run/cut.mcap: " in out
        assert f"{to}: 3 episodes, 21 rows" in out
        info = json.loads((to / "meta" / "info.json").read_text())
        assert (info["total_episodes"], info["total_frames"]) == (3, 21)


def test_only_what_is_exported_need_be_alike(run: Run, say: Any, tmp_path: Path) -> None:
    """A session without the wrist's camera, without force, of another depth unit; a third camera besides."""
    whole, _ = run(Made(seconds=0.2), name="whole")
    less, _ = run(Made(seconds=0.2, wrist=None, depth_scale_m=0.0001, seed=1), name="less")
    numb, _ = run(Made(seconds=0.2, force=0), name="numb")
    head = ("--cameras", "head", "--jobs", 1)
    for name, other, more in (
        ("act-hdf5", less, ()),
        ("act-hdf5", numb, ()),
        ("lerobot-v3", less, ("--depth", "none")),
        ("lerobot-v2.1", less, ()),
        ("dexgrasp-zarr", numb, ZEROS),
    ):
        to = tmp_path / f"{name}-{other.name}"
        used = head[2:] if "zarr" in name else head
        code, out, err = say(whole, other, "--format", name, "--to", to, *used, *more)
        assert (code, err) == (0, ""), name
        assert "2 episodes, 14 rows" in out
    code, _, err = say(
        whole, less, "--format", "lerobot-v3", "--to", tmp_path / "no", *head, "--depth", "video"
    )
    assert code == 2
    assert "camera head: 64x48 with depth in 0.001 m against 64x48 with depth in 0.0001 m" in err
    code, _, err = say(whole, less, "--format", "act-hdf5", "--to", tmp_path / "no", "--jobs", 1)
    assert code == 2
    assert "cameras head, wrist against head" in err or "cameras head against head, wrist" in err


def test_latency_moves_a_camera_against_the_rest(run: Run, say: Any, tmp_path: Path) -> None:
    folder, (truth,) = run(Made(seconds=0.6))
    arguments = [folder, "--format", "act-hdf5", "--to", tmp_path / "x", "--latency", "head=0.1", "--jobs", 1]
    code, out, _ = say(*arguments)
    assert (code, "latency taken off head: 0.1 s" in out) == (0, True)
    assert json.loads((tmp_path / "x/dexrun.json").read_text())["latency_s"] == {"head": 0.1}
    with h5py.File(tmp_path / "x/episode_0.hdf5") as root:
        images, position = root["/observations/images/head"][()], root["/observations/qpos"][()]
    assert len(images) == 16
    assert (images == np.stack(truth.values["head color"][3:19])).all()
    assert (position == np.stack(truth.values["position"][::3])[:16]).all()


def test_the_action_can_be_what_was_requested(run: Run, say: Any, tmp_path: Path) -> None:
    folder, (truth,) = run(Made(seconds=0.2))
    for kind, offset in (("requested", 0.01), ("clipped", 0.0)):
        to = tmp_path / kind
        assert say(folder, "--format", "act-hdf5", "--to", to, "--action", kind, "--jobs", 1)[0] == 0
        with h5py.File(to / "episode_0.hdf5") as root:
            assert (root["/action"][()] == np.stack(truth.values["tick"])[:7] + offset).all()


def test_slower_grids_take_fewer_rows(run: Run, say: Any, tmp_path: Path) -> None:
    folder, (truth,) = run(Made(seconds=1.0))
    arguments = [folder, "--format", "act-hdf5", "--to", tmp_path / "x", "--fps", 10]
    assert say(*arguments, "--units", "lerobot_percent", "--jobs", 1)[0] == 0
    with h5py.File(tmp_path / "x/episode_0.hdf5") as root:
        assert (root["/observations/images/wrist"][()] == np.stack(truth.values["wrist color"][::3])).all()
        assert np.abs(root["/observations/qpos"][:, -1]).max() > 1.0


def truncated(path: Path) -> Path:
    cut = path.with_name("cut.mcap")
    cut.write_bytes(path.read_bytes()[:-2000])
    return cut


def foreign(path: Path) -> Path:
    other = path.with_name("other.mcap")
    other.write_bytes(b"GIF89a" + bytes(500))
    return other


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path: path.with_name("absent"), "absent: no such run"),
        (lambda path: path.parent.parent / "planner", "planner: no finished episode"),
    ],
)
def test_what_is_no_run_is_said_in_a_line(
    run: Run, say: Any, tmp_path: Path, change: Callable[[Path], Path], message: str
) -> None:
    folder, _ = run(Made(seconds=0.2))
    (folder / "planner").mkdir()
    bad = change(folder / "episodes/episode_000000.mcap")
    code, _, err = say(folder, bad, "--format", "lerobot-v3", "--to", tmp_path / "x")
    assert (code, err.count("\n")) == (2, 1)
    assert message in err
    assert left_behind(tmp_path, "run") == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (truncated, "cut.mcap: not finished"),
        (foreign, "other.mcap: not an MCAP file"),
    ],
)
def test_what_is_no_recording_is_said_in_a_line(
    run: Run, say: Any, tmp_path: Path, change: Callable[[Path], Path], message: str
) -> None:
    folder, _ = run(Made(seconds=0.2))
    bad = change(folder / "episodes/episode_000000.mcap")
    code, _, err = say(bad, "--format", "lerobot-v3", "--to", tmp_path / "x")
    assert (code, err.count("\n")) == (2, 1)
    assert message in err
    assert left_behind(tmp_path, "run") == []


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (Made(seconds=0.2, joints=("a", "b", "gripper")), "of different robots: joints a, b, gripper"),
        (Made(seconds=0.2, wrist=None), "of different robots: cameras head against head, wrist"),
        (Made(seconds=0.2, head=(24, 32)), "camera head: 32x24"),
        (Made(seconds=0.2, force=0), "0 force channels against 2"),
        (Made(seconds=0.2, depth_scale_m=0.0001), "0.0001 m"),
    ],
)
def test_recordings_that_do_not_fit_are_said_in_a_line(
    run: Run, say: Any, tmp_path: Path, made: Made, message: str
) -> None:
    odd, _ = run(made, name="odd")
    good, _ = run(Made(seconds=0.2), name="good")
    code, _, err = say(
        odd, good, "--format", "lerobot-v3", "--to", tmp_path / "x", "--depth", "video", "--jobs", 1
    )
    assert (code, err.count("\n")) == (2, 1)
    assert message in err
    assert left_behind(tmp_path, "odd", "good") == []


@pytest.mark.parametrize("topic", ["/cameras/head/color", "/force", "/arm/state"])
@pytest.mark.parametrize("jobs", [1, 2])
def test_a_damaged_part_is_said_in_a_line(run: Run, say: Any, tmp_path: Path, topic: str, jobs: int) -> None:
    folder, _ = run(Made(seconds=0.2))
    path = folder / "episodes/episode_000000.mcap"
    with Episode(path) as episode:
        at = int(episode._source.topic(topic).chunks[0])
    content = bytearray(path.read_bytes())
    content[at + 100] ^= 0xFF
    path.write_bytes(content)
    code, _, err = say(folder, "--format", "lerobot-v3", "--to", tmp_path / "x", "--jobs", jobs)
    assert (code, err.count("\n")) == (2, 1)
    assert f"episode_000000.mcap: at byte {at}: " in err
    assert left_behind(tmp_path, "run") == []


def test_what_an_encoder_does_not_do_is_said_in_a_line(run: Run, say: Any, tmp_path: Path) -> None:
    folder, _ = run(Made(seconds=0.2, head=(47, 63)))
    arguments = [folder, "--format", "lerobot-v3", "--jobs", 1]
    code, _, err = say(*arguments, "--to", tmp_path / "x")
    assert (code, err) == (
        2,
        "dexrun: camera head is 63x47; H.264 takes even sizes only, --codec av1 any\n",
    )
    arguments += ["--codec", "av1"]
    code, _, err = say(*arguments, "--to", tmp_path / "x", "--fps", 1000)
    assert (code, err.count("\n")) == (2, 1)
    assert "libsvtav1 does not encode 63x47 yuv420p at 1000 frames per second: Invalid argument" in err
    assert left_behind(tmp_path, "run") == []
    assert say(*arguments, "--to", tmp_path / "x")[0] == 0


def test_a_missing_camera_image_topic_is_another_robot(run: Run, say: Any, tmp_path: Path) -> None:
    odd, _ = run(Made(seconds=0.2, without=("/cameras/wrist/color",)), name="odd")
    assert say(odd, "--format", "act-hdf5", "--to", tmp_path / "x", "--cameras", "wrist")[0] == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--format", "rlds"], "unknown format 'rlds'; accepted: lerobot-v3"),
        (["--format", "lerobot-v3", "--fps", "0"], "export.fps = '0'"),
        (
            ["--format", "lerobot-v3", "--latency", "head=1e300"],
            "export.latency_s.head = 1e+300: input should",
        ),
        (["--format", "lerobot-v3", "--codec", "vp9"], "export.codec = 'vp9'"),
        (
            ["--format", "lerobot-v3", "--cameras", "left"],
            "no camera 'left' was recorded; there is: head, wrist",
        ),
        (["--format", "lerobot-v3", "--latency", "head"], "expected SENSOR=SECONDS"),
        (
            ["--format", "lerobot-v3", "--latency", "haed=0.03"],
            "latency of 'haed': no such sensor was recorded; there is: arm, force, head, wrist",
        ),
        (["--format", "lerobot-v3", "--append"], "--append needs a data set"),
        (["--format", "act-hdf5", "--append"], "cannot be appended to"),
        (["--format", "lerobot-v3", "--wat"], "unrecognized arguments: --wat"),
        (["--format", "dexgrasp-zarr", "--vlm-url", "gpu:8000"], "export.vlm_url = 'gpu:8000': "),
        (
            ["--format", "lerobot-v2.1", "--masks", "images"],
            "--masks has no effect with lerobot-v2.1; lerobot-v3",
        ),
        (["--format", "act-hdf5", "--language", "columns"], "--language has no effect with act-hdf5"),
        (["--format", "umi-zarr", "--depth", "images"], "lerobot-v3 and lerobot-v2.1 can have it"),
        (
            ["--format", "act-hdf5", "--image-size", "64"],
            "--image-size has no effect with act-hdf5",
        ),
        (["--format", "umi-zarr", "--codec", "av1"], "--codec has no effect with umi-zarr"),
        (
            ["--format", "lerobot-v3", "--equal-length"],
            "--equal-length has no effect with lerobot-v3",
        ),
        ([], "the following arguments are required: --format"),
    ],
)
def test_what_cannot_be_asked_for_is_said_in_a_line(
    run: Run, say: Any, tmp_path: Path, arguments: list[str], message: str
) -> None:
    folder, _ = run(Made(seconds=0.2))
    code, _, err = say(folder, "--to", tmp_path / "x", *arguments)
    assert (code, err.count("\n")) == (2, 1)
    assert message in err
    assert left_behind(tmp_path, "run") == []


@pytest.mark.parametrize("named", [False, True])
def test_a_recording_does_not_say_whom_pictures_and_the_key_go_to(
    run: Run, say: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: bool
) -> None:
    folder, _ = run(Made(seconds=0.2, masks=False))
    monkeypatch.setenv("DEXRUN_PLANNER_API_KEY", "sk-secret")
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        stranger.setblocking(False)
        url = f"http://me:word@127.0.0.1:{stranger.getsockname()[1]}/v1"
        config = {"export": {"vlm_url": url, "vlm_model": "theirs", "jobs": 4000, "fps": 25.0}}
        (folder / "config.json").write_text(json.dumps(config))
        more = ("--config", folder / "config.json") if named else ()
        _, _, err = say(folder, "--format", "dexgrasp-zarr", "--to", tmp_path / "set", *more)
        with pytest.raises(BlockingIOError):
            stranger.accept()
    for key in ("vlm_url", "vlm_model", "jobs"):
        assert f"export.{key} = " in err
    assert "is not used; give --vlm-url" in err
    assert "word" not in err


def test_a_target_that_is_there_is_left_as_it_is(run: Run, say: Any, tmp_path: Path) -> None:
    folder, _ = run(Made(seconds=0.2))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    (tmp_path / "file.zarr.zip").write_text("mine")
    for name, to in (("lerobot-v3", "full"), ("umi-zarr", "file.zarr.zip"), ("act-hdf5", "file.zarr.zip")):
        code, _, err = say(folder, "--format", name, "--to", tmp_path / to)
        assert (code, err.count("\n")) == (2, 1)
    assert (tmp_path / "full" / "thesis.txt").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    assert say(folder, "--format", "act-hdf5", "--to", tmp_path / "empty", "--jobs", 1)[0] == 0


def test_the_configurations_table_is_used_below_the_command_line(run: Run, say: Any, tmp_path: Path) -> None:
    folder, _ = run(Made(seconds=0.5))
    (tmp_path / "my.toml").write_text("[export]\nfps = 10\nlatency_s = { head = 0.0 }\njobs = 1\n")
    arguments = [folder, "--format", "act-hdf5", "--config", tmp_path / "my.toml"]
    _, out, _ = say(*arguments, "--to", tmp_path / "x")
    assert "x: 1 episodes, 6 rows" in out
    _, out, _ = say(*arguments, "--to", tmp_path / "y", "--fps", 15)
    assert "y: 1 episodes, 8 rows" in out
    content = {"export": {"fps": 5.0, "jobs": 1, "no_longer_known": True}}
    (folder / "config.json").write_text(json.dumps(content))
    _, out, _ = say(folder, "--format", "act-hdf5", "--to", tmp_path / "w")
    assert "w: 1 episodes, 3 rows" in out
    (tmp_path / "my.toml").write_text("[export\n")
    assert say(*arguments, "--to", tmp_path / "z")[0] == 2


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MB; PyAV keeps a file open that it could not write."""
    with mounted(tmp_path / "disk", 1, lazily=True) as folder:
        yield folder


@pytest.mark.parametrize("name", list(FORMATS))
@pytest.mark.parametrize("jobs", [1, 2])
def test_a_full_disk_leaves_nothing_behind(
    run: Run, say: Any, small_disk: Path, name: str, jobs: int
) -> None:
    if jobs == 2 and name != "dexgrasp-zarr":
        pytest.skip("one format is enough for the way through processes")
    folder, _ = run(*[Made(seconds=1.0, seed=s, lossless=False) for s in range(2)])
    (small_disk / "filler").write_bytes(os.urandom(1_020_000))
    code, _, err = say(folder, "--format", name, "--to", small_disk / "x", "--jobs", jobs, *ZEROS)
    assert (code, err.count("\n")) == (1, 1)
    assert "the disk is full; nothing was exported" in err
    assert left_behind(small_disk, "filler") == []


def test_what_fails_halfway_leaves_the_old_data_set(
    run: Run, say: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = run(Made(seconds=0.2))
    arguments = [folder, "--format", "lerobot-v3", "--to", tmp_path / "x", "--jobs", 1]
    assert say(*arguments)[0] == 0
    before = {p: p.read_bytes() for p in (tmp_path / "x").rglob("*") if p.is_file()}

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("dexrun.export.lerobot_append.report_of", interrupted)
        code, _, err = say(*arguments, "--append")
    assert (code, err) == (1, "dexrun: stopped; nothing was exported\n")
    assert {p: p.read_bytes() for p in (tmp_path / "x").rglob("*") if p.is_file()} == before
    assert left_behind(tmp_path, "run") == ["x"]


def test_a_linked_data_set_is_appended_to_where_it_is(run: Run, say: Any, tmp_path: Path) -> None:
    folder, _ = run(Made(seconds=0.2))
    (tmp_path / "disk" / "set").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "set")
    arguments = [folder, "--format", "lerobot-v3", "--to", tmp_path / "link", "--jobs", 1]
    assert say(*arguments)[0] == 0
    assert say(*arguments, "--append")[::2] == (0, "")
    assert (tmp_path / "link").is_symlink()
    info = json.loads((tmp_path / "disk" / "set" / "meta" / "info.json").read_text())
    assert info["total_episodes"] == 2
    assert left_behind(tmp_path, "run") == ["disk", "link"]
    assert left_behind(tmp_path / "disk") == ["set"]


def test_appending_needs_no_hard_links(
    run: Run, say: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    folder, _ = run(Made(seconds=0.2))
    arguments = [folder, "--format", "lerobot-v3", "--to", tmp_path / "x", "--jobs", 1]
    assert say(*arguments)[0] == 0
    before = {p: p.read_bytes() for p in (tmp_path / "x").rglob("file-*.*")}
    monkeypatch.setattr(os, "link", refused)
    assert say(*arguments, "--append")[::2] == (0, "")
    assert all(path.read_bytes() == content for path, content in before.items())
    assert len(list((tmp_path / "x").rglob("file-*.*"))) == 2 * len(before)


def test_an_old_data_set_that_cannot_be_removed_is_no_failure(
    run: Run, say: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stuck(path: Path, ignore_errors: bool = False) -> None:
        if not ignore_errors:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), str(path))

    folder, _ = run(Made(seconds=0.2))
    arguments = [folder, "--format", "lerobot-v2.1", "--to", tmp_path / "x", "--jobs", 1]
    assert say(*arguments)[0] == 0
    monkeypatch.setattr(shutil, "rmtree", stuck)
    assert say(*arguments, "--append")[::2] == (0, "")


ENDLESS = """
import signal, sys
from dexrun.__main__ import main
from dexrun.export.formats import format_named
type(format_named("lerobot-v3")).finish = lambda *given: signal.pause()
if __name__ == "__main__":
    sys.exit(main(["export", *sys.argv[1:]]))
"""
"""It may come as far as its last step before it is ended, and no further."""


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_an_export_that_is_ended_leaves_no_data_set(run: Run, tmp_path: Path, sent: signal.Signals) -> None:
    folder, _ = run(*[Made(seconds=2.0, seed=s) for s in range(2)])
    command = [sys.executable, "-c", ENDLESS, str(folder), "--format", "lerobot-v3", "--jobs", "2"]
    with subprocess.Popen(
        [*command, "--to", str(tmp_path / "x")], stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        while not list(tmp_path.glob(".x.partial-*/.parts/*")) and process.poll() is None:
            time.sleep(0.01)
        os.killpg(process.pid, sent)
        assert process.stderr is not None
        err = process.stderr.read()
    if sent == signal.SIGKILL:
        assert not (tmp_path / "x").exists()
        assert main([str(folder), "--format", "act-hdf5", "--to", str(tmp_path / "x"), "--jobs", "1"]) == 0
    else:
        assert (process.returncode, err) == (1, "dexrun: stopped; nothing was exported\n")
    assert left_behind(tmp_path, "run") == (["x"] if sent == signal.SIGKILL else [])


def test_drafts_of_killed_exports_are_swept_away(tmp_path: Path) -> None:
    kept, replaced = [".x.partial-1", ".y.partial-2", "x"], ".x.partial-2.old"
    for name in (".x.partial-2", replaced, *kept[:2]):
        (tmp_path / name).mkdir()
    held = os.open(tmp_path / kept[0], os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_SH)  # as an export does that still runs, in this container or another
    with target.building(tmp_path / "x") as draft:
        (draft / "a").write_text("a")
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*kept, replaced])
    with target.building(tmp_path / "x", append=True):
        pass
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(kept)
    os.close(held)
