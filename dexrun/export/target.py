"""Where a data set appears: whole, by being renamed, or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from dexrun.export.errors import ExportError

RESULT = "result"
"""In the draft of a data set that is one file, the name of that file."""
OLD = ".old"
"""After the draft's name: the data set before an append, until the new one is in place."""


def check(target: Path, *, file: bool, append: bool) -> None:
    """Whether a data set can appear at `target`: a `file`, or else a folder.

    Raises:
        ExportError: something is there already, or nothing is there to append to.
    """
    if append:
        if not (target.is_dir() and any(target.iterdir())):
            raise ExportError(f"{target}: --append needs a data set that is there already")
        return
    if target.is_dir() and not file:
        if any(target.iterdir()):
            raise ExportError(
                f"{target}: folder is not empty; give a new one, or --append where a format can"
            )
    elif target.exists() or target.is_symlink():
        raise ExportError(f"{target}: is there already; give a name that is not")


@contextlib.contextmanager
def building(target: Path, *, file: bool = False, append: bool = False) -> Iterator[Path]:
    """A draft folder beside `target`, which takes its place at the end and vanishes if anything goes wrong.

    For a data set that is one file, only `RESULT` in the draft does.

    When appending, the draft begins as the data set that is there; its data and video files are shared with
    it, where the file system can, and must not be written to. A link to a data set stays one.

    Raises:
        ExportError: see `check`.
    """
    check(target, file=file, append=append)
    target = target.resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    _sweep(target, append=append)
    draft, lock = _locked_draft(target)
    try:
        if append:
            shutil.copytree(target, draft, copy_function=_Linker(target), dirs_exist_ok=True)
        yield draft
        _take_place(draft / RESULT if file else draft, target, append=append)
    finally:
        _remove(draft)
        os.close(lock)


def _locked_draft(target: Path) -> tuple[Path, int]:
    """A new folder, and what holds it: the kernel knows whose export still runs in whatever container."""
    while True:
        draft = target.with_name(f".{target.name}.partial-{secrets.token_hex(8)}")
        draft.mkdir()
        lock = os.open(draft, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        with contextlib.suppress(OSError):  # a file system without locks, or it was swept away just now
            fcntl.flock(lock, fcntl.LOCK_SH)
        if draft.is_dir():
            return draft, lock
        os.close(lock)


def _is_held(path: Path) -> bool:
    """Whether an export that runs has it, as far as can be known."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return True
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(fd)
    return False


def _take_place(draft: Path, target: Path, *, append: bool) -> None:
    if not append:
        if target.is_dir() and draft.is_dir():
            target.rmdir()
        draft.rename(target)
        return
    old = draft.with_name(draft.name + OLD)
    target.rename(old)
    try:
        draft.rename(target)
    except OSError:
        old.rename(target)
        raise
    _remove(old)  # what cannot be removed now is swept away by the next append: the data set is in place


class _Linker:
    """Copies a data set: what is only read is shared; metadata, which is rewritten, is copied."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def __call__(self, source: str, copy: str) -> str:
        if Path(source).relative_to(self._root).parts[0] in ("data", "videos"):
            with contextlib.suppress(OSError):  # exFAT and many network shares have no hard links
                os.link(source, copy)
                return copy
        shutil.copy2(source, copy)
        return copy


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _sweep(target: Path, *, append: bool) -> None:
    """Remove drafts of exports that were killed, and what an append replaced if the data set is in place."""
    for draft in target.parent.glob(f".{target.name}.partial-*"):
        replaced = draft.name.endswith(OLD)
        if replaced and (not append or _is_held(target)):  # the data set in place may still be taken back
            continue
        if not _is_held(draft):
            _remove(draft)
