"""What a child is before it is itself: it sees to it that the child ends with the process that started it.

``python -m dexrun.panel.child PID MODULE WORDS...`` becomes ``python -m MODULE WORDS...``. A server that is
killed cannot end its jobs, nor a run what is beside it; the kernel then interrupts them, as Ctrl-C does.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def become(parent: int, module: str, words: list[str]) -> None:
    """Take the place of this process."""
    signal.signal(
        signal.SIGINT, signal.SIG_DFL
    )  # a parent in the background has it ignored, and hands that down
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGINT), 0, 0, 0)
    if os.getppid() != parent:
        raise SystemExit(1)  # it has gone already
    os.execv(sys.executable, [sys.executable, "-m", module, *words])  # noqa: S606 - no shell, as is wanted


if __name__ == "__main__":
    become(int(sys.argv[1]), sys.argv[2], sys.argv[3:])
