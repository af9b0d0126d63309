"""Drawn pictures: a grey table, a dark tray on the left, coloured blocks."""

from __future__ import annotations

import cv2
import numpy as np

from runtime.messages import ColorImage

RGB = {
    "red": (225, 20, 25),
    "green": (20, 150, 40),
    "blue": (20, 60, 230),
    "yellow": (250, 225, 20),
    "orange": (250, 120, 10),
    "purple": (120, 25, 165),
}


def table(*things: tuple[str, str, int, int], width: int = 640, height: int = 480) -> ColorImage:
    """`things` are colour, shape, and the centre's x and y."""
    image = np.full((height, width, 3), (150, 147, 141), np.uint8)
    cv2.rectangle(image, (90, 210), (235, 380), (50, 52, 56), cv2.FILLED)
    for color, shape, x, y in things:
        if shape == "cylinder":
            cv2.circle(image, (x, y), 16, RGB[color], cv2.FILLED)
        else:
            half = (24, 13) if shape == "cuboid" else (16, 16)
            cv2.rectangle(
                image, (x - half[0], y - half[1]), (x + half[0], y + half[1]), RGB[color], cv2.FILLED
            )
    return image
