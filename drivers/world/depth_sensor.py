"""What a depth camera makes of a depth buffer: device units, noise, holes."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from drivers.world.config import HeadCameraOptions
from drivers.world.lens import pinhole
from runtime.messages import DepthImage

Buffer = NDArray[np.float32]

_NOISE_TILE = 64
"""The noise pattern is this much larger than the picture, and shifted from frame to frame."""
_ROWS = 32
"""Worked on at once: they stay in the processor's cache from step to step."""


class DepthSensor:
    """Turns a depth buffer into what a depth camera would report."""

    def __init__(self, options: HeadCameraOptions, near_m: float, far_m: float, seed: int) -> None:
        self._options = options
        self._near, self._far = near_m, far_m
        shape = (options.height + _NOISE_TILE, options.width + _NOISE_TILE)
        noise = np.random.default_rng([seed, 2]).standard_normal(shape).astype(np.float32)
        self._noise = noise * np.float32(options.depth_noise_m / 0.6**2)
        focal = pinhole(options.width, options.height, options.fovy_deg).fy
        self._slope = np.float32(math.tan(math.radians(min(89.9, options.grazing_deg))) / focal)
        self._frames = 0
        self._rows = np.empty((_ROWS, options.width), np.float32)

    def read(self, buffer: Buffer, out: DepthImage) -> None:
        """Fill `out` from the depth buffer `buffer` (0 near to 1 far, rows from the top)."""
        self.report(self.surface(buffer), out)

    def surface(self, buffer: Buffer) -> Buffer:
        """How far away each pixel of `buffer` is, in metres; 0 where that gives no reading.

        Any part of a picture may be given. What a pixel is depends on itself and those left of and above it.
        """
        near, far = self._near, self._far
        metres = buffer * np.float32(-(far - near))
        metres += np.float32(far)
        np.divide(np.float32(near * far), metres, out=metres)
        holes = metres > np.float32(self._options.max_depth_m)
        # Neighbours too far apart in depth: the surface is seen edge-on, or ends here.
        limit = metres * self._slope
        holes[:, 1:] |= np.abs(metres[:, 1:] - metres[:, :-1]) > limit[:, 1:]
        holes[1:] |= np.abs(metres[1:] - metres[:-1]) > limit[1:]
        metres[holes] = 0
        return metres

    def report(self, surface: Buffer, out: DepthImage) -> None:
        """Fill `out` with the reading of a whole picture's `surface`: with noise, in the device's units."""
        down, right = (self._frames * 29) % _NOISE_TILE, (self._frames * 43) % _NOISE_TILE
        noise = self._noise[down:, right : right + surface.shape[1]]
        for top in range(0, len(surface), _ROWS):
            rows = slice(top, top + _ROWS)
            metres = surface[rows]
            read = self._rows[: len(metres)]
            if self._options.depth_noise_m:
                np.multiply(metres, metres, out=read)
                read *= noise[rows][: len(metres)]
                read += metres
            else:
                np.copyto(read, metres)
            read *= np.float32(1 / self._options.depth_scale_m)
            read += np.float32(0.5)
            np.minimum(read, np.float32(65535), out=read)
            np.copyto(out[rows], read, casting="unsafe")
        self._frames += 1
