"""LeRobot's SmolVLA (Shukor et al., arXiv 2506.01844): its network with a folder's weights.

Pictures, words and state are read once per chunk; the flow is integrated from what was read. Committed rows
(``rtc``) steer it by the paper's guidance (Black et al., arXiv 2506.07339): each step's velocity is pulled so
that the chunk that it leads to agrees with them, by the gradient through the expert. A network that was
trained to go on from given rows (arXiv 2512.05964) is given them: those are clean, at flow time 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own custom
from loguru import logger
from pydantic import Field
from torch import Tensor, nn

from policies import accelerate
from policies.checkpoint import CheckpointError
from policies.int8 import is_fast
from policies.lerobot.folder import STATE, Folder, FolderError
from policies.lerobot.network import CommittedRows, FileSaid, NetworkInput, said
from policies.lerobot.smolvla_network import Reading, SmolVla
from policies.lerobot.smolvla_shape import PUBLIC_VLM, SmolVlaShape
from policies.lerobot.smolvla_words import INSIDE, PUBLIC, SIZES, TOKENIZER, Tokens, check_sizes, sizes_in
from policies.lerobot.weights import loaded

GUIDANCE_LIMIT = 5.0
"""The paper's clip of the guidance weight."""
_MOST_LAYERS = 256


class SmolVlaSaid(FileSaid):
    """What LeRobot's ``config.json`` says of it, with LeRobot's defaults; one value: it runs so alone."""

    n_obs_steps: Literal[1] = 1
    chunk_size: int = Field(default=50, ge=1, le=1000)
    max_state_dim: int = Field(default=32, ge=1, le=1024)
    max_action_dim: int = Field(default=32, ge=1, le=1024)
    resize_imgs_with_padding: tuple[int, int] = (512, 512)
    num_steps: int = Field(default=10, ge=1, le=1000)
    num_vlm_layers: int = Field(default=16, ge=1, le=_MOST_LAYERS)
    num_expert_layers: int = Field(default=-1, le=0)
    self_attn_every_n_layers: int = Field(default=2, ge=1, le=_MOST_LAYERS)
    expert_width_multiplier: float = Field(default=0.75, gt=0, le=4)
    min_period: float = Field(default=4e-3, gt=0)
    max_period: float = Field(default=4.0, gt=0)
    attention_mode: Literal["cross_attn"] = "cross_attn"
    add_image_special_tokens: Literal[False] = False
    adapt_to_pi_aloha: Literal[False] = False
    use_delta_joint_actions_aloha: Literal[False] = False
    vlm_model_name: str = PUBLIC


@dataclass(frozen=True, slots=True)
class GivenRows:
    """Rows of a chunk that are known, and are not to be denoised (arXiv 2512.05964).

    Attributes:
        rows: ``[B, chunk, action_size]``, normalised. there: ``[B, chunk, 1]``, which of them are.
    """

    rows: Tensor
    there: Tensor


