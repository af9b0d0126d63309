"""A gamepad by Linux's joystick interface: eight bytes an event, and the state of everything at the opening.

Source: the kernel's ``linux/joystick.h`` and ``Documentation/input/joydev/joystick-api.rst``.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import os
import struct
from collections.abc import Callable, Sequence

import numpy as np

from drivers.jog.options import PadOptions
from runtime.messages import DeviceError, FaultKind, Floats

EVENT = struct.Struct("=IhBB")
"""``js_event``: milliseconds, value, type, number."""
BUTTON, AXIS, INIT = 0x01, 0x02, 0x80
FULL = 32767
_MIDDLE = 0.05
"""Of its travel: no stick comes back to its middle more exactly."""
JSIOCGNAME_128 = 0x80806A13
"""``JSIOCGNAME(128)``: the device's name."""

Lister = Callable[[], Sequence[str]]


def list_gamepads() -> Sequence[str]:
    """The devices that are there now."""
    return sorted(glob.glob("/dev/input/js*"))


def name_of(descriptor: int) -> str:
    """What the device calls itself; empty if it does not say."""
    buffer = bytearray(128)
    try:
        fcntl.ioctl(descriptor, JSIOCGNAME_128, buffer)
    except OSError:
        return ""
    return buffer.split(b"\0", 1)[0].decode(errors="replace")


class Gamepad:
    """One device: what its sticks and buttons say now. Not for two threads at once.

    What is pushed or pressed when it is opened, at the beginning or after a fault, was not meant for what is
    there now: a stick counts once it has been in its middle, a button once it was pressed since.

    Args:
        owner: the device's name in the configuration, for what is raised.
        lister: where to look for it after it was unplugged; for tests.
    """

    def __init__(self, owner: str, path: str, options: PadOptions, lister: Lister = list_gamepads) -> None:
        self._owner = owner
        self._path = path
        self._options = options
        self._lister = lister
        self._descriptor = -1
        self._rest = b""
        self._axes: dict[int, float] = {}
        self._moved: set[int] = set()
        self._rested: set[int] = set()
        self._pressed: set[int] = set()
        self._known = ""

    def open(self) -> None:
        """Open it: at its path, or where a device of its name is, once that is known.

        Raises:
            DeviceError: ``not_found``, ``no_permission``.
        """
        self.close()
        error: OSError | None = None
        for path in dict.fromkeys((self._path, *(self._lister() if self._known else ()))):
            try:
                descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
            except OSError as failed:
                error = error or failed
                continue
            name = name_of(descriptor)
            if self._known and name != self._known:
                os.close(descriptor)
                continue
            self._descriptor, self._known = descriptor, name
            return
        raise self._not_opened(error)

    def _not_opened(self, error: OSError | None) -> DeviceError:
        if error is not None and error.errno in (errno.EACCES, errno.EPERM):
            detail = "not allowed to read it; add yourself to the group input"
            return DeviceError(self._owner, FaultKind.NO_PERMISSION, self._path, detail)
        there = ", ".join(self._lister()) or "none"
        detail = f"no such gamepad; there are: {there} (a gamepad that the kernel knows is /dev/input/js0)"
        return DeviceError(self._owner, FaultKind.NOT_FOUND, self._path, detail)

    def close(self) -> None:
        """Let go of it; nothing is pressed any more. Idempotent."""
        if self._descriptor >= 0:
            with contextlib.suppress(OSError):
                os.close(self._descriptor)
        self._descriptor, self._rest = -1, b""
        self._axes.clear()
        self._moved.clear()
        self._rested.clear()
        self._pressed.clear()

    def read(self) -> None:
        """Take in whatever it has said.

        Raises:
            DeviceError: ``gone``.
        """
        while True:
            try:
                data = os.read(self._descriptor, EVENT.size * 64)
            except BlockingIOError:
                return
            except OSError as error:
                raise self._gone(str(error.strerror)) from None
            if not data:
                raise self._gone("end of file")
            data = self._rest + data
            whole = len(data) - len(data) % EVENT.size
            self._rest = data[whole:]
            for _, value, kind, number in EVENT.iter_unpack(data[:whole]):
                self._take(value, kind, number)

    def _gone(self, why: str) -> DeviceError:
        return DeviceError(self._owner, FaultKind.GONE, self._path, f"the gamepad is gone: {why}")

    def _take(self, value: int, kind: int, number: int) -> None:
        if kind & ~INIT == AXIS:
            self._axes[number] = max(-1.0, value / FULL)
            if abs(self._axes[number]) <= max(self._options.dead_zone, _MIDDLE):
                self._rested.add(number)
            if not kind & INIT:
                self._moved.add(number)
        elif kind == BUTTON and value:
            self._pressed.add(number)
        elif kind & ~INIT == BUTTON and not value:
            self._pressed.discard(number)

    # --- what it says

    @property
    def permits(self) -> bool:
        """Whether the dead man's button is held, where there is one."""
        return self._options.deadman_button < 0 or self._options.deadman_button in self._pressed

    def twist(self) -> tuple[Floats, float]:
        """``[6]``, each -1 to 1: along x, y, z and about them; and how fast the gripper opens, -1 to 1."""
        options = self._options
        keys = (options.forward, options.left, options.up, options.roll, options.pitch, options.yaw)
        return np.array([self._stick(axis) for axis in keys]), self._pulled(options.open) - self._pulled(
            options.close
        )

    def _stick(self, axis: str) -> float:
        if not axis or (number := abs(int(axis))) not in self._rested:
            return 0.0
        value = self._axes[number] * (-1.0 if axis.startswith("-") else 1.0)
        dead = self._options.dead_zone
        return float(np.sign(value)) * max(0.0, abs(value) - dead) / (1.0 - dead)

    def _pulled(self, axis: str) -> float:
        """Of a trigger, 0 to 1. Some pads say that one is half pulled until it is first touched."""
        if not axis or (number := abs(int(axis))) not in self._moved:
            return 0.0
        value = self._axes[number] * (-1.0 if axis.startswith("-") else 1.0)
        pulled, dead = (value + 1.0) / 2.0, self._options.dead_zone
        return max(0.0, pulled - dead) / (1.0 - dead)
