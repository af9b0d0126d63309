"""LeRobot's Diffusion Policy (Chi et al., arXiv 2303.04137) at inference, under the names of its files.

What the cameras show becomes keypoints (a ResNet, spatial softmax), which with the state of some instants
condition a U-Net over time by FiLM; a schedule of `diffusers` denoises a trajectory with it. Of that
trajectory, which begins at the first of the instants looked at, the rows from the present one on are used.
"""

from __future__ import annotations

import re
import warnings
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own custom
from pydantic import Field, model_validator
from torch import Tensor, nn

from policies import accelerate
from policies.act.resnet import ResNet
from policies.ddim import no_infinity
from policies.lerobot.act import Backbone
from policies.lerobot.folder import ENVIRONMENT, STATE, Folder
from policies.lerobot.network import FileSaid, NetworkInput, said
from policies.lerobot.weights import first_width, loaded

Scheduler = Literal["DDPM", "DDIM"]


class DiffusionSaid(FileSaid):
    """What LeRobot's ``config.json`` says of the network, with LeRobot's defaults.

    Attributes:
        n_obs_steps: instants looked at. horizon: rows of a trajectory. n_action_steps: of a chunk.
        resize_shape, crop_shape: height and width that pictures are brought to, one after the other.
        down_dims: channels of the U-Net's stages.
        num_inference_steps: of denoising; ``None``: as many as in training.
    """

    n_obs_steps: int = Field(default=2, ge=1, le=32)
    horizon: int = Field(default=16, ge=1, le=1024)
    n_action_steps: int = Field(default=8, ge=1, le=1024)
    vision_backbone: Backbone = "resnet18"
    resize_shape: tuple[int, int] | None = None
    crop_ratio: float = Field(default=1.0, gt=0, le=1)
    crop_shape: tuple[int, int] | None = None
    use_group_norm: bool = True
    spatial_softmax_num_keypoints: int = Field(default=32, ge=1, le=4096)
    use_separate_rgb_encoder_per_camera: bool = False
    down_dims: tuple[int, ...] = Field(default=(512, 1024, 2048), min_length=1, max_length=8)
    kernel_size: int = Field(default=5, ge=1, le=63)
    n_groups: int = Field(default=8, ge=1, le=1024)
    diffusion_step_embed_dim: int = Field(default=128, ge=4, le=8192, multiple_of=2)
    use_film_scale_modulation: bool = True
    noise_scheduler_type: Scheduler = "DDPM"
    num_train_timesteps: int = Field(default=100, ge=1, le=10_000)
    beta_schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2"] = "squaredcos_cap_v2"
    beta_start: float = Field(default=0.0001, gt=0, lt=1)
    beta_end: float = Field(default=0.02, gt=0, lt=1)
    prediction_type: Literal["epsilon", "sample"] = "epsilon"
    clip_sample: bool = True
    clip_sample_range: float = Field(default=1.0, gt=0)
    num_inference_steps: int | None = Field(default=None, ge=1, le=10_000)

    @model_validator(mode="after")
    def _fits(self) -> DiffusionSaid:
        if self.n_action_steps > self.horizon - self.n_obs_steps + 1:
            raise ValueError(
                f"n_action_steps {self.n_action_steps} is more than horizon {self.horizon} leaves after "
                f"n_obs_steps {self.n_obs_steps}"
            )
        if self.horizon % 2 ** len(self.down_dims):
            raise ValueError(f"horizon {self.horizon} is no multiple of 2 for each of down_dims")
        if any(not 1 <= each <= 65536 for each in self.down_dims):
            raise ValueError(f"down_dims {list(self.down_dims)}: give numbers of channels")
        for shape in (self.resize_shape, self.crop_shape):
            if shape is not None and any(not 1 <= side <= 8192 for side in shape):
                raise ValueError(f"a picture of {list(shape)}")
        return self

    @property
    def cropped(self) -> tuple[int, int] | None:
        """What is left of a picture; ``None``: all."""
        if self.resize_shape is None:
            return self.crop_shape
        if self.crop_ratio == 1:
            return None
        height, width = (int(side * self.crop_ratio) for side in self.resize_shape)
        return height, width


