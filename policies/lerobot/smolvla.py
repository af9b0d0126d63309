"""LeRobot's SmolVLA (Shukor et al., arXiv 2506.01844): `policies.smolvla`'s network with a folder's weights.

Pictures, words and state are read once per chunk; the flow is integrated from what was read. Committed rows
(``rtc``) steer it by the paper's guidance (Black et al., arXiv 2506.07339): each step's velocity is pulled so
that the chunk that it leads to agrees with them, by the gradient through the expert.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own custom
from pydantic import Field
from torch import Tensor, nn

from policies import accelerate
from policies.lerobot.folder import STATE, Folder
from policies.lerobot.network import CommittedRows, NetworkInput, said
from policies.lerobot.weights import loaded
from policies.smolvla.network import Reading, SmolVla
from policies.smolvla.shape import PUBLIC_VLM, SmolVlaShape
from runtime.input_file import parse_json, read_small
from runtime.options import Options

PUBLIC = "HuggingFaceTB/SmolVLM2-500M-Video-Instruct"
"""What SmolVLA is built on unless a folder says otherwise."""
GUIDANCE_LIMIT = 5.0
"""The paper's clip of the guidance weight."""
_TOKENIZER = "tokenizer.json"
_MOST_LAYERS = 256
_SIZES = (
    "vision_config",
    "text_config",
    "scale_factor",
    "image_token_id",
    "tie_word_embeddings",
    "pad_token_id",
)


class SmolVlaSaid(Options):
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


class LerobotSmolVla(nn.Module):
    """`policies.lerobot.network.ChunkNetwork`."""

    history = 1
    takes_prefix = True

    def __init__(self, network: SmolVla, words: Tokens, actions: int) -> None:
        super().__init__()
        self.network, self._words, self._actions = network, words, actions
        self.rows = network.shape.chunk

    def place(self, device: torch.device, precision: str) -> None:
        """Move there."""
        accelerate.place(self, device, precision)

    @torch.no_grad()
    def chunk(self, seen: NetworkInput) -> Tensor:
        """``[B, chunk, action]``, normalised, float32."""
        shape, felt = self.network.shape, seen.vectors[STATE][:, -1]
        device = felt.device
        words, mask = self._words(seen.instructions, device)
        pixels = torch.stack([self._fitted(view[:, -1]) for view in seen.pictures.values()], dim=1)
        state = F.pad(felt, (0, shape.state_size - felt.shape[1]))
        reading = self.network.read(pixels, words, mask, state)
        size = (felt.shape[0], shape.chunk, shape.action_size)
        noise = torch.randn(size, generator=seen.noise).to(device)
        return self._flow(reading, noise, seen.committed)[..., : self._actions]

    def _fitted(self, pixels: Tensor) -> Tensor:
        """``[B, 3, H, W]`` in 0..1 to a square in -1..1, its aspect ratio kept, black at its left and top."""
        side = self.network.shape.vlm["vision_config"]["image_size"]
        height, width = pixels.shape[2:]
        ratio = max(width / side, height / side)
        size = (int(height / ratio), int(width / ratio))
        if size != (height, width):
            pixels = F.interpolate(pixels, size=size, mode="bilinear", align_corners=False)
        return F.pad(pixels, (side - size[1], 0, side - size[0], 0)) * 2.0 - 1.0

    def _flow(self, reading: Reading, noise: Tensor, committed: CommittedRows | None) -> Tensor:
        """By Euler's method from time 1 to 0, times as LeRobot counts them."""
        steps, x = self.network.shape.steps, noise
        times = torch.tensor([1.0 + step * (-1.0 / steps) for step in range(steps)], device=noise.device)
        parts = self.network.time_part(times)
        for step in range(steps):
            part = parts[step : step + 1]
            if committed is None:
                velocity = self.network.velocity(x, part, reading)
            else:
                velocity = self._guided(x, part, reading, float(times[step]), committed)
            x = x - velocity / steps
        return x

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


class Tokens:
    """Instructions to tokens, as the folder's network was trained.

    Raises:
        FolderError: it cannot be used.
    """

    def __init__(self, folder: Folder, place: Path, vocabulary: int) -> None:
        from transformers import AutoTokenizer

        try:
            self._made: Any = AutoTokenizer.from_pretrained(
                str(place), local_files_only=True, trust_remote_code=False
            )
            last = max(self._made.get_vocab().values())
        except Exception as error:  # whatever its files say, in the library's own ways
            raise folder.error(f"the tokenizer in {place}: {' '.join(str(error).split())[:200]}") from None
        if last >= vocabulary:
            raise folder.error(f"the tokenizer in {place} has {last + 1} tokens, the network {vocabulary}")
        self._longest = folder.words.longest

    def __call__(self, texts: tuple[str, ...], device: torch.device) -> tuple[Tensor, Tensor | None]:
        """``[B, L]``, and which of them count; ``None``: all."""
        lines = [text if text.endswith("\n") else f"{text}\n" for text in texts]
        each = [self._made(line, truncation=True, max_length=self._longest)["input_ids"] for line in lines]
        most = max(map(len, each))
        words = torch.tensor([ids + [0] * (most - len(ids)) for ids in each], device=device)
        if all(len(ids) == most for ids in each):
            return words, None
        return words, torch.arange(most, device=device)[None] < torch.tensor(
            [[len(ids)] for ids in each], device=device
        )


