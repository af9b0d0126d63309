"""Pictures for a page: JPEGs of colour, of depth in colours, of colour with what is known drawn over it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.ring import Sample

NEAR_M, FAR_M = 0.15, 1.5
"""What the colours of depth go from and to, from red to blue."""
_QUALITY = 80
_MASK, _BOX, _PATH = (60, 220, 60), (0, 200, 255), (255, 140, 0)
"""RGB."""
_TINT = 0.4

Image = NDArray[np.uint8]


def encoded(image: Image) -> bytes:
    """JPEG of `image`, RGB ``[H, W, 3]``."""
    import cv2

    done, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    if not done:
        raise ValueError(f"a picture of {image.shape} could not be encoded")
    return bytes(data)


def depth_in_colors(depth: NDArray[np.uint16], scale_m: float) -> Image:
    """RGB ``[H, W, 3]`` of `depth` ``[H, W]``; black where nothing was read."""
    import cv2

    steps = 255 / (FAR_M - NEAR_M)
    shade = cv2.convertScaleAbs(depth, alpha=scale_m * steps, beta=0.0).astype(np.int16)
    share = 255 - np.clip(shade - round(NEAR_M * steps), 0, 255)
    painted = cv2.applyColorMap(share.astype(np.uint8), cv2.COLORMAP_TURBO)[..., ::-1]
    return np.ascontiguousarray(np.where(depth[..., None] > 0, painted, 0).astype(np.uint8))


def with_marks(
    picture: Sample, camera: Mapping[str, Any], box: Sequence[float] | None, path: Sequence[Sequence[float]]
) -> Image:
    """The colour of `picture` with its mask, `box` (pixels) and `path` (metres in the base frame) drawn over.

    Without intrinsics and pose of the `camera` (as the run's link has it) there is no path.
    """
    import cv2

    image = picture["color"].copy()
    if int(picture["masked"]):
        inside = picture["mask"] > 0
        image[inside] = ((1 - _TINT) * image[inside] + _TINT * np.array(_MASK)).astype(np.uint8)
    if box is not None and len(box) == 4:
        x0, y0, x1, y1 = (round(float(value)) for value in box)
        cv2.rectangle(image, (x0, y0), (x1, y1), _BOX, 2)
    points = _on_picture(path, camera)
    if len(points) > 1:
        cv2.polylines(image, [points.reshape(-1, 1, 2)], isClosed=False, color=_PATH, thickness=2)
        cv2.circle(image, tuple(map(int, points[-1])), 4, _PATH, -1)
    return np.asarray(image, np.uint8)


def _on_picture(path: Sequence[Sequence[float]], camera: Mapping[str, Any]) -> NDArray[np.int32]:
    """Where `path` is in the picture, in pixels ``[N, 2]``; without what lies behind the camera."""
    lens, pose = camera.get("intrinsics"), camera.get("pose")
    nowhere = np.zeros((0, 2), np.int32)
    if not path or lens is None or pose is None:
        return nowhere
    base_from_camera = np.asarray(pose, np.float64)
    seen = (np.asarray(path, np.float64) - base_from_camera[:3, 3]) @ base_from_camera[:3, :3]
    seen = seen[np.isfinite(seen).all(axis=1)]
    seen = seen[seen[:, 2] > 0.01]
    flat = seen[:, :2] / seen[:, 2:] * (lens["fx"], lens["fy"]) + (lens["cx"], lens["cy"])
    return np.asarray(np.clip(np.round(flat), -10_000, 10_000), np.int32)


STREAMS = ("color", "depth", "mask")
"""What a camera's pictures can be asked for as: ``head.color``, ``head.depth``, ``head.mask``."""


def drawn(picture: Sample, stream: str, camera: Mapping[str, Any], status: Mapping[str, Any]) -> bytes:
    """The JPEG of `stream` (``<camera>.<one of STREAMS>``) of one picture; for a worker thread."""
    name, _, what = stream.rpartition(".")
    if what == "depth":
        return encoded(depth_in_colors(picture["depth"], float(camera.get("depth_scale_m") or 0.001)))
    if what == "mask":
        box = (status.get("box") or {}).get(name)
        return encoded(with_marks(picture, camera, box, status.get("path") or ()))
    return encoded(picture["color"])
