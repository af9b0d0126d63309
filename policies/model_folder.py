"""A local folder with a model: what kind it is, which files hold its weights, and whether they have room."""

from __future__ import annotations

import json
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

import torch

from policies.checkpoint import CheckpointError
from runtime.input_file import parse_json, read_small
from runtime.torch_device import free_bytes

CONFIG, WHOLE, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
ADAPTER = "adapter_config.json"


def read_config(folder: Path, kinds: Sequence[str]) -> dict[str, Any]:
    """``config.json`` of `folder`, seen to be of one of `kinds`.

    Raises:
        CheckpointError: it is not there, or is of something else.
    """
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such folder; a local one is needed: nothing is downloaded")
    try:
        config = parse_json(read_small(folder / CONFIG))
    except FileNotFoundError:
        raise CheckpointError(f"{folder}: there is no {CONFIG} in it") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder / CONFIG}: cannot be read: {error}") from None
    kind = config.get("model_type") if isinstance(config, dict) else None
    if kind not in kinds:
        raise CheckpointError(
            f"{folder / CONFIG}: a model of type {str(kind)[:80]!r}; expected {' or '.join(kinds)}"
        )
    assert isinstance(config, dict)  # noqa: S101 - it has a type
    return config


def weight_files(folder: Path) -> tuple[Path, ...]:
    """The files with the weights, whole or in parts.

    Raises:
        CheckpointError: there are none in safetensors, or the index lists none.
    """
    if (folder / WHOLE).is_file():
        return (folder / WHOLE,)
    if (folder / ADAPTER).is_file():
        raise CheckpointError(
            f"{folder}: adapters alone (LoRA); merge them into the model first (peft's merge_and_unload, "
            "DexVLA's load_merge_lora_weights), and give the folder with the whole model"
        )
    try:
        index = parse_json(read_small(folder / INDEX, 1 << 24))
        names = sorted(set(map(str, index["weight_map"].values())))
    except FileNotFoundError:
        raise CheckpointError(
            f"{folder}: there is no {WHOLE} in it, and no {INDEX}; weights are read from safetensors alone"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{folder / INDEX}: cannot be read: {error}") from None
    if not names or any(name != Path(name).name for name in names):
        raise CheckpointError(f"{folder / INDEX}: lists no files of this folder")
    return tuple(folder / name for name in names)


def _numbers(path: Path) -> int:
    """How many numbers the weights of a file are, by its header."""
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(size)) if size < 1 << 27 else {}
        return sum(prod(each["shape"]) for name, each in header.items() if name != "__metadata__")
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise CheckpointError(f"{path}: no whole safetensors file") from None


def check_memory(files: Sequence[Path], dtype: torch.dtype, device: torch.device) -> None:
    """Whether the weights in `files` have room on `device`, and here, where they are read.

    Raises:
        CheckpointError: they have not.
    """
    need = sum(map(_numbers, files)) * dtype.itemsize
    for place in dict.fromkeys((torch.device("cpu"), device)):
        if need > (free := free_bytes(place)):
            raise CheckpointError(
                f"{files[0].parent}: its weights need {need / 2**30:.2f} GiB of {place}, where "
                f"{free / 2**30:.2f} GiB are free; policy.precision = 'bfloat16' halves float32"
            )