class LerobotSmolVla(nn.Module):
    """`policies.lerobot.network.ChunkNetwork`.

    Attributes:
        given_rows: up to so many committed rows are given to it, as it was trained with; more, and all where
            this is 0, steer it by guidance.
        beyond: makes ``[B, N, width]``, tokens of `NetworkInput.beyond`, for a network that LeRobot has not.
    """

    history = 1
    takes_prefix = True

    def __init__(self, network: SmolVla, words: Tokens, actions: int) -> None:
        super().__init__()
        self.network, self._words, self._actions = network, words, actions
        self.rows = network.shape.chunk
        self.given_rows = 0
        self.beyond: nn.Module | None = None

    def place(self, device: torch.device, precision: str) -> None:
        """Move there."""
        accelerate.place(self, device, precision)

    def pack(self, *, guided: bool, int8: bool) -> None:
        """Pack its large layers; what rows steer by gradients stays as it is."""
        if int8 and not is_fast():
            logger.warning(
                "policy.precision = 'int8': this processor has no instructions for it (VNNI); 'float32' is "
                "exact, and may be faster"
            )
        self.network.pack(flow=not guided, int8=int8)

    @torch.no_grad()
    def chunk(self, seen: NetworkInput) -> Tensor:
        """``[B, chunk, action]``, normalised, float32."""
        shape, felt = self.network.shape, seen.vectors[STATE][:, -1]
        device = felt.device
        words, mask = self._words(seen.instructions, device)
        side = shape.vlm["vision_config"]["image_size"]
        pixels = torch.stack([fitted(view[:, -1], side) for view in seen.pictures.values()], dim=1)
        state = F.pad(felt, (0, shape.state_size - felt.shape[1]))
        more = None if self.beyond is None else self.beyond(seen.beyond)
        reading = self.network.read(pixels, words, mask, state, more)
        size = (felt.shape[0], shape.chunk, shape.action_size)
        noise = torch.randn(size, generator=seen.noise).to(device)
        return self._flow(reading, noise, seen.committed)[..., : self._actions]

    def _flow(self, reading: Reading, noise: Tensor, committed: CommittedRows | None) -> Tensor:
        """By Euler's method from time 1 to 0, times as LeRobot counts them."""
        steps, x = self.network.shape.steps, noise
        times = torch.tensor([1.0 + step * (-1.0 / steps) for step in range(steps)], device=noise.device)
        parts = self.network.time_part(times)
        committed, given = self._given(committed)
        clean = None if given is None else self.network.time_part(torch.zeros(1, device=noise.device))
        for step in range(steps):
            part = parts[step : step + 1]
            if given is not None and clean is not None:
                x = torch.where(given.there, given.rows, x)
                part = torch.where(given.there, clean, part)
            if committed is None:
                velocity = self.network.velocity(x, part, reading)
            else:
                velocity = self._guided(x, part, reading, float(times[step]), committed)
            x = x - velocity / steps
        return x if given is None else torch.where(given.there, given.rows, x)

    def _given(self, committed: CommittedRows | None) -> tuple[CommittedRows | None, GivenRows | None]:
        """What is left to guide, and the rows that are given instead, as in training.

        Rows are given where no more of them will have been executed than it was trained for.
        """
        if committed is None or not self.given_rows:
            return committed, None
        known = committed.frozen <= self.given_rows
        rows = torch.arange(self.rows, device=known.device)[None]
        there = ((rows < committed.frozen[:, None]) & known[:, None])[..., None]
        fill = self.network.shape.action_size - committed.rows.shape[-1]
        guided = CommittedRows(committed.rows, committed.weights * ~known[:, None, None], committed.frozen)
        left = guided if bool(guided.weights.any()) else None
        return left, GivenRows(F.pad(committed.rows, (0, fill)), there)

    def _guided(
        self, x: Tensor, part: Tensor, reading: Reading, time: float, committed: CommittedRows
    ) -> Tensor:
        """The velocity at flow time `time`, 1 (noise) to 0 (a chunk), pulled towards what is committed."""
        with torch.enable_grad():
            x = x.detach().requires_grad_(True)
            velocity = self.network.velocity(x, part, reading)
            leads_to = x - time * velocity
            target = F.pad(committed.rows, (0, x.shape[-1] - committed.rows.shape[-1]))
            owned = torch.arange(x.shape[-1], device=x.device) < self._actions
            error = ((target - leads_to) * committed.weights * owned).detach()
            (pull,) = torch.autograd.grad(leads_to, x, error)
        done = 1.0 - time
        # the paper's weight min(beta, (1 - tau) / (tau r^2)) with r^2 = (1 - tau)^2 / (tau^2 + (1 - tau)^2)
        weight = GUIDANCE_LIMIT if done <= 0 else (time**2 + done**2) / (time * done)
        return velocity.detach() - min(GUIDANCE_LIMIT, weight) * pull


def fitted(pixels: Tensor, side: int) -> Tensor:
    """``[B, 3, H, W]`` in 0..1 to a square in -1..1, its aspect ratio kept, black at its left and top."""
    height, width = pixels.shape[2:]
    ratio = max(width / side, height / side)
    size = (int(height / ratio), int(width / ratio))
    if size != (height, width):
        pixels = F.interpolate(pixels, size=size, mode="bilinear", align_corners=False)
    return F.pad(pixels, (side - size[1], 0, side - size[0], 0)) * 2.0 - 1.0


