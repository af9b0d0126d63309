"""What of the machine a preflight looks at, behind one door: tests stand another machine there."""

from __future__ import annotations

import grp
import os
import shutil
import threading
from contextlib import suppress
from pathlib import Path

from drivers.serial_port import find_port


class HostMachine:
    """The machine that runs this, or what a folder shows of one.

    Args:
        root: where its ``/dev``, ``/proc`` and ``/sys`` are.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self.root = root

    def at(self, path: str) -> Path:
        """Where `path` is; one that is not absolute is looked for where this runs, as a driver opens it."""
        return self.root / path.lstrip("/") if path.startswith("/") else Path(path)

    def exists(self, path: str) -> bool:
        """Whether something is there; no path is too long or too strange to be asked about."""
        return os.path.exists(self.at(path))

    def allowed(self, path: str) -> bool:
        """Whether this user may read and write there."""
        return os.access(self.at(path), os.R_OK | os.W_OK)

    def readable(self, path: str) -> bool:
        """Whether this user may read there."""
        return os.access(self.at(path), os.R_OK)

    def port_of(self, device: str, path: str, serial_number: str) -> str:
        """Where the adapter with this number is now; nothing is opened.

        Raises:
            DeviceError: ``not_found``.
        """
        return find_port(device, path, serial_number)

    def group_of(self, path: str) -> str:
        """The group that a file belongs to; empty if that cannot be known."""
        with suppress(OSError, KeyError):
            return grp.getgrgid(self.at(path).stat().st_gid).gr_name
        return ""

    def fifo_refused(self, priority: int) -> str:
        """Why no thread may be run before all ordinary ones (``SCHED_FIFO``); empty if one may."""
        if not hasattr(os, "sched_setscheduler"):
            return "this system has no SCHED_FIFO"
        refused: list[str] = []

        def ask() -> None:
            try:
                os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(priority))
            except OSError as error:
                refused.append(error.strerror or str(error))

        # In a thread that ends with it: a limit lets a user set what he may not take back.
        asking = threading.Thread(target=ask)
        asking.start()
        asking.join()
        return "".join(refused)

    def has_gpu(self) -> bool:
        """Whether an NVIDIA GPU and its driver are there."""
        return self.at("/proc/driver/nvidia/version").exists() or self.at("/dev/nvidia0").exists()

    def free_mib(self, folder: Path) -> int:
        """Room on the disk that `folder` is on, or will be.

        Raises:
            OSError: it cannot be known.
        """
        there = next(each for each in (folder.absolute(), *folder.absolute().parents) if each.exists())
        return shutil.disk_usage(there).free // 2**20
