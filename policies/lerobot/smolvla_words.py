"""The folder of a SmolVLA's language model: how instructions become tokens, and the sizes of its networks.

Its weights are in LeRobot's file; of the folder, ``config.json`` and the tokenizer's files count.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from policies.checkpoint import CheckpointError
from policies.lerobot.smolvla_shape import PUBLIC_VLM
from runtime.input_file import parse_json, read_small

PUBLIC = "HuggingFaceTB/SmolVLM2-500M-Video-Instruct"
"""What SmolVLA is built on unless a folder says otherwise."""
TOKENIZER, SIZES = "tokenizer.json", "config.json"
INSIDE = "vlm"
"""Where in a folder of `dexrun train` the language model's own is."""
_MOST_LAYERS = 256
_KEPT = (
    "vision_config",
    "text_config",
    "scale_factor",
    "image_token_id",
    "tie_word_embeddings",
    "pad_token_id",
)


class Tokens:
    """Instructions to tokens, as a network was trained.

    Args:
        place: a folder with a tokenizer.
        vocabulary: how many tokens the network knows.
        longest: tokens that are read at most.

    Raises:
        CheckpointError: it cannot be used.
    """

    def __init__(self, place: Path, vocabulary: int, longest: int) -> None:
        from transformers import AutoTokenizer

        try:
            self._made: Any = AutoTokenizer.from_pretrained(
                str(place), local_files_only=True, trust_remote_code=False
            )
            last = max(self._made.get_vocab().values())
        except Exception as error:  # whatever its files say, in the library's own ways
            raise CheckpointError(f"the tokenizer in {place}: {' '.join(str(error).split())[:200]}") from None
        if last >= vocabulary:
            raise CheckpointError(f"the tokenizer in {place} has {last + 1} tokens, the network {vocabulary}")
        self._longest = longest

    def of(self, text: str) -> list[int]:
        """Of one instruction, a new line at its end."""
        line = text if text.endswith("\n") else f"{text}\n"
        return list(map(int, self._made(line, truncation=True, max_length=self._longest)["input_ids"]))

    def __call__(self, texts: tuple[str, ...], device: torch.device) -> tuple[Tensor, Tensor | None]:
        """``[B, L]``, and which of them count; ``None``: all."""
        each = [self.of(text) for text in texts]
        most = max(map(len, each))
        words = torch.tensor([ids + [0] * (most - len(ids)) for ids in each], device=device)
        if all(len(ids) == most for ids in each):
            return words, None
        return words, torch.arange(most, device=device)[None] < torch.tensor(
            [[len(ids)] for ids in each], device=device
        )


def sizes_in(place: Path) -> dict[str, Any]:
    """Of the vision-language model whose folder is `place`.

    Raises:
        CheckpointError: its ``config.json`` cannot be read, or is of no such model.
    """
    file = place / SIZES
    try:
        held = parse_json(read_small(file))
        found = {key: held[key] for key in _KEPT if key in held}
        whole = {**PUBLIC_VLM, **found}
        for part in ("vision_config", "text_config"):
            whole[part] = {**(_defaults(part)), **found.get(part, {})}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"{file}: {' '.join(str(error).split())[:200]}") from None
    check_sizes(whole)
    return whole


def _defaults(part: str) -> Mapping[str, Any]:
    """What the language model's own file leaves out is as transformers has it."""
    from transformers import SmolVLMConfig

    config: Any = getattr(SmolVLMConfig(), part)
    return {key: value for key, value in config.to_dict().items() if isinstance(value, int | float)}


def check_sizes(sizes: Mapping[str, Any]) -> None:
    """Whether they are of a model that runs here.

    Raises:
        CheckpointError: they are not.
    """
    vision, text = sizes["vision_config"], sizes["text_config"]
    for part, key in ((vision, "num_hidden_layers"), (text, "num_hidden_layers")):
        if type(part.get(key)) is not int or not 0 < part[key] <= _MOST_LAYERS:
            raise CheckpointError(
                f"its language model has {key} = {part.get(key)!r:.40}; expected 1 to {_MOST_LAYERS}"
            )
    if text.get("model_type", "llama") != "llama":
        raise CheckpointError(
            f"its language model is a {text['model_type']!r}; SmolVLM's, a llama, runs here"
        )
