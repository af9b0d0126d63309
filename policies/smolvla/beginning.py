"""What a training of SmolVLA begins with: a folder of LeRobot's or of `dexrun train`, the folder of a
language model, or nothing. Folders are local, and no code in them is run.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from policies.checkpoint import CheckpointError, State, check_fit, read_safetensors
from policies.lerobot.folder import Folder
from policies.lerobot.processor_files import write_json
from policies.lerobot.smolvla import HEAD, own_name, shape_of, without_head
from policies.lerobot.smolvla_network import SmolVla
from policies.lerobot.smolvla_shape import PUBLIC_VLM, SmolVlaShape
from policies.lerobot.smolvla_words import INSIDE, PUBLIC, SIZES, TOKENIZER, Tokens, sizes_in
from policies.lerobot.weights import loaded, shapes_in
from policies.model_folder import check_memory, read_config, weight_files
from policies.smolvla.options import SmolVlaOptions, SmolVlaTraining

_CPU = torch.device("cpu")
_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_MAY_DIFFER = ("chunk", "steps", "vlm")


@dataclass(frozen=True, slots=True)
class Beginning:
    """Where a training begins.

    Attributes:
        shape: of the network. words: its tokens, `longest` at most.
        place: the language model's folder, with tokenizer and sizes. name: what it was called.
        make: makes the network in float32 on the CPU, seeded by the caller, and what its language model would
            speak by, which only LeRobot's files have.
        folder: what it begins with, where that is one.
    """

    shape: SmolVlaShape
    words: Tokens
    longest: int
    place: Path
    name: str
    make: Callable[[], tuple[SmolVla, Tensor]]
    folder: Folder | None = None


def beginning(table: SmolVlaOptions, training: SmolVlaTraining, cache: Path) -> Beginning:
    """As the table and the recipe say; what has to be made for it is put into `cache`.

    Raises:
        CheckpointError: it cannot be used, or is of other sizes than are asked for; one line.
    """
    if table.checkpoint:
        return _from_folder(table, training)
    if training.vlm:
        return _from_language_model(Path(training.vlm).expanduser(), training)
    return _from_nothing(training, cache / INSIDE)


def _from_folder(table: SmolVlaOptions, training: SmolVlaTraining) -> Beginning:
    if training.vlm:
        raise CheckpointError("recipe.vlm has no effect: policy.checkpoint has a language model of its own")
    folder = table.folder()
    told, shape, place = shape_of(folder, table.vlm)
    for key in sorted(training.shape.model_fields_set.difference(_MAY_DIFFER)):
        if (has := getattr(shape, key)) != (wanted := getattr(training.shape, key)):
            raise folder.error(f"its {key} is {has}, and recipe.shape.{key} = {wanted}")
    ours = {key: getattr(training.shape, key) for key in ("chunk", "steps")}
    given = training.shape.model_fields_set
    shape = shape.model_copy(update={key: value for key, value in ours.items() if key in given})
    if training.rtc_delay >= shape.chunk:
        raise folder.error(f"its chunks have {shape.chunk} rows, and recipe.rtc_delay = {training.rtc_delay}")

    def make() -> tuple[SmolVla, Tensor]:
        network = loaded(folder, lambda: without_head(shape), _CPU, "float32", renamed=own_name)
        return network, _head(folder.weights, shape)

    longest = training.longest if "longest" in training.model_fields_set else folder.words.longest
    words = _tokens(place, shape, longest)
    return Beginning(shape, words, longest, place, told.vlm_model_name, make, folder)


def _head(weights: Path, shape: SmolVlaShape) -> Tensor:
    name = next((each for each in shapes_in(weights) if each.endswith(HEAD)), None)
    if name is None:
        return _no_head(shape)
    with safe_open(weights, "pt") as file:
        held: Tensor = file.get_tensor(name)
    return held


def _no_head(shape: SmolVlaShape) -> Tensor:
    text = shape.vlm["text_config"]
    return torch.zeros(text["vocab_size"], text["hidden_size"])


def _from_language_model(place: Path, training: SmolVlaTraining) -> Beginning:
    read_config(place, ("smolvlm",))
    files = weight_files(place)
    sizes = sizes_in(place)
    shape = training.shape.model_copy(update={"vlm": sizes})

    def make() -> tuple[SmolVla, Tensor]:
        check_memory(files, torch.float32, _CPU)
        network = _made(str(place), shape)
        vlm = network.vlm_with_expert.vlm
        state: State = {}
        for file in files:
            state |= {name: value.float() for name, value in read_safetensors(file)[0].items()}
        own = vlm.state_dict()
        check_fit(str(place), {name: value for name, value in state.items() if name in own}, own)
        vlm.load_state_dict(state, strict=False)
        head = state.get("lm_head.weight")
        return network, vlm.model.text_model.embed_tokens.weight.detach() if head is None else head

    name = PUBLIC if _same(sizes, PUBLIC_VLM) else str(place)
    return Beginning(shape, _tokens(place, shape, training.longest), training.longest, place, name, make)


def _same(sizes: Any, public: Any) -> bool:
    return all(
        sizes[part].get(key) == value
        for part in ("vision_config", "text_config")
        for key, value in public[part].items()
    )


def _from_nothing(training: SmolVlaTraining, place: Path) -> Beginning:
    sizes = byte_vlm(training.shape.vlm)
    shape = training.shape.model_copy(update={"vlm": sizes})
    write_byte_vlm(place, sizes)

    def make() -> tuple[SmolVla, Tensor]:
        return _made("recipe.shape", shape), _no_head(shape)

    return Beginning(shape, _tokens(place, shape, training.longest), training.longest, place, INSIDE, make)


def _made(where: str, shape: SmolVlaShape) -> SmolVla:
    try:
        return without_head(shape)
    except (ValueError, RuntimeError, TypeError, KeyError, ZeroDivisionError) as error:
        what = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{where}: its sizes are of no SmolVLA: {what}") from None


def _tokens(place: Path, shape: SmolVlaShape, longest: int) -> Tokens:
    if not (place / TOKENIZER).is_file():
        raise CheckpointError(f"{place}: there is no {TOKENIZER} in it, the language model's own")
    return Tokens(place, shape.vlm["text_config"]["vocab_size"], longest)


# --- words of a language model that begins with nothing


def byte_vlm(sizes: Any) -> dict[str, Any]:
    """`sizes` of a language model, with the vocabulary of `write_byte_vlm`."""
    text = {**sizes["text_config"], "vocab_size": 257 + len(_SPECIAL)}
    ids = {"bos_token_id": 1, "pad_token_id": 2, "eos_token_id": 2}
    return {**sizes, "text_config": {**text, **ids}, "image_token_id": 256 + len(_SPECIAL)}


def write_byte_vlm(place: Path, sizes: Any) -> None:
    """A language model's folder whose words are bytes, for one that begins with nothing."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    places = {text: at for at, text in enumerate((*_SPECIAL, *letters))}
    tokenizer = Tokenizer(models.BPE(places, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(each, special=True, normalized=False) for each in _SPECIAL])
    whole = json.loads(tokenizer.to_str())
    said = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": _SPECIAL[2], "eos_token": _SPECIAL[2]}
    place.mkdir(parents=True, exist_ok=True)
    files = {TOKENIZER: whole, SIZES: {"model_type": "smolvlm", **sizes}, "tokenizer_config.json": said}
    for name, value in files.items():  # whole at any moment: several processes of a training write the same
        draft = place / f".{name}.{os.getpid()}"
        write_json(draft, value)
        draft.replace(place / name)
