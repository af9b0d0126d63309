"""The instruction's object in one camera: segmented in the planner's box, then tracked.

What a policy sees of the object is this mask alone. The box stands in for the planner's answer and is worked
out from where the object is, since there is no vision-language model in here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from drivers.world.layout import ObjectSpec
from drivers.world.physics import Tabletop
from planner.perception.config import PerceptionConfig
from runtime.geometry import project
from runtime.interfaces import Box, PerceptionError, Prompt
from runtime.messages import CameraInfo, Floats, Frame, Tip, TrackedMask
from runtime.tip import located


class Sight:
    """Follows one object for one attempt after the other, in frames of one size.

    Args:
        options: what segments and tracks.
        info: of the camera, as the robot knows it; masks then say where the object is.
    """

    def __init__(self, options: PerceptionConfig, info: Callable[[], CameraInfo] | None = None) -> None:
        self._segmenter = options.segmenter.build()
        self._tracker = options.tracker.build()
        self._info = info
        self._tip: Tip | None = None
        self._newest: TrackedMask | None = None
        self._attempt = 0

    def begin(self, frame: Frame, box: Box, attempt: int) -> TrackedMask:
        """Segment what is in `box` of `frame`, and follow it from now on.

        Raises:
            PerceptionError: nothing in the box stands out.
        """
        self._newest, self._tip, self._attempt = None, None, attempt
        found = self._segmenter.segment(frame.color, Prompt(box=box))
        self._newest = self._located(frame, self._tracker.init(frame, found.mask))
        return self._newest

    def forget(self) -> None:
        """Follow nothing."""
        self._newest = None

    def look(self, frame: Frame) -> TrackedMask:
        """Where it is in `frame`, which is no older than the one before.

        Raises:
            PerceptionError: it was not begun.
        """
        known = self._newest
        if known is None:
            raise PerceptionError("nothing is tracked")
        if frame.stamp_ns > known.stamp_ns:
            self._newest = self._located(frame, self._tracker.update(frame))
        return self._newest or known

    def _located(self, frame: Frame, mask: TrackedMask) -> TrackedMask:
        if self._info is not None:
            self._tip = located(frame, mask.mask, self._info(), self._tip)
        return replace(mask, attempt=self._attempt, tip=self._tip)


def box_of(table: Tabletop, index: int, info: CameraInfo) -> Box | None:
    """The box around object `index` in the picture of `info`; ``None`` if it is not whole in it."""
    assert info.base_from_camera is not None  # noqa: S101 - of the camera over the table it is known
    from_base = np.linalg.inv(info.base_from_camera)
    corners = _corners(table.objects[index], *table.object_pose(index))
    pixels = project(corners @ from_base[:3, :3].T + from_base[:3, 3], info.intrinsics)
    (x1, y1), (x2, y2) = pixels.min(axis=0), pixels.max(axis=0) + 1.0
    lens = info.intrinsics
    if x1 < 0 or y1 < 0 or x2 > lens.width or y2 > lens.height:
        return None
    return float(x1), float(y1), float(x2), float(y2)


def _corners(spec: ObjectSpec, position: Floats, quaternion: Floats) -> Floats:
    """Points ``[N, 3]`` around an object, in the base frame."""
    import mujoco

    rotation = np.zeros(9)
    mujoco.mju_quat2Mat(rotation, quaternion)
    width, depth, height = spec.size_m
    if spec.shape == "cylinder":
        turn = np.linspace(0, 2 * np.pi, 24, endpoint=False)
        rim = np.stack([np.cos(turn), np.sin(turn)], axis=1) * width / 2
        flat = [np.column_stack([rim, np.full(len(rim), z)]) for z in (-height / 2, height / 2)]
        local = np.concatenate(flat)
    else:
        signs = np.array(np.meshgrid((-1, 1), (-1, 1), (-1, 1))).reshape(3, -1).T
        local = signs * np.array([width, depth, height]) / 2
    return np.asarray(local @ rotation.reshape(3, 3).T + position)
