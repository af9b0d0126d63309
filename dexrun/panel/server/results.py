"""What trainings and evaluations leave in their folders, while they run and afterwards."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

MOST_POINTS, MOST_SCENES = 1000, 2000
_BYTES = 8_000_000


def training(folder: Path) -> dict[str, Any] | None:
    """The curves of ``figures.csv``: ``{columns, rows}``, at most `MOST_POINTS` rows; ``None``: none yet.

    Columns are named as in the file (``step``, ``loss``, ``lr``, ``validation_loss``...).
    """
    try:
        with (folder / "figures.csv").open(newline="", encoding="utf-8") as file:
            columns, *rows = list(csv.reader(file))
    except (OSError, ValueError, csv.Error):
        return None
    whole = [[_number(cell) for cell in row] for row in rows if len(row) == len(columns)]
    step = max(1, math.ceil(len(whole) / MOST_POINTS))
    kept = whole[::-1][::step][::-1]  # the newest one in any case
    return {"columns": columns, "rows": kept}


def _number(cell: str) -> float | None:
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def evaluation(folder: Path) -> dict[str, Any] | None:
    """``{table, summary, scenes}``: the figures, once there are any, and each scene's result; ``None``: none.

    Of a scene that failed, ``picture`` is its end, relative to `folder`, and ``recordings`` are the folders
    of the run that was kept of it.
    """
    scenes = [_with_recordings(folder, each) for each in _results(folder / "results.jsonl")]
    table = folder / "table.txt"
    if not scenes and not table.is_file():
        return None
    return {"table": _text(table), "summary": _json(folder / "summary.json"), "scenes": scenes[:MOST_SCENES]}


def _results(path: Path) -> Iterator[dict[str, Any]]:
    for line in _text(path).splitlines():
        try:
            said = json.loads(line)
        except ValueError:  # a line that is being written
            continue
        if isinstance(said, dict):
            yield said


def _with_recordings(folder: Path, scene: dict[str, Any]) -> dict[str, Any]:
    name = f"{scene.get('candidate')}-{scene.get('seed')}"
    kept: Sequence[Path] = ()
    if "/" not in name and not scene.get("success"):
        kept = sorted((folder / "runs" / name).glob("*/episodes"))
    return {**scene, "recordings": [str(each.parent) for each in kept]}


def _text(path: Path) -> str:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.read(_BYTES)
    except OSError:
        return ""


def _json(path: Path) -> Any:
    try:
        return json.loads(_text(path) or "null")
    except ValueError:
        return None


def runs(folder: Path, most: int = 200) -> list[dict[str, Any]]:
    """The runs, newest first: ``name``, and of those that have ended what their summary says in short."""
    found = []
    names = (
        [path for path in folder.iterdir() if path.is_dir() and not path.is_symlink()]
        if folder.is_dir()
        else []
    )
    for path in sorted(names, reverse=True)[:most]:
        summary = _json(path / "summary.json")
        said = summary if isinstance(summary, dict) else {}
        keys = ("mode", "prompt", "outcome", "stop_reason", "duration_s", "attempts", "judge")
        episodes = len(list(path.glob("episodes/*.mcap")))
        found.append({"name": path.name, "episodes": episodes, **{key: said.get(key) for key in keys}})
    return found
