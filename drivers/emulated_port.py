"""A serial port that is not there: a pseudo-terminal under a stable path, for emulators of serial devices."""

from __future__ import annotations

import contextlib
import os
import select
import threading
import tty
from collections.abc import Callable
from pathlib import Path

from drivers.serial_port import line_speed, tell_bytes_taken

IDLE_S = 0.02
"""Silence after which half a packet is given up, as a device on a real line would."""


class EmulatedPort:
    """One pseudo-terminal and the thread that answers it.

    The program under test opens `path`, a symbolic link that survives `unplug` and `plug` as a link below
    ``/dev/serial/by-id`` does, while the terminal behind it gets a new number each time. The terminal says
    how much has been answered (`drivers.serial_port.bytes_taken`): silence after that is silence.

    Args:
        link: where to put the link; its directory must exist.
        on_data: called on the port's thread with whatever came in.
        on_idle: called on the port's thread once the line has been silent for `IDLE_S`.
    """

    def __init__(
        self,
        link: str | Path,
        on_data: Callable[[bytes], None],
        on_idle: Callable[[], None] = lambda: None,
    ) -> None:
        self.path = str(link)
        self._on_data = on_data
        self._on_idle = on_idle
        self._lock = threading.Lock()
        self._master = -1
        self._slave = -1
        self._count = 0
        self._wake_read, self._wake_write = os.pipe()
        self._closing = False
        self._doomed: list[int] = []
        self._hung_up = threading.Event()
        self.plug()
        self._thread = threading.Thread(target=self._serve, name=f"port {self.path}", daemon=True)
        self._thread.start()

    @property
    def plugged(self) -> bool:
        """Whether the device is there."""
        return self._master >= 0

    @property
    def baudrate(self) -> int | None:
        """The speed in bit/s that the program under test has set; ``None`` when unplugged."""
        with self._lock:
            return None if self._slave < 0 else line_speed(self._slave)

    def plug(self) -> None:
        """(Re)appear under `path`."""
        with self._lock:
            if self._master >= 0 or self._closing:
                return
            self._master, self._slave = os.openpty()
            self._count = 0
            # The emulator's own hold on the far side keeps the terminal alive between openings.
            tty.setraw(self._slave)
            os.set_blocking(self._master, False)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path)
            os.symlink(os.ttyname(self._slave), self.path)
        self._wake()

    def unplug(self) -> None:
        """Hang up: whoever has the port open gets end of file or EIO, and `path` is gone."""
        with self._lock:
            if self._master < 0:
                return
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path)
            self._doomed += [self._slave, self._master]
            self._master = self._slave = -1
            self._hung_up.clear()
        if threading.current_thread() is self._thread:
            self._hang_up()
            return
        # A descriptor that is being waited for stays open: the waiting thread has to close it.
        self._wake()
        self._hung_up.wait()

    def _hang_up(self) -> None:
        with self._lock:
            for descriptor in self._doomed:
                os.close(descriptor)
            self._doomed.clear()
        self._hung_up.set()

    def write(self, data: bytes) -> int:
        """Send; returns how many bytes went in (none when unplugged, fewer when nobody reads)."""
        with self._lock:
            if self._master < 0:
                return 0
            try:
                return os.write(self._master, data)
            except OSError:
                return 0

    def close(self) -> None:
        """Unplug for good and end the thread. Idempotent."""
        if self._closing:
            return
        self.unplug()
        self._closing = True
        self._wake()
        if threading.current_thread() is not self._thread:
            self._thread.join()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def _wake(self) -> None:
        with contextlib.suppress(OSError):
            os.write(self._wake_write, b"x")

    def _serve(self) -> None:
        heard = False
        while not self._closing:
            master = self._master
            sources = [self._wake_read, master] if master >= 0 else [self._wake_read]
            ready, _, _ = select.select(sources, [], [], IDLE_S if heard else None)
            if self._wake_read in ready:
                os.read(self._wake_read, 4096)
                self._hang_up()
                continue
            data = self._read(master) if master in ready else b""
            if data:
                heard = True
                self._on_data(data)
                self._taken(master, len(data))
            elif not ready and heard:
                heard = False
                self._on_idle()

    def _taken(self, master: int, count: int) -> None:
        with self._lock:
            if master == self._master:
                self._count += count
                tell_bytes_taken(master, self._count)

    def _read(self, master: int) -> bytes:
        with self._lock:
            if master != self._master:
                return b""
            try:
                return os.read(master, 65536)
            except OSError:
                return b""
