"""The devices of `bench.teleop` in two processes of their own: two arms' buses and two cameras, at the wire.

Bytes take as long as at 1 Mbit/s, and the buses' threads come before ordinary ones: servos are not late.
The leader's wrist turns to and fro as the clock says, and the follower's bus notes when each goal for that
joint was written. Prints the addresses as one JSON line; for every empty line of its standard input, what was
noted since the one before.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench.loop_hardware import repeat
from drivers.arms import describe
from drivers.feetech import registers as reg
from drivers.feetech.calibration import JointCalibration, save_calibration
from drivers.feetech.emulator import FeetechEmulator
from drivers.feetech.servo import ServoReading, SimpleServoBank
from drivers.opencv_camera.emulator import MjpegEmulator
from runtime.clock import NS_PER_S, Clock, RealClock

MOVED = 5
"""The wrist's roll, which can hit nothing."""
MIDDLE, REACH, SPEED = 2047, 375, 500
"""In ticks, and ticks a second: slow enough for the limits of the safety stage, also where it turns."""
RANGES = ((750, 3390), (840, 3210), (890, 3080), (870, 3190), (0, 4095), (2030, 3480))
START = (2047, 2025, 1985, 2030, 2047, 2400)
SIZE, CAMERA_HZ = (640, 480), 30.0


def wave(seconds: float) -> tuple[float, float]:
    """Where the wrist is after so long, in ticks, and how fast it turns."""
    leg = 2 * REACH / SPEED
    way = (seconds % (2 * leg)) * SPEED
    if way < 2 * REACH:
        return MIDDLE - REACH + way, SPEED
    return MIDDLE + 3 * REACH - way, -SPEED


class MovingBank(SimpleServoBank):
    """A leader whose wrist turns."""

    def __init__(self, clock: Clock, positions: dict[int, int]) -> None:
        super().__init__(clock, positions)
        self._now_ns = clock.now_ns
        self.began_ns = clock.now_ns()

    def reading(self, servo_id: int) -> ServoReading:
        if servo_id != MOVED:
            return super().reading(servo_id)
        ticks, speed = wave((self._now_ns() - self.began_ns) / NS_PER_S)
        return ServoReading(round(ticks), round(speed))


class NotingBank(SimpleServoBank):
    """A follower that notes when it was told to be where."""

    def __init__(self, clock: Clock, positions: dict[int, int]) -> None:
        super().__init__(clock, positions)
        self._now_ns = clock.now_ns
        self.noted: list[tuple[int, int]] = []

    def set_goal(self, servo_id: int, ticks: int) -> None:
        super().set_goal(servo_id, ticks)
        if servo_id == MOVED:
            self.noted.append((self._now_ns(), ticks))


def _calibration(offset: int) -> dict[str, JointCalibration]:
    """An arm's own: no two arms have the same numbers."""
    rows = zip(describe().joints, RANGES, strict=True)
    return {
        name: JointCalibration(
            id=number, homing_offset=0 if number == MOVED else offset, range_min=low, range_max=high
        )
        for number, (name, (low, high)) in enumerate(rows, 1)
    }


def _registers(calibration: dict[str, JointCalibration]) -> dict[int, dict[reg.Register, int]]:
    return {
        joint.id: {
            reg.HOMING_OFFSET: joint.homing_offset,
            reg.MIN_POSITION_LIMIT: joint.range_min,
            reg.MAX_POSITION_LIMIT: joint.range_max,
        }
        for joint in calibration.values()
    }


def cameras() -> None:
    """Two of them, until standard input closes; prints their addresses."""
    clock, stop = RealClock(), threading.Event()
    coarse = np.random.default_rng(0).integers(0, 256, (SIZE[1] // 16, SIZE[0] // 16, 3), np.uint8)
    picture = np.ascontiguousarray(coarse.repeat(16, 0).repeat(16, 1))
    streams = [MjpegEmulator(*SIZE) for _ in range(2)]

    def show(camera: MjpegEmulator) -> None:
        camera.publish(picture, clock.now_ns())

    threads = [repeat(clock, CAMERA_HZ, stop, partial(show, camera)) for camera in streams]
    try:
        print(json.dumps([camera.url for camera in streams]), flush=True)
        sys.stdin.read()
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        for camera in streams:
            camera.close()


@contextmanager
def filming() -> Iterator[list[str]]:
    """The cameras' addresses, while they run in a process of their own."""
    command = [sys.executable, "-m", "bench.teleop_hardware", "cameras"]
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as process:
        assert process.stdin is not None and process.stdout is not None  # noqa: S101, PT018 - they are piped
        try:
            yield json.loads(process.stdout.readline())
        finally:
            process.stdin.close()


def on_time(buses: Sequence[FeetechEmulator]) -> None:
    """A servo answers when it does, whatever the machine is busy with."""
    sys.setswitchinterval(2e-4)
    paths = {bus.port for bus in buses}
    with suppress(PermissionError):
        for thread in threading.enumerate():
            if thread.name.removeprefix("port ") in paths and thread.native_id is not None:
                os.sched_setscheduler(thread.native_id, os.SCHED_FIFO, os.sched_param(2))


def main() -> None:
    clock = RealClock()
    places = dict(enumerate(START, 1))
    leading, following = MovingBank(clock, places), NotingBank(clock, places)
    with tempfile.TemporaryDirectory() as scratch, filming() as urls, ExitStack() as stack:
        folder = Path(scratch)
        buses = []
        for name, bank, offset in (("leader", leading, 10), ("follower", following, -10)):
            calibration = _calibration(offset)
            save_calibration(folder / f"{name}.json", calibration)
            bus = FeetechEmulator(bank, folder / name, registers=_registers(calibration), clock=clock)
            stack.callback(bus.close)
            buses.append(bus)
        on_time(buses)
        told = {"folder": scratch, "cameras": urls, "began_ns": leading.began_ns}
        print(json.dumps(told), flush=True)
        for _ in sys.stdin:
            noted, following.noted = following.noted, []
            print(json.dumps(noted), flush=True)


if __name__ == "__main__":
    cameras() if sys.argv[1:] == ["cameras"] else main()
