"""A folder's weights: looked at by their header, and read only if they are the network's and have room."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from policies.checkpoint import CheckpointError, State, check_fit, read_safetensors
from policies.lerobot.folder import Folder, FolderError
from runtime.input_file import as_found
from runtime.torch_device import ITEM_BYTES, free_bytes

_MOST_STATISTICS = 1 << 20
_LONGEST_HEADER = 100_000_000
"""Bytes; what safetensors itself allows."""
Shapes = Mapping[str, tuple[int, ...]]
Network = TypeVar("Network", bound=nn.Module)


def shapes_in(path: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a safetensors file's tensors, from its header; the file is seen to be whole.

    Raises:
        CheckpointError: it is none, or is cut off.
    """
    try:
        with path.open("rb") as stream:
            size = int.from_bytes(stream.read(8), "little")
            header: dict[str, Any] = json.loads(stream.read(size) if size < _LONGEST_HEADER else b"")
        header.pop("__metadata__", None)
        ends = [each["data_offsets"][1] for each in header.values()]
        if 8 + size + max(ends, default=0) != path.stat().st_size:
            raise ValueError("cut off")
        return {name: tuple(int(n) for n in each["shape"]) for name, each in header.items()}
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from None
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        raise CheckpointError(f"{path} is {as_found(path, 'no whole safetensors file')}") from None


def read_small_tensors(path: Path, names: Sequence[str] | None = None) -> State:
    """The tensors of a file of statistics; with `names`, only those of a larger file.

    Raises:
        CheckpointError: it is damaged, or they are more than statistics have.
    """
    shapes = shapes_in(path)
    if sum(prod(shapes[name]) for name in (shapes if names is None else names)) > _MOST_STATISTICS:
        raise CheckpointError(f"{path}: too large to hold statistics")
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in (shapes if names is None else names)}
    except SafetensorError as error:
        raise CheckpointError(f"{path}: damaged: {' '.join(str(error).split())[:200]}") from None


def loaded(
    folder: Folder,
    make: Callable[[], Network],
    device: torch.device,
    precision: str,
    *,
    renamed: Callable[[str], str | None],
) -> Network:
    """The network that `make` makes, with the folder's weights, in float32 on the CPU.

    `make` is called once, on torch's device without memory, and may raise `ValueError`; where the network is
    to go, `device` in `precision`, there has to be room. `renamed` is the network's name of a tensor of the
    file; ``None``: it has no use for it.

    Raises:
        FolderError: they do not fit each other, or the memory; nothing was read then.
    """
    shapes = {now: shape for name, shape in shapes_in(folder.weights).items() if (now := renamed(name))}
    try:
        with torch.device("meta"):
            network = make()
            there = {name: torch.empty(shape) for name, shape in shapes.items()}
    except (ValueError, RuntimeError, TypeError, AssertionError, ZeroDivisionError) as error:
        raise folder.error(
            f"its {folder.kind} cannot be made: {' '.join(str(error).split())[:200]}"
        ) from None
    try:
        check_fit(folder.weights.name, there, network.state_dict())
    except CheckpointError as error:
        raise folder.error(str(error)) from None
    _check_room(folder, shapes, device, precision)
    state = {
        now: value.float()
        for name, value in read_safetensors(folder.weights)[0].items()
        if (now := renamed(name))
    }
    network.load_state_dict(state, assign=True)
    for module in network.modules():  # buffers that are not saved, and here have no use
        for name, held in list(module.named_buffers(recurse=False)):
            if held.is_meta:
                module.register_buffer(name, None)
    return network.eval().requires_grad_(False)


def _check_room(folder: Folder, shapes: Shapes, device: torch.device, precision: str) -> None:
    numbers = sum(map(prod, shapes.values()))
    for place, each in ((torch.device("cpu"), "float32"), (device, precision)):
        need, free = numbers * ITEM_BYTES[each], free_bytes(place)
        if need > free:
            raise folder.error(
                f"its {numbers / 1e6:.1f} million weights need {need / 2**30:.2f} GiB of {place}, where "
                f"{free / 2**30:.2f} GiB are free"
            )


def first_width(folder: Folder, ending: str) -> int:
    """Channels of the first convolution, whose name ends so: they are not said in the configuration.

    Raises:
        FolderError: there is none.
    """
    for name, shape in shapes_in(folder.weights).items():
        if name.endswith(ending) and len(shape) == 4:
            return shape[0]
    raise FolderError(f"{folder.key} = {str(folder.path)!r}: {folder.weights.name}: no {ending!r} in it")
