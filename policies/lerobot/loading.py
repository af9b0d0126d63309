"""Which network a folder's is, and what reads it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from policies.lerobot.folder import Folder
from policies.lerobot.network import ChunkNetwork
from policies.lerobot.options import FolderOptions, LerobotFolderOptions
from runtime.packages import need

Load = Callable[[Folder, torch.device], ChunkNetwork]
LerobotLoad = Callable[[Folder, LerobotFolderOptions, torch.device], ChunkNetwork]


def _act(folder: Folder, options: LerobotFolderOptions, device: torch.device) -> ChunkNetwork:
    from policies.lerobot.act import load_lerobot_act

    return load_lerobot_act(folder, device, options.held_in)


def _diffusion(folder: Folder, options: LerobotFolderOptions, device: torch.device) -> ChunkNetwork:
    from policies.lerobot.diffusion import load_lerobot_diffusion

    need(f"a {folder.kind} of LeRobot's", ("diffusers",), options.extra)
    steps, kind = options.inference_steps, options.noise_scheduler
    return load_lerobot_diffusion(folder, device, options.held_in, steps, kind)


def _smolvla(folder: Folder, options: LerobotFolderOptions, device: torch.device) -> ChunkNetwork:
    need(f"a {folder.kind} of LeRobot's", ("transformers",), "perception")
    from policies.lerobot.smolvla import load_lerobot_smolvla

    steps = options.inference_steps
    return load_lerobot_smolvla(folder, device, options.held_in, steps, options.vlm)


NETWORKS: Mapping[str, LerobotLoad] = {"act": _act, "diffusion": _diffusion, "smolvla": _smolvla}
"""What loads the network of a folder, by its kind."""


def network_of(folder: Folder, options: FolderOptions) -> Load:
    """What reads the network of one of LeRobot's folders.

    Raises:
        FolderError: none does.
    """
    assert isinstance(options, LerobotFolderOptions)  # noqa: S101 - any other table brings its own
    if folder.kind not in NETWORKS:
        raise folder.error(f"a {folder.kind} does not run here; those that do are {', '.join(NETWORKS)}")
    if folder.beyond:
        raise folder.error(
            f"it has inputs that LeRobot has not ({', '.join(folder.beyond)}): give it as policy.checkpoint, "
            "without policy.type = 'lerobot'"
        )
    if options.noise_scheduler and folder.kind != "diffusion":
        raise folder.error(f"policy.noise_scheduler has no effect: it is a {folder.kind}")
    read = NETWORKS[folder.kind]
    return lambda folder, device: read(folder, options, device)
