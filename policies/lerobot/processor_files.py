"""Writes the processors of a folder for LeRobot 0.4 and later: what is done to observation and action."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from policies.checkpoint import write_safetensors
from policies.lerobot.folder import ACTION, AFTER, BEFORE

Step = dict[str, Any]
_RENAME: Step = {"registry_name": "rename_observations_processor", "config": {"rename_map": {}}}
_BATCH: Step = {"registry_name": "to_batch_processor", "config": {}}
_DEVICE: Step = {"registry_name": "device_processor", "config": {"device": "cpu", "float_dtype": None}}


def write_processors(
    folder: Path,
    features: Mapping[str, Mapping[str, Any]],
    modes: Mapping[str, str],
    statistics: Mapping[str, Tensor],
    between: Sequence[Step] = (),
) -> None:
    """Write both files and their statistics.

    Args:
        folder: where to.
        features: of inputs and action, by name, as ``config.json`` has them.
        modes: by kind of feature, how it is normalised.
        statistics: ``observation.state.mean`` and the like.
        between: steps after the batch is made, before the numbers go to the device.
    """
    floats = {name: value.float().contiguous() for name, value in statistics.items()}
    before = [_RENAME, _BATCH, *between, _DEVICE]
    normalize = _normalising(folder, BEFORE, "normalizer_processor", len(before), features, modes, floats)
    own = {ACTION: features[ACTION]}
    after = [_normalising(folder, AFTER, "unnormalizer_processor", 0, own, modes, floats), _DEVICE]
    write_json(folder / BEFORE, {"name": "policy_preprocessor", "steps": [*before, normalize]})
    write_json(folder / AFTER, {"name": "policy_postprocessor", "steps": after})


def _normalising(
    folder: Path,
    whose: str,
    name: str,
    at: int,
    features: Mapping[str, Any],
    modes: Mapping[str, str],
    statistics: Mapping[str, Tensor],
) -> Step:
    file = f"{whose.removesuffix('.json')}_step_{at}_{name}.safetensors"
    write_safetensors(folder / file, statistics, {"format": "pt"})
    said = {"eps": 1e-8, "features": dict(features), "norm_map": dict(modes)}
    return {"registry_name": name, "config": said, "state_file": file}


def write_json(path: Path, value: Any) -> None:
    """As a person reads it, too."""
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