class _Keypoints(nn.Module):
    """Where in the picture each of some maps is large, ``[B, K * 2]`` in -1..1."""

    def __init__(self, channels: int, keypoints: int) -> None:
        super().__init__()
        self.nets = nn.Conv2d(channels, keypoints, 1)

    def forward(self, maps: Tensor) -> Tensor:
        maps = self.nets(maps)
        height, width = maps.shape[2:]
        grid = np.meshgrid(np.linspace(-1.0, 1.0, width), np.linspace(-1.0, 1.0, height))
        places = torch.from_numpy(np.stack([each.ravel() for each in grid], axis=1)).to(maps)
        return (maps.flatten(2).softmax(-1) @ places).flatten(1)


class _PictureEncoder(nn.Module):
    """A picture ``[B, 3, H, W]`` to ``[B, 2 * keypoints]``."""

    def __init__(self, said: DiffusionSaid, width: int) -> None:
        super().__init__()
        self._resized, self._cropped = said.resize_shape, said.cropped
        norm: Literal["group", "frozen_batch"] = "group" if said.use_group_norm else "frozen_batch"
        self.backbone = ResNet(said.vision_backbone, width, norm)
        self.size = 2 * said.spatial_softmax_num_keypoints
        self.pool = _Keypoints(self.backbone.channels, said.spatial_softmax_num_keypoints)
        self.out = nn.Linear(self.size, self.size)

    def forward(self, x: Tensor) -> Tensor:
        if self._resized is not None:
            x = F.interpolate(x, self._resized, mode="bilinear", align_corners=False, antialias=True)
        if self._cropped is not None:
            (height, width), (to_h, to_w) = x.shape[2:], self._cropped
            top, left = round((height - to_h) / 2.0), round((width - to_w) / 2.0)
            x = x[:, :, top : top + to_h, left : left + to_w]
        return F.relu(self.out(self.pool(self.backbone(x.to(self.out.weight.dtype)))))


class _Conv(nn.Module):
    """Convolution over time, group norm, Mish."""

    def __init__(self, inputs: int, outputs: int, kernel: int, groups: int = 8) -> None:
        super().__init__()
        conv = nn.Conv1d(inputs, outputs, kernel, padding=kernel // 2)
        self.block = nn.Sequential(conv, nn.GroupNorm(groups, outputs), nn.Mish())

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x)  # type: ignore[no-any-return]


class _Residual(nn.Module):
    """Two convolutions, and in between what is known, by FiLM."""

    def __init__(self, said: DiffusionSaid, inputs: int, outputs: int, known: int) -> None:
        super().__init__()
        self._scales = said.use_film_scale_modulation
        self.conv1 = _Conv(inputs, outputs, said.kernel_size, said.n_groups)
        self.cond_encoder = nn.Sequential(nn.Mish(), nn.Linear(known, outputs * (2 if self._scales else 1)))
        self.conv2 = _Conv(outputs, outputs, said.kernel_size, said.n_groups)
        same = inputs == outputs
        self.residual_conv = nn.Identity() if same else nn.Conv1d(inputs, outputs, 1)

    def forward(self, x: Tensor, known: Tensor) -> Tensor:
        film, out = self.cond_encoder(known)[..., None], self.conv1(x)
        if self._scales:
            scale, film = film.chunk(2, dim=1)
            out = scale * out
        return self.conv2(out + film) + self.residual_conv(x)  # type: ignore[no-any-return]


