"""Edits in place: the new data set takes the old one's name at one moment, and the old one is kept beside it.

``.NAME.journal/000001/`` holds ``what.json`` and ``before``, the data set as it was before the first edit,
and so on. The two change places by one system call, so that a kill at any moment leaves the old one or the
new one at the name; which of them it is, its inode tells. Where the file system cannot exchange, two
renames do, and the next command puts right what a kill between them left.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import hashlib
import itertools
import json
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dexrun.curation.links import lasting
from policies.data.dataset import DatasetError

_AT_FDCWD, _EXCHANGE = -100, 2
_WHAT, _BEFORE, _ASIDE = "what.json", "before", "aside"


@dataclass(frozen=True)
class JournalEntry:
    """One edit. Attributes: folder: where it is kept. what: the command."""

    folder: Path
    what: str


def journal_of(path: Path) -> Path:
    """Where the edits of the data set at `path` are kept."""
    return path.with_name(f".{path.name}.journal")


def entries(path: Path) -> list[JournalEntry]:
    """The edits that took place, oldest first."""
    found = []
    for folder in sorted(journal_of(path).glob("[0-9]*")):
        with contextlib.suppress(OSError, ValueError, KeyError):
            found.append(JournalEntry(folder, json.loads((folder / _WHAT).read_text())["what"]))
    return found


@contextlib.contextmanager
def held(path: Path) -> Iterator[Path]:
    """The data set at `path`, its links followed, for one editor at a time; what a kill left is put right.

    Raises:
        DatasetError: somebody else edits it, or a run records into it.
    """
    path = path.resolve()
    journal = journal_of(path)
    if not path.exists() and not journal.exists():
        raise DatasetError(f"{path}: there is no such file or folder")
    journal.mkdir(exist_ok=True)
    lock = os.open(journal, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DatasetError(f"{path}: is being edited by another command") from None
        mend(path)
        with _not_recorded(path):
            yield path
    finally:
        with contextlib.suppress(OSError):
            journal.rmdir()  # nothing was kept in it
        os.close(lock)


@contextlib.contextmanager
def _not_recorded(path: Path) -> Iterator[None]:
    """No run records into `path` meanwhile: its folder would be taken from under it, link and log as well.

    Raises:
        DatasetError: one does.
    """
    folder = path / "episodes" if (path / "episodes").is_dir() else path
    lock = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DatasetError(f"{path}: a run records into it; end the run first, or give --to") from None
        yield
    finally:
        os.close(lock)


def replaced(path: Path, what: str, build: Callable[[Path], None]) -> None:
    """Put what `build` makes (given a name that is not there yet) in the place of `path`, which is `held`.

    Raises:
        DatasetError: from `build`; `path` is as it was.
    """
    journal = journal_of(path)
    number = max([int(each.folder.name) for each in entries(path)], default=0) + 1
    folder = journal / f"{number:06d}"
    folder.mkdir()
    try:
        build(folder / _BEFORE)
        lasting(folder)
        note = {"what": what, "old_inode": os.stat(path).st_ino, "made": _as_it_is(folder / _BEFORE)}
        _write(folder / _WHAT, note)
        _swap(path, folder)
    except BaseException:
        mend(path)
        raise


def undo(path: Path) -> tuple[str, Path | None]:
    """Put back what was before the last edit of `path`, which is `held`.

    What was put there or changed since (recorded into it, annotated, another data set of this name) was no
    edit of it, and nobody asked for its end: it is kept, whole, under a name beside it.

    Returns:
        What is undone; where that is kept.

    Raises:
        DatasetError: there was none.
    """
    found = entries(path)
    if not found:
        raise DatasetError(f"{path}: was not edited in place; there is nothing to undo")
    last = found[-1]
    note = json.loads((last.folder / _WHAT).read_text())
    kept = None if note.get("made") == _as_it_is(path) else _free_name(path)
    # From here on, what is at the name is the old one once the two are exchanged: then there is no such edit.
    _write(last.folder / _WHAT, {"what": last.what, "old_inode": os.stat(last.folder / _BEFORE).st_ino})
    _swap(path, last.folder)
    if kept is not None:
        (last.folder / _BEFORE).rename(kept)
    shutil.rmtree(last.folder)
    return last.what, kept


def _as_it_is(path: Path) -> str:
    """A digest of the names, sizes and times of all files at `path`: what was changed since has another."""
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        state = file.lstat()
        if not stat.S_ISDIR(state.st_mode):
            name = os.fsencode(file.relative_to(path))
            digest.update(b"%s\0%d\0%d\0" % (name, state.st_size, state.st_mtime_ns))
    return digest.hexdigest()


def _free_name(path: Path) -> Path:
    """A name beside `path` that nothing has."""
    for number in itertools.count(1):
        name = path.with_name(f"{path.stem}-replaced-{number}{path.suffix}")
        if not os.path.lexists(name):
            return name
    raise AssertionError


def mend(path: Path) -> None:
    """Put right what a kill left: a name that is empty, a draft, an edit that did not take place."""
    for folder in sorted(journal_of(path).glob("[0-9]*"), reverse=True):
        aside = folder / _ASIDE
        if aside.exists() or aside.is_symlink():  # between two renames
            if not path.exists():
                aside.rename(path)
            else:
                aside.rename(folder / _BEFORE)
        if not path.exists():
            continue
        note: dict[str, Any] = {}
        with contextlib.suppress(OSError, ValueError):
            note = json.loads((folder / _WHAT).read_text())
        if not note or note.get("old_inode") == os.stat(path).st_ino:
            shutil.rmtree(folder)


def _write(path: Path, note: dict[str, Any]) -> None:
    draft = path.with_name(f".{path.name}.partial")
    with draft.open("w", encoding="utf-8") as file:
        json.dump(note, file)
        file.flush()
        os.fsync(file.fileno())
    draft.rename(path)


def _swap(path: Path, folder: Path) -> None:
    """`path` and what is kept in `folder` change places."""
    if not _exchange(path, folder / _BEFORE):
        path.rename(folder / _ASIDE)
        (folder / _BEFORE).rename(path)
        (folder / _ASIDE).rename(folder / _BEFORE)
    for each in (path.parent, folder):
        descriptor = os.open(each, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _exchange(one: Path, other: Path) -> bool:
    """Both names change what they name, at once; ``False`` if the file system or the kernel cannot."""
    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:
        return False
    if call(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
        return False
    raise OSError(number, os.strerror(number), str(one))
