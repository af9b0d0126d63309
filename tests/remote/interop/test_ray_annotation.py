"""``dexrun annotate --engine ray``: the same masks by Ray Data on a local Ray."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from dexrun.annotation.inside import annotate_file
from dexrun.annotation.options import AnnotateOptions
from policies.data.recorded import describe
from runtime.recording.annotations import annotation_path
from tests.annotation.drawn import drawn, run_of
from tests.annotation.test_pipeline import bytes_of
from tests.remote.interop.peers import GUARD_S, ROOT, needs

TRIES = 3
DID_NOT_START = "Ray did not start"


@needs("ray")
@pytest.mark.slow
def test_ray_annotates_as_one_process_does(tmp_path: Path) -> None:
    episodes = [drawn(seconds=0.4), drawn(seconds=0.5), drawn(seconds=0.3, task="take the green ball")]
    run = run_of(tmp_path / "run", *episodes)
    recordings = sorted((run / "episodes").iterdir())
    want = []
    for recording in recordings[:2]:
        ref = describe(recording)
        assert ref is not None
        annotate_file(ref, AnnotateOptions())
        want.append(bytes_of(recording))
        annotation_path(recording, "head").unlink()
    command = [ROOT / ".venv-ray/bin/python", "-m", "dexrun", "annotate", str(run), "--engine", "ray"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0"}
    for _ in range(TRIES):
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=GUARD_S, check=False
        )
        if DID_NOT_START not in done.stderr:
            break
    assert done.returncode == 1, done.stderr[-2000:]  # one of them cannot be
    assert "2 episodes annotated, 0 were already, 1 not" in done.stdout
    assert [bytes_of(recording) for recording in recordings[:2]] == want
