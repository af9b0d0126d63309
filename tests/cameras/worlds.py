"""Stand-ins for the simulated table: publish a picture every period, on a stepped clock."""

from __future__ import annotations

import numpy as np

from drivers.opencv_camera.emulator import MjpegEmulator
from drivers.realsense.emulator import RealSenseEmulator
from runtime.messages import CameraInfo, Intrinsics
from runtime.ring import Ring
from runtime.stepped import SteppedClock

WIDTH, HEIGHT = 64, 48
PINHOLE = Intrinsics(WIDTH, HEIGHT, 60.0, 60.0, 32.0, 24.0)
PERIOD_NS = 33_333_333
START_NS = 1_234_567_890_123


class RealSenseWorld:
    """Publishes a picture every period and hands it to the emulator, as the simulated table does."""

    def __init__(self, clock: SteppedClock, scale_m: float = 0.0001, **emulator: object) -> None:
        self.clock = clock
        self.ring = Ring.create_shared(
            {"color": ((HEIGHT, WIDTH, 3), "uint8"), "depth": ((HEIGHT, WIDTH), "uint16")}, 4
        )
        self.info = CameraInfo("head", PINHOLE, scale_m)
        self.emulator = RealSenseEmulator(self.ring.name, None, self.info, serial="S1", **emulator)
        self.random = np.random.default_rng(0)
        self.sent: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self.next_ns = clock.now_ns() + PERIOD_NS
        self.running = True
        clock.attach(self)

    def next_event_ns(self) -> int | None:
        return self.next_ns if self.running else None

    def advance(self, to_ns: int) -> dict[str, int]:
        credits = 0
        while self.running and self.next_ns <= to_ns:
            credits += self.publish(self.next_ns)
            self.next_ns += PERIOD_NS
        return {"head": credits}

    def publish(self, stamp_ns: int) -> int:
        color = self.random.integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        depth = np.full((HEIGHT, WIDTH), self.random.integers(3000, 6000), np.uint16)
        depth[:10] = 0
        self.sent[stamp_ns] = (color, depth)
        self.ring.push(stamp_ns, color=color, depth=depth)
        return self.emulator.deliver(1)

    def close(self) -> None:
        self.clock.detach()
        self.emulator.close()
        self.ring.close()
        self.ring.unlink()


def picture(k: int) -> np.ndarray:
    """A colour that JPEG keeps to within a step or two, with a red left half."""
    out = np.full((HEIGHT, WIDTH, 3), (10 * k) % 256, np.uint8)
    out[:, : WIDTH // 2] = (200, 30, 40)
    return out


def same(a: np.ndarray, b: np.ndarray) -> bool:
    return float(np.abs(a.astype(int) - b).mean()) < 3.0


class MjpegWorld:
    """Publishes picture k at k periods, as the simulated table does."""

    def __init__(self, clock: SteppedClock) -> None:
        self.emulator = MjpegEmulator(WIDTH, HEIGHT)
        self.clock = clock
        self.published = 0
        self.running = True
        clock.attach(self)

    def next_event_ns(self) -> int | None:
        return (self.published + 1) * PERIOD_NS if self.running else None

    def advance(self, to_ns: int) -> dict[str, int]:
        credits = 0
        while (self.published + 1) * PERIOD_NS <= to_ns:
            self.published += 1
            sent = self.emulator.publish(picture(self.published), self.published * PERIOD_NS)
            credits += min(sent, 1)
        return {"wrist": credits}

    def close(self) -> None:
        self.clock.detach()
        self.emulator.close()
