"""Pictures as detectors take them, as the checkpoint's own processor makes them, made where the network is.

The processors of `transformers` go through Pillow, numpy and scipy, in float64 in part: on a GPU that took
most of an answer. Here the picture goes to the device as bytes, and all else happens there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image
from PIL.Image import Resampling
from torch import Tensor
from torch.nn import functional
from transformers.image_transforms import get_size_with_aspect_ratio

from runtime.messages import ColorImage

Inputs = dict[str, Tensor]
_TRUNCATED = 4.0
"""At how many standard deviations scipy cuts a Gaussian off."""


class DetectorPictures:
    """Makes ``pixel_values``, and ``pixel_mask`` where the network takes one, of one picture.

    Args:
        processor: the checkpoint's picture processor. One that does anything unusual is asked itself.
        device: where the network is.
    """

    def __init__(self, processor: Any, device: torch.device) -> None:
        self._processor = processor
        self._device = device
        self._mean, self._std = (self._channels(each) for each in ("mean", "std"))
        self._made = self._way()

    def __call__(self, image: ColorImage) -> Inputs:
        """Of `image`, RGB uint8 ``[H, W, 3]``: ``pixel_values`` ``[1, 3, h, w]`` float32."""
        return self._made(image)

    def _way(self) -> Callable[[ColorImage], Inputs]:
        own, name = self._processor, type(self._processor).__name__
        if not (own.do_resize and own.do_rescale and own.do_normalize):
            return self._asked
        longest, shortest = (_side(own.size, f"{which}_edge") for which in ("longest", "shortest"))
        padded = any(_side(getattr(own, "pad_size", None), side) for side in ("height", "width"))
        if name.startswith("GroundingDino") and own.resample == Resampling.BILINEAR and not padded:
            if longest and shortest:
                return lambda image: self._stretched(image, shortest, longest)
        elif name.startswith("Owlv2") and own.do_pad:
            height, width = (_side(own.size, side) for side in ("height", "width"))
            if height and width:
                return lambda image: self._squared(image, (height, width))
        return self._asked

    def _asked(self, image: ColorImage) -> Inputs:
        return dict(self._processor(images=image, return_tensors="pt"))

    def _stretched(self, image: ColorImage, shortest: int, longest: int) -> Inputs:
        """Grounding DINO's: in its own proportions, resized as Pillow does it, in whole grey levels."""
        size = get_size_with_aspect_ratio(image.shape[:2], shortest, longest)
        if image.shape[:2] != size and self._device.type == "cpu":
            image = np.asarray(Image.fromarray(image).resize(size[::-1], Resampling.BILINEAR))
        pixels = self._there(image)
        if pixels.shape[-2:] != size:  # at most a grey level from Pillow, which rounds between its two passes
            grey = functional.interpolate(pixels.float(), size, mode="bilinear", antialias=True)
            pixels = grey.round()
        made: Inputs = {"pixel_values": self._normalized(pixels)}
        if self._processor.do_pad:
            made["pixel_mask"] = torch.ones((1, *size), dtype=torch.int64, device=self._device)
        return made

    def _squared(self, image: ColorImage, size: tuple[int, int]) -> Inputs:
        """OWLv2's: filled up to a square with black below and on the right, smoothed, resized linearly."""
        height, width = image.shape[:2]
        side = max(height, width)
        pixels = self._there(image).float()
        pixels = functional.pad(pixels, (0, side - width, 0, side - height))
        for axis, target in zip((2, 3), size, strict=True):
            pixels = _smoothed(pixels, axis, (side / target - 1) / 2)
        for axis, target in zip((2, 3), size, strict=True):
            pixels = _linear(pixels, axis, target)
        return {"pixel_values": self._normalized(pixels)}

    def _there(self, image: ColorImage) -> Tensor:
        """``[1, 3, H, W]`` uint8 on the device."""
        # a copy where the picture cannot be written: torch has no tensors over such memory
        shown = torch.from_numpy(np.require(image, requirements=("C", "W")))
        return shown.to(self._device).permute(2, 0, 1)[None].contiguous()

    def _normalized(self, pixels: Tensor) -> Tensor:
        """Of grey levels; all three steps at once."""
        return pixels.float().mul_(self._processor.rescale_factor / self._std).sub_(self._mean / self._std)

    def _channels(self, name: str) -> Tensor:
        said = getattr(self._processor, f"image_{name}")
        numbers = np.asarray(said, np.float32).reshape(-1)
        if len(numbers) not in (1, 3) or (len(numbers) == 1 and np.ndim(said)):
            raise ValueError(f"{name} must have 3 elements, one for each colour; it is {said}")
        return torch.from_numpy(numbers).to(self._device).reshape(-1, 1, 1)


def _side(size: Any, name: str) -> int:
    """One of a processor's sizes; 0 if it has none of that name."""
    found = size.get(name) if isinstance(size, Mapping) else getattr(size, name, None)
    return int(found or 0)


def _smoothed(pixels: Tensor, axis: int, sigma: float) -> Tensor:
    """As `scipy.ndimage.gaussian_filter` does it along an axis, the picture mirrored at its edges."""
    if sigma <= 0:
        return pixels
    reach = int(_TRUNCATED * sigma + 0.5)
    away = torch.arange(-reach, reach + 1, dtype=torch.float64)
    weights = torch.exp(-0.5 * (away / sigma) ** 2)
    kernel = (weights / weights.sum()).to(pixels)
    rows = pixels.movedim(axis, -1)
    flat = functional.pad(rows.reshape(-1, 1, rows.shape[-1]), (reach, reach), mode="reflect")
    return functional.conv1d(flat, kernel[None, None]).reshape(rows.shape).movedim(-1, axis)


def _linear(pixels: Tensor, axis: int, target: int) -> Tensor:
    """As `scipy.ndimage.zoom` of the first order does it along an axis, mirrored at the edges."""
    last = pixels.shape[axis] - 1
    step = (last + 1) / target
    at = torch.arange(target, dtype=torch.float64, device=pixels.device).add(0.5).mul(step).sub(0.5).abs()
    at = last - (last - at).abs()
    low = at.floor().long().clamp(0, max(0, last - 1))
    high = (low + 1).clamp(max=last)
    share = (at - low).to(pixels.dtype).reshape(-1, 1)
    rows = pixels.movedim(axis, 2).contiguous()  # gathering whole rows is many times faster than columns
    made = torch.lerp(rows.index_select(2, low), rows.index_select(2, high), share)
    return made.movedim(2, axis).contiguous()
