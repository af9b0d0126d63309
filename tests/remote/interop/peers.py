"""The real peers as processes of their own environments."""

from __future__ import annotations

import os
import queue
import subprocess
import tempfile
import threading
from pathlib import Path
from types import TracebackType

import pytest

ROOT = Path(__file__).resolve().parents[3]
HERE = Path(__file__).resolve().parent
GUARD_S = 300.0
"""Beside a busy machine's other work, LeRobot takes minutes to import."""


def needs(peer: str) -> pytest.MarkDecorator:
    """Skips, and says how to get it, where the peer's environment is not there."""
    there = (ROOT / f".venv-{peer}" / "bin" / "python").exists()
    return pytest.mark.skipif(
        not there, reason=f"no .venv-{peer}: tests/remote/interop/make_envs.sh {peer} makes it"
    )


def checkout(variable: str) -> str:
    """The folder, or folders with colons between, that environment variable `variable` names, or ``""``."""
    return os.environ.get(variable, "")


def needs_checkout(variable: str, file: str) -> pytest.MarkDecorator:
    """Skips, and says what is missing, where `variable` names no checkout with `file` in it."""
    folders = checkout(variable)
    why = f"{variable}={folders}: no {file} there" if folders else f"{variable} is not set"
    there = bool(folders) and all((Path(folder) / file).is_file() for folder in folders.split(os.pathsep))
    return pytest.mark.skipif(not there, reason=f"{why}; it names a checkout of the peer's repository")


class Peer:
    """``<peer>_peer.py`` with arguments."""

    def __init__(self, peer: str, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [ROOT / f".venv-{peer}" / "bin" / "python", HERE / f"{peer}_peer.py", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tempfile.gettempdir(),
            env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"},
        )
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._errors: list[str] = []
        self._threads = [
            threading.Thread(target=self._read_output),
            threading.Thread(target=self._read_errors),
        ]
        for thread in self._threads:
            thread.start()

    def _read_output(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def _read_errors(self) -> None:
        assert self._process.stderr is not None
        self._errors.extend(self._process.stderr)

    def say(self, line: str) -> None:
        """Send a line to its standard input."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def end_input(self) -> None:
        """Tell a server to end."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    def line(self, prefix: str) -> str:
        """The next line that begins with `prefix`, without it."""
        while True:
            line = self._lines.get(timeout=GUARD_S)
            if not line:
                raise AssertionError("the peer ended:\n" + "".join(self._errors)[-3000:])
            if line.startswith(prefix) and line != "\n":
                return line.removeprefix(prefix).removesuffix("\n")

    def errors(self) -> str:
        """What it wrote to its error stream, once it has ended."""
        self._process.wait(GUARD_S)
        self._threads[1].join(GUARD_S)
        return "".join(self._errors)

    def __enter__(self) -> Peer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(20)
        for thread in self._threads:
            thread.join(20)
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._process.stdout.close()
        self._process.stderr.close()
