"""``dexrun eval --policy CHECKPOINT --scenes 100``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dexrun.config.sources import ConfigError
from dexrun.evaluation.asked import Evaluation, read
from dexrun.evaluation.figures import compared, figures
from dexrun.evaluation.results import ResultFile, SceneResult
from dexrun.evaluation.table import table
from dexrun.exit_codes import BAD_CONFIGURATION, NOT_DONE, OK
from dexrun.printing import complain, fail, say

SUMMARY, TABLE = "summary.json", "table.txt"


def main(arguments: Sequence[str]) -> int:
    """Evaluate; the exit code: 0 if every scene has a result, 1 if one has none."""
    try:
        asked = read(arguments)
        _check(asked)
        file = ResultFile(asked.folder, asked.comparable())
        _play(asked, file)
    except ConfigError as error:
        fail(error, "dexrun eval")
        return BAD_CONFIGURATION
    except KeyboardInterrupt:
        complain(f"dexrun eval: interrupted; the same command goes on with {asked.folder}\n")
        return NOT_DONE
    say(report(asked, file))
    return OK if _whole(asked, file) else NOT_DONE


def _check(asked: Evaluation) -> None:
    """Every candidate's configuration, before anything is played.

    Raises:
        ConfigError: one cannot be used.
    """
    if asked.env:
        return
    from dexrun.config.load import load
    from runtime.interfaces import PerceptionError, PolicyError

    for candidate in asked.candidates:
        settings = load([*asked.words, *candidate.words])
        real = settings.real_addresses()
        if asked.engine != "arm" and real:
            key, address = next(iter(real.items()))
            raise ConfigError(
                f"{key} = {address!r} is a real device: there is no judge; use --engine arm, where you label"
            )
        try:
            settings.policy.check_packages()
            settings.check_perception()
        except (PolicyError, PerceptionError) as error:
            raise ConfigError(str(error)) from None


def _play(asked: Evaluation, file: ResultFile) -> None:
    tell = _Teller(asked, file)
    if asked.env:
        from dexrun.evaluation.environments import play_environment

        play_environment(asked, file, tell)
    elif asked.engine == "arm":
        from dexrun.evaluation.trials import play_trials

        play_trials(asked, file, tell)
    else:
        from dexrun.evaluation.playing import play_all

        play_all(asked, file, tell)


class _Teller:
    """Says how each scene ended."""

    def __init__(self, asked: Evaluation, file: ResultFile) -> None:
        self._count = len(asked.seeds) * len(asked.candidates)
        self._file = file

    def __call__(self, result: SceneResult) -> None:
        inside = f"{result.objects_in_tray}/{result.objects_total}"
        why = "" if result.success else f": {result.why}"
        said = result.error or f"{inside} in {result.duration_s:.0f} s{why}"
        known = sum(not each.error for each in self._file.results.values())
        complain(f"{result.candidate} {result.seed}: {said}  [{known}/{self._count}]\n")


def _whole(asked: Evaluation, file: ResultFile) -> bool:
    return all(
        (candidate.name, seed) in file.results and not file.results[candidate.name, seed].error
        for candidate in asked.candidates
        for seed in asked.seeds
    )


def report(asked: Evaluation, file: ResultFile) -> str:
    """Write ``summary.json`` and ``table.txt``; returns the table."""
    played = {each.name: file.of(each.name, asked.seeds) for each in asked.candidates}
    found = {name: figures(results) for name, results in played.items()}
    first, *others = played
    pairs = {f"{first} and {name}": compared(played[first], played[name]) for name in others}
    summary: dict[str, Any] = {
        **asked.comparable(),
        "seeds": [asked.seeds[0], asked.seeds[-1]],
        "candidates": found,
        "compared": pairs,
    }
    text = table(found, pairs)
    _written(file.folder / SUMMARY, json.dumps(summary, indent=2) + "\n")
    _written(file.folder / TABLE, text)
    return f"{text}{file.folder / SUMMARY}\n"


def _written(path: Path, text: str) -> None:
    draft = path.with_suffix(".tmp")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)
