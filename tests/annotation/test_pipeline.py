"""The pipeline of real processes: what it writes is what one process writes, whoever is killed on the way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dexrun.annotation.command import main
from dexrun.annotation.inside import annotate_file
from dexrun.annotation.jobs import AnnotationOutcome
from dexrun.annotation.options import AnnotateOptions
from dexrun.annotation.pipeline import Pipeline
from dexrun.annotation.processes import WorkerOptions
from dexrun.exit_codes import BAD_CONFIGURATION, NOT_DONE, OK
from policies.data.recorded import describe
from runtime.clock import RealClock
from runtime.recording.annotations import annotation_path, annotations_of
from runtime.recording.reader import Episode
from tests.annotation.drawn import drawn, run_of

ROOT = Path(__file__).parents[2]
GUARD_S = 240.0
OPTIONS = AnnotateOptions(moment=2.0)
"""There are frames before and after it, so that there are two stretches."""


def bytes_of(recording: Path) -> dict[str, Any]:
    """All that an annotation holds."""
    with Episode(recording) as episode:
        rows = episode.columns("/annotation/head")
        images = [bytes(sample["data"]) for sample in episode.samples("/mask/head")]
        about = episode.annotation("head")
    return {"about": about, "images": images, **{name: rows[name].tobytes() for name in rows}}


def expected(recording: Path) -> dict[str, Any]:
    """What one process makes of it; the annotation is removed again."""
    ref = describe(recording)
    assert ref is not None
    annotate_file(ref, OPTIONS)
    found = bytes_of(recording)
    annotation_path(recording, "head").unlink()
    return found


class Killer:
    """Kills workers by name while a stretch is under way, one each time that the pipeline hears of it."""

    def __init__(self, *names: str) -> None:
        self._names = list(names)
        self._pids: dict[str, int] = {}
        self.lost: list[str] = []
        self.frames = 0

    def __call__(self, word: str, about: Mapping[str, Any]) -> None:
        if word == "started":
            self._pids[about["worker"]] = about["pid"]
        elif word == "lost":
            self.lost.append(about["worker"])
        elif word == "frames":
            self.frames += about["frames"]
        if word in ("at", "frames") and self._names:  # in the middle of a stretch, and at its end
            os.kill(self._pids[self._names.pop(0)], signal.SIGKILL)


def run_with(paths: list[Path], killer: Killer, **how: Any) -> AnnotationOutcome:
    return Pipeline(paths, OPTIONS, WorkerOptions(**how), RealClock(), killer).run()


@pytest.mark.parametrize(
    "hosts",
    [
        pytest.param({}, id="rings"),
        pytest.param({"tracker": "127.0.0.1"}, id="zeromq", marks=pytest.mark.slow),
    ],
)
def test_a_tracker_that_is_killed_costs_no_mask_and_doubles_none(tmp_path: Path, hosts: Any) -> None:
    recording = run_of(tmp_path / "run", drawn(seconds=4.0)) / "episodes/episode_000000.mcap"
    want = expected(recording)
    killer = Killer("tracker 1")
    outcome = run_with([recording], killer, hosts=hosts)
    assert [job.state for job in outcome.jobs] == ["done"]
    assert killer.lost == ["tracker 1"]
    got = bytes_of(recording)
    assert got["frame"] == np.arange(121, dtype=np.int64).tobytes()
    assert got == want
    assert killer.frames == 121
    assert [path.name for path in annotations_of(recording).rglob("*") if path.is_file()] == [recording.name]


def test_what_cannot_be_annotated_costs_itself_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_of(tmp_path / "run", drawn(seconds=0.5), drawn(seconds=0.5, task="take the green ball"))
    (run / "episodes/episode_000002.mcap").write_bytes(b"no recording")
    assert main([str(run)]) == NOT_DONE
    said = capsys.readouterr().out
    assert "episode_000000.mcap: red cube, 16 masks" in said
    assert "episode_000001.mcap: not annotated: " in said
    assert "green ball" in said
    assert "episode_000002.mcap: not annotated: " in said
    assert "1 episodes annotated, 0 were already, 2 not" in said


def test_what_is_asked_for_is_looked_at_before_anything_is_started(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(run_of(tmp_path / "run", drawn(seconds=0.2)))
    deep = tmp_path / "deep.toml"
    deep.write_text("x = " + "[" * 5000)
    for wrong, why in (
        (("--moment", "soon"), "expected held, start, or seconds"),
        (("--python", "painter=python"), "expected ROLE=..., with a role of reader, namer"),
        (("--moment", "1e300"), "expected held, start, or seconds from 0 to 604800"),
        (("--moment", "nan"), "expected held, start, or seconds"),
        (("--trackers", "0"), "--trackers takes 1 to 256"),
        (("--patience", "inf"), "--patience takes more than 0"),
        (("--patience", "nan"), "--patience takes more than 0"),
        (("--low-confidence", "nan"), "low_confidence = nan"),
        (("--review", "--port", "65536"), "--port 65536: expected 0 (any) to 65535"),
        (("--vlm-url", "gpu"), "vlm_url = 'gpu'"),
        (("--vlm-model", "qwen"), "--vlm-model has no effect without --vlm-url"),
        (("--port", "8000"), "--port has no effect without --review"),
        (("--review", "--again"), "--again has no effect with --review"),
        (("--engine", "ray", "--trackers", "2"), "--trackers has no effect with --engine ray"),
        (("--config", str(deep)), "deep.toml: "),
        (("--python", "reader=/no/such/python"), "--python reader=/no/such/python"),
    ):
        assert main([run, *wrong]) == BAD_CONFIGURATION
        assert why in capsys.readouterr().err


def killed_in_the_middle(recording: Path, moment: str) -> list[Path]:
    """Run the command and kill it once a stretch is whole; the files that it left."""
    run = str(recording.parent.parent)
    command = [sys.executable, "-m", "dexrun", "annotate", run, "--moment", moment]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True) as program:
        until = time.monotonic() + GUARD_S
        while not (left := list(annotations_of(recording).rglob("*.masks"))):
            assert program.poll() is None
            assert time.monotonic() < until
            time.sleep(0.002)
        program.kill()
        program.wait()
        while True:  # its workers end by themselves
            try:
                os.killpg(program.pid, 0)
            except ProcessLookupError:
                return left
            assert time.monotonic() < until
            time.sleep(0.01)


@pytest.mark.slow
def test_the_whole_command_is_killed_twice_and_goes_on(tmp_path: Path) -> None:
    """Once by itself, once by all that its workers were; what was whole is not made again."""
    recording = run_of(tmp_path / "run", drawn(seconds=8.0)) / "episodes/episode_000000.mcap"
    want = expected(recording)
    left = killed_in_the_middle(recording, "2")
    made = {path: path.stat().st_mtime_ns for path in left}
    assert not annotation_path(recording, "head").exists()
    killer = Killer("writer", "reader")
    outcome = run_with([recording], killer, trackers=2)
    assert [job.state for job in outcome.jobs] == ["done"]
    assert bytes_of(recording) == want
    assert killer.frames < 241  # the first stretch was there
    assert made
    assert main([str(recording), "--moment", "2"]) == OK
