"""Demonstrations as the lift policy is trained on them: what is seen of the object, worked out once.

Of every picture only a `policies.lift.sight.Sighting` is kept, and of every episode a picture of heights: a
thousand demonstrations fit into a quarter of a gigabyte, and training never waits for a decoder.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from loguru import logger

from policies.data.dataset import (
    ACTION,
    DEPTH,
    FORCE,
    INTERVENTION,
    MASKS,
    STATE,
    Array,
    DataEpisode,
    Dataset,
    DatasetError,
    Feature,
    RowNumbers,
    Statistics,
)
from policies.lift.memory import ObjectInSight
from policies.lift.numbers import size, vectors
from policies.lift.options import LiftOptions
from policies.lift.sight import SIGHT
from policies.nudged.view import DepthView
from runtime.messages import CameraInfo, Floats

NUMBERS, CROP, DONE = "lift.numbers", "lift.crop", "lift.done"
_AT_A_TIME = 64
_END_S = 0.4
"""So long before a demonstration's end its object counts as held up."""
_SUCCESS, _FAILURE = "success", "failure"


@dataclass
class PreparedEpisode:
    """One demonstration in memory.

    Attributes:
        vectors: ``[T, ...]`` by feature. crops: ``[n, 2, N, N]``.
        shown: which of them each row shows, ``[T]``.
    """

    number: int
    name: str
    length: int
    task: str
    label: str
    vectors: Mapping[str, Array]
    crops: Array
    shown: RowNumbers

    def read(self, feature: str, rows: RowNumbers) -> Array:
        """See `policies.data.dataset.DataEpisode.read`."""
        if feature == CROP:
            return self.crops[self.shown[rows]]
        return self.vectors[feature][rows]


class PreparedDataset:
    """A `policies.data.dataset.Dataset` of `PreparedEpisode`; the rest is its source's."""

    def __init__(
        self, source: Dataset, features: Mapping[str, Feature], episodes: Sequence[PreparedEpisode]
    ) -> None:
        self._source = source
        self.path: Path = source.path
        self.format: str = source.format
        self.rate_hz: float = source.rate_hz
        self.features: Mapping[str, Feature] = features
        self.about: Mapping[str, Any] = source.about
        self.left_out: Mapping[str, str] = source.left_out
        self.episodes: Sequence[DataEpisode] = episodes
        self.held = episodes

    def statistics(self, feature: str) -> Statistics:
        """Of a vector, over the episodes that are used."""
        every = np.concatenate([episode.vectors[feature] for episode in self.held]).astype(np.float64)
        return Statistics(
            every.mean(axis=0), every.std(axis=0), every.min(axis=0), every.max(axis=0), len(every)
        )

    def fingerprint(self) -> str:
        """The source's."""
        return self._source.fingerprint()

    def close(self) -> None:
        """Close the source's files."""
        self._source.close()


def prepared(dataset: Dataset, table: LiftOptions) -> PreparedDataset:
    """`dataset` with the features of `table`'s network in place of pictures; failures are left out.

    Raises:
        DatasetError: it lacks depth, masks or the camera's pose, or no demonstration of it can be used.
    """
    camera = table.camera
    wanted = (STATE, ACTION, f"{DEPTH}{camera}", f"{MASKS}{camera}")
    if lacking := [name for name in wanted if name not in dataset.features]:
        raise DatasetError(
            f"{dataset.path}: no {', '.join(lacking)}; the lift policy is trained on depth and the tracked "
            f"mask of camera {camera!r} (use_depth, use_mask); there is {', '.join(dataset.features)}"
        )
    joints = dataset.features[STATE].shape[0]
    if joints != table.shape.joints:
        raise DatasetError(f"{dataset.path}: {joints} joints; policy.shape.joints is {table.shape.joints}")
    episodes: list[PreparedEpisode] = []
    for episode in dataset.episodes:
        if episode.label == _FAILURE:
            continue
        made = _prepared(episode, dataset, table, len(episodes))
        if made is None:
            logger.warning("{}: the object is not seen in its first picture; left out", episode.name)
            continue
        episodes.append(made)
    if not episodes:
        raise DatasetError(f"{dataset.path}: no demonstration succeeded and shows its object")
    shape = table.shape
    told = {name: dataset.features[name] for name in (INTERVENTION,) if name in dataset.features}
    features = {
        **told,
        STATE: dataset.features[STATE],
        ACTION: dataset.features[ACTION],
        NUMBERS: Feature((size(shape),), "float32"),
        CROP: Feature((2, shape.crop, shape.crop), "float32"),
        DONE: Feature((), "float32"),
    }
    return PreparedDataset(dataset, features, episodes)


