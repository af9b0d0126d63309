"""A picture of the table as it is at the start, to look at."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from drivers.world.config import WorldConfig
from drivers.world.layout import draw_objects
from drivers.world.physics import Tabletop
from drivers.world.render import Renderer
from runtime.body import RobotDescription


def save(path: Path, config: WorldConfig, robot: RobotDescription) -> None:
    """Write head colour, head depth and wrist picture side by side to `path`.

    Raises:
        RenderError: no picture can be made on this machine.
        OSError: the file cannot be written.
    """
    import cv2

    table = Tabletop(config, draw_objects(config), robot)
    renderer = Renderer(table.model, config)
    head = config.head
    color = np.empty((head.height, head.width, 3), np.uint8)
    depth = np.empty((head.height, head.width), np.uint16)
    renderer.head(table.data, color, depth)
    wrist = renderer.wrist(table.data)
    renderer.close()
    shown = np.clip(depth * (head.depth_scale_m / 0.8) * 255, 0, 255).astype(np.uint8)
    scale = head.height / wrist.shape[0]
    enlarged = cv2.resize(wrist, (round(wrist.shape[1] * scale), head.height))
    picture = np.hstack([color, np.repeat(shown[..., None], 3, axis=2), enlarged])
    if not cv2.imwrite(str(path), picture[..., ::-1]):
        raise OSError(f"cannot write {path}")
