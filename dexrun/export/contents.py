"""What is inside a recording or a data set, in common terms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Row:
    """One episode. `rates` in Hz and `drops` in samples, by topic."""

    name: str
    seconds: float
    label: str = ""
    task: str = ""
    rows: int = 0
    rates: Mapping[str, float] = field(default_factory=dict)
    drops: Mapping[str, int] = field(default_factory=dict)
    note: str = ""


@dataclass
class Content:
    """What is inside. `facts` are about all of it; `features` the arrays or topics and what they are like."""

    kind: str
    path: Path
    bytes: int
    facts: dict[str, Any] = field(default_factory=dict)
    features: dict[str, str] = field(default_factory=dict)
    episodes: list[Row] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "kind": self.kind,
            "path": str(self.path),
            "bytes": self.bytes,
            **self.facts,
            "features": self.features,
            "episodes": [vars(row) for row in self.episodes],
        }


def size_of(path: Path) -> int:
    """Bytes of a file, or of everything in a folder."""
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    return sum(file.stat().st_size for file in files)


def counted(values: Sequence[str]) -> dict[str, int]:
    """How often each value occurs, in order of appearance."""
    return {value: values.count(value) for value in dict.fromkeys(values)}
