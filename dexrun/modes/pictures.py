"""Pictures for a person: what is about to be grasped, drawn on the head camera's frame."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from runtime.geometry import project
from runtime.messages import CameraInfo, ColorImage, Floats, Frame, TrackedMask

if TYPE_CHECKING:
    from dexrun.robot import Robot
    from planner.questions.mark import BoundingBox

_MASK = (255, 60, 200)
_BOX = (255, 255, 255)
_PATH = (40, 255, 120)


def sketch(
    frame: Frame, box: BoundingBox, mask: TrackedMask, label: str, path_m: Floats, camera: CameraInfo
) -> ColorImage:
    """A copy of `frame` with the mask tinted, the box, the label, and the planned path of the grasp point.

    `path_m` is ``[N, 3]`` in the base frame and may be empty; without a `camera` that is calibrated to the
    arm no path is drawn.
    """
    import cv2

    image = frame.color.copy()
    inside = mask.mask.astype(bool)
    tint = np.array(_MASK, dtype=np.float64)
    image[inside] = (0.45 * image[inside] + 0.55 * tint).astype(np.uint8)
    contours, _ = cv2.findContours(mask.mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(image, contours, -1, _MASK, 1, cv2.LINE_AA)
    x1, y1, x2, y2 = (round(value) for value in box.bbox_2d)
    cv2.rectangle(image, (x1, y1), (x2, y2), _BOX, 1, cv2.LINE_AA)
    if len(path_m) and camera.base_from_camera is not None:
        pixels = np.rint(_to_pixels(path_m, camera)).astype(np.int32)
        cv2.polylines(image, [pixels.reshape(-1, 1, 2)], isClosed=False, color=_PATH, thickness=2)
        cv2.circle(image, tuple(int(v) for v in pixels[-1]), 5, _PATH, 2, cv2.LINE_AA)
    height = image.shape[0]
    cv2.rectangle(image, (0, height - 26), (image.shape[1], height), (0, 0, 0), -1)
    cv2.putText(image, label[:90], (8, height - 8), cv2.FONT_HERSHEY_SIMPLEX, 0.5, _BOX, 1, cv2.LINE_AA)
    return np.asarray(image, dtype=np.uint8)


def _to_pixels(points_m: Floats, camera: CameraInfo) -> Floats:
    assert camera.base_from_camera is not None  # noqa: S101 - the caller looked
    camera_from_base = np.linalg.inv(camera.base_from_camera)
    seen = points_m @ camera_from_base[:3, :3].T + camera_from_base[:3, 3]
    return project(seen, camera.intrinsics)


def save_png(path: Path, image: ColorImage) -> None:
    """Write an RGB image."""
    import cv2

    cv2.imwrite(str(path), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))


class GraspPictures:
    """What was about to be grasped, attempt by attempt: ``grasp-000.png`` and so on in `folder`."""

    def __init__(self, robot: Robot, folder: Path) -> None:
        self._clock = robot.clock
        self._infos = robot.infos()
        self._folder = folder
        self._count = 0

    async def draw(
        self, frame: Frame, box: BoundingBox, mask: TrackedMask, label: str, way_m: Callable[[], Floats]
    ) -> None:
        """The next one, as `sketch` draws it, on another thread; `way_m` gives its path, there."""
        path, camera = self._folder / f"grasp-{self._count:03d}.png", self._infos[frame.camera]
        self._count += 1
        await self._clock.run_blocking(
            lambda: save_png(path, sketch(frame, box, mask, label, way_m(), camera))
        )
