"""What of a SmolVLA is trained in which stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from policies.lerobot.smolvla_network import SmolVla
from policies.smolvla.options import AdaptedPart, SmolVlaTraining
from policies.training.adapters import add_adapters

_JOINS = ("state_proj.", "action_in_proj.", "action_out_proj.", "action_time_mlp_in.", "action_time_mlp_out.")
"""What joins state and actions to the rest."""
_PARTS: Mapping[AdaptedPart, str] = {
    "expert": "vlm_with_expert.lm_expert.",
    "language": "vlm_with_expert.vlm.model.text_model.",
    "vision": "vlm_with_expert.vlm.model.vision_model.",
}
_ADAPTED = (".q_proj", ".v_proj")


def choose(network: SmolVla, training: SmolVlaTraining) -> None:
    """Freeze what is not trained, and add adapters where they are asked for.

    Raises:
        PolicyError: peft is not installed.
    """
    if training.stage == "lora":
        places = tuple(_PARTS[part] for part in training.lora_in)
        lora = (training.lora_rank, training.lora_alpha, training.lora_dropout)
        add_adapters(network, lambda name: name.startswith(places) and name.endswith(_ADAPTED), *lora)
        _train(network, _JOINS)
    elif training.stage == "expert":
        network.requires_grad_(False)
        _train(network, (*_JOINS, _PARTS["expert"]))
    else:
        network.requires_grad_(True)
        text = _PARTS["language"]
        last = f"{text}layers.{network.shape.vlm_layers - 1}."
        unused = (f"{text}norm.", last)  # as LeRobot: of the last layer only keys and values are looked at
        _train(network, (*unused, *([_PARTS["vision"]] if training.freeze_vision else [])), trained=False)


def _train(network: SmolVla, places: Sequence[str], *, trained: bool = True) -> None:
    for name, parameter in network.named_parameters():
        if name.startswith(tuple(places)):
            parameter.requires_grad_(trained)
