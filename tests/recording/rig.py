"""A small robot's rings and a recorder on a stepped clock."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from runtime.clock import NS_PER_S
from runtime.messages import CameraInfo, Intrinsics
from runtime.recording import schemas
from runtime.recording.config import RecorderOptions
from runtime.recording.recorder import Recorder
from runtime.recording.tracks import camera_track, info_channel, mask_channel, rows_track, tip_channel
from runtime.ring import Ring
from runtime.stepped import SteppedClock

WIDTH, HEIGHT = 64, 48
MS = NS_PER_S // 1000
INFO = CameraInfo(
    "head",
    Intrinsics(WIDTH, HEIGHT, 60.5, 61.5, 31.5, 23.5, (0.1, 0.2, 0.3, 0.4, 0.5)),
    0.0001,
    np.eye(4) + 0.1,
)
ARM = {"position": ((6,), "<f8"), "velocity": ((6,), "<f8"), "count": ((), "<i8"), "alarm": ((2,), "|u1")}
OPTIONS = RecorderOptions(lossless=True, min_free_mib=0.0, warn_free_mib=0.0)


class Rig:
    """What tests record: ``head`` with depth, ``arm``. `say` fills a ring now or at a given stamp."""

    def __init__(
        self, folder: Path, options: RecorderOptions = OPTIONS, slots: int = 64, **more: Any
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.clock = SteppedClock(start_ns=NS_PER_S)
        self.head = Ring(
            {"color": ((HEIGHT, WIDTH, 3), "uint8"), "depth": ((HEIGHT, WIDTH), "uint16")}, slots
        )
        self.arm = Ring(ARM, slots)
        self.rng = np.random.default_rng(0)
        self.sent: list[tuple[int, np.ndarray, np.ndarray]] = []
        tracks = [
            camera_track("head", self.head, options),
            rows_track("arm", "/arm/state", "dexrun.ArmState", self.arm),
        ]
        notes = [replace(info_channel("head"), metadata=schemas.info_metadata(INFO)), mask_channel("head")]
        notes += [channel for channel in [tip_channel(INFO)] if channel is not None]
        self.recorder = Recorder(self.clock, options, folder, tracks, notes, **more)

    def run(self, script: Callable[[Rig], Awaitable[None]]) -> None:
        async def main() -> None:
            self.recorder.start()
            try:
                await script(self)
            finally:
                await self.recorder.close()

        self.clock.run(main)

    async def rest(self, ms: float) -> None:
        await self.clock.sleep_until_ns(self.clock.now_ns() + round(ms * MS))

    async def written(self, ms: float = 500) -> None:
        """Let time pass, and the disk do what it was told."""
        await self.rest(ms)
        await self.clock.run_blocking(self.recorder._disk.settle)

    def frame(self, stamp_ns: int | None = None) -> None:
        stamp_ns = self.clock.now_ns() if stamp_ns is None else stamp_ns
        color = self.rng.integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)
        depth = self.rng.integers(0, 65536, (HEIGHT, WIDTH)).astype(np.uint16)
        depth[0, :5] = 0
        self.head.push(stamp_ns, color=color, depth=depth)
        self.sent.append((stamp_ns, color, depth))

    def state(self, stamp_ns: int | None = None) -> None:
        count = self.arm.published
        self.arm.push(
            self.clock.now_ns() if stamp_ns is None else stamp_ns,
            position=np.linspace(0, 1, 6) + count / 3,
            velocity=np.full(6, np.nan),
            count=count,
            alarm=[count % 256, 7],
        )

    async def play(self, frames: int, period_ms: float = 10) -> None:
        """Deliver frames, each with two states."""
        for _ in range(frames):
            self.frame()
            self.state()
            await self.rest(period_ms / 2)
            self.state()
            await self.rest(period_ms / 2)


def record(folder: Path, *tasks: str, frames: int = 12, **more: Any) -> Rig:
    """One episode for each task, labelled as success."""
    rig = Rig(folder, **more)

    async def script(rig: Rig) -> None:
        for index, task in enumerate(tasks):
            rig.recorder.begin(index, task)
            await rig.play(frames)
            rig.recorder.end("success")
            await rig.rest(400)

    rig.run(script)
    return rig
