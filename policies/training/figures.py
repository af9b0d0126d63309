"""What a training says while it runs: a line, a CSV file, and whatever tracker is asked for."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

FILE = "figures.csv"
_FIRST = ("step", "loss", "lr", "samples_s", "data_share", "gpu_gib", "validation_loss")


@dataclass(frozen=True, slots=True)
class Figures:
    """Since the last ones.

    Attributes:
        step, steps: where the training is, and where it ends.
        loss: mean. parts: of the loss, means by name.
        lr: of the first group.
        samples_s: samples a second, of all devices.
        data_share: of the time, waiting for data.
        gpu_gib: most memory that was in use on the GPU; 0 without one. gpu_total_gib: how much it has.
        left_s: until it ends.
        validation_loss: if there was a validation.
    """

    step: int
    steps: int
    loss: float
    parts: Mapping[str, float]
    lr: float
    samples_s: float
    data_share: float
    gpu_gib: float
    gpu_total_gib: float
    left_s: float
    validation_loss: float | None

    def values(self) -> dict[str, float]:
        """By name, for trackers."""
        found: dict[str, float] = {
            "step": self.step,
            "loss": self.loss,
            "lr": self.lr,
            "samples_s": self.samples_s,
            "data_share": self.data_share,
            "gpu_gib": self.gpu_gib,
        }
        if self.validation_loss is not None:
            found["validation_loss"] = self.validation_loss
        return {**found, **{f"train/{name}": value for name, value in self.parts.items()}}

    def line(self) -> str:
        """For a person."""
        parts = " ".join(f"{name} {value:.4g}" for name, value in self.parts.items())
        words = [
            f"step {self.step}/{self.steps}",
            f"loss {self.loss:.4g}" + (f" ({parts})" if parts else ""),
            *([] if self.validation_loss is None else [f"validation {self.validation_loss:.4g}"]),
            f"lr {self.lr:.2g}",
            f"{self.samples_s:.3g} samples/s",
            f"waiting for data {self.data_share:.0%}",
            *([f"GPU {self.gpu_gib:.1f} of {self.gpu_total_gib:.0f} GiB"] if self.gpu_total_gib else []),
            f"{duration(self.left_s)} left",
        ]
        return ", ".join(words)


def duration(seconds: float) -> str:
    """``2 h 05 min``, ``3 min``, ``40 s``."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


class FiguresFile:
    """``figures.csv``: one row each time; a training that goes on drops what was written after its step."""

    def __init__(self, folder: Path, step: int) -> None:
        self._path = folder / FILE
        self._names: tuple[str, ...] = ()
        kept: list[dict[str, str]] = []
        if step and self._path.exists():
            with self._path.open(newline="") as file:
                reader = csv.DictReader(file)
                kept = [
                    row for row in reader if (row.get("step") or "").isdecimal() and int(row["step"]) <= step
                ]
                self._names = tuple(reader.fieldnames or ())
        self._write(kept)

    def _write(self, rows: list[dict[str, str]]) -> None:
        with self._path.open("w", newline="") as file:
            if self._names:
                writer = csv.DictWriter(file, self._names, extrasaction="ignore")
                writer.writeheader()
                writer.writerows(rows)

    def add(self, values: Mapping[str, float]) -> None:
        """Write a row; the first one says which columns there are."""
        begin = not self._names
        if begin:
            self._names = (*_FIRST, *(name for name in values if name not in _FIRST))
        with self._path.open("a", newline="") as file:
            writer = csv.DictWriter(file, self._names, extrasaction="ignore")
            if begin:
                writer.writeheader()
            writer.writerow({name: f"{value:.8g}" for name, value in values.items()})
