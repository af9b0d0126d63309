"""Trials on a real arm: a rollout in which the person labels each by a key, and the same table of it."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dexrun.config.sources import ConfigError
from dexrun.evaluation.asked import Evaluation
from dexrun.evaluation.results import ResultFile, SceneResult
from dexrun.evaluation.scenes import Candidate
from dexrun.exit_codes import OK
from dexrun.run_folder import SUMMARY

Tell = Callable[[SceneResult], None]


def play_trials(asked: Evaluation, file: ResultFile, tell: Tell) -> None:
    """One candidate after the other, as many trials as have no outcome yet; the terminal is the person's.

    Raises:
        ConfigError: the program refuses the configuration.
    """
    for candidate in asked.candidates:
        missing = [seed for seed in asked.seeds if (candidate.name, seed) not in file.results]
        if not missing:
            continue
        code, summary = _rollout(asked, candidate, len(missing), file.folder / "runs" / candidate.name)
        for seed, result in zip(missing, labelled(candidate.name, summary), strict=False):
            numbered = SceneResult(**{**_kept(result), "seed": seed})
            file.add(numbered)
            tell(numbered)
        if code != OK:  # whoever ended it does not want the next one's arm to move
            return


def _kept(result: SceneResult) -> dict[str, Any]:
    return {name: getattr(result, name) for name in SceneResult.__slots__}


def _rollout(
    asked: Evaluation, candidate: Candidate, trials: int, runs: Path
) -> tuple[int, Mapping[str, Any]]:
    """The exit code, and the summary that this one left: one of before is nothing of it."""
    latest = runs / "latest"
    before = latest.resolve() if latest.exists() else None
    command = [sys.executable, "-m", "dexrun", *asked.words, *candidate.words, "--mode", "rollout"]
    command += ["--episodes", str(trials), "--runs", str(runs)]
    command += ["--task", asked.task] if asked.task else []
    code = _ended(command)
    path = latest / SUMMARY
    if not path.exists() or latest.resolve() == before:
        raise ConfigError(f"the rollout of {candidate.name} did not begin (exit code {code})")
    found: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return code, found


def _ended(command: list[str]) -> int:
    """The exit code of a program that has the terminal. Ctrl-C is its own: it ends as it should."""
    with subprocess.Popen(command) as program:  # noqa: S603 - the program itself
        while True:
            with contextlib.suppress(KeyboardInterrupt):
                return program.wait()


def labelled(candidate: str, summary: Mapping[str, Any]) -> list[SceneResult]:
    """A result for each trial that the person gave an outcome; one object each."""
    episodes = summary.get("rollout", {}).get("episodes", ())
    return [
        SceneResult(
            candidate,
            number,
            objects_total=1,
            objects_in_tray=int(each["outcome"] == "success"),
            success=each["outcome"] == "success",
            outcome=str(each["outcome"]),
            why=str(each["why"]),
            duration_s=float(each["duration_s"]),
        )
        for number, each in enumerate(episodes)
        if each["outcome"] in ("success", "failure")
    ]