class _StepWaves(nn.Module):
    """Sines and cosines of a denoising step's number."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self._size = size

    def forward(self, step: Tensor) -> Tensor:
        half = self._size // 2
        exponents = torch.arange(half, device=step.device) * -(np.log(10000) / (half - 1))
        angles = step[:, None] * exponents.exp()[None]
        return torch.cat([angles.sin(), angles.cos()], dim=-1)


class _UNet(nn.Module):
    """Over time: from a trajectory ``[B, T, A]``, a step and what is known to what is predicted."""

    def __init__(self, said: DiffusionSaid, actions: int, known: int) -> None:
        super().__init__()
        size, dims = said.diffusion_step_embed_dim, said.down_dims
        self.diffusion_step_encoder = nn.Sequential(
            _StepWaves(size), nn.Linear(size, size * 4), nn.Mish(), nn.Linear(size * 4, size)
        )

        def pair(inputs: int, outputs: int) -> list[nn.Module]:
            return [
                _Residual(said, inputs, outputs, size + known),
                _Residual(said, outputs, outputs, size + known),
            ]

        stages = list(zip((actions, *dims[:-1]), dims, strict=True))
        last = len(stages) - 1
        self.down_modules = nn.ModuleList(
            nn.ModuleList([*pair(i, o), nn.Conv1d(o, o, 3, 2, 1) if n < last else nn.Identity()])
            for n, (i, o) in enumerate(stages)
        )
        self.mid_modules = nn.ModuleList(pair(dims[-1], dims[-1]))
        self.up_modules = nn.ModuleList(
            nn.ModuleList(
                [*pair(2 * inner, o), nn.ConvTranspose1d(o, o, 4, 2, 1) if n < last else nn.Identity()]
            )
            for n, (o, inner) in enumerate(reversed(stages[1:]))
        )
        conv = _Conv(dims[0], dims[0], said.kernel_size)
        self.final_conv = nn.Sequential(conv, nn.Conv1d(dims[0], actions, 1))

    def forward(self, trajectory: Tensor, step: Tensor, known: Tensor) -> Tensor:
        waves, *rest = self.diffusion_step_encoder
        embedded = waves(step).to(known.dtype)
        for layer in rest:
            embedded = layer(embedded)
        known, x = torch.cat([embedded, known], dim=-1), trajectory.to(known.dtype).transpose(1, 2)
        kept = []
        for stage in self.down_modules:
            first, second, smaller = self._of(stage)
            x = second(first(x, known), known)
            kept.append(x)
            x = smaller(x)
        for module in self.mid_modules:
            x = module(x, known)
        for stage in self.up_modules:
            first, second, larger = self._of(stage)
            x = larger(second(first(torch.cat([x, kept.pop()], dim=1), known), known))
        return self.final_conv(x).transpose(1, 2).float()  # type: ignore[no-any-return]

    @staticmethod
    def _of(stage: nn.Module) -> tuple[nn.Module, nn.Module, nn.Module]:
        first, second, resampled = stage.children()
        return first, second, resampled


class LerobotDiffusion(nn.Module):
    """`policies.lerobot.network.ChunkNetwork`."""

    takes_prefix = False

    def __init__(self, folder: Folder, said: DiffusionSaid, width: int) -> None:
        super().__init__()
        self.rows, self.history, self.said = said.n_action_steps, said.n_obs_steps, said
        self._vectors = [name for name in (STATE, ENVIRONMENT) if name in folder.vectors]
        self._actions = folder.action.shape[0]
        known, cameras = sum(folder.vectors[name] for name in self._vectors), len(folder.cameras)
        if cameras and said.use_separate_rgb_encoder_per_camera:
            self.rgb_encoder: nn.Module = nn.ModuleList(_PictureEncoder(said, width) for _ in range(cameras))
        elif cameras:
            self.rgb_encoder = _PictureEncoder(said, width)
        known += cameras * 2 * said.spatial_softmax_num_keypoints
        self.unet = _UNet(said, self._actions, known * said.n_obs_steps)

    def place(self, device: torch.device, precision: str) -> None:
        """Move there."""
        accelerate.place(self, device, precision)

    def pack(self, *, guided: bool, int8: bool) -> None:
        """Nothing: it is convolutions, nearly all."""

    @torch.no_grad()
    def chunk(self, seen: NetworkInput) -> Tensor:
        """``[B, chunk, action]``, normalised, float32."""
        known = self._known(seen)
        schedule = scheduler(self.said)
        size = (known.shape[0], self.said.horizon, self._actions)
        x = torch.randn(size, generator=seen.noise).to(known.device)
        for step in schedule.timesteps:
            steps = torch.full(size[:1], int(step), dtype=torch.long, device=known.device)
            said = no_infinity(self.unet(x, steps, known))
            x = schedule.step(said, step, x, generator=seen.noise).prev_sample
        first = self.history - 1
        return x[:, first : first + self.rows]

    def _known(self, seen: NetworkInput) -> Tensor:
        """State, keypoints and environment of all instants, ``[B, known]``."""
        parts = [seen.vectors[name] for name in self._vectors]
        for at, view in enumerate(seen.pictures.values()):
            encoder = (
                self.rgb_encoder[at] if isinstance(self.rgb_encoder, nn.ModuleList) else self.rgb_encoder
            )
            parts.insert(1 + at, encoder(view.flatten(0, 1)).unflatten(0, view.shape[:2]))
        weights = next(self.unet.parameters())
        return torch.cat([part.to(weights.dtype) for part in parts], dim=-1).flatten(1)


def scheduler(said: DiffusionSaid) -> Any:
    """`diffusers`' own, its steps set."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # diffusers warns about its own dependencies
        import diffusers
    kind: Any = getattr(diffusers, f"{said.noise_scheduler_type}Scheduler")
    made = kind(
        num_train_timesteps=said.num_train_timesteps,
        beta_start=said.beta_start,
        beta_end=said.beta_end,
        beta_schedule=said.beta_schedule,
        clip_sample=said.clip_sample,
        clip_sample_range=said.clip_sample_range,
        prediction_type=said.prediction_type,
    )
    made.set_timesteps(said.num_inference_steps or said.num_train_timesteps)
    return made


