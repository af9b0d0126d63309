"""When a device is done, and how much memory it took at most."""

from __future__ import annotations

from pathlib import Path

import torch


def wait(device: torch.device) -> None:
    """Until everything that was asked of it is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def reset_peak(device: torch.device) -> None:
    """The peak is counted from here."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        Path("/proc/self/clear_refs").write_text("5")  # resets the process's high-water mark


def peak_mib(device: torch.device) -> float:
    """The most memory since then: the device's own, or the process's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024
