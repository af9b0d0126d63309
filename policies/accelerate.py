"""What every local torch policy needs around its network: device, precision, threads, compile, graphs.

Imports torch; imported by the modules that hold networks only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from runtime import torch_device
from runtime.interfaces import PolicyError


def open_device(name: str) -> torch.device:
    """The device called `name`.

    Raises:
        PolicyError: there is no such kind of device, or it is not here.
    """
    try:
        return torch_device.open_device("policy", name)
    except ValueError as error:
        raise PolicyError(str(error)) from None


def place(module: nn.Module, device: torch.device, precision: str) -> None:
    """Move `module` in evaluation mode to `device` and `precision`.

    Raises:
        PolicyError: it does not fit into the device's memory, or the device cannot do `precision`.
    """
    dtype = torch_device.torch_dtype(precision)
    if device.type == "cpu" and dtype is torch.float16:
        raise PolicyError("policy.precision 'float16' is too slow on a CPU; use float32 or bfloat16")
    try:
        module.eval().to(device=device, dtype=dtype)
    except (torch.OutOfMemoryError, MemoryError) as error:
        size = sum(p.numel() for p in module.parameters()) * dtype.itemsize / 2**30
        raise PolicyError(f"out of memory on {device}: the network alone needs {size:.1f} GiB") from error


def set_threads(threads: int) -> None:
    """Torch's threads on the CPU; 0 leaves them alone."""
    if threads:
        torch.set_num_threads(threads)


def compile_each(modules: Iterable[nn.Module]) -> None:
    """Compile equal blocks one by one: one compilation serves them all, and names stay as they are."""
    for module in modules:
        module.compile()


class Upload:
    """Hands arrays to the device, over pinned buffers that are made once per key where that helps."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pinned: dict[str, Tensor] = {}

    def __call__(self, key: str, array: NDArray[np.generic]) -> Tensor:
        """`array` on the device; its memory may be reused for the next one under `key`."""
        host = torch.from_numpy(np.ascontiguousarray(array))
        if self._device.type != "cuda":
            return host
        pinned = self._pinned.get(key)
        if pinned is None or pinned.shape != host.shape or pinned.dtype != host.dtype:
            pinned = self._pinned[key] = torch.empty_like(host, pin_memory=True)
        pinned.copy_(host)
        return pinned.to(self._device, non_blocking=True)


class Replay:
    """Calls a function of tensors to a tensor; on a CUDA device, as one captured graph.

    The function must have run once before (caches filled, kernels compiled), and must not wait for the
    device. Shapes are those of the first call.
    """

    def __init__(self, function: Callable[..., Tensor], device: torch.device, enabled: bool) -> None:
        self._function = function
        self._enabled = enabled and device.type == "cuda"
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: tuple[Tensor, ...] = ()
        self._output: Tensor | None = None

    def __call__(self, *inputs: Tensor) -> Tensor:
        if not self._enabled:
            return self._function(*inputs)
        if self._graph is None:
            self._capture(inputs)
        for held, given in zip(self._inputs, inputs, strict=True):
            held.copy_(given, non_blocking=True)
        assert self._graph is not None  # noqa: S101 - captured above
        assert self._output is not None  # noqa: S101 - captured above
        self._graph.replay()
        return self._output

    def forget(self) -> None:
        """Release the graph and its memory; the next call captures anew."""
        self._graph, self._inputs, self._output = None, (), None

    def _capture(self, inputs: tuple[Tensor, ...]) -> None:
        self._inputs = tuple(given.clone() for given in inputs)
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(2):
                self._function(*self._inputs)
        torch.cuda.current_stream().wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        # another thread may use the device meanwhile, as perception does
        with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            self._output = self._function(*self._inputs)
