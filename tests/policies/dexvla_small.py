"""A small DexVLA, and weights for it that the reference had, too."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import torch

from policies.dexvla.shape import DexVlaShape, ScaleDpShape

SHAPE = DexVlaShape(
    vlm={
        "model_type": "qwen2_vl",
        "vision_config": {
            "depth": 2, "embed_dim": 32, "mlp_ratio": 2, "num_heads": 2, "hidden_size": 32, "patch_size": 14,
            "spatial_merge_size": 2, "temporal_patch_size": 2,
        },
        "text_config": {
            "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
            "num_attention_heads": 2, "num_key_value_heads": 1, "rms_norm_eps": 1e-6,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]},
        },
        "image_token_id": 5, "video_token_id": 6, "vision_start_token_id": 3, "vision_end_token_id": 4,
        "tie_word_embeddings": True,
    },
    head=ScaleDpShape(state_size=7, action_size=5, chunk=6, layers=2, width=24, heads=3),
)  # fmt: skip


def numbers(name: str, shape: tuple[int, ...], std: float) -> torch.Tensor:
    """Normal numbers that depend on `name` alone, on any machine: numpy keeps this stream for ever."""
    random = np.random.RandomState(zlib.crc32(name.encode()))
    return torch.from_numpy((random.standard_normal(shape) * std).astype(np.float32))


def weight(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Of the public code's `name`, as the reference had it."""
    value = numbers(name, shape, 0.02 if name.startswith("policy_head.combine") else 0.2)
    return value + 1 if ("norm" in name or "ln_q" in name) and name.endswith("weight") else value


SMALL: dict[str, Any] = {
    "vlm": {
        "model_type": "qwen2_vl",
        "vision_config": {
            "depth": 1, "embed_dim": 32, "mlp_ratio": 2, "num_heads": 2, "hidden_size": 48, "patch_size": 14,
            "spatial_merge_size": 2, "temporal_patch_size": 2,
        },
        "text_config": {
            "hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 3,
            "num_key_value_heads": 1, "rms_norm_eps": 1e-6,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]},
        },
        "tie_word_embeddings": True,
    },
    "head": {"chunk": 4, "layers": 2, "width": 48, "heads": 3, "combine_width": 64},
    "image_width": 56,
    "image_height": 56,
}  # fmt: skip
"""``policy.shape`` of one that is trained in tests, from nothing: its words are bytes."""
