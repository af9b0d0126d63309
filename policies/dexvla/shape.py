"""How large a DexVLA is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from runtime.options import Options

PUBLIC_VLM: Mapping[str, Any] = {
    "model_type": "qwen2_vl",
    "vision_config": {
        "depth": 32,
        "embed_dim": 1280,
        "hidden_size": 1536,
        "mlp_ratio": 4,
        "num_heads": 16,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
    },
    "text_config": {
        "hidden_size": 1536,
        "intermediate_size": 8960,
        "max_position_embeddings": 32768,
        "num_attention_heads": 12,
        "num_hidden_layers": 28,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
        "vocab_size": 151936,
    },
    "image_token_id": 151655,
    "video_token_id": 151656,
    "vision_start_token_id": 151652,
    "vision_end_token_id": 151653,
    "tie_word_embeddings": True,
}
"""Sizes of ``Qwen/Qwen2-VL-2B-Instruct``, which the public DexVLA is built on."""
VLM_CLASSES: Mapping[str, tuple[str, str]] = {
    "qwen2_vl": ("Qwen2VLConfig", "Qwen2VLForConditionalGeneration"),
    "qwen2_5_vl": ("Qwen2_5_VLConfig", "Qwen2_5_VLForConditionalGeneration"),
}
"""Transformers' classes of the language models that are known, by ``model_type``."""
PUBLIC_TYPE = "qwen2_vla"
"""The ``model_type`` that DexVLA's own configurations have: a Qwen2-VL with more keys."""


HEAD_SIZES: Mapping[str, Mapping[str, int]] = {
    "ScaleDP_H": {"layers": 32, "width": 1280, "heads": 16},
    "ScaleDP_L": {"layers": 24, "width": 1024, "heads": 16},
}
"""Of the public code's heads, by ``policy_head_size``: 0.95 and 0.45 billion weights."""


class ScaleDpShape(Options):
    """The diffusion head. The defaults are ScaleDP-H's; ScaleDP-L has 24 layers of 1024.

    Attributes:
        state_size, action_size: entries of the state and of an action.
        chunk: rows of a chunk (``prediction_horizon``).
        layers, width, heads: of the transformer.
        mlp_ratio: how much wider its feed-forward networks are inside.
        combine_width: inside the network that puts condition and state together.
        inference_steps, train_steps: of the DDIM schedule (``squaredcos_cap_v2``).
    """

    state_size: int = Field(default=14, ge=1, le=1024)
    action_size: int = Field(default=14, ge=1, le=1024)
    chunk: int = Field(default=50, ge=1, le=1000)
    layers: int = Field(default=32, ge=1, le=256)
    width: int = Field(default=1280, ge=1)
    heads: int = Field(default=16, ge=1)
    mlp_ratio: float = Field(default=4.0, gt=0, le=64)
    combine_width: int = Field(default=1024, ge=1)
    inference_steps: int = Field(default=10, ge=1)
    train_steps: int = Field(default=100, ge=1, le=10_000)

    @model_validator(mode="after")
    def _check(self) -> ScaleDpShape:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is no multiple of heads {self.heads}")
        if self.inference_steps > self.train_steps:
            raise ValueError("inference_steps is larger than train_steps")
        return self

    @property
    def prediction(self) -> Literal["epsilon", "sample"]:
        """The head predicts the noise."""
        return "epsilon"


class DexVlaShape(Options):
    """The network. What a checkpoint or the folder of a language model says of it counts before this.

    Attributes:
        vlm: sizes of the vision-language model, a Qwen2-VL or Qwen2.5-VL, as its own ``config.json`` has
            them.
        head: the diffusion head.
        image_width, image_height: what pictures are brought to before the language model's own resizing.
    """

    vlm: Mapping[str, Any] = PUBLIC_VLM
    head: ScaleDpShape = ScaleDpShape()
    image_width: int = Field(default=320, ge=28, le=4096)
    image_height: int = Field(default=240, ge=28, le=4096)

    @field_validator("vlm")
    @classmethod
    def _known(cls, given: Mapping[str, Any]) -> Mapping[str, Any]:
        kind = given.get("model_type")
        if kind != PUBLIC_TYPE and kind not in VLM_CLASSES:
            raise ValueError(
                f"model_type {kind!r}: the vision-language model is one of {', '.join(VLM_CLASSES)}"
            )
        return given
