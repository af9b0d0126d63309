"""What is known of the simulated tabletop's cameras without starting it."""

from __future__ import annotations

import math

from dexrun.config.settings import Settings
from dexrun.simulation.tabletop import HEAD
from runtime.geometry_options import base_from_camera
from runtime.messages import CameraInfo, Intrinsics


def simulated_cameras(settings: Settings) -> dict[str, CameraInfo]:
    """Calibration of the head camera, where it is the simulated tabletop's, from the configuration alone."""
    found = {}
    for name, camera in settings.cameras.items():
        if camera.address != HEAD or camera.extrinsics is None:
            continue
        focal = camera.height / 2 / math.tan(math.radians(settings.world.head.fovy_deg) / 2)
        center = ((camera.width - 1) / 2, (camera.height - 1) / 2)
        found[name] = CameraInfo(
            name,
            Intrinsics(camera.width, camera.height, focal, focal, *center),
            settings.world.head.depth_scale_m,
            base_from_camera(camera.extrinsics),
        )
    return found
