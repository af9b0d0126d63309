"""Writes what `dexrun train` made of an ACT as a folder that LeRobot runs, in the layout of LeRobot 0.4.

The networks are the same but for names: the original's first decoder layer is LeRobot's only one, and whose
tokens come first makes no difference to attention.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from policies.act.config import ActConfig
from policies.act.load import ActStats, load_act
from policies.act.options import ActShape
from policies.act.resnet import MEAN, STD
from policies.checkpoint import CheckpointError, write_safetensors
from policies.lerobot.folder import ACTION, CONFIG, PICTURES, STATE, WEIGHTS
from policies.lerobot.network import FileSaid
from policies.lerobot.processor_files import write_json, write_processors
from policies.said_units import NAME as ABOUT
from policies.said_units import units_beside
from runtime.input_file import parse_json, read_small
from runtime.units import DEFAULT_LEROBOT

_NAMES = {
    "backbones.0.0.body.": "backbone.",
    "input_proj.": "encoder_img_feat_input_proj.",
    "input_proj_robot_state.": "encoder_robot_state_input_proj.",
    "transformer.": "",
    "action_head.": "action_head.",
    "query_embed.": "decoder_pos_embed.",
    "additional_pos_embed.": "encoder_1d_feature_pos_embed.",
    "latent_out_proj.": "encoder_latent_input_proj.",
    "encoder.": "vae_encoder.",
    "cls_embed.": "vae_encoder_cls_embed.",
    "encoder_action_proj.": "vae_encoder_action_input_proj.",
    "encoder_joint_proj.": "vae_encoder_robot_state_input_proj.",
    "latent_proj.": "vae_encoder_latent_output_proj.",
    "pos_table": "vae_encoder_pos_enc",
}
"""The original's names, by their beginning, and LeRobot's. ``is_pad_head`` it has not."""
_WIDTH = 64
"""Channels of torchvision's ResNet-18 after its first convolution."""


class _Said(FileSaid):
    """What ``policy.json`` has of what is needed here."""

    cameras: tuple[str, ...] = ("head",)
    image_width: int = 640
    image_height: int = 480
    shape: ActShape = ActShape()


def write_lerobot_folder(source: Path, target: Path) -> str:
    """Write the checkpoint's folder `source` as the folder `target`; returns one line that says what it is.

    Raises:
        PolicyError: `source` is no such folder, or of no network that LeRobot has; `target` is there already,
            or cannot be written; one line.
    """
    told = _told(source)
    weights = source / WEIGHTS
    model, stats = load_act(ActConfig.model_validate({"checkpoint": str(weights), "shape": told.shape}))
    shape = model.shape
    if shape.norm != "frozen_batch":
        raise CheckpointError(
            f"{weights}: its ResNet has group norms, and LeRobot's has frozen batch norms; train it with "
            "recipe.backbone, ImageNet's weights"
        )
    if shape.base_width != _WIDTH:
        raise CheckpointError(
            f"{weights}: its ResNet begins with {shape.base_width} channels, LeRobot's with {_WIDTH}"
        )
    with written_whole(target) as draft:
        write_safetensors(draft / WEIGHTS, _renamed(model.state_dict()), {"format": "pt"})
        write_json(draft / CONFIG, _config(told, shape))
        write_processors(draft, _features(told, shape), _MODES, _statistics(told, stats))
        if (source / ABOUT).is_file():
            shutil.copyfile(source / ABOUT, draft / ABOUT)
    units = units_in_words(weights)
    return f"{target}: an ACT for LeRobot, {len(told.cameras)} cameras, {shape.chunk} rows{units}"


