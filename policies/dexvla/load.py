"""Reads a DexVLA, of the public code or of `dexrun train`, and what one begins with.

Folders are local, weights safetensors: nothing is fetched, and no code in a folder is run. The network is
made without weights, and each tensor of the files becomes its weight: what is read is all that is held.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from loguru import logger
from torch import Tensor

from policies.checkpoint import CheckpointError, State, check_fit, read_pickle, read_safetensors, read_torch
from policies.dexvla.network import DexVla, is_of_vlm
from policies.dexvla.shape import HEAD_SIZES, PUBLIC_TYPE, VLM_CLASSES, DexVlaShape
from policies.dexvla.words import DexVlaWords, byte_vlm, byte_words, words_of
from policies.model_folder import CONFIG, check_memory, read_config, weight_files
from runtime.messages import Floats
from runtime.torch_device import torch_dtype

PUBLIC_STATS = "dataset_stats.pkl"
STATS_PREFIX = "stats."


@dataclass(frozen=True, slots=True)
class DexVlaStats:
    """The data set's statistics, float64 ``[S]`` of the state and ``[A]`` of actions."""

    qpos_mean: Floats
    qpos_std: Floats
    action_min: Floats
    action_max: Floats
    action_mean: Floats
    action_std: Floats

    def tensors(self) -> State:
        """As a file of `dexrun train` holds them."""
        return {STATS_PREFIX + each.name: torch.from_numpy(getattr(self, each.name)) for each in fields(self)}


@dataclass(frozen=True, slots=True)
class LoadedDexVla:
    """Everything of a checkpoint."""

    network: DexVla
    stats: DexVlaStats
    words: DexVlaWords


def stats_from(where: str, held: Mapping[str, Any], shape: DexVlaShape) -> DexVlaStats:
    """Check statistics against the network.

    Raises:
        CheckpointError: one is missing, of another size, or cannot be divided by.
    """
    made = {}
    for each in fields(DexVlaStats):
        size = shape.head.state_size if each.name.startswith("qpos") else shape.head.action_size
        if each.name not in held:
            raise CheckpointError(f"{where}: no {each.name!r} in it")
        value = np.asarray(held[each.name], float)
        if value.shape != (size,) or not np.isfinite(value).all():
            raise CheckpointError(f"{where}: {each.name} has shape {list(value.shape)}; expected [{size}]")
        made[each.name] = value
    if not (made["qpos_std"] > 0).all() or not (made["action_max"] > made["action_min"]).all():
        raise CheckpointError(
            f"{where}: qpos_std has an entry that is not above 0, or action_max one not above action_min"
        )
    return DexVlaStats(**made)


def _read(files: Sequence[Path], dtype: torch.dtype) -> tuple[State, State]:
    """Weights, converted one by one, and what else is in the files: statistics, as they are."""
    state: State = {}
    stats: State = {}
    for file in files:
        for name, value in read_safetensors(file)[0].items():
            if name.startswith(STATS_PREFIX):
                stats[name.removeprefix(STATS_PREFIX)] = value
            else:
                state[name] = value.to(dtype) if value.is_floating_point() else value
    return state, stats


# --- networks