def load_lerobot_smolvla(
    folder: Folder, device: torch.device, precision: str, steps: int, vlm: str
) -> LerobotSmolVla:
    """The folder's network; `steps` of its flow where not as the folder says, `vlm` the folder of its
    language model where that is not among the folder's own files.

    Raises:
        FolderError: it does not run here, does not fit its weights, or what it reads by is missing.
    """
    _, shape, place = shape_of(folder, vlm)
    if steps:
        shape = shape.model_copy(update={"steps": steps})
    try:
        words = Tokens(place, shape.vlm["text_config"]["vocab_size"], folder.words.longest)
    except CheckpointError as error:
        raise folder.error(str(error)) from None
    network = loaded(folder, lambda: without_head(shape), device, precision, renamed=own_name)
    return LerobotSmolVla(network, words, folder.action.shape[0])


def shape_of(folder: Folder, vlm: str) -> tuple[SmolVlaSaid, SmolVlaShape, Path]:
    """What the folder says, the network's sizes, and where its language model's folder is.

    Raises:
        FolderError: it does not run here, or what it reads by is missing.
    """
    told = said(folder, SmolVlaSaid)
    place = _language_model(folder, told, vlm)
    try:
        sizes = _sizes(folder, told, place)
        check_sizes(sizes)
    except FolderError:
        raise
    except CheckpointError as error:
        raise folder.error(str(error)) from None
    _check_said(folder, told, sizes["vision_config"].get("image_size"))
    shape = SmolVlaShape(
        vlm=sizes,
        chunk=told.chunk_size,
        steps=told.num_steps,
        state_size=told.max_state_dim,
        action_size=told.max_action_dim,
        vlm_layers=told.num_vlm_layers,
        expert_width=told.expert_width_multiplier,
        self_attention_every=told.self_attn_every_n_layers,
        shortest_period=told.min_period,
        longest_period=told.max_period,
    )
    return told, shape, place


def without_head(shape: SmolVlaShape) -> SmolVla:
    """A network that cannot speak.

    Raises:
        ValueError: sizes that do not fit each other.
    """
    network = SmolVla(shape)
    network.vlm_with_expert.vlm.lm_head = nn.Identity()  # which nothing uses, and is large
    return network


def _language_model(folder: Folder, told: SmolVlaSaid, given: str) -> Path:
    """Where its tokenizer and sizes are.

    Raises:
        FolderError: there is no tokenizer.
    """
    trained = Path(told.vlm_model_name).expanduser()
    inside = folder.path / INSIDE
    own = next((place for place in (inside, folder.path) if (place / TOKENIZER).is_file()), None)
    place = Path(given).expanduser() if given else own or (trained if trained.is_dir() else folder.path)
    if not (place / TOKENIZER).is_file():
        raise folder.error(
            f"there is no {TOKENIZER} in {place}: give policy.vlm, a folder of its language model "
            f"{told.vlm_model_name} with config.json, tokenizer.json and tokenizer_config.json; its weights "
            "are not needed, and nothing is fetched"
        )
    return place


def _sizes(folder: Folder, told: SmolVlaSaid, place: Path) -> Mapping[str, Any]:
    """Of the vision-language model."""
    if place == folder.path or not (place / SIZES).is_file():
        if told.vlm_model_name != PUBLIC:
            raise folder.error(
                f"it is built on {told.vlm_model_name!r}, whose sizes are not here: "
                "give policy.vlm, its folder"
            )
        return PUBLIC_VLM
    return sizes_in(place)


def _check_said(folder: Folder, told: SmolVlaSaid, side: Any) -> None:
    if told.resize_imgs_with_padding != (side, side):
        raise folder.error(
            f"config.json: resize_imgs_with_padding {list(told.resize_imgs_with_padding)}, and its vision "
            f"model takes {side!r:.40} by as much"
        )
    if STATE not in folder.vectors or not folder.cameras:
        raise folder.error(f"config.json: a SmolVLA takes {STATE} and pictures")
    for what, size, most in (
        ("state", folder.vectors[STATE], told.max_state_dim),
        ("action", folder.action.shape[0], told.max_action_dim),
    ):
        if size > most:
            raise folder.error(f"config.json: a {what} of {size}, and the network has {most}")


HEAD = "vlm_with_expert.vlm.lm_head.weight"


def own_name(name: str) -> str | None:
    """The network's name of a tensor of LeRobot's file; ``None``: it has no use for it."""
    if name.startswith(("normalize_", "unnormalize_")) or name.endswith(HEAD):
        return None
    return name.removeprefix("model.").replace("_orig_mod.", "")
