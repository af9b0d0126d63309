"""How large a SmolVLA is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from runtime.options import Options

PUBLIC_VLM: Mapping[str, Any] = {
    "vision_config": {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "image_size": 512,
        "patch_size": 16,
    },
    "text_config": {
        "model_type": "llama",
        "hidden_size": 960,
        "intermediate_size": 2560,
        "num_attention_heads": 15,
        "num_key_value_heads": 5,
        "num_hidden_layers": 32,
        "head_dim": 64,
        "vocab_size": 49280,
        "rms_norm_eps": 1e-5,
        "pad_token_id": 2,
        "bos_token_id": 1,
        "eos_token_id": 2,
    },
    "scale_factor": 4,
    "image_token_id": 49190,
    "tie_word_embeddings": False,
}
"""Sizes of ``HuggingFaceTB/SmolVLM2-500M-Video-Instruct``, which the public SmolVLA is built on."""


class SmolVlaShape(Options):
    """What LeRobot's ``config.json`` says of it, with LeRobot's defaults.

    Attributes:
        vlm: sizes of the vision-language model, as its own ``config.json`` has them.
        chunk: rows of an action chunk. steps: of the flow's integration.
        state_size, action_size: what state and action are filled up to with zeros.
        vlm_layers: how many layers of the language model are used, from the first.
        expert_width: the expert's hidden size, as a fraction of the language model's.
        self_attention_every: every so many layers the expert attends to its own rows, too; in between, to
            what was read alone.
        shortest_period, longest_period: of the flow time's sines.
    """

    vlm: Mapping[str, Any] = PUBLIC_VLM
    chunk: int = Field(default=50, ge=1, le=1000)
    steps: int = Field(default=10, ge=1, le=1000)
    state_size: int = Field(default=32, ge=1, le=1024)
    action_size: int = Field(default=32, ge=1, le=1024)
    vlm_layers: int = Field(default=16, ge=1, le=128)
    expert_width: float = Field(default=0.75, gt=0, le=4)
    self_attention_every: int = Field(default=2, ge=1)
    shortest_period: float = Field(default=4e-3, gt=0)
    longest_period: float = Field(default=4.0, gt=0)