@contextmanager
def _without_weights() -> Iterator[None]:
    """Within, modules are made with weights that take no memory."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from accelerate import init_empty_weights
    with init_empty_weights(include_buffers=False):
        yield


def made(where: str, make: Callable[[], DexVla]) -> DexVla:
    """What `make` makes.

    Raises:
        CheckpointError: sizes do not fit each other.
    """
    try:
        return make()
    except (ValueError, RuntimeError, TypeError, ZeroDivisionError) as error:
        what = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{where}: its sizes are of no Qwen2-VL: {what}") from None


def _filled(path: Path, shape: DexVlaShape, state: State) -> DexVla:
    with _without_weights():
        network = made(str(path), lambda: DexVla(shape))
    wanted = network.public_state()
    known = network.known(state)
    check_fit(str(path), known, wanted)
    network.load_public(known)
    return network


def load_dexvla(path: Path, shape: DexVlaShape, precision: str, device: torch.device) -> LoadedDexVla:
    """The checkpoint at `path`, on the CPU in `precision`: a folder of the public code's training, or
    ``model.safetensors`` of `dexrun train`, whose network is of `shape`.

    Raises:
        CheckpointError: it cannot be read, or its parts do not fit together; one line.
    """
    dtype = torch_dtype(precision)
    public = path.is_dir()
    if public:
        shape = public_shape(path, read_config(path, (PUBLIC_TYPE,)), shape)
    elif path.suffix != ".safetensors":
        raise CheckpointError(f"{path}: give the folder of a DexVLA, or one of dexrun train")
    files = weight_files(path) if public else (path,)
    check_memory(files, dtype, device)
    state, inside = _read(files, dtype)
    network = _filled(path, shape, state)
    words = words_of(path if public else path.parent)
    words.fits(network.vlm.config, str(path))
    if inside:
        return LoadedDexVla(
            network, stats_from(str(path), {k: v.numpy() for k, v in inside.items()}, shape), words
        )
    stats = next((p for p in (path / PUBLIC_STATS, path.parent / PUBLIC_STATS) if p.is_file()), None)
    if stats is None:
        raise CheckpointError(f"{path}: no {PUBLIC_STATS} in it or beside it: how actions are scaled")
    held = read_pickle(stats)
    if not isinstance(held, Mapping):
        raise CheckpointError(f"{stats}: holds a {type(held).__name__}, not a table of statistics")
    return LoadedDexVla(network, stats_from(str(stats), held, shape), words)


def public_shape(folder: Path, config: Mapping[str, Any], configured: DexVlaShape) -> DexVlaShape:
    """What ``config.json`` of the public code's training says.

    Raises:
        CheckpointError: a head or a way to join it that is not known here.
    """
    head = config.get("policy_head_config")
    kind = config.get("policy_head_type", "scale_dp_policy")
    where = folder / CONFIG
    if kind != "scale_dp_policy" or not isinstance(head, Mapping):
        raise CheckpointError(
            f"{where}: policy_head_type {str(kind)[:80]!r}; the head here is scale_dp_policy"
        )
    if not config.get("using_film", True) or head.get("is_tinyvla", False):
        raise CheckpointError(
            f"{where}: a model without FiLM (using_film, is_tinyvla); those are not known here"
        )
    named = HEAD_SIZES.get(str(config.get("policy_head_size", "")), {})
    keys = {
        "state_size": "state_dim",
        "action_size": "input_dim",
        "chunk": "prediction_horizon",
        "layers": "depth",
        "width": "n_emb",
        "heads": "num_heads",
        "mlp_ratio": "mlp_ratio",
        "inference_steps": "num_inference_timesteps",
        "train_steps": "num_train_timesteps",
    }
    said = {own: head[key] for own, key in keys.items() if key in head}
    left = (
        "policy_head_config",
        "policy_head_type",
        "policy_head_size",
        "using_film",
        "llm_loss_weight",
        "concat",
    )
    vlm = {key: value for key, value in config.items() if key not in left}
    try:
        return DexVlaShape.model_validate(
            {**configured.model_dump(), "vlm": vlm, "head": {**configured.head.model_dump(), **named, **said}}
        )
    except ValueError as error:
        raise CheckpointError(f"{where}: {' '.join(str(error).split())[:300]}") from None


def begun_with(folder: Path, shape: DexVlaShape) -> tuple[DexVla, DexVlaWords]:
    """A network whose language model is the Qwen2-VL or Qwen2.5-VL in `folder`; the rest begins with nothing.

    Raises:
        CheckpointError: it cannot be read, or is no such model.
    """
    config = read_config(folder, (*VLM_CLASSES, PUBLIC_TYPE))
    files = weight_files(folder)
    check_memory(files, torch.float32, torch.device("cpu"))
    shape = shape.model_copy(update={"vlm": config})
    state, _ = _read(files, torch.float32)
    with _without_weights():
        network = made(str(folder), lambda: DexVla(shape))
    known = network.known(state)
    check_fit(str(folder), known, {k: v for k, v in network.public_state().items() if is_of_vlm(k)})
    network.begin_rest()
    network.load_public({**network.public_state(), **known})
    words = words_of(folder)
    words.fits(network.vlm.config, str(folder))
    return network, words


def begun_with_nothing(shape: DexVlaShape) -> tuple[DexVla, DexVlaWords]:
    """A network of `shape`, whose words are bytes; seeded by the caller."""
    shape = shape.model_copy(update={"vlm": byte_vlm(shape.vlm)})
    return made("policy.shape.vlm", lambda: DexVla(shape)), byte_words()


def load_head(network: DexVla, path: Path) -> None:
    """Give the head the weights of one that was trained alone, as the public code reads them.

    What is of other sizes (another arm's joints, another chunk) begins with nothing, and so does what joins
    the head to a language model.

    Raises:
        CheckpointError: the file cannot be read, or is of another head.
    """
    held = read_torch(path, lenient=True)
    for key in ("nets", "nets"):
        held = held.get(key, held) if isinstance(held, Mapping) else held
    if not isinstance(held, Mapping):
        raise CheckpointError(f"{path}: holds a {type(held).__name__}, not a head's weights")
    tensors = {str(name): value for name, value in held.items() if isinstance(value, Tensor)}
    prefixes = ("policy.noise_pred_net.", "noise_pred_net.", "policy_head.")
    found: State = {}
    for name, value in tensors.items():
        prefix = next((each for each in prefixes if name.startswith(each)), "")
        if prefix or not any(key.startswith(prefixes) for key in tensors):
            found[name.removeprefix(prefix)] = value.float()
    own = network.policy_head.state_dict()
    inner = {name for name in own if name.startswith("blocks.")}
    if lacking := sorted(name for name in inner if name not in found or found[name].shape != own[name].shape):
        raise CheckpointError(
            f"{path}: not a head of {len(network.policy_head.blocks)} layers of "
            f"{network.shape.head.width} (policy.shape.head): {lacking[0]} and {len(lacking) - 1} more differ"
        )
    taken = {
        name: value
        for name, value in found.items()
        if name in own and own[name].shape == value.shape and not name.startswith("cond_obs_emb")
    }
    anew = sorted({name.split(".")[0] for name in own if name not in taken})
    logger.info(
        "{}: {} of the head's weights; {} begin with nothing", path, len(taken), ", ".join(anew) or "none"
    )
    network.policy_head.load_state_dict(taken, strict=False)
