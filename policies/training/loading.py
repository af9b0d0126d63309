"""From samples to batches of tensors, here or in processes of their own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from policies.data.dataset import Array, DatasetError
from policies.data.windows import Windows

Arrays = Mapping[str, Array]


class _AsTorchAsks(Dataset[Arrays]):
    """A batch at once."""

    def __init__(self, windows: Windows) -> None:
        self._windows = windows

    def __len__(self) -> int:
        return len(self._windows)

    def __getitem__(self, index: int) -> Arrays:
        return self._windows[index]

    def __getitems__(self, indices: list[int]) -> Arrays:
        return self._windows.batch(indices)


def _tensors(arrays: Any) -> dict[str, Tensor]:
    """Of a whole batch, which is what the samples give."""
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def loader(
    windows: Windows, batches: Iterable[list[int]], workers: int, *, in_memory: bool, pinned: bool
) -> DataLoader[Any]:
    """Batches ``{feature: [B, n, *shape]}`` in the order of `batches`.

    A worker opens the data set anew, for a file's position is one for all who share it; arrays in memory it
    shares instead.
    """
    return DataLoader(
        _AsTorchAsks(windows),
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=_tensors,
        pin_memory=pinned,
        generator=torch.Generator(),  # its own: the training's numbers are those of the network
        persistent_workers=workers > 0,
        multiprocessing_context=("fork" if in_memory else "spawn") if workers else None,
    )


def said_in_worker(error: BaseException) -> DatasetError:
    """The line that a worker's error ends with: torch hands it on with its traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    last = lines[-1] if lines else type(error).__name__
    head, colon, rest = last.partition(": ")
    return DatasetError(rest if colon and head.endswith("DatasetError") else last)
