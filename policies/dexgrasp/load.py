"""Reads a controller's weights and finds out from them which network they are of."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from policies.checkpoint import CheckpointError, check_fit, read_state
from policies.dexgrasp.controller import ACTION, Controller
from policies.dexgrasp.options import ControllerShape
from policies.dexgrasp.vit import BACKBONES

NORMALIZER = "normalizer."


def _count(state: Mapping[str, Tensor], prefix: str) -> int:
    found = {key[len(prefix) :].split(".")[0] for key in state if key.startswith(prefix)}
    return len(found)


def _backbone(state: Mapping[str, Tensor], prefix: str) -> str | None:
    table = state.get(f"{prefix}.pos_embed")
    if table is None:
        return None
    depth, dim = _count(state, f"{prefix}.blocks."), table.shape[2]
    for name, shape in BACKBONES.items():
        if (shape.dim, shape.depth) == (dim, depth):
            return name
    raise CheckpointError(f"{prefix} is {dim} wide and {depth} deep; known: {', '.join(BACKBONES)}")


def shape_of(state: Mapping[str, Tensor], configured: ControllerShape) -> ControllerShape:
    """The network's shape, from the shapes of its weights; what they do not say is as configured.

    Raises:
        CheckpointError: these are not a controller's weights.
    """
    try:
        head, wrist = (_backbone(state, f"obs_encoder.dino_{side}") for side in ("head", "wrist"))
        grid = state[f"obs_encoder.dino_{'wrist' if wrist else 'head'}.pos_embed"].shape[1]
        steps = configured.observation_steps
        cameras = (head is not None) + (wrist is not None)
        tokens = state["model.cond_pos_emb"].shape[1] - 1
        side = math.isqrt(max(0, (tokens - steps) // (steps * max(1, cameras))))
        width = state["model.pos_emb"].shape[2]
        found: dict[str, Any] = {
            "head": head,
            "wrist": wrist,
            "image_size": side * 14,
            "position_grid": math.isqrt(grid - 1),
            "state_size": state["obs_encoder.state_net.0.weight"].shape[1],
            "action_size": state["model.input_emb.weight"].shape[1],
            "horizon": state["model.pos_emb"].shape[1],
            "layers": _count(state, "model.blocks."),
            "heads": width // state["model.blocks.0.cross_attn.q_norm.weight"].shape[0],
            "attention_mask": "model.blocks.0.cross_attn.masks" in state,
        }
    except KeyError as error:
        raise CheckpointError(f"not a DexGraspVLA controller: no {error.args[0]!r} in it") from None
    if head is not None:
        found["mask_layers"] = _count(state, "obs_encoder.mask_process_net.transformer.layers.")
    return ControllerShape.model_validate({**configured.model_dump(), **found})


def load_controller(path: Path, configured: ControllerShape) -> Controller:
    """A controller with the weights of `path`, on the CPU in float32.

    Raises:
        CheckpointError: the file cannot be read, or its weights do not fit together.
    """
    state = read_state(path)
    try:
        shape = shape_of(state, configured)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    controller = Controller(shape)
    network = {k: v for k, v in state.items() if not k.startswith(NORMALIZER)}
    check_fit(str(path), network, controller.state_dict())
    controller.load(state)
    if ACTION not in controller.normalizer or controller.normalizer.size(ACTION) != shape.action_size:
        raise CheckpointError(f"{path}: no normaliser for {shape.action_size} actions in it")
    return controller


def random_controller(shape: ControllerShape, seed: int) -> Controller:
    """Seeded random weights and a normaliser that changes nothing."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        controller = Controller(shape)
    controller.normalizer.set(ACTION, torch.ones(shape.action_size), torch.zeros(shape.action_size))
    return controller


def load_backbone(controller: Controller, camera: str, path: Path) -> None:
    """Put a public ``dinov2_*_pretrain.pth`` into the backbone of `camera` (``head`` or ``wrist``).

    Raises:
        CheckpointError: the file cannot be read or is of another size.
    """
    vit = getattr(controller.obs_encoder, f"dino_{camera}")
    state = read_state(path)
    check_fit(str(path), state, vit.state_dict())
    vit.load_state_dict(state)
