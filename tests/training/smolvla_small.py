"""A SmolVLA of tiny sizes that begins with nothing, and a data set for all of its inputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from policies.data.dataset import DEPTH, FORCE, TIP, Feature
from tests.training.rig import HeldDataset, held, options

VLM: dict[str, Any] = {
    "vision_config": {
        "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
        "image_size": 32, "patch_size": 4,
    },
    "text_config": {
        "model_type": "llama", "hidden_size": 24, "intermediate_size": 48, "num_attention_heads": 6,
        "num_key_value_heads": 2, "num_hidden_layers": 4, "head_dim": 4, "vocab_size": 260,
        "rms_norm_eps": 1e-5,
    },
    "scale_factor": 4,
    "image_token_id": 259,
    "tie_word_embeddings": False,
}  # fmt: skip
SHAPE = {"vlm": VLM, "vlm_layers": 3, "chunk": 6, "state_size": 8, "action_size": 8}


def settings(to: Path, **changes: Any) -> Any:
    given = {
        "steps": 2,
        "batch": 4,
        "validation": {"share": 0},
        "optimizer": {"lr": 3e-3, "weight_decay": 1e-10, "betas": (0.9, 0.95), "clip": 10.0},
        "policy": {"type": "smolvla"},
        "recipe": {"shape": SHAPE},
    }
    return options(to, **{**given, **changes})


def with_everything(rows: int = 8, size: tuple[int, int] = (24, 40)) -> HeldDataset:
    """Depth of the camera, three channels of force, and where the object is; not seen at once in one."""
    dataset, random = held(4, rows, size), np.random.default_rng(3)
    dataset.features = {
        **dataset.features,
        DEPTH + "head": Feature(size, "float32", "m"),
        FORCE: Feature((3,), "float32", "N"),
        TIP: Feature((3,), "float32", "m", ("x", "y", "z")),
    }
    dataset.about = {"tip_camera": "head"}
    for episode in dataset.episodes:
        depth = random.uniform(0.2, 0.7, (1, *size)).astype(np.float32)
        depth[:, :4] = 0.0
        episode.arrays[DEPTH + "head"] = np.repeat(depth, rows, axis=0)
        episode.arrays[FORCE] = random.normal(0, 2, (rows, 3)).astype(np.float32)
        episode.arrays[TIP] = random.uniform(-0.2, 0.4, (rows, 3)).astype(np.float32)
    dataset.episodes[0].arrays[TIP][:3] = np.nan
    return dataset
