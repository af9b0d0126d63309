"""A camera that needs no hardware: a square goes round over a pattern; the first row holds the stamp."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from pydantic import Field

from runtime import (
    NS_PER_S,
    CameraInfo,
    CameraTable,
    ColorImage,
    DeviceContext,
    Intrinsics,
    Ring,
    base_from_camera,
    capacity_for,
)

LONGEST_WAIT_NS = NS_PER_S // 5  # a thread that waits for longer cannot be stopped in time


class SyntheticTable(CameraTable):
    """The table ``[cameras.NAME]`` with ``driver = "synthetic"``.

    Attributes:
        seed: which pattern.
        turn_s: how long the square takes to go round once.
        color: the square's, red, green and blue.
    """

    seed: int = Field(default=0, ge=0)
    turn_s: float = Field(default=4.0, gt=0)
    color: tuple[int, int, int] = (200, 30, 30)

    @property
    def simulated(self) -> bool:
        return True  # all that it does follows from the clock: it may be a stepped one

    def build(self, context: DeviceContext) -> SyntheticCamera:
        return SyntheticCamera(self, context)


class SyntheticCamera:
    """One picture every ``1 / fps`` s; `poll` is called on a thread of its own."""

    def __init__(self, table: SyntheticTable, context: DeviceContext) -> None:
        self.name, self._table, self._clock = context.name, table, context.clock
        height, width = table.height, table.width
        pose = None if table.extrinsics is None else base_from_camera(table.extrinsics)
        intrinsics = Intrinsics(width, height, width, width, width / 2, height / 2)
        self.info = CameraInfo(self.name, intrinsics, base_from_camera=pose)
        self.frames = Ring({"color": ((height, width, 3), "uint8")}, capacity_for(table.fps, 0.5))
        tiles = np.random.default_rng(table.seed).integers(60, 120, (8, 8)).astype(np.uint8)
        self._pattern = tiles[np.arange(height) * 8 // height][:, np.arange(width) * 8 // width, None]
        self._due_ns = 0

    def open(self) -> None:
        self._due_ns = self._clock.now_ns()

    def poll(self) -> bool:
        self._clock.wait_until_ns(min(self._due_ns, self._clock.now_ns() + LONGEST_WAIT_NS))
        now_ns = self._clock.now_ns()
        if now_ns < self._due_ns:
            return False
        self._due_ns += round(NS_PER_S / self._table.fps)
        with self.frames.write(now_ns) as slot:
            self._draw(slot["color"], now_ns)
        return True

    def close(self) -> None: ...

    def statistics(self) -> Mapping[str, int]:
        return {}

    def _draw(self, picture: ColorImage, now_ns: int) -> None:
        height, width, _ = picture.shape
        picture[:] = self._pattern
        angle, size = 2 * np.pi * now_ns / (self._table.turn_s * NS_PER_S), height // 8
        x, y = int(width * (0.5 + 0.25 * np.cos(angle))), int(height * (0.5 + 0.25 * np.sin(angle)))
        picture[y - size : y + size, x - size : x + size] = self._table.color
        bits = np.unpackbits(np.array([now_ns], ">u8").view(np.uint8))
        picture[0, : bits.size] = 255 * bits[:width, None]  # so that a delay can be measured
