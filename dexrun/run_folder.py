"""``runs/<UTC time>/``: what a run leaves behind."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
from pathlib import Path
from typing import Any

from loguru import logger

from runtime.masking import without_secrets

EPISODES = "episodes"
CONFIG, SUMMARY = "config.json", "summary.json"
_RESERVE = f".{SUMMARY}"
_RESERVED_BYTES = 256 * 1024


class RunFolder:
    """One run's folder. ``latest`` beside it points to the newest that began and wanted to be it.

    Room for the summary is kept from the start, so that a disk that fills up does not take it.
    """

    def __init__(self, runs: Path, wall_ns: int, *, latest: bool = True) -> None:
        started = datetime.datetime.fromtimestamp(wall_ns / 1e9, tz=datetime.UTC)
        stem = started.strftime("%Y-%m-%dT%H-%M-%S")
        for attempt in range(1000):
            self.path = runs / (stem if attempt == 0 else f"{stem}-{attempt}")
            try:
                self.path.mkdir(parents=True)
                break
            except FileExistsError:
                continue
        self._latest = latest
        with (self.path / _RESERVE).open("xb") as file, contextlib.suppress(OSError):
            os.posix_fallocate(file.fileno(), 0, _RESERVED_BYTES)  # not every file system can

    def began(self) -> None:
        """The run did begin, so that it is the latest."""
        if self._latest:
            try:
                self._link_latest(self.path.parent)
            except OSError as error:
                where = self.path.parent / "latest"
                logger.warning("{} stays what it is: {}", where, error.strerror or error)

    def _link_latest(self, runs: Path) -> None:
        fresh = runs / f".latest-{os.getpid()}"
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(self.path.name)
        try:
            fresh.replace(runs / "latest")
        except OSError:  # a folder of that name, for one
            fresh.unlink(missing_ok=True)
            raise

    def write_summary(self, summary: dict[str, Any]) -> Path:
        """Write ``summary.json`` whole or not at all, in the room that was kept for it."""
        path, reserve = self.path / SUMMARY, self.path / _RESERVE
        data = _encoded(summary)
        if not reserve.exists():
            return self.write_json(SUMMARY, summary)
        with reserve.open("r+b") as file:
            file.write(data)
            file.flush()
            file.truncate(len(data))
        reserve.replace(path)
        return path

    def write_json(self, name: str, content: Any) -> Path:
        """Write a JSON file by renaming it into place."""
        path = self.path / name
        draft = path.with_suffix(".tmp")
        draft.write_bytes(_encoded(content))
        draft.replace(path)
        return path


def _encoded(content: Any) -> bytes:
    text = without_secrets(json.dumps(content, indent=2, ensure_ascii=False))
    return (text + "\n").encode(errors="backslashreplace")


def episodes_of(run: Path) -> Path:
    """Where the run's episodes are: its own folder of them, or that of the run that it went on with.

    Raises:
        ValueError: it is no run's folder. What is there is not dexrun's to write to.
    """
    place = run / EPISODES
    found = place.resolve()
    is_run = (run / CONFIG).is_file() or (place.is_dir() and any(place.glob("*.mcap*")))
    linked = place.is_symlink() and not (found.name == EPISODES and (found.parent / CONFIG).is_file())
    if not is_run or linked:
        raise ValueError(f"{run} is no run's folder; give one, such as runs/latest")
    return found
