"""What of the machine a preflight looks at, behind one door: tests stand another machine there."""

from __future__ import annotations

import grp
import os
import shutil
from contextlib import suppress
from pathlib import Path


class HostMachine:
    """The machine that runs this, or what a folder shows of one.

    Args:
        root: where its ``/dev``, ``/proc`` and ``/sys`` are.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self.root = root

    def at(self, path: str) -> Path:
        """Where an absolute path is, links followed."""
        return self.root / path.lstrip("/")

    def exists(self, path: str) -> bool:
        """Whether something is there; no path is too long or too strange to be asked about."""
        return os.path.exists(self.at(path))

    def allowed(self, path: str) -> bool:
        """Whether this user may read and write there."""
        return os.access(self.at(path), os.R_OK | os.W_OK)

    def group_of(self, path: str) -> str:
        """The group that a file belongs to; empty if that cannot be known."""
        with suppress(OSError, KeyError):
            return grp.getgrgid(self.at(path).stat().st_gid).gr_name
        return ""

    def fifo_refused(self, priority: int) -> str:
        """Why this thread may not be run before all ordinary ones (``SCHED_FIFO``); empty if it may."""
        if not hasattr(os, "sched_setscheduler"):
            return "this system has no SCHED_FIFO"
        before, parameter = os.sched_getscheduler(0), os.sched_getparam(0)
        try:
            os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(priority))
            os.sched_setscheduler(0, before, parameter)
        except OSError as error:
            return error.strerror or str(error)
        return ""

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
