"""Where a recording saw the instruction's object last: as it was recorded, or from masks and depth."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from policies.data.dataset import Array, RowNumbers
from runtime.messages import CameraInfo
from runtime.object_point import object_point
from runtime.recording.reader import Episode
from runtime.recording.tracks import tip_topic


def locating(recording: Episode, cameras: Iterable[str]) -> dict[str, CameraInfo]:
    """Those of `cameras` whose masks say where the object is: depth, and a pose relative to the arm."""
    masked = [name for name in cameras if recording.topics.get(f"/mask/{name}")]
    infos = {name: recording.camera_info(name) for name in masked if name in recording.depth_cameras}
    return {
        name: info
        for name, info in infos.items()
        if info.base_from_camera is not None and info.depth_scale_m is not None
    }


def tips_of(recording: Episode, infos: Mapping[str, CameraInfo], masks: Mapping[str, RowNumbers]) -> Array:
    """``[T, 3]`` metres in the base frame by row, by the first camera that saw it; NaN before it was seen.

    What was recorded with the masks, which is what a policy was given; of recordings without it, the same
    worked out of every mask and the depth of its own frame.

    Args:
        recording: the episode.
        infos: of cameras as `locating` has them.
        masks: by camera, ``[T]`` which mask each row has; below 0, none.

    Raises:
        RecordingError: a picture cannot be read.
    """
    rows = len(next(iter(masks.values()))) if masks else 0
    found = np.full((rows, 3), np.nan)
    for camera, info in infos.items():
        if np.isnan(found).any():
            found = np.where(np.isnan(found), _held(_by_row(recording, info, masks[camera])), found)
    return found


def first_tip(recording: Episode, cameras: Iterable[str]) -> Array | None:
    """``[3]`` where it was seen first, by the first of `cameras` that saw it; ``None`` if it never was."""
    for camera, info in locating(recording, cameras).items():
        masks = np.arange(recording.topics[f"/mask/{camera}"])
        for mask in masks.reshape(-1, 1):
            (point,) = _by_row(recording, info, mask)
            if np.isfinite(point).all():
                return np.asarray(point)
    return None


def _by_row(recording: Episode, info: CameraInfo, masks: RowNumbers) -> Array:
    points = np.full((len(masks), 3), np.nan)
    tracked = recording.stamps(f"/mask/{info.name}")
    if recording.topics.get(tip_topic(info.name)):
        known, stamps = recording.array(tip_topic(info.name), "point"), recording.stamps(tip_topic(info.name))
        newest = np.searchsorted(stamps, tracked, side="right")[masks] - 1
        there = (masks >= 0) & (newest >= 0)
        points[there] = known[newest[there]]
        return points
    own = np.searchsorted(recording.stamps(f"/cameras/{info.name}/depth"), tracked, side="right") - 1
    for mask in np.unique(masks[masks >= 0]).tolist():
        if own[mask] >= 0:
            depth = recording.depth(info.name, int(own[mask]))
            point = object_point(depth, recording.mask(info.name, mask), info)
            if point is not None and point.base_m is not None:
                points[masks == mask] = point.base_m
    return points


def _held(points: Array) -> Array:
    """``[T, 3]`` with every row that is NaN as the last one before it that is not."""
    there = np.isfinite(points).all(axis=1)
    newest = np.maximum.accumulate(np.where(there, np.arange(len(points)), -1))
    return np.where(newest[:, None] >= 0, points[newest], np.nan)
