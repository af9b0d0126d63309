"""Folders of checkpoints: whole or not there, with links to the newest and to the best.

``outputs/pick/checkpoints/000400/`` with ``model.safetensors`` and ``policy.json`` (what a robot needs, from
the recipe), ``dexrun.json`` (of the data set), ``training.json`` (the configuration), and ``training_state/``
in the newest one; ``outputs/pick/last`` and ``outputs/pick/best``. A folder is filled under another name,
and then renamed.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from policies.checkpoint import CheckpointError
from runtime.input_file import parse_json, read_small

FOLDERS, LAST, BEST = "checkpoints", "last", "best"
STATE, TRAINING, ABOUT = "training_state", "training.json", "dexrun.json"
_UNFINISHED = ".unfinished-"


class CheckpointFolders:
    """The checkpoints of one training; it alone writes there.

    Raises:
        CheckpointError: another training does, or it cannot be written.
    """

    def __init__(self, to: Path, *, writes: bool = True) -> None:
        """Without `writes` it is for looking: of several processes of a training one alone writes."""
        self._to = to
        self._lock: IO[str] | None = None
        if writes:
            self._lock = self._locked(to)
            for left in (to / FOLDERS).glob(f"{_UNFINISHED}*"):
                shutil.rmtree(left, ignore_errors=True)

    def _locked(self, to: Path) -> IO[str]:
        try:
            (to / FOLDERS).mkdir(parents=True, exist_ok=True)
            lock = (to / ".lock").open("w")
        except OSError as error:
            raise CheckpointError(f"{to}: cannot be written: {error.strerror or error}") from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            raise CheckpointError(
                f"{to}: another training writes there; give another folder with --to"
            ) from None
        return lock

    def close(self) -> None:
        """Let another training write there. Idempotent."""
        if self._lock is not None:
            self._lock.close()

    @property
    def last(self) -> Path | None:
        """The newest checkpoint, by its own name."""
        link = self._to / LAST
        return link.resolve() if link.exists() else None

    def write(self, step: int, fill: Callable[[Path], None]) -> Path:
        """A new checkpoint, whose folder `fill` fills; it is then `last`, and alone can be gone on from.

        Raises:
            CheckpointError: the disk is full or the like; what was there before is still there.
        """
        folder = self._to / FOLDERS / f"{step:06d}"
        unfinished = folder.with_name(f"{_UNFINISHED}{folder.name}")
        try:
            unfinished.mkdir()
            fill(unfinished)
            _to_disk(unfinished)
            if folder.exists():  # of a training that was cut off before it was `last`
                shutil.rmtree(folder)
            unfinished.rename(folder)
            self._link(LAST, folder)
        except OSError as error:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise CheckpointError(f"{folder}: cannot be written: {error.strerror or error}") from None
        for other in (self._to / FOLDERS).iterdir():
            if other != folder:
                shutil.rmtree(other / STATE, ignore_errors=True)
        return folder

    def mark_best(self, folder: Path) -> None:
        """Point ``best`` to `folder`."""
        self._link(BEST, folder)

    def _link(self, name: str, folder: Path) -> None:
        new = self._to / f".{name}"
        new.unlink(missing_ok=True)
        new.symlink_to(folder.relative_to(self._to))
        new.replace(self._to / name)


def _to_disk(folder: Path) -> None:
    for path in (*folder.rglob("*"), folder):
        number = os.open(path, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """As a person reads it, too."""
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def read_training(folder: Path) -> dict[str, Any]:
    """The configuration that a checkpoint was trained with.

    Raises:
        CheckpointError: `folder` is none of a training that can go on.
    """
    path = folder / TRAINING
    try:
        tables = parse_json(read_small(path))
    except FileNotFoundError:
        raise CheckpointError(
            f"{folder}: no {TRAINING} in it; give the folder of a training or a checkpoint"
        ) from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read: {error}") from None
    if not isinstance(tables, dict):
        raise CheckpointError(f"{path}: no table of a configuration")
    if not (folder / STATE).is_dir():
        raise CheckpointError(
            f"{folder}: no {STATE} in it: a training goes on from its newest checkpoint, {LAST}"
        )
    return tables
