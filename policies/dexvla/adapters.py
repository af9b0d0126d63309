"""Adapters in DexVLA's language model (LoRA, arXiv 2106.09685), by peft; merged where weights are written."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from policies.dexvla.network import DexVla, public_name
from runtime.packages import need

_LEFT = ("lm_head", "merger")
"""Of the language model's linear layers, those that have no adapters, as in the public code."""
_BASE, _ADAPTER = ".base_layer.", ".lora_"


def add_adapters(network: DexVla, rank: int, alpha: int, dropout: float) -> None:
    """Freeze the language model, and give its linear layers adapters that are trained.

    Raises:
        PolicyError: peft is not installed.
    """
    need("recipe.stage 'lora'", ("peft",), "vla")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from peft import LoraConfig, inject_adapter_in_model

    names = [
        name
        for name, module in network.vlm.named_modules()
        if isinstance(module, nn.Linear) and not any(each in name for each in _LEFT)
    ]
    config: Any = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=names)
    network.vlm.requires_grad_(False)
    inject_adapter_in_model(config, network.vlm)


def merged_state(network: DexVla) -> dict[str, Tensor]:
    """`DexVla.public_state` of a network, what adapters add to weights added to them."""
    state = network.public_state()
    found = {}
    for name, value in state.items():
        if _ADAPTER not in name:
            found[name.replace(_BASE, ".")] = value.detach()
    for name, module in network.named_modules():
        if hasattr(module, "get_delta_weight"):
            key = public_name(f"{name}.weight")
            with torch.no_grad():
                found[key] = found[key] + module.get_delta_weight("default")
    return found
