"""What a run says: on the terminal, and in its folder, as text or as JSON."""

from __future__ import annotations

import json
import logging
import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loguru import logger

from dexrun.config.mode_options import LogOptions
from runtime.masking import without_secrets
from runtime.printable import printable

if TYPE_CHECKING:
    from loguru import Record

_MEGABYTE = 1_000_000


class _LogFile:
    """The run's log. A disk that does not take it costs its lines, which is said once, and not the run."""

    def __init__(self, path: Path, options: LogOptions) -> None:
        self._path = path
        self._largest, self._kept = round(options.largest_mb * _MEGABYTE), options.kept
        self._file = path.open("ab", buffering=0)  # so that nothing is left that closing it could fail on
        self._size = os.fstat(self._file.fileno()).st_size
        self._failed = False

    def write(self, message: str) -> None:
        """Called by loguru, on its own thread."""
        data = printable(without_secrets(message)).encode(errors="backslashreplace")
        try:
            if self._size and self._size + len(data) > self._largest:
                self._begin_anew()
            self._file.write(data)
            self._size += len(data)
        except OSError as error:
            if not self._failed:
                self._failed = True
                sys.stderr.write(f"dexrun: {self._path} cannot be written: {error.strerror}\n")

    def _begin_anew(self) -> None:
        """Put the file aside: its number is 1, the others move up, the oldest goes."""
        self._aside(self._kept).unlink(missing_ok=True)
        for number in range(self._kept, 0, -1):
            before = self._aside(number - 1)
            if before.exists():
                before.replace(self._aside(number))
        fresh = self._path.open("wb", buffering=0)
        self._file.close()
        self._file, self._size = fresh, 0

    def _aside(self, number: int) -> Path:
        return self._path.with_suffix(f".{number}{self._path.suffix}") if number else self._path

    def stop(self) -> None:
        """Called by loguru at the end."""
        self._file.close()


class _Terminal:
    """Whatever ``sys.stderr`` is at the time: while a live dashboard is up, a place above it."""

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


def _as_json(record: Record) -> str:
    """A template for loguru that gives `record` as a line of JSON."""
    told: dict[str, Any] = {
        "time": record["time"].isoformat(timespec="milliseconds"),
        "level": record["level"].name,
        "message": record["message"],
        "where": f"{record['name']}:{record['line']}",
    }
    if (error := record["exception"]) is not None:
        told["traceback"] = "".join(traceback.format_exception(*error))
    text = without_secrets(json.dumps(told, ensure_ascii=False))  # as long as they are written as they are
    # What a template would take for fields and colours; a "<" can only be inside of a JSON string.
    text = text.replace("{", "{{").replace("}", "}}").replace("<", "\\u003c")
    return text + "\n"


def open_log(folder: Path, level: str, options: LogOptions | None = None) -> list[int]:
    """One sink for the terminal, one in the run's folder, both queued; returns their handles.

    Raises:
        OSError: the file cannot be made, or, without a name in the error, the queues in shared memory cannot.
    """
    options = options or LogOptions()
    logger.remove()
    json_lines = options.format == "json"
    file = _LogFile(folder / ("log.jsonl" if json_lines else "log.txt"), options)
    # Nobody knows what variables hold, a key perhaps: tracebacks go without their values (`diagnose`).
    try:
        sinks = [
            logger.add(
                sink,
                level=least,
                format=_as_json if json_lines else form,
                enqueue=True,
                backtrace=False,
                diagnose=False,
            )
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