@contextlib.contextmanager
def written_whole(target: Path) -> Iterator[Path]:
    """A folder to write into, which becomes `target` at the end; where that fails, nothing is left.

    Raises:
        CheckpointError: `target` is there already, or cannot be written.
    """
    if target.exists():
        raise CheckpointError(f"{target}: is there already; give another name")
    draft = target.with_name(f".{target.name}.partial")
    try:
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        yield draft
        draft.rename(target)
    except OSError as error:
        raise CheckpointError(f"{target}: not written: {error.strerror or error}") from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def units_in_words(weights: Path) -> str:
    """What a person should know of the units of the numbers of `weights`; ``""`` where they are LeRobot's."""
    units = units_beside(weights)
    if units is None:
        return "; nothing beside its weights says its units"
    if units.convention == DEFAULT_LEROBOT:
        return ""
    return f"; its numbers are {units.convention}, and LeRobot's own arms speak {DEFAULT_LEROBOT}"


def _told(source: Path) -> _Said:
    file = source / "policy.json"
    try:
        said = parse_json(read_small(file))
        if not isinstance(said, dict) or said.get("type") != "act":
            kind = said.get("type") if isinstance(said, dict) else None
            raise CheckpointError(
                f"{file}: a policy of type {kind!r}; written for LeRobot are those of type act"
            )
        image = (said.get("keys") or {}).get("image") or {}
        if image.get("order", "rgb") != "rgb":
            raise CheckpointError(f"{file}: it takes BGR pictures, and LeRobot gives RGB")
        return _Said.model_validate({key: said[key] for key in _Said.model_fields if key in said})
    except FileNotFoundError:
        raise CheckpointError(
            f"{source}: no checkpoint's folder of dexrun train (it has no policy.json)"
        ) from None
    except ValidationError as error:
        raise CheckpointError(f"{file}: {error.errors()[0]['msg']}") from None
    except (OSError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{file}: cannot be read: {error}") from None


def _renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    found = {}
    for name, value in state.items():
        begin = next((each for each in _NAMES if name.startswith(each)), None)
        if begin is not None:
            found[f"model.{_NAMES[begin]}{name.removeprefix(begin)}"] = value
    return found


def _features(told: _Said, shape: ActShape) -> dict[str, dict[str, Any]]:
    size = [3, told.image_height, told.image_width]
    return {
        STATE: {"type": "STATE", "shape": [shape.state_size]},
        **{PICTURES + name: {"type": "VISUAL", "shape": size} for name in told.cameras},
        ACTION: {"type": "ACTION", "shape": [shape.action_size]},
    }


_MODES = {"VISUAL": "MEAN_STD", "STATE": "MEAN_STD", "ACTION": "MEAN_STD"}


def _config(told: _Said, shape: ActShape) -> dict[str, Any]:
    features = _features(told, shape)
    action = features.pop(ACTION)
    return {
        "type": "act",
        "n_obs_steps": 1,
        "input_features": features,
        "output_features": {ACTION: action},
        "normalization_mapping": _MODES,
        "chunk_size": shape.chunk,
        "n_action_steps": shape.chunk,
        "vision_backbone": "resnet18",
        "pretrained_backbone_weights": None,
        "dim_model": shape.hidden,
        "n_heads": shape.heads,
        "dim_feedforward": shape.feedforward,
        "n_encoder_layers": shape.encoder_layers,
        "n_decoder_layers": 1,
        "use_vae": True,
        "latent_dim": shape.latent,
        "n_vae_encoder_layers": shape.encoder_layers,
    }


def _statistics(told: _Said, stats: ActStats) -> dict[str, Tensor]:
    held = {
        f"{STATE}.mean": torch.from_numpy(stats.qpos_mean),
        f"{STATE}.std": torch.from_numpy(stats.qpos_std),
        f"{ACTION}.mean": torch.from_numpy(stats.action_mean),
        f"{ACTION}.std": torch.from_numpy(stats.action_std),
    }
    for name in told.cameras:
        held[f"{PICTURES}{name}.mean"] = torch.tensor(MEAN).view(3, 1, 1)
        held[f"{PICTURES}{name}.std"] = torch.tensor(STD).view(3, 1, 1)
    return held
