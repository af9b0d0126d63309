"""What frozen backbones say of every frame of a data set: computed once, kept on the disk."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from policies.data.dataset import (
    IMAGES,
    Array,
    DataEpisode,
    Dataset,
    DatasetError,
    Feature,
    RowNumbers,
)
from policies.data.derived import DerivedDataset
from policies.dexgrasp.pictures import resized
from policies.dexgrasp.vit import DinoVit

FEATURES = "features."
"""Followed by a camera's name: ``[patches, dim]`` float16."""
_AT_ONCE = 8


class FeaturesEpisode:
    """`policies.data.dataset.DataEpisode` with features of its pictures."""

    def __init__(self, episode: DataEpisode, features: Mapping[str, NDArray[np.float16]]) -> None:
        self.number, self.name, self.length = episode.number, episode.name, episode.length
        self.task, self.label = episode.task, episode.label
        self._episode, self._features = episode, features

    def read(self, feature: str, rows: RowNumbers) -> Array:
        """As the episode that it is of."""
        held = self._features.get(feature)
        return self._episode.read(feature, rows) if held is None else np.asarray(held[rows])


class FeaturesDataset(DerivedDataset):
    """`policies.data.dataset.Dataset` with features of its pictures."""

    def __init__(self, dataset: Dataset, files: Mapping[str, Path]) -> None:
        """`files` are by feature, one array ``[rows, patches, dim]`` over all episodes each."""
        arrays = {name: np.load(path, mmap_mode="r") for name, path in files.items()}
        made = {name: Feature(array.shape[1:], "float16") for name, array in arrays.items()}
        ends = np.cumsum([each.length for each in dataset.episodes])
        episodes = [
            FeaturesEpisode(each, {name: array[end - each.length : end] for name, array in arrays.items()})
            for each, end in zip(dataset.episodes, ends.tolist(), strict=True)
        ]
        super().__init__(dataset, {**dataset.features, **made}, episodes)


@torch.inference_mode()
def features_file(dataset: Dataset, camera: str, vit: DinoVit, side: int, cache: Path) -> Path:
    """The file with what `vit` says of every frame of `camera`, computed unless it is there.

    Raises:
        DatasetError: it cannot be written.
    """
    digest = hashlib.sha256(f"{dataset.fingerprint()} {camera} {side}".encode())
    for name, value in vit.state_dict().items():
        digest.update(name.encode() + value.numpy().tobytes())
    path = cache / f"{camera}-{digest.hexdigest()[:16]}.npy"
    if path.exists():
        return path
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    net = vit.eval().to(device)
    rows = sum(each.length for each in dataset.episodes)
    unfinished = path.with_suffix(".unfinished")
    try:
        cache.mkdir(parents=True, exist_ok=True)
        shape = (rows, (side // 14) ** 2, vit.shape.dim)
        out = np.lib.format.open_memmap(unfinished, "w+", np.float16, shape)
        at = 0
        for episode in dataset.episodes:
            for begin in range(0, episode.length, _AT_ONCE):
                chosen = np.arange(begin, min(begin + _AT_ONCE, episode.length))
                pixels = torch.from_numpy(episode.read(IMAGES + camera, chosen)).to(device)
                said = net(resized(pixels, side, normalised=True))
                out[at : at + len(chosen)] = said.half().cpu().numpy()
                at += len(chosen)
        out.flush()
        unfinished.rename(path)
    except OSError as error:
        raise DatasetError(
            f"{path}: {rows} frames' features cannot be written: {error.strerror or error}; "
            "recipe.cache_features = false needs no disk"
        ) from None
    finally:
        net.to("cpu")
    return path
