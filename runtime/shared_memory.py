"""Named memory that processes share, without a helper process and without leftovers.

``multiprocessing.shared_memory`` starts a tracker process that, up to Python 3.12, also unlinks what
another process created (bpo-38119), and complains at exit. This is a file in ``/dev/shm``, mapped. Its
name is random, and its creator holds a lock on it for as long as it lives: the kernel knows who is alive in
whatever container, a process id does not. What a killed process left behind is not locked, and is removed
when the next segment is created.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import re
import secrets
from pathlib import Path

_FOLDER = Path("/dev/shm")  # noqa: S108 - the system's own place for shared memory
_PREFIX = "dexrun"
_OURS = re.compile(rf"{_PREFIX}-[0-9a-f]{{16}}")


class Segment:
    """A mapped segment. `name` is what another process attaches by."""

    def __init__(self, name: str, memory: mmap.mmap, owned: int | None = None) -> None:
        self.name = name
        self.memory = memory
        self._owner = owned is not None
        self._locked = owned

    @classmethod
    def create(cls, size: int, name: str | None = None) -> Segment:
        """A new segment of `size` zero bytes, readable and writable by this user alone.

        Raises:
            FileExistsError: `name` is taken.
        """
        sweep()
        name = name or f"{_PREFIX}-{secrets.token_hex(8)}"
        fd = os.open(_path(name), os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_SH)  # before it has a size: `sweep` takes nothing that is empty
            os.posix_fallocate(fd, 0, size)  # a full /dev/shm is an error here, not a SIGBUS later
            return cls(name, mmap.mmap(fd, size), fd)
        except BaseException:
            _path(name).unlink(missing_ok=True)
            os.close(fd)
            raise

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
            return cls(name, mmap.mmap(fd, os.fstat(fd).st_size))
        finally:
            os.close(fd)

    def close(self) -> None:
        """Unmap, now or once the last array over it is gone. Its name is then free to be removed."""
        with contextlib.suppress(BufferError):
            self.memory.close()
        if self._locked is not None:
            os.close(self._locked)
            self._locked = None

    def unlink(self) -> None:
        """Remove the name; who has it mapped keeps it. Only the creator's call does anything."""
        if self._owner:
            self._owner = False
            _path(self.name).unlink(missing_ok=True)


def _path(name: str) -> Path:
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,200}", name) or name.startswith("."):
        raise ValueError(f"shared memory name {name!r}: use letters, digits, '.', '_' and '-'")
    return _FOLDER / name


def lives(name: str) -> bool:
    """Whether a segment of that name is there and the process that created it lives."""
    try:
        fd = os.open(_path(name), os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(fd)
    return False


def sweep() -> None:
    """Remove what processes left behind that no longer exist, as far as this user may."""
    for path in _FOLDER.glob(f"{_PREFIX}-*"):
        if _OURS.fullmatch(path.name):
            with contextlib.suppress(
                OSError
            ):  # gone meanwhile, somebody else's, or locked: its creator lives
                _remove_unlocked(path)


def _remove_unlocked(path: Path) -> None:
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(fd).st_size:
            path.unlink()
    finally:
        os.close(fd)
