"""Where the object is in space, frame by frame: from its mask and the depth that was recorded with it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from dexrun.annotation.masks import unpacked
from runtime.object_point import object_point
from runtime.recording.annotations import FrameMask
from runtime.recording.reader import Episode
from runtime.tip import lacking


def located(episode: Episode, camera: str, masks: Iterable[FrameMask]) -> Iterator[FrameMask]:
    """The masks with their points in the arm's base frame; as they are where depth or pose is not known.

    Raises:
        RecordingError: the file is damaged.
    """
    topic = f"/cameras/{camera}/depth"
    if not episode.topics.get(topic) or lacking(info := episode.camera_info(camera)):
        yield from masks
        return
    times, depths = episode.times(f"/cameras/{camera}/color"), episode.times(topic)
    for mask in masks:
        found = np.flatnonzero(depths == times[mask.frame])
        if mask.box is None or not len(found):
            yield mask
            continue
        point = object_point(episode.depth(camera, int(found[0])), unpacked(mask.png), info)
        if point is None or point.base_m is None or point.base_sigma_m is None:
            yield mask
            continue
        spread_m = float(np.linalg.norm(point.base_sigma_m))
        yield replace(mask, point_m=tuple(point.base_m.tolist()), spread_m=spread_m)
