"""Reads ACT's weights and statistics, and finds out from the weights which network they are of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from policies.act.model import ActModel, is_unused
from policies.act.options import ActOptions, ActShape
from policies.checkpoint import CheckpointError, State, check_fit, read_pickle, read_state
from runtime.messages import Floats

STATS = ("qpos_mean", "qpos_std", "action_mean", "action_std")
STATS_PREFIX = "stats."
"""Of the statistics in a converted file."""

LEROBOT = (
    "an ACT of LeRobot's, whose network has other tensors than the original's: give its folder, with "
    '[policy] type = "lerobot" and path = ".../pretrained_model"'
)


def is_lerobot(state: Mapping[str, Tensor]) -> bool:
    """Whether these are the weights of LeRobot's ACT."""
    return any("encoder_1d_feature_pos_embed" in name for name in state)


@dataclass(frozen=True, slots=True)
class ActStats:
    """The dataset's statistics, float64 ``[S]`` and ``[A]``."""

    qpos_mean: Floats
    qpos_std: Floats
    action_mean: Floats
    action_std: Floats


def shape_of(state: Mapping[str, Tensor], configured: ActShape) -> ActShape:
    """The network's shape, from the shapes of its weights; `heads` is as configured.

    Raises:
        CheckpointError: these are not ACT's weights.
    """
    try:
        layers = {k.split(".")[3] for k in state if k.startswith("transformer.encoder.layers.")}
        found = {
            "state_size": state["input_proj_robot_state.weight"].shape[1],
            "action_size": state["action_head.weight"].shape[0],
            "chunk": state["query_embed.weight"].shape[0],
            "hidden": state["query_embed.weight"].shape[1],
            "feedforward": state["transformer.encoder.layers.0.linear1.weight"].shape[0],
            "latent": state["latent_out_proj.weight"].shape[1],
            "base_width": state["backbones.0.0.body.conv1.weight"].shape[0],
            "norm": "frozen_batch" if "backbones.0.0.body.bn1.running_mean" in state else "group",
            "encoder_layers": len(layers),
        }
    except KeyError as error:
        if is_lerobot(state):
            raise CheckpointError(LEROBOT) from None
        raise CheckpointError(f"not an ACT checkpoint: no {error.args[0]!r} in it") from None
    return ActShape.model_validate({**configured.model_dump(), **found})


def stats_from(where: str, held: Mapping[str, object], shape: ActShape) -> ActStats:
    """Check statistics against the network.

    Raises:
        CheckpointError: one is missing, of another size, or cannot be divided by.
    """
    made = {}
    for name in STATS:
        size = shape.state_size if name.startswith("qpos") else shape.action_size
        if name not in held:
            raise CheckpointError(f"{where}: no {name!r} in it")
        value = np.asarray(held[name], float)
        if value.shape != (size,) or not np.isfinite(value).all():
            raise CheckpointError(f"{where}: {name} has shape {list(value.shape)}; expected [{size}]")
        if name.endswith("std") and not (value > 0).all():
            raise CheckpointError(f"{where}: {name} has an entry that is not above 0")
        made[name] = value
    return ActStats(**made)


def stats_state(stats: ActStats) -> State:
    """`stats` as a converted file holds them."""
    return {STATS_PREFIX + name: torch.from_numpy(getattr(stats, name)) for name in STATS}


def load_act(config: ActOptions) -> tuple[ActModel, ActStats]:
    """Network and statistics, on the CPU in float32.

    Raises:
        CheckpointError: a file cannot be read, or the two do not fit together.
    """
    path = Path(config.checkpoint)
    state = {key.removeprefix("model."): value for key, value in read_state(path).items()}
    inside = {k.removeprefix(STATS_PREFIX): v.numpy() for k, v in state.items() if k.startswith(STATS_PREFIX)}
    weights = {k: v for k, v in state.items() if not k.startswith(STATS_PREFIX) and not is_unused(k)}
    try:
        shape = shape_of(weights, config.shape)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    model = ActModel(shape)
    check_fit(str(path), weights, model.state_dict())
    model.load(weights)
    stats_path = Path(config.stats) if config.stats else path.with_name("dataset_stats.pkl")
    if inside and not config.stats:
        return model, stats_from(str(path), inside, shape)
    held = read_pickle(stats_path)
    if not isinstance(held, Mapping):
        raise CheckpointError(f"{stats_path}: holds a {type(held).__name__}, not a table of statistics")
    return model, stats_from(str(stats_path), held, shape)


def random_act(shape: ActShape, seed: int) -> tuple[ActModel, ActStats]:
    """Seeded random weights, and statistics that change nothing."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = ActModel(shape)
    state, action = shape.state_size, shape.action_size
    return model, ActStats(np.zeros(state), np.ones(state), np.zeros(action), np.ones(action))
