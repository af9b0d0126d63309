"""A network of SAM 2's kind on its device, and pictures, prompts and masks as it takes and gives them.

Kirillov et al., Segment Anything (ICCV 2023); Ravi et al., SAM 2 (ICLR 2025). A picture is stretched to the
network's square, whatever its shape; boxes and points go with it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from planner.perception.local_files import read_json
from planner.perception.pretrained import checked_device, load_model
from planner.perception.sam2_families import FAMILIES
from planner.perception.weights import ModelFolder
from runtime.interfaces import PerceptionError, Prompt
from runtime.messages import ColorImage, Mask
from runtime.torch_device import torch_dtype

if TYPE_CHECKING:
    from planner.perception.sam2_options import Sam2Options

_CORNERS = (2, 3)
"""Labels of a box's two corners, where it is given as points."""
_PROCESSOR = "preprocessor_config.json"
_NORMALIZATION = ("image_mean", "image_std")


@dataclass(frozen=True)
class Sam2Network:
    """One of `transformers`' models, and how it is fed.

    Attributes:
        model: of the classes in `FAMILIES`. kind: a key of it.
        device, dtype: the model's.
        mean, std: of the channels, ``[3, 1, 1]``, on the device.
    """

    model: Any
    kind: str
    device: torch.device
    dtype: torch.dtype
    mean: Tensor
    std: Tensor

    @property
    def side(self) -> int:
        """Of the square that pictures are stretched to, pixels."""
        encoder = self.model.config.prompt_encoder_config
        size = encoder.image_size
        return int(size[0] if isinstance(size, Sequence) else size)

    def pixels(self, image: ColorImage) -> Tensor:
        """`image` as the network takes it, ``[1, 3, side, side]``."""
        # a copy where the picture cannot be written: torch has no tensors over such memory
        shown = torch.from_numpy(np.require(image, requirements=("C", "W"))).to(self.device)
        stretched = functional.interpolate(
            shown.permute(2, 0, 1)[None].float(), size=(self.side,) * 2, mode="bilinear", antialias=True
        )
        return ((stretched / 255 - self.mean) / self.std).to(self.dtype)

    def points(self, prompt: Prompt, image: tuple[int, int]) -> dict[str, Tensor]:
        """All of `prompt` as points ``[1, 1, N, 2]`` with labels, a box as its two corners."""
        places = [(point.x, point.y) for point in prompt.points]
        labels = [int(point.inside) for point in prompt.points]
        if prompt.box is not None:
            x1, y1, x2, y2 = prompt.box
            places, labels = [(x1, y1), (x2, y2), *places], [*_CORNERS, *labels]
        coords = torch.tensor(places, dtype=torch.float32, device=self.device) * self._scale(image)
        return {
            "point_coords": coords[None, None],
            "point_labels": torch.tensor(labels, dtype=torch.int32, device=self.device)[None, None],
        }

    def _scale(self, image: tuple[int, int]) -> Tensor:
        height, width = image
        return torch.tensor([self.side / width, self.side / height], device=self.device)

    def square(self, mask: Mask) -> Tensor:
        """`mask` ``[H, W]`` as the network takes it, ``[1, 1, side, side]``, 0 or 1."""
        shown = (
            torch.from_numpy(np.require(mask, requirements=("C", "W")))[None, None].to(self.device).float()
        )
        stretched = functional.interpolate(shown, size=(self.side,) * 2, mode="bilinear", antialias=True)
        return (stretched >= 0.5).to(self.dtype)


def full_size(logits: Tensor, image: tuple[int, int]) -> Mask:
    """The mask ``[H, W]`` of a picture of the size `image` from the network's small one ``[h, w]``.

    Raises:
        PerceptionError: the network gives what is no number.
    """
    whole = logits.float()[None, None]
    grown = functional.interpolate(whole, size=image, mode="bilinear", align_corners=False)
    if not torch.isfinite(grown).all():
        raise PerceptionError(
            "the network gives what is no number; with precision 'float16' try 'bfloat16' or 'float32'"
        )
    mask: Mask = (grown[0, 0] > 0).to(torch.uint8).cpu().numpy()
    return mask


def load_network(part: str, folder: ModelFolder, options: Sam2Options) -> Sam2Network:
    """The network of `folder` for the `part` of ``[perception]``.

    Raises:
        PerceptionError: it cannot be loaded there; one line.
    """
    table, family = f"perception.{part}", FAMILIES[folder.kind]
    mean, std = _normalization(folder)
    device = checked_device(table, folder, options.device, options.precision)
    class_name = family.image if part == "segmenter" else family.video
    model = load_model(folder, class_name, device, options.precision)
    if options.compile:
        model.vision_encoder.compile()
    return network_of(model, folder.kind, device, torch_dtype(options.precision), mean, std)


def network_of(
    model: Any,
    kind: str,
    device: torch.device,
    dtype: torch.dtype,
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
) -> Sam2Network:
    """`model`, which is on `device` in `dtype` already."""
    usual = FAMILIES[kind].normalization
    channels = [
        torch.tensor(each or own, device=device).view(3, 1, 1)
        for each, own in zip((mean, std), usual, strict=True)
    ]
    return Sam2Network(model, kind, device, dtype, channels[0], channels[1])


def _normalization(folder: ModelFolder) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and standard deviation as the folder's picture processor has them; empty where it has none.

    Raises:
        PerceptionError: it has others than three numbers each, or a deviation that is not above 0.
    """
    told = f"{folder.key} = {str(folder.path)!r}"
    try:
        known = read_json(folder.path / _PROCESSOR, told)
    except FileNotFoundError:
        return (), ()
    if not isinstance(known, dict):
        raise PerceptionError(f"{told}: {_PROCESSOR} is no table")
    mean, std = (_channels(known.get(key), f"{told}: {_PROCESSOR}: {key}") for key in _NORMALIZATION)
    if any(each <= 0 for each in std):
        raise PerceptionError(f"{told}: {_PROCESSOR}: image_std is {list(std)}; each is to be above 0")
    return mean, std


def _channels(said: Any, told: str) -> Sequence[float]:
    """A number for each of the three colours; none where nothing is said."""
    if said is None:
        return ()
    numbers = said if isinstance(said, list) and len(said) == 3 else []
    finite = [each for each in numbers if type(each) in (int, float) and abs(each) < math.inf]
    try:
        kept = torch.tensor(finite, dtype=torch.float32)
    except (OverflowError, RuntimeError):  # a number of hundreds of digits
        kept = torch.empty(0)
    if len(kept) != 3 or not torch.isfinite(kept).all():
        raise PerceptionError(f"{told} is {str(said)[:60]}; it is to be three numbers, one for each colour")
    return kept.tolist()
