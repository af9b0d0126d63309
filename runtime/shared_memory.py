"""Named memory that processes share, without a helper process and without leftovers.

``multiprocessing.shared_memory`` starts a tracker process that, up to Python 3.12, also unlinks what
another process created (bpo-38119), and complains at exit. This is a file in ``/dev/shm``, mapped. The
creator's process id is part of the default name, so that what a killed process left behind is recognised
and removed when the next segment is created.
"""

from __future__ import annotations

import contextlib
import itertools
import mmap
import os
import re
from pathlib import Path

_FOLDER = Path("/dev/shm")  # noqa: S108 - the system's own place for shared memory
_PREFIX = "dexrun"
_OURS = re.compile(rf"{_PREFIX}-(\d+)-\d+")
_NUMBERS = itertools.count()


class Segment:
    """A mapped segment. `name` is what another process attaches by."""

    def __init__(self, name: str, memory: mmap.mmap, owner: bool) -> None:
        self.name = name
        self.memory = memory
        self._owner = owner

    @classmethod
    def create(cls, size: int, name: str | None = None) -> Segment:
        """A new segment of `size` zero bytes, readable and writable by this user alone.

        Raises:
            FileExistsError: `name` is taken.
        """
        sweep()
        name = name or f"{_PREFIX}-{os.getpid()}-{next(_NUMBERS)}"
        fd = os.open(_path(name), os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, size)  # a full /dev/shm is an error here, not a SIGBUS later
            return cls(name, mmap.mmap(fd, size), owner=True)
        except BaseException:
            _path(name).unlink(missing_ok=True)
            raise
        finally:
            os.close(fd)

    @classmethod
    def attach(cls, name: str) -> Segment:
        """The segment that another process, or this one, created as `name`.

        Raises:
            FileNotFoundError: there is none (any more).
        """
        try:
            fd = os.open(_path(name), os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            raise FileNotFoundError(f"no shared memory named {name!r}: its creator has gone") from None
        try:
            return cls(name, mmap.mmap(fd, os.fstat(fd).st_size), owner=False)
        finally:
            os.close(fd)

    def close(self) -> None:
        """Unmap, now or once the last array over it is gone."""
        with contextlib.suppress(BufferError):
            self.memory.close()

    def unlink(self) -> None:
        """Remove the name; who has it mapped keeps it. Only the creator's call does anything."""
        if self._owner:
            self._owner = False
            _path(self.name).unlink(missing_ok=True)


def _path(name: str) -> Path:
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,200}", name) or name.startswith("."):
        raise ValueError(f"shared memory name {name!r}: use letters, digits, '.', '_' and '-'")
    return _FOLDER / name


def sweep() -> None:
    """Remove what processes of this user left behind that no longer exist."""
    for path in _FOLDER.glob(f"{_PREFIX}-*"):
        match = _OURS.fullmatch(path.name)
        if match and not Path("/proc", match[1]).exists():
            with contextlib.suppress(OSError):
                path.unlink()
