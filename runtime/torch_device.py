"""Which of torch's devices a table means, and how much memory is left there. Imports torch when called."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

ITEM_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
"""Bytes of one number, by ``precision``."""


def torch_dtype(precision: str) -> torch.dtype:
    """What torch calls the numbers of `precision`, a key of `ITEM_BYTES`."""
    import torch

    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[precision]


def open_device(key: str, name: str, precision: str = "float32") -> torch.device:
    """The device called `name`, which computes in `precision`.

    Raises:
        ValueError: there is no such kind of device, it is not here, or it cannot; begins with
            `key`, the table.
    """
    import torch

    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"{key}.device {name!r}: unknown; use cpu, cuda or cuda:<number>") from None
    if device.type == "cpu":
        if precision == "float16":
            raise ValueError(f"{key}.precision 'float16' is too slow on a CPU; use float32 or bfloat16")
        return device
    if device.type != "cuda":
        raise ValueError(f"{key}.device {name!r}: not supported; use cpu, cuda or cuda:<number>")
    count = torch.cuda.device_count()
    if (device.index or 0) >= count:
        raise ValueError(f"{key}.device {name!r}: torch sees {count} CUDA devices here; use cpu")
    return device


def free_bytes(device: torch.device) -> int:
    """Memory that is not taken: the device's own, or what the system says is available."""
    if device.type == "cuda":
        import torch

        free: int = torch.cuda.mem_get_info(device)[0]
        return free
    with open("/proc/meminfo", encoding="ascii") as lines:
        for line in lines:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    raise OSError("/proc/meminfo has no MemAvailable")
