"""The devices of `bench.loop`, in a process of their own, as hardware would be: emulated at the wire.

Prints their addresses as one JSON line, then serves until its standard input closes.
"""

from __future__ import annotations

import json
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np

from drivers.feetech import registers as reg
from drivers.feetech.emulator import FeetechEmulator
from drivers.feetech.servo import SimpleServoBank
from drivers.force.config import ForceConfig
from drivers.force.emulator import ForceEmulator
from drivers.opencv_camera.emulator import MjpegEmulator
from runtime.clock import NS_PER_S, RealClock

RANGE = (500, 3596)
SIZE = (640, 480)
LIMITS = {reg.HOMING_OFFSET: 0, reg.MIN_POSITION_LIMIT: RANGE[0], reg.MAX_POSITION_LIMIT: RANGE[1]}
FORCE_HZ = 200.0
CAMERA_HZ = 30.0


def repeat(
    clock: RealClock, rate_hz: float, stop: threading.Event, action: Callable[[], object]
) -> threading.Thread:
    """Call `action` at `rate_hz` until `stop`."""

    def main() -> None:
        due = clock.now_ns()
        while not stop.is_set():
            due += round(NS_PER_S / rate_hz)
            clock.wait_until_ns(due)
            action()

    thread = threading.Thread(target=main)
    thread.start()
    return thread


def main() -> None:
    clock, stop = RealClock(), threading.Event()
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (SIZE[1] // 16, SIZE[0] // 16, 3), np.uint8)
    picture = np.ascontiguousarray(coarse.repeat(16, 0).repeat(16, 1))
    with tempfile.TemporaryDirectory() as folder:
        bank = SimpleServoBank(clock, dict.fromkeys(range(1, 7), 2048))
        arm = FeetechEmulator(bank, Path(folder, "arm"), registers=dict.fromkeys(range(1, 7), LIMITS))
        force = ForceEmulator(
            Path(folder, "force"), ForceConfig(port="emulated", rate_hz=FORCE_HZ), noise_counts=3
        )
        camera = MjpegEmulator(*SIZE)
        threads = [
            repeat(clock, FORCE_HZ, stop, lambda: force.send((0.0, 0.0, 1.0))),
            repeat(clock, CAMERA_HZ, stop, lambda: camera.publish(picture, clock.now_ns())),
        ]
        try:
            print(
                json.dumps({"arm": str(arm.port), "force": str(force.port), "camera": camera.url}), flush=True
            )
            sys.stdin.read()
        finally:
            stop.set()
            for thread in threads:
                thread.join()
            arm.close()
            force.close()
            camera.close()


if __name__ == "__main__":
    main()
