"""``dexrun convert``: weights from a pickle into a safetensors file, a policy into a folder for LeRobot."""

from __future__ import annotations

import argparse
from pathlib import Path

from dexrun.exit_codes import BAD_CONFIGURATION, OK
from dexrun.printing import fail, say
from policies.act.config import ActConfig
from policies.checkpoint import CheckpointError, State, read_state, write_safetensors
from policies.said_units import NAME, units_beside
from runtime.interfaces import PolicyError
from runtime.packages import need


def main(arguments: list[str]) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="dexrun convert",
        description="A policy checkpoint into safetensors; with --lerobot, an ACT or SmolVLA of dexrun train "
        "into a pretrained_model folder that LeRobot runs.",
        epilog="examples: dexrun convert policy_best.ckpt policy.safetensors;  "
        "dexrun convert outputs/pick/last pretrained_model --lerobot",
    )
    parser.add_argument("source", type=Path, help="checkpoint to read (.ckpt, .pt, .pth), or a folder")
    parser.add_argument("target", type=Path, help="safetensors file to write, or a folder")
    parser.add_argument("--lerobot", action="store_true", help="write a folder that LeRobot runs")
    options = parser.parse_args(arguments)
    try:
        made = _for_lerobot if options.lerobot else convert
        say(f"{made(options.source, options.target)}\n")
    except PolicyError as error:
        fail(error)
        return BAD_CONFIGURATION
    return OK


def convert(source: Path, target: Path) -> str:
    """Write the weights of `source` to `target`, checked.

    ``source`` is a DexGraspVLA workspace checkpoint, ACT's ``policy_best.ckpt`` with ``dataset_stats.pkl``
    beside it (its statistics come along), or a DINOv2 backbone. What cannot run here is not converted.
    ``dexrun.json`` beside it, which says its units, comes along into another folder.

    Args:
        source: ``.ckpt``, ``.pt``, ``.pth`` or ``.safetensors``.
        target: the ``.safetensors`` file to write; an existing file is replaced.

    Returns:
        One line that says what was written.

    Raises:
        PolicyError: `source` cannot be read or is of no network that runs here, `target` ends otherwise or
            cannot be written, or torch is not installed; one line.
    """
    need("dexrun convert", ("torch", "safetensors"), "learned")
    _check_target(source, target)
    about = _about(source, target)
    state = read_state(source)
    kind = _kind(source, state)
    metadata = {"format": "pt", "kind": kind, "source": source.name}
    if kind == "act":
        state = {key.removeprefix("model."): value for key, value in state.items()}
        state |= _act_statistics(source)
    elif kind == "dexgrasp":
        _check_controller(source, state)
    draft = target.with_name(f".{target.name}.partial")
    try:
        write_safetensors(draft, state, metadata)
        if about:
            target.with_name(NAME).write_bytes(about)
        draft.replace(target)
    except Exception as error:  # the library has an error of its own for what the disk says
        draft.unlink(missing_ok=True)
        what = getattr(error, "strerror", None) or " ".join(str(error).split())[:200]
        raise CheckpointError(f"{target}: not written: {what}") from error
    size = sum(t.numel() * t.element_size() for t in state.values()) / 2**20
    return f"{target}: {kind}, {len(state)} tensors, {size:.1f} MiB"


def _for_lerobot(source: Path, target: Path) -> str:
    need("dexrun convert", ("torch", "safetensors"), "learned")
    from policies.lerobot.folder import CONFIG
    from policies.lerobot.write import write_lerobot_folder

    if (source / "policy.json").is_file() and (source / CONFIG).is_file():
        from policies.smolvla.write import write_lerobot_smolvla

        return write_lerobot_smolvla(source, target)
    return write_lerobot_folder(source, target)


def _about(source: Path, target: Path) -> bytes:
    """What has to be written beside `target` for it to say the same of itself; empty if nothing has to.

    Raises:
        CheckpointError: it cannot be read, or another one is there.
    """
    said, there = source.with_name(NAME), target.with_name(NAME)
    if not said.is_file() or (there.exists() and said.samefile(there)):
        return b""
    ours, theirs = units_beside(source), units_beside(target) if there.exists() else None
    if there.exists() and (ours is None or theirs is None or ours.said() != theirs.said()):
        raise CheckpointError(f"{there} is there, and says other units than {said}; give another folder")
    return b"" if there.exists() else said.read_bytes()


def _check_target(source: Path, target: Path) -> None:
    if target.suffix != ".safetensors":
        raise CheckpointError(f"{target}: the result must end in .safetensors")
    if not target.parent.is_dir():
        raise CheckpointError(f"{target}: there is no folder {target.parent}")
    if target.is_dir():
        raise CheckpointError(f"{target}: a folder; give the name of a file")
    if target.exists() and source.exists() and target.samefile(source):
        raise CheckpointError(f"{target}: is what is to be converted; give another name")


def _kind(source: Path, state: State) -> str:
    from policies.act.load import LEROBOT, is_lerobot

    if "model.cond_pos_emb" in state:
        return "dexgrasp"
    if is_lerobot(state):
        raise CheckpointError(f"{source}: {LEROBOT}")
    if any(key.removeprefix("model.") == "additional_pos_embed.weight" for key in state):
        return "act"
    if "pos_embed" in state and "cls_token" in state:
        return "dinov2"
    some = ", ".join(sorted(state)[:3])
    raise CheckpointError(
        f"{source}: weights of no network that runs here ({some}, ...); converted are ACT's "
        "policy_best.ckpt, DexGraspVLA's controller and DINOv2's backbones"
    )


def _check_controller(source: Path, state: State) -> None:
    """Whether they say which network they are of, and what its numbers mean."""
    from policies.dexgrasp.load import NORMALIZER, shape_of
    from policies.dexgrasp.options import ControllerShape

    try:
        shape_of(state, ControllerShape())
    except CheckpointError as error:
        raise CheckpointError(f"{source}: {error}") from error
    if not any(key.startswith(NORMALIZER) for key in state):
        raise CheckpointError(f"{source}: no normaliser in it; give a workspace's checkpoint")


def _act_statistics(source: Path) -> State:
    from policies.act.load import load_act, stats_state

    return stats_state(load_act(ActConfig(checkpoint=str(source)))[1])
