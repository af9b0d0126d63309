"""What a training goes on from: network, optimiser, schedule, average, random numbers, and where it was.

Tensors and plain values, read by torch's reader of weights, which runs nothing.
"""

from __future__ import annotations

import pickle  # for the name of the error that torch raises; nothing is unpickled with it
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch

from policies.checkpoint import CheckpointError

_FILE, _RANDOM = "state.pt", "random-{}.pt"


class Stateful(Protocol):
    """A network, an optimiser, a schedule, an average."""

    def state_dict(self) -> Any:
        """What it is now."""

    def load_state_dict(self, state: Any) -> Any:
        """Be that again."""


def save_state(folder: Path, parts: Mapping[str, Stateful], place: Mapping[str, Any]) -> None:
    """Write `parts` and `place` into `folder`."""
    held = {name: part.state_dict() for name, part in parts.items()}
    torch.save({"parts": held, "place": dict(place)}, folder / _FILE)


def load_state(folder: Path, parts: Mapping[str, Stateful]) -> dict[str, Any]:
    """Give `parts` what they had; returns the place.

    Raises:
        CheckpointError: the file is damaged, or is of another training.
    """
    held = _read(folder / _FILE)
    try:
        for name, part in parts.items():
            part.load_state_dict(held["parts"][name])
        return dict(held["place"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        what = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{folder / _FILE}: does not fit this training: {what}") from None


def save_random(folder: Path, process: int) -> None:
    """The random numbers that would come next, of each process."""
    state: dict[str, Any] = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    torch.save(state, folder / _RANDOM.format(process))


def load_random(folder: Path, process: int) -> None:
    """Go on with them; with more processes than there were, those begin with their own seed."""
    path = folder / _RANDOM.format(process)
    if not path.exists():
        return
    state = _read(path)
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def _read(path: Path) -> dict[str, Any]:
    try:
        held = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        what = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{path}: cannot be read: {what}") from None
    if not isinstance(held, dict):
        raise CheckpointError(f"{path}: no state of a training")
    return held