def _prepared(
    episode: DataEpisode, dataset: Dataset, table: LiftOptions, number: int
) -> PreparedEpisode | None:
    whole, now = (np.zeros((episode.length, SIGHT)) for _ in range(2))
    crops: list[Array] = []
    shown = np.zeros(episode.length, np.int64)
    memory, known = ObjectInSight(table), None
    for row, view in enumerate(_views(episode, dataset, table.camera)):
        if view is not None:
            known = memory.take(view)
        if known is None:
            return None
        if not crops or crops[-1] is not known.crop:
            crops.append(known.crop)
        whole[row], now[row], shown[row] = known.whole.numbers, known.now.numbers, len(crops) - 1
    rows = np.arange(episode.length)
    state = episode.read(STATE, rows).astype(np.float64)
    told = {name: episode.read(name, rows) for name in (INTERVENTION,) if name in dataset.features}
    end = round(_END_S * dataset.rate_hz)
    return PreparedEpisode(
        number,
        episode.name,
        episode.length,
        episode.task,
        episode.label,
        {
            **told,
            STATE: state.astype(np.float32),
            ACTION: episode.read(ACTION, rows).astype(np.float32),
            NUMBERS: vectors(table.shape, state, whole, now, _force(episode, dataset, table)),
            DONE: (rows >= episode.length - end).astype(np.float32),
        },
        np.stack(crops),
        shown,
    )


def _force(episode: DataEpisode, dataset: Dataset, table: LiftOptions) -> Floats:
    if not table.use_force or FORCE not in dataset.features:
        return np.full(episode.length, np.nan)
    force = episode.read(FORCE, np.arange(episode.length)).astype(np.float64)
    return np.asarray(np.abs(force).max(axis=1))


def _views(episode: DataEpisode, dataset: Dataset, camera: str) -> Iterator[DepthView | None]:
    """Of each row; ``None`` where it shows the same picture as the row before."""
    info = camera_of(episode, dataset, camera)
    scale = float(info.depth_scale_m or 0.0)
    before: DepthView | None = None
    for start in range(0, episode.length, _AT_A_TIME):
        rows = np.arange(start, min(start + _AT_A_TIME, episode.length))
        depths, masks = (episode.read(f"{kind}{camera}", rows) for kind in (DEPTH, MASKS))
        for depth, mask in zip(depths, masks, strict=True):
            counts = np.rint(depth / scale).astype(np.uint16)
            view = DepthView(counts, mask, info)
            same = before is not None and _same(before, view)
            yield None if same else view
            before = view


def _same(one: DepthView, other: DepthView) -> bool:
    return np.array_equal(one.depth, other.depth) and np.array_equal(one.mask, other.mask)


@runtime_checkable
class _Placed(Protocol):
    """An episode that knows where its cameras were: one of a recording of ours."""

    @property
    def seen_by(self) -> Mapping[str, CameraInfo]: ...


def camera_of(episode: DataEpisode, dataset: Dataset, camera: str) -> CameraInfo:
    """What is constant about `camera` in `episode`.

    Raises:
        DatasetError: it is not known where the camera is.
    """
    info = episode.seen_by.get(camera) if isinstance(episode, _Placed) else None
    if info is None:
        raise DatasetError(
            f"{dataset.path}: {episode.name}: it is not known where camera {camera!r} is; the lift policy is "
            "trained on recordings, whose cameras have a pose (cameras.<name>.extrinsics) and depth"
        )
    return info
