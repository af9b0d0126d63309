"""The thread that compresses and writes, so that a slow disk is waited for by nobody else."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue

from loguru import logger

from runtime.recording.mcap_file import Batch, Channel, McapFile

Metadata = Mapping[str, Mapping[str, str]]


@dataclass(slots=True)
class Draft:
    """One file on its way. Written by the disk's thread; the flags are read by anyone.

    Attributes:
        failed: why nothing more can be written, if so.
        lost: messages that could not be written, by channel id.
        state: ``open``, ``finished``, ``discarded``, or ``left`` (to be mended later).
        size: bytes known to be on the disk; 0 until a chunk is.
        file: while it is open.
    """

    path: Path
    channels: Sequence[Channel]
    failed: str = ""
    lost: dict[int, int] = field(default_factory=dict)
    state: str = "open"
    size: int = 0
    file: McapFile | None = None

    @property
    def empty(self) -> bool:
        """Whether it failed before anything of the episode was in the file."""
        return bool(self.failed) and not self.size


def _locked(folder: Path) -> int:
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        if error.errno != errno.EWOULDBLOCK:
            raise
        raise OSError(error.errno, "another run records into it, or another command edits it") from None
    return lock


class Disk:
    """Does what it is told, in order. Nothing here raises once it is made: a failure is in the draft.

    Until it is closed, `folder` is locked: an edit in place, which takes it away, waits for its end, and a
    second run that goes on with the same one would give its episodes the same numbers.

    Raises:
        OSError: there is no `folder`, it is being edited, or somebody else records into it.

    Attributes:
        written: bytes of batches dealt with so far, to be compared with what was handed over.
        free_bytes: room left when last looked; ``None`` before.
    """

    def __init__(self, folder: Path) -> None:
        self.written = 0
        self.free_bytes: int | None = None
        self.folder = folder
        self._lock = _locked(folder)
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._main, name="record-disk", daemon=True)
        self._thread.start()

    def open(self, draft: Draft, metadata: Metadata) -> None:
        """Create the draft's file."""
        self._put(draft, lambda: self._open(draft, metadata))

    def write(self, draft: Draft, batches: Sequence[Batch]) -> None:
        """Append `batches` and make them last."""
        self._put(draft, lambda: self._write(draft, batches))

    def finish(self, draft: Draft, metadata: Callable[[], Metadata]) -> None:
        """Close the file with `metadata`, asked for once everything is written."""
        self._put(draft, lambda: self._finish(draft, metadata))

    def discard(self, draft: Draft) -> None:
        """Remove the file."""
        self._put(draft, lambda: self._discard(draft))

    def look(self) -> int:
        """Room left, in bytes."""
        status = os.statvfs(self.folder)
        self.free_bytes = status.f_bavail * status.f_frsize
        return self.free_bytes

    def settle(self) -> None:
        """Wait until everything asked for so far is done."""
        done = threading.Event()
        self._jobs.put(done.set)
        done.wait()

    def close(self) -> None:
        """Do what is left, and end. Blocks."""
        self._jobs.put(None)
        self._thread.join()
        os.close(self._lock)

    def _put(self, draft: Draft, work: Callable[[], None]) -> None:
        self._jobs.put(lambda: self._attempt(draft, work))

    # --- on the thread

    def _main(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()

    def _attempt(self, draft: Draft, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:  # whatever it is, it costs this file alone: the thread is there for all
            self._fail(draft, error)

    def _open(self, draft: Draft, metadata: Metadata) -> None:
        draft.file = McapFile(draft.path, draft.channels)
        for name, values in metadata.items():
            draft.file.write_metadata(name, values)
        draft.file.sync()
        self.look()

    def _write(self, draft: Draft, batches: Sequence[Batch]) -> None:
        for batch in batches:
            if draft.file is None or draft.failed:
                self._lose(draft, batch)
            else:
                try:
                    draft.file.write(batch)
                except Exception as error:
                    self._fail(draft, error)
                    self._lose(draft, batch)
            self.written += batch.size  # lost ones, too: the recorder waits until all are dealt with
        if draft.file is not None and not draft.failed:
            draft.file.sync()
            draft.size = draft.file.size
            self.look()

    def _finish(self, draft: Draft, metadata: Callable[[], Metadata]) -> None:
        file, draft.file = draft.file, None  # its index grows with the episode, and the draft is kept
        if file is None:
            draft.state = "left"
            return
        try:
            for name, values in metadata().items():
                file.write_metadata(name, values)
            file.finish()
            draft.size, draft.state = file.size, "finished"
        except Exception as error:
            self._fail(draft, error)
            logger.error("{} stays as it is and is mended at the next start", file.draft)
            draft.state = "left"
            file.close()

    def _discard(self, draft: Draft) -> None:
        file, draft.file, draft.state = draft.file, None, "discarded"
        if file is None:
            return
        try:
            file.discard()
        except OSError as error:
            logger.error("recording: {} stays: it cannot be removed: {}", file.draft, error.strerror or error)

    def _fail(self, draft: Draft, error: Exception) -> None:
        if draft.failed:
            return
        why, trace = f"{type(error).__name__}: {error}", True
        if isinstance(error, OSError):  # no defect, but a disk
            why, trace = error.strerror or str(error), False
        draft.failed = f"{draft.path.name}: {why}"
        logger.opt(exception=error if trace else None).error("recording: cannot write {}", draft.failed)

    def _lose(self, draft: Draft, batch: Batch) -> None:
        for channel, entries in batch.index.items():
            draft.lost[channel] = draft.lost.get(channel, 0) + len(entries)
