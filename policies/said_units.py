"""What a checkpoint says of its units: ``dexrun.json`` beside it, as exports and conversions write it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from policies.checkpoint import CheckpointError
from policies.mapping import ObservationMap
from runtime.messages import Floats
from runtime.units import UnitMap, translated

NAME = "dexrun.json"
_SIZE_LIMIT = 1 << 24


def units_beside(checkpoint: Path) -> UnitMap | None:
    """The units that the file beside `checkpoint` says; ``None`` if there is none that says any.

    Raises:
        CheckpointError: it is there, and is no such file.
    """
    path = checkpoint.with_name(NAME)
    if not path.is_file():
        return None
    try:
        if path.stat().st_size > _SIZE_LIMIT:
            raise ValueError(f"larger than {_SIZE_LIMIT >> 20} MiB")
        units = json.loads(path.read_text(encoding="utf-8")).get("units")
        return (
            None
            if units is None
            else UnitMap.model_validate(translated(units) if isinstance(units, dict) else units)
        )
    except ValidationError as error:
        raise CheckpointError(f"{path}: units: {error.errors()[0]['msg']}") from None
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path}: {error}") from None


def agreed_units(configured: UnitMap, checkpoint: str) -> UnitMap:
    """Those of the checkpoint where none are configured.

    Raises:
        CheckpointError: both are said, and differ.
    """
    said = units_beside(Path(checkpoint)) if checkpoint else None
    if said is None or not configured.model_fields_set:
        return said or configured
    if said.said() != configured.said():
        raise CheckpointError(
            f"policy.units is {_shown(configured)}, and {Path(checkpoint).with_name(NAME)} says that the "
            f"checkpoint is in {_shown(said)}"
        )
    return configured


def _shown(units: UnitMap) -> str:
    said = units.said()
    return str(said["convention"] if len(said) == 1 else said)


def check_sizes(where: str, mapped: ObservationMap, state: int, action: int) -> None:
    """Whether a network of `where` takes the state and gives the actions that `mapped` makes.

    Raises:
        CheckpointError: it does not; one line.
    """
    if (mapped.state_size, mapped.action_size) != (state, action):
        raise CheckpointError(
            f"{where}: takes a state of {state} and gives actions of {action}; policy.keys make "
            f"{mapped.state_size} and {mapped.action_size} of the robot's {len(mapped.robot.names)} joints "
            "(fill up with 'zero' in state, 'skip' in action)"
        )


def check_statistics(
    where: str, mapped: ObservationMap, kind: Literal["state", "action"], mean: Floats, std: Floats
) -> None:
    """Whether `mean` and `std` of a data set, by entries of its `kind`, can be of this robot in its units.

    `where` is the file that they are in.

    Raises:
        CheckpointError: they cannot; one line with both readings.
    """
    doubt = mapped.doubt(kind, mean, mean)
    if not doubt and not mapped.doubt(kind, mean - std, mean + std):
        doubt = mapped.doubt(kind, mean - std, mean + std, spans=True)
    if not doubt and kind == "action":
        doubt = mapped.doubt_of_changes(mean - std, mean + std)
    if doubt:
        raise CheckpointError(f"{where}: statistics of the {kind}: {doubt}; say which with policy.units")