def load_lerobot_diffusion(
    folder: Folder, device: torch.device, precision: str, steps: int, kind: Scheduler | None
) -> LerobotDiffusion:
    """The folder's network; `steps` and `kind` of denoising, where not as the folder says.

    Raises:
        FolderError: it does not run here, or does not fit its weights.
    """
    told = said(folder, DiffusionSaid)
    told = told.model_copy(
        update={
            "num_inference_steps": steps or told.num_inference_steps,
            "noise_scheduler_type": kind or told.noise_scheduler_type,
        }
    )
    if (told.num_inference_steps or 0) > told.num_train_timesteps:
        raise folder.error(
            f"{told.num_inference_steps} inference steps; it was trained with {told.num_train_timesteps}"
        )
    if STATE not in folder.vectors or not (folder.cameras or ENVIRONMENT in folder.vectors):
        raise folder.error(f"config.json: a Diffusion Policy takes {STATE}, and pictures or {ENVIRONMENT}")
    shapes = {folder.inputs[name].shape[1:] for name in folder.cameras.values()}
    if len(shapes) > 1:
        raise folder.error("config.json: its pictures have several sizes, and a Diffusion Policy takes one")
    size = told.resize_shape or next(iter(shapes), None)
    if size and told.cropped and (told.cropped[0] > size[0] or told.cropped[1] > size[1]):
        raise folder.error(f"config.json: crop_shape {list(told.cropped)} is larger than its pictures")
    width = first_width(folder, "backbone.0.weight") if folder.cameras else 64
    return loaded(folder, lambda: LerobotDiffusion(folder, told, width), device, precision, renamed=_name)


_OF_TORCHVISION = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}
"""Numbers of a ResNet's parts in LeRobot's files."""


def _name(name: str) -> str | None:
    if name.startswith(("normalize_", "unnormalize_")) or name.endswith(("pos_grid", "num_batches_tracked")):
        return None
    name = name.removeprefix("diffusion.").replace("_orig_mod.", "")
    return re.sub(
        r"\bbackbone\.(\d)\.", lambda found: f"backbone.{_OF_TORCHVISION.get(found[1], found[1])}.", name
    )
