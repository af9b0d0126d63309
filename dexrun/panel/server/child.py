"""What a job is before it is ``dexrun``: it sees to it that the job ends with the server that started it.

``python -m dexrun.panel.server.child SERVER_PID WORDS...`` becomes ``dexrun WORDS...``. A server that is
killed cannot end its jobs; the kernel then interrupts them, as Ctrl-C does.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def become(server: int, words: list[str]) -> None:
    """Take the place of this process."""
    signal.signal(
        signal.SIGINT, signal.SIG_DFL
    )  # a server in the background has it ignored, and hands that down
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGINT), 0, 0, 0)
    if os.getppid() != server:
        raise SystemExit(1)  # it has gone already
    os.execv(sys.executable, [sys.executable, "-m", "dexrun", *words])  # noqa: S606 - no shell, as is wanted


if __name__ == "__main__":
    become(int(sys.argv[1]), sys.argv[2:])
