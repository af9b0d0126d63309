"""``dexrun convert``: weights from a pickle into a safetensors file, without running the pickle."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

from dexrun.exit_codes import BAD_CONFIGURATION, OK
from dexrun.printing import fail, say
from policies.act.config import ActConfig
from policies.checkpoint import CheckpointError, State, read_state, write_safetensors
from runtime.interfaces import PolicyError
from runtime.packages import need


def main(arguments: list[str]) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="dexrun convert",
        description="A policy checkpoint into safetensors.",
        epilog="example: dexrun convert policy_best.ckpt policy.safetensors",
    )
    parser.add_argument("source", type=Path, help="checkpoint to read (.ckpt, .pt, .pth)")
    parser.add_argument("target", type=Path, help="safetensors file to write")
    options = parser.parse_args(arguments)
    try:
        say(f"{convert(options.source, options.target)}\n")
    except PolicyError as error:
        fail(error)
        return BAD_CONFIGURATION
    return OK


def convert(source: Path, target: Path) -> str:
    """Write the weights of `source` to `target`, checked.

    ``source`` is a DexGraspVLA workspace checkpoint, ACT's ``policy_best.ckpt`` with
    ``dataset_stats.pkl`` beside it (its statistics come along), or any other file of weights, which is
    taken over name by name.

    Args:
        source: ``.ckpt``, ``.pt``, ``.pth`` or ``.safetensors``.
        target: the ``.safetensors`` file to write; an existing file is replaced.

    Returns:
        One line that says what was written.

    Raises:
        PolicyError: `source` cannot be read, `target` ends otherwise, or torch is not installed; one line.
    """
    if not target.parent.is_dir():
        raise CheckpointError(f"{target}: there is no folder {target.parent}")
    need("dexrun convert", ("torch", "safetensors"), "learned")
    if target.suffix != ".safetensors":
        raise CheckpointError(f"{target}: the result must end in .safetensors")
    state = read_state(source)
    kind = _kind(state)
    metadata = {"format": "pt", "kind": kind, "source": source.name}
    if kind == "act":
        state = {key.removeprefix("model."): value for key, value in state.items()}
        state |= _act_statistics(source)
    try:
        write_safetensors(target, state, metadata)
    except OSError as error:
        raise CheckpointError(f"{target}: not written: {error.strerror or error}") from error
    size = sum(t.numel() * t.element_size() for t in state.values()) / 2**20
    return f"{target}: {kind}, {len(state)} tensors, {size:.1f} MiB"


def _kind(state: Mapping[str, object]) -> str:
    if "model.cond_pos_emb" in state:
        return "dexgrasp"
    if any(key.removeprefix("model.") == "additional_pos_embed.weight" for key in state):
        return "act"
    if "pos_embed" in state and "cls_token" in state:
        return "dinov2"
    return "weights"


def _act_statistics(source: Path) -> State:
    from policies.act.load import load_act, stats_state

    return stats_state(load_act(ActConfig(checkpoint=str(source)))[1])
