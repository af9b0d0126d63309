"""Where a recording saw the instruction's object last: as it was recorded, or from masks and depth."""

from __future__ import annotations

import numpy as np

from policies.data.dataset import Array, RowNumbers
from runtime.messages import CameraInfo
from runtime.object_point import object_point
from runtime.recording.reader import Episode
from runtime.recording.tracks import tip_topic


def tips_of(recording: Episode, info: CameraInfo, masks: RowNumbers, depths: RowNumbers) -> Array:
    """``[T, 3]`` metres in the base frame by row; NaN before it was seen.

    What was recorded with the masks, which is what a policy was given; of recordings without it, the same
    worked out of every mask and the depth of its own frame.

    Args:
        recording: the episode.
        info: of the camera.
        masks: ``[T]`` which mask each row has; below 0, none.
        depths: ``[T]`` which depth image, where there is none of the mask's own frame.

    Raises:
        RecordingError: a picture cannot be read.
    """
    points = np.full((len(masks), 3), np.nan)
    if recording.topics.get(tip_topic(info.name)):
        known = recording.array(tip_topic(info.name), "point")
        stamps = recording.stamps(tip_topic(info.name))
        newest = np.searchsorted(stamps, recording.stamps(f"/mask/{info.name}"), side="right")[masks] - 1
        there = (masks >= 0) & (newest >= 0)
        points[there] = known[newest[there]]
    else:
        own = _own_depths(recording, info.name, masks, depths)
        for mask, depth in np.unique(np.stack([masks, own], axis=1)[masks >= 0], axis=0).tolist():
            point = object_point(recording.depth(info.name, depth), recording.mask(info.name, mask), info)
            if point is not None and point.base_m is not None:
                points[(masks == mask) & (own == depth)] = point.base_m
    return held(points)


def _own_depths(recording: Episode, camera: str, masks: RowNumbers, depths: RowNumbers) -> RowNumbers:
    """Of each row, the depth image of its mask's own frame, if there is one."""
    taken, tracked = recording.stamps(f"/cameras/{camera}/depth"), recording.stamps(f"/mask/{camera}")
    own = np.minimum(np.searchsorted(taken, tracked[masks]), len(taken) - 1)
    same = (masks >= 0) & (taken[own] == tracked[masks])
    return np.where(same, own, depths)


def held(points: Array) -> Array:
    """``[T, 3]`` with every row that is NaN as the last one before it that is not."""
    there = np.isfinite(points).all(axis=1)
    newest = np.maximum.accumulate(np.where(there, np.arange(len(points)), -1))
    return np.where(newest[:, None] >= 0, points[newest], np.nan)
