"""Adapters beside a network's linear layers (LoRA, arXiv 2106.09685), by peft; merged where weights are
written.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from runtime.packages import need

_BASE, _ADAPTER = ".base_layer.", ".lora_"


def add_adapters(
    network: nn.Module, wanted: Callable[[str], bool], rank: int, alpha: int, dropout: float
) -> None:
    """Freeze `network`, and give those of its linear layers whose name is `wanted` adapters that are trained.

    Raises:
        PolicyError: peft is not installed.
    """
    need("recipe.stage 'lora'", ("peft",), "vla")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from peft import LoraConfig, inject_adapter_in_model

    names = [
        name for name, module in network.named_modules() if isinstance(module, nn.Linear) and wanted(name)
    ]
    config: Any = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=names)
    network.requires_grad_(False)
    inject_adapter_in_model(config, network)


def merged(
    network: nn.Module, state: dict[str, Tensor], written: Callable[[str], str] = lambda name: name
) -> dict[str, Tensor]:
    """`state` of a network, what adapters add to weights added to them.

    Args:
        network: that has them; any.
        state: its weights, by the names under which they are written.
        written: such a name of one of the network's own.
    """
    found = {
        name.replace(_BASE, "."): value.detach() for name, value in state.items() if _ADAPTER not in name
    }
    for name, module in network.named_modules():
        if hasattr(module, "get_delta_weight"):
            key = written(f"{name}.weight")
            with torch.no_grad():
                found[key] = found[key] + module.get_delta_weight("default")
    return found
