"""DexGraspVLA's training samples, of any data set that has masks.

The sequence rules are its sampler's (Diffusion Policy's ``create_indices``): with 63 rows of padding after
and none before, a sequence of 64 begins at every row, and past the end the last row is repeated and not
marked. Pictures are 518x518, colours BGR from 0 to 1 as the public data has them, the mask 0 or 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from policies.data.dataset import ACTION, IMAGES, MASKS, STATE, Array, Dataset, DatasetError
from policies.data.windows import Windows, WindowSpec


@dataclass(frozen=True, slots=True)
class MaskImageSpec:
    """Which rows and pictures a sample has; the defaults are the public configuration's.

    Attributes:
        horizon: rows of action. n_obs_steps: of them, how many are observed, from the first on.
        pad_before, pad_after: rows by which a sequence may pass the episode's ends.
        size: of pictures, pixels. head, wrist: the cameras; empty: ``head`` and ``wrist``, or the one with
            masks and the first other.
    """

    horizon: int = 64
    n_obs_steps: int = 1
    pad_before: int = 0
    pad_after: int = 63
    size: int = 518
    head: str = ""
    wrist: str = ""

    def windows(self, head: str, wrist: str) -> WindowSpec:
        """As rows of a data set's features, about a sequence's first row."""
        most = self.horizon - 1
        before, after = (min(max(pad, 0), most) for pad in (self.pad_before, self.pad_after))
        seen = tuple(range(self.n_obs_steps))
        names = (f"{IMAGES}{head}", f"{MASKS}{head}", f"{IMAGES}{wrist}", STATE)
        rows = {**dict.fromkeys(names, seen), ACTION: tuple(range(self.horizon))}
        return WindowSpec(rows, first=-before, last=after - most)


class MaskImageWindows:
    """Samples ``rgbm`` ``[n, 4, S, S]``, ``right_cam_img`` ``[n, 3, S, S]``, ``right_state`` ``[n, D]`` and
    ``action`` ``[horizon, A]``, all float32.
    """

    def __init__(self, dataset: Dataset, spec: MaskImageSpec | None = None) -> None:
        """Count them.

        Raises:
            DatasetError: there is no camera with masks, or no second one.
        """
        self.spec = spec = spec or MaskImageSpec()
        self.head, self.wrist = _cameras(dataset, spec)
        self.windows = Windows(dataset, spec.windows(self.head, self.wrist))

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int) -> dict[str, Array]:
        sample, size = self.windows[index], self.spec.size
        masks = [plane(mask, size) for mask in sample[f"{MASKS}{self.head}"]]
        heads = [colours(image, size) for image in sample[f"{IMAGES}{self.head}"]]
        return {
            "rgbm": np.stack([np.concatenate(pair) for pair in zip(heads, masks, strict=True)]),
            "right_cam_img": np.stack([colours(image, size) for image in sample[f"{IMAGES}{self.wrist}"]]),
            "right_state": sample[STATE].astype(np.float32),
            "action": sample[ACTION].astype(np.float32),
        }


def _cameras(dataset: Dataset, spec: MaskImageSpec) -> tuple[str, str]:
    seen = [name.removeprefix(IMAGES) for name in dataset.features if name.startswith(IMAGES)]
    masked = [camera for camera in seen if f"{MASKS}{camera}" in dataset.features]
    head = spec.head or ("head" if "head" in masked else (masked or [""])[0])
    others = [camera for camera in seen if camera != head]
    wrist = spec.wrist or ("wrist" if "wrist" in others else (others or [""])[0])
    if head not in masked or wrist not in seen:
        raise DatasetError(
            f"{dataset.path}: a camera with masks and another one are needed; there is: "
            f"{', '.join(seen) or 'none'}, with masks: {', '.join(masked) or 'none'}"
        )
    return head, wrist


def colours(image: Array, size: int) -> Array:
    """BGR ``[3, size, size]`` float32, 0 to 1, of RGB ``[H, W, 3]``: bilinear, not smoothed before."""
    import cv2

    scaled = cv2.resize(
        image[..., ::-1].astype(np.float32) / np.float32(255.0), (size, size), interpolation=cv2.INTER_LINEAR
    )
    return np.ascontiguousarray(np.moveaxis(scaled, -1, 0))


def plane(mask: Array, size: int) -> Array:
    """``[1, size, size]`` float32 of 0 and 1: the nearest pixel's."""
    rows, columns = ((np.arange(size) * (edge / size)).astype(np.int64) for edge in mask.shape)
    return (mask[np.ix_(rows, columns)] > 0.5).astype(np.float32)[None]
