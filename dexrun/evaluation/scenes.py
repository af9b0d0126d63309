"""Who plays which scene, and how one is played in the stepped runtime: a whole run of the program."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dexrun.evaluation.results import SceneResult
from dexrun.exit_codes import BAD_CONFIGURATION
from dexrun.run_folder import SUMMARY
from runtime.clock import NS_PER_S, RealClock

_PICTURES = "failures"
_LAST_WORDS = 300


@dataclass(frozen=True, slots=True)
class Candidate:
    """A policy that is evaluated: what it is called, and the words of the command line that choose it."""

    name: str
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SceneTask:
    """One scene for one candidate; whatever plays it gets nothing else.

    Attributes:
        words: of the command line: configuration and keys, the candidate's own among them.
        folder: of the evaluation. clock: ``stepped`` or ``real``. keep: whether the run's folder stays.
    """

    candidate: Candidate
    seed: int
    words: tuple[str, ...]
    folder: Path
    clock: str = "stepped"
    keep: bool = False


def play_run(task: SceneTask) -> SceneResult:
    """Play the scene as a run of its own. A run that comes to nothing is a result with an error."""
    runs = task.folder / "runs" / f"{task.candidate.name}-{task.seed}"
    shutil.rmtree(runs, ignore_errors=True)
    command = [sys.executable, "-m", "dexrun", *task.words, *task.candidate.words]
    command += ["--world.seed", str(task.seed), "--realtime.clock", task.clock]
    command += ["--runs", str(runs), "--terminal.style", "none"]
    if not task.keep:
        command += ["--recording.grasp", "false"]
    clock = RealClock()
    began_ns = clock.now_ns()
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    wall_s = (clock.now_ns() - began_ns) / NS_PER_S
    base = SceneResult(task.candidate.name, task.seed, wall_s=round(wall_s, 2))
    found = sorted(runs.glob(f"*/{SUMMARY}"))  # not `latest`: a run that did not begin has a summary, too
    if done.returncode == BAD_CONFIGURATION or not found:
        words = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        return replace(base, error=f"exit {done.returncode}: {words[-_LAST_WORDS:]}")
    result = from_summary(base, json.loads(found[0].read_text(encoding="utf-8")))
    if not (result.success or result.error):
        result = replace(result, picture=_picture(task, found[0].parent))
    if not task.keep:
        shutil.rmtree(runs, ignore_errors=True)
    return result


def from_summary(base: SceneResult, summary: Mapping[str, Any]) -> SceneResult:
    """`base` with what a run's summary says."""
    judge = summary.get("judge")
    if not judge:
        return replace(base, error=f"no judge: {summary.get('stop_reason', '')}")
    policy = summary.get("policy", {})
    return replace(
        base,
        objects_total=judge["objects_total"],
        objects_in_tray=judge["objects_in_tray"],
        success=judge["success"],
        outcome=summary.get("outcome", ""),
        why=summary.get("stop_reason", ""),
        duration_s=summary.get("duration_s", 0.0),
        clips=dict(summary.get("clips", {})),
        starved_ticks=summary.get("starved_ticks", 0),
        attempts=tuple(summary.get("attempts", ())),
        inference_s=dict(policy.get("inference_s") or {}),
    )


def _picture(task: SceneTask, run: Path) -> str:
    """The last picture that was looked at in the run, kept with the evaluation; ``""`` if there is none."""
    seen = sorted(run.glob("planner/*-0.jpg")) or sorted(run.glob("grasp-*.png"))
    return save_picture(task, seen[-1].read_bytes(), seen[-1].suffix) if seen else ""


def save_picture(task: SceneTask, data: bytes, suffix: str) -> str:
    """Write an encoded picture of a failure; returns its path within the evaluation's folder."""
    name = f"{_PICTURES}/{task.candidate.name}-{task.seed}{suffix}"
    path = task.folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    return name
