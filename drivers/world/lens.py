"""What is constant about the table's cameras: their lenses, and where they are."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from drivers.world.config import WorldConfig
from runtime.messages import CameraInfo, Floats, Intrinsics


def pinhole(width: int, height: int, fovy_deg: float) -> Intrinsics:
    """Of a camera with square pixels; pixel centres are at whole numbers."""
    focal = height / 2 / math.tan(math.radians(fovy_deg) / 2)
    return Intrinsics(width, height, focal, focal, (width - 1) / 2, (height - 1) / 2)


def camera_infos(config: WorldConfig, base_from_head: Floats) -> dict[str, CameraInfo]:
    """What is constant about both cameras."""
    head, wrist = config.head, config.wrist
    return {
        "head": CameraInfo(
            "head",
            pinhole(head.width, head.height, head.fovy_deg),
            depth_scale_m=head.depth_scale_m,
            base_from_camera=base_from_head,
        ),
        "wrist": CameraInfo("wrist", pinhole(wrist.width, wrist.height, wrist.fovy_deg)),
    }


def base_from_camera(data: Any, camera: str) -> Floats:
    """4x4 from the camera's optical frame (x right, y down, z forward) to the base frame."""
    view = data.camera(camera)
    pose = np.eye(4)
    pose[:3, :3] = view.xmat.reshape(3, 3) @ np.diag([1.0, -1.0, -1.0])
    pose[:3, 3] = view.xpos
    return pose
