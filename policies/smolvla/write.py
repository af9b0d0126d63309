"""A SmolVLA as a folder that LeRobot runs, in the layout of LeRobot 0.4.

With inputs that LeRobot has not its ``type`` is none of LeRobot's, and says which they are: LeRobot refuses
the folder, and would otherwise have run it without them.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from policies.checkpoint import CheckpointError, write_safetensors
from policies.lerobot.folder import (
    ACTION,
    AFTER,
    BEFORE,
    BEYOND,
    CONFIG,
    PICTURES,
    STATE,
    WEIGHTS,
    open_folder,
)
from policies.lerobot.processor_files import Step, write_json, write_processors
from policies.lerobot.smolvla import HEAD
from policies.lerobot.smolvla_words import INSIDE, SIZES, TOKENIZER
from policies.lerobot.write import units_in_words, written_whole
from policies.said_units import NAME as ABOUT
from policies.smolvla.beginning import Beginning

MODES = {"VISUAL": "IDENTITY", "STATE": "MEAN_STD", "ACTION": "MEAN_STD"}
_TOKENIZERS = (
    TOKENIZER,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.json",
    "chat_template.jinja",
    "preprocessor_config.json",
    "processor_config.json",
)
"""Of a language model's folder, what LeRobot looks at besides its sizes."""


@dataclass(frozen=True, slots=True)
class Trained:
    """What there is to write.

    Attributes:
        begun: what it began with. weights: by the network's names. head: of the language model.
        pictures: by camera, height and width. state, action: sizes.
        statistics: ``observation.state.mean`` and the like.
        beyond: inputs that LeRobot has not, by name.
    """

    begun: Beginning
    weights: Mapping[str, Tensor]
    head: Tensor
    pictures: Mapping[str, tuple[int, int]]
    state: int
    action: int
    statistics: Mapping[str, Tensor]
    beyond: Sequence[str] = ()


def write_folder(trained: Trained, folder: Path) -> None:
    """Write LeRobot's files into `folder`, and the language model's own small ones."""
    state = {f"model.{name}": value.contiguous() for name, value in trained.weights.items()}
    state[f"model.{HEAD}"] = trained.head
    write_safetensors(folder / WEIGHTS, state, {"format": "pt"})
    features = _features(trained)
    write_json(folder / CONFIG, _config(trained, features))
    write_processors(folder, features, MODES, trained.statistics, _words(trained.begun))
    _copy_language_model(trained.begun, folder / INSIDE)


def _features(trained: Trained) -> dict[str, dict[str, Any]]:
    return {
        STATE: {"type": "STATE", "shape": [trained.state]},
        **{
            PICTURES + name: {"type": "VISUAL", "shape": [3, *size]}
            for name, size in trained.pictures.items()
        },
        ACTION: {"type": "ACTION", "shape": [trained.action]},
    }


def _config(trained: Trained, features: Mapping[str, Any]) -> dict[str, Any]:
    begun, shape = trained.begun, trained.begun.shape
    side = shape.vlm["vision_config"]["image_size"]
    return {
        "type": BEYOND + ", ".join(trained.beyond) if trained.beyond else "smolvla",
        "n_obs_steps": 1,
        "input_features": {name: each for name, each in features.items() if name != ACTION},
        "output_features": {ACTION: features[ACTION]},
        "normalization_mapping": MODES,
        "chunk_size": shape.chunk,
        "n_action_steps": shape.chunk,
        "max_state_dim": shape.state_size,
        "max_action_dim": shape.action_size,
        "resize_imgs_with_padding": [side, side],
        "tokenizer_max_length": begun.longest,
        "num_steps": shape.steps,
        "vlm_model_name": begun.name,
        "load_vlm_weights": False,
        "num_vlm_layers": shape.vlm_layers,
        "self_attn_every_n_layers": shape.self_attention_every,
        "expert_width_multiplier": shape.expert_width,
        "min_period": shape.shortest_period,
        "max_period": shape.longest_period,
    }


def _words(begun: Beginning) -> list[Step]:
    said = {
        "max_length": begun.longest,
        "task_key": "task",
        "padding_side": "right",
        "padding": "longest",
        "truncation": True,
        "tokenizer_name": begun.name,
    }
    return [
        {"registry_name": "smolvla_new_line_processor", "config": {}},
        {"registry_name": "tokenizer_processor", "config": said},
    ]


def _copy_language_model(begun: Beginning, to: Path) -> None:
    to.mkdir()
    for name in _TOKENIZERS:
        if (begun.place / name).is_file():
            shutil.copyfile(begun.place / name, to / name)
    own = begun.place / SIZES
    if own.is_file() and (begun.folder is None or begun.place != begun.folder.path):
        shutil.copyfile(own, to / SIZES)
    else:
        write_json(to / SIZES, {"model_type": "smolvlm", **begun.shape.vlm})


def write_lerobot_smolvla(source: Path, target: Path) -> str:
    """Write what of a checkpoint's folder is LeRobot's as the folder `target`; returns one line that says
    what it is.

    Raises:
        CheckpointError: LeRobot cannot run it; `target` is there already, or cannot be written; one line.
    """
    folder = open_folder("source", str(source))
    if folder.beyond:
        raise CheckpointError(
            f"{source}: it has inputs that LeRobot has not: {', '.join(folder.beyond)}; without them it "
            "would act otherwise than it was trained to: train without those switches"
        )
    statistics = sorted(source.glob("policy_*_processor.safetensors"))
    with written_whole(target) as draft:
        for path in (*(source / each for each in (CONFIG, WEIGHTS, BEFORE, AFTER, ABOUT)), *statistics):
            if path.is_file():
                shutil.copyfile(path, draft / path.name)
        if (source / INSIDE).is_dir():
            shutil.copytree(source / INSIDE, draft / INSIDE)
    told = units_in_words(target / WEIGHTS)
    rows = folder.config.get("chunk_size")
    return f"{target}: a SmolVLA for LeRobot, {len(folder.cameras)} cameras, {rows} rows{told}"
