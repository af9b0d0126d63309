"""Processes that a run starts beside itself to be looked at; whatever becomes of them, the run goes on."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence

from loguru import logger

from dexrun.printing import say

_END_S = 3.0
_LONG = 500
_QR = re.compile(r"(?:[ \u2580-\u259f]|\x1b\[[0-9;]*m)+")
"""A line of a code to be read by a telephone's camera."""


class ProcessBeside:
    """``python -m MODULE ARGUMENTS``; what it prints is logged, and the line with `says` is shown.

    Args:
        name: what it is, for people.

    Raises:
        OSError: it cannot be started.
    """

    def __init__(self, name: str, module: str, arguments: Sequence[str], says: str) -> None:
        self._name, self._says = name, says
        self._ending = False
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            [sys.executable, "-m", "dexrun.panel.child", str(os.getpid()), module, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is the runtime's business
        )
        self._thread = threading.Thread(target=self._listen, name=f"log-of-{module}", daemon=True)
        self._thread.start()

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def _listen(self) -> None:
        assert self._process.stdout is not None  # noqa: S101 - it was asked for
        last = ""
        for raw in self._process.stdout:
            last = raw.decode(errors="replace").rstrip()[:_LONG]
            if self._says in last:
                self._show(last)
            elif _QR.fullmatch(last):
                say(f"{last}\n")
            else:
                logger.debug("{}", last)
        code = self._process.wait()
        if not self._ending:
            logger.warning("{} has ended (code {}): {}; the run goes on", self._name, code, last or "no word")

    def _show(self, line: str) -> None:
        """A link with a token opens the panel to whoever has it: it is for the terminal, and for no file."""
        public, token, _ = line.partition("#token=")
        logger.info("{}", public.partition(" (")[0])  # how to end it is for who starts it by hand
        if token:
            say(f"{line}\n")

    def end(self) -> None:
        """End it; blocks until it is gone, three seconds at most."""
        self._ending = True
        self._process.terminate()
        with contextlib.suppress(OSError):  # one that was stopped ends only once it goes on
            self._process.send_signal(signal.SIGCONT)  # not by its number, which may be another's by now
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._thread.join(_END_S)
        if self._process.stdout is not None:
            self._process.stdout.close()
