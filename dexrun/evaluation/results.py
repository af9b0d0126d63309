"""What became of one scene, and the file that keeps it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from dexrun.config.sources import ConfigError

RESULTS, ASKED = "results.jsonl", "evaluation.json"


@dataclass(frozen=True, slots=True)
class SceneResult:
    """One scene, played by one candidate.

    Attributes:
        candidate: its name. seed: of the scene, or on a real arm the number of the trial.
        objects_total, objects_in_tray: by the judge. success: all of them.
        outcome: what the run itself says. why: in words.
        duration_s: on the scene's own clock. wall_s: what it took here.
        clips: by reason. starved_ticks: without a row of a plan, though one had begun.
        attempts: ``{instruction, attempt, grasped, completed}`` each.
        inference_s: ``{p50, max}`` of the policy.
        picture: of the end, for a scene that failed; relative to the evaluation's folder.
        error: why there is no result, in one line; such a scene is played again when the evaluation goes on.
    """

    candidate: str
    seed: int
    objects_total: int = 0
    objects_in_tray: int = 0
    success: bool = False
    outcome: str = ""
    why: str = ""
    duration_s: float = 0.0
    wall_s: float = 0.0
    clips: Mapping[str, int] = field(default_factory=dict)
    starved_ticks: int = 0
    attempts: tuple[Mapping[str, Any], ...] = ()
    inference_s: Mapping[str, float] = field(default_factory=dict)
    picture: str = ""
    error: str = ""

    @property
    def drops(self) -> int:
        """Objects that were held, and did not get into the tray."""
        return sum(bool(each.get("grasped")) and not each.get("completed") for each in self.attempts)


_FIELDS = frozenset(each.name for each in fields(SceneResult))


def result_of(line: Mapping[str, Any]) -> SceneResult:
    """What `ResultFile.add` wrote."""
    known = {key: value for key, value in line.items() if key in _FIELDS}
    return SceneResult(**{**known, "attempts": tuple(known.get("attempts", ()))})


class ResultFile:
    """An evaluation's folder: what was asked, and a line for each scene that was played.

    Args:
        folder: made if it is not there. asked: what makes scenes comparable; of a folder that is there it
            must be the same.

    Attributes:
        results: of all scenes played so far, by candidate and seed.

    Raises:
        ConfigError: the folder holds an evaluation of something else, or cannot be written.
    """

    def __init__(self, folder: Path, asked: Mapping[str, Any]) -> None:
        self.folder = folder
        self.results: dict[tuple[str, int], SceneResult] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._agree(folder / ASKED, json.loads(json.dumps(asked)))
            if (folder / RESULTS).exists():
                self._read((folder / RESULTS).read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(f"{folder}: {error.strerror or error}") from None

    def _agree(self, path: Path, asked: Mapping[str, Any]) -> None:
        if not path.exists():
            draft = path.with_suffix(".tmp")
            draft.write_text(json.dumps(asked, indent=2) + "\n", encoding="utf-8")
            draft.replace(path)
            return
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            raise ConfigError(f"{path}: damaged; give another folder (--to)") from None
        for key in sorted({*asked, *before}):
            if asked.get(key) != before.get(key):
                raise ConfigError(
                    f"{path.parent}: holds an evaluation with {key} {before.get(key)!r}, and asked is "
                    f"{asked.get(key)!r}; give another folder (--to)"
                )

    def _read(self, text: str) -> None:
        for number, line in enumerate(text.splitlines(), 1):
            try:
                result = result_of(json.loads(line))
            except (ValueError, TypeError, AttributeError):
                if number == len(text.splitlines()):  # what a kill left behind
                    continue
                raise ConfigError(f"{self.folder / RESULTS}: line {number} is damaged") from None
            if not result.error:
                self.results[result.candidate, result.seed] = result

    def add(self, result: SceneResult) -> None:
        """Keep `result`."""
        self.results[result.candidate, result.seed] = result
        with (self.folder / RESULTS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(result)) + "\n")

    def of(self, candidate: str, seeds: Iterable[int]) -> list[SceneResult]:
        """Those of `candidate` that there are, in the order of `seeds`."""
        return [self.results[candidate, seed] for seed in seeds if (candidate, seed) in self.results]
