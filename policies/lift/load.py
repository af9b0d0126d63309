"""Weights of the lift policy: one safetensors file that says its own shape."""

from __future__ import annotations

from pathlib import Path

import torch
from pydantic import ValidationError

from policies.checkpoint import CheckpointError, check_fit, read_safetensors, write_safetensors
from policies.lift.model import LiftModel
from policies.lift.options import LiftShape

_KIND = "dexrun lift policy 1"


def load_lift(path: Path) -> LiftModel:
    """The network, on the CPU.

    Raises:
        CheckpointError: there is no such file, or it holds something else.
    """
    state, metadata = read_safetensors(path)
    if metadata.get("kind") != _KIND:
        raise CheckpointError(f"{path}: not the weights of a lift policy; `dexrun train` writes them")
    try:
        model = LiftModel(LiftShape.model_validate_json(metadata.get("shape", "")))
    except ValidationError as error:
        raise CheckpointError(f"{path}: its shape cannot be read: {error.errors()[0]['msg']}") from None
    check_fit(str(path), state, model.state_dict())
    model.load_state_dict(state)
    return model


def save_lift(model: LiftModel, path: Path) -> None:
    """Write what `load_lift` reads."""
    metadata = {"kind": _KIND, "shape": model.shape.model_dump_json()}
    write_safetensors(path, model.state_dict(), metadata)


def random_lift(shape: LiftShape, seed: int) -> LiftModel:
    """Seeded random weights and a normaliser that changes nothing, which only tests want."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LiftModel(shape)
