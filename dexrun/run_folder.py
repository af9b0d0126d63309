"""``runs/<UTC time>/``: what a run leaves behind, and the log that goes into it."""

from __future__ import annotations

import contextlib
import datetime
import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

from loguru import logger

from runtime.masking import without_secrets
from runtime.printable import printable

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


class _LogFile:
    """The run's log. A disk that does not take it costs its lines, which is said once, and not the run."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("ab", buffering=0)  # so that nothing is left that closing it could fail on
        self._failed = False

    def write(self, message: str) -> None:
        """Called by loguru, on its own thread."""
        try:
            self._file.write(printable(without_secrets(message)).encode(errors="backslashreplace"))
        except OSError as error:
            if not self._failed:
                self._failed = True
                sys.stderr.write(f"dexrun: {self._path} cannot be written: {error.strerror}\n")

    def stop(self) -> None:
        """Called by loguru at the end."""
        self._file.close()


class _Terminal:
    """Whatever ``sys.stderr`` is at the time: while a live panel is up, a place above it."""

    def write(self, message: str) -> None:
        """Called by loguru, on its own thread."""
        sys.stderr.write(printable(without_secrets(message), colours=True))

    def flush(self) -> None:
        """Likewise."""
        sys.stderr.flush()

    def isatty(self) -> bool:
        """Whether colours are wanted."""
        return sys.stderr.isatty()


class _Intercept(logging.Handler):
    """Sends the standard library's loggers into loguru."""

    def emit(self, record: logging.LogRecord) -> None:
        level: str | int = record.levelname
        try:
            logger.level(record.levelname)
        except ValueError:
            level = record.levelno
        logger.opt(exception=record.exc_info).log(level, "{}: {}", record.name, record.getMessage())


TERMINAL_FORMAT = "<green>{time:HH:mm:ss.SSS}</green> <level>{level: <7}</level> {message}"
FILE_FORMAT = "{time:YYYY-MM-DDTHH:mm:ss.SSSZ} {level: <7} {name}:{line} {message}"


def open_log(folder: Path, level: str) -> list[int]:
    """One sink for the terminal, one in the run's folder, both queued; returns their handles.

    Raises:
        OSError: the file cannot be made, or, without a name in the error, the queues in shared memory cannot.
    """
    logger.remove()
    file = _LogFile(folder / "log.txt")
    # Nobody knows what variables hold, a key perhaps: tracebacks go without their values (`diagnose`).
    try:
        sinks = [
            logger.add(sink, level=least, format=form, enqueue=True, backtrace=False, diagnose=False)
            for sink, least, form in ((_Terminal(), level, TERMINAL_FORMAT), (file, "DEBUG", FILE_FORMAT))
        ]
    except OSError:
        logger.remove()
        file.stop()
        raise
    logging.basicConfig(handlers=[_Intercept()], level=logging.INFO, force=True)
    for noisy in ("httpx", "httpx2", "httpcore", "httpcore2", "openai", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    return sinks


def close_log(sinks: list[int]) -> None:
    """Flush and close what `open_log` opened."""
    logger.complete()
    for sink in sinks:
        logger.remove(sink)
    logging.basicConfig(handlers=[logging.NullHandler()], force=True)
