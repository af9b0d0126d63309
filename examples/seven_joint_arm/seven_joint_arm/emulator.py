"""The arm at the far end of a serial line: a pseudo-terminal that answers as the arm's controller does.

A request is one line, and so is its answer; both end with ``*`` and the sum of all bytes before it, modulo
256, in two hexadecimal digits. Numbers are millionths: of a radian, of the gripper's travel (0 is closed), of
stall torque.

=============== ==================================== ==================================
``V``           who is there                         ``seven 1``
``T 0``/``T 1`` let the joints go / hold them here   ``ok``
``G g1 ... g8`` go there, as soon as can be          ``ok``
``S``           joints, velocities, loads            ``p1 ... p8 v1 ... v8 l1 ... l8``
=============== ==================================== ==================================
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import tty

import numpy as np

from runtime import NS_PER_S, Clock, Floats, RealClock

HOME = (0.0, -0.3, 0.0, 1.6, 0.0, 1.84, 0.0, 0.5)
UNIT = 1e-6
LAG_S = 0.05
WAVE = (0.4, 0.1, 0.2, 0.2, 0.2, 0.1, 0.5, 0.4)
"""How far a leader's joints are moved to and fro."""


def framed(text: str) -> bytes:
    """A line as it goes over the wire."""
    return f"{text}*{sum(text.encode()) % 256:02x}\n".encode()


def unframed(line: bytes) -> str:
    """What a line says.

    Raises:
        ValueError: it was damaged, or is not whole.
    """
    text = line.decode("ascii", "replace").rpartition("*")[0]
    if framed(text) != line:
        raise ValueError(f"damaged line {line!r}")
    return text


class Emulator:
    """Every joint follows its goal with a lag, as far as `clock` has come; a leader's are moved by a hand."""

    def __init__(self, clock: Clock, *, by_hand: bool = False) -> None:
        self._clock, self._by_hand, self._then_ns = clock, by_hand, clock.now_ns()
        self._at: Floats = np.array(HOME)
        self._velocity: Floats = np.zeros(len(HOME))
        self._goal: Floats | None = None
        self._thread: threading.Thread | None = None

    def plug(self) -> str:
        """Appear; returns the port."""
        master, self._slave = os.openpty()
        tty.setraw(self._slave)
        port = os.ttyname(self._slave)
        self._thread = threading.Thread(
            target=self._serve, args=(master,), name=f"emulator {port}", daemon=True
        )
        self._thread.start()
        return port

    def unplug(self) -> None:
        """Go away, once nobody has the port open. The joints stay where they are."""
        if self._thread is not None:
            os.close(self._slave)
            self._thread.join()
            self._thread = None

    def _serve(self, master: int) -> None:
        with (
            contextlib.suppress(OSError),
            open(master, "r+b", buffering=0) as line,
        ):  # it ends with the last slave
            rest = b""
            while True:
                *whole, rest = (rest + line.read(4096)).split(b"\n")
                for request in whole:
                    with contextlib.suppress(ValueError):  # what was damaged is not answered
                        line.write(framed(self.answer(unframed(request + b"\n"))))

    def answer(self, request: str) -> str:
        """What the controller says to a request."""
        self._advance()
        word, *numbers = request.split()
        match word:
            case "V":
                return "seven 1"
            case "T":
                self._goal = self._at.copy() if numbers == ["1"] else None
            case "G" if self._goal is not None:
                self._goal = np.array([int(number) * UNIT for number in numbers])
            case "S":
                load = 0 * self._at if self._goal is None else np.clip(self._goal - self._at, -1, 1)
                return " ".join(
                    map(str, np.rint(np.concatenate([self._at, self._velocity, load]) / UNIT).astype(int))
                )
        return "ok"

    def _advance(self) -> None:
        """Let the joints move until now."""
        now_ns, before = self._clock.now_ns(), self._at
        passed_s, self._then_ns = (now_ns - self._then_ns) / NS_PER_S, now_ns
        if self._by_hand:
            self._at = HOME + np.array(WAVE) * np.sin(2.0 * now_ns / NS_PER_S)
        elif self._goal is not None:
            self._at = self._goal + (before - self._goal) * np.exp(-passed_s / LAG_S)
        if passed_s > 0:
            self._velocity = (self._at - before) / passed_s


if __name__ == "__main__":
    emulator = Emulator(RealClock())
    sys.stdout.write(f"{emulator.plug()}\n")
    sys.stdout.flush()
    threading.Event().wait()