def load_lerobot_smolvla(
    folder: Folder, device: torch.device, precision: str, steps: int, vlm: str
) -> LerobotSmolVla:
    """The folder's network; `steps` of its flow where not as the folder says, `vlm` the folder of its
    language model where that is not among the folder's own files.

    Raises:
        FolderError: it does not run here, does not fit its weights, or what it reads by is missing.
    """
    told = said(folder, SmolVlaSaid)
    place = _language_model(folder, told, vlm)
    sizes = _sizes(folder, told, place)
    _check_sizes(folder, told, sizes)
    shape = SmolVlaShape(
        vlm=sizes,
        chunk=told.chunk_size,
        steps=steps or told.num_steps,
        state_size=told.max_state_dim,
        action_size=told.max_action_dim,
        vlm_layers=told.num_vlm_layers,
        expert_width=told.expert_width_multiplier,
        self_attention_every=told.self_attn_every_n_layers,
        shortest_period=told.min_period,
        longest_period=told.max_period,
    )
    words = Tokens(folder, place, sizes["text_config"]["vocab_size"])
    network = loaded(folder, lambda: _made(shape), device, precision, renamed=_name)
    return LerobotSmolVla(network, words, folder.action.shape[0])


def _made(shape: SmolVlaShape) -> SmolVla:
    network = SmolVla(shape)
    network.vlm_with_expert.vlm.lm_head = nn.Identity()  # which nothing uses, and is large
    return network


def _language_model(folder: Folder, told: SmolVlaSaid, given: str) -> Path:
    """Where its tokenizer and sizes are.

    Raises:
        FolderError: there is no tokenizer.
    """
    trained = Path(told.vlm_model_name).expanduser()
    own = folder.path if (folder.path / _TOKENIZER).is_file() or not trained.is_dir() else trained
    place = Path(given).expanduser() if given else own
    if not (place / _TOKENIZER).is_file():
        raise folder.error(
            f"there is no {_TOKENIZER} in {place}: give policy.vlm, a folder of its language model "
            f"{told.vlm_model_name} with config.json, tokenizer.json and tokenizer_config.json; its weights "
            "are not needed, and nothing is fetched"
        )
    return place


def _sizes(folder: Folder, told: SmolVlaSaid, place: Path) -> Mapping[str, Any]:
    """Of the vision-language model."""
    file = place / "config.json"
    if place == folder.path or not file.is_file():
        if told.vlm_model_name != PUBLIC:
            raise folder.error(
                f"it is built on {told.vlm_model_name!r}, whose sizes are not here: "
                "give policy.vlm, its folder"
            )
        return PUBLIC_VLM
    try:
        held = parse_json(read_small(file))
        found = {key: held[key] for key in _SIZES if key in held}
        whole = {**PUBLIC_VLM, **found}
        for part in ("vision_config", "text_config"):
            whole[part] = {**(_defaults(part)), **found.get(part, {})}
        return whole
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise folder.error(f"{file}: {' '.join(str(error).split())[:200]}") from None


def _defaults(part: str) -> Mapping[str, Any]:
    """What the language model's own file leaves out is as transformers has it."""
    from transformers import SmolVLMConfig

    config: Any = getattr(SmolVLMConfig(), part)
    return {key: value for key, value in config.to_dict().items() if isinstance(value, int | float)}


def _check_sizes(folder: Folder, told: SmolVlaSaid, sizes: Mapping[str, Any]) -> None:
    vision, text = sizes["vision_config"], sizes["text_config"]
    for part, key in ((vision, "num_hidden_layers"), (text, "num_hidden_layers")):
        if type(part.get(key)) is not int or not 0 < part[key] <= _MOST_LAYERS:
            raise folder.error(
                f"its language model has {key} = {part.get(key)!r:.40}; expected 1 to {_MOST_LAYERS}"
            )
    if text.get("model_type", "llama") != "llama":
        raise folder.error(f"its language model is a {text['model_type']!r}; SmolVLM's, a llama, runs here")
    side = vision.get("image_size")
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


def _name(name: str) -> str | None:
    if name.startswith(("normalize_", "unnormalize_")) or name.endswith("vlm.lm_head.weight"):
        return None
    return name.removeprefix("model.").replace("_orig_mod.", "")
