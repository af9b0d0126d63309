"""Both cameras on their device threads: faults are reported, reopened, and repeat exactly."""

from __future__ import annotations

import numpy as np
import pytest

from drivers.opencv_camera.config import OpenCvConfig
from drivers.opencv_camera.driver import OpenCvCamera
from drivers.realsense.config import RealSenseConfig
from drivers.realsense.driver import RealSenseCamera
from runtime.device import DeviceThread
from runtime.interfaces import CameraDriver
from runtime.messages import Decision, DeviceError
from runtime.stepped import SteppedClock
from tests.cameras.worlds import HEIGHT, PERIOD_NS, START_NS, WIDTH, MjpegWorld, RealSenseWorld


def realsense(clock: SteppedClock) -> tuple[RealSenseWorld, CameraDriver]:
    world = RealSenseWorld(clock)
    config = RealSenseConfig(serial="S1", width=WIDTH, height=HEIGHT)
    return world, RealSenseCamera("head", config, clock, world.emulator.context)


def mjpeg(clock: SteppedClock) -> tuple[MjpegWorld, CameraDriver]:
    world = MjpegWorld(clock)
    config = OpenCvConfig(source=world.emulator.url, width=WIDTH, height=HEIGHT)
    return world, OpenCvCamera("wrist", config, clock)


def run(make, faults: dict[int, str]) -> tuple[list[tuple[int, bytes]], list[tuple[int, str]]]:
    """What a reader saw in 100 periods, and what was reported, with `faults` injected at given periods."""
    clock = SteppedClock(START_NS if make is realsense else 0)
    start = clock.now_ns()
    world, camera = make(clock)
    seen: list[tuple[int, bytes]] = []
    reported: list[tuple[int, str]] = []

    def report(error: DeviceError) -> Decision:
        reported.append((clock.now_ns() - start, error.kind))
        return Decision.HOLD

    async def main() -> None:
        thread = DeviceThread(camera, clock, report)
        reader = camera.frames.reader()
        await thread.start()
        for period in range(100):
            if period in faults:
                world.emulator.inject(faults[period])
            await clock.sleep_until_ns(start + period * PERIOD_NS + PERIOD_NS // 2)
            while (sample := reader.next()) is not None:
                seen.append((sample.stamp_ns - start, np.ascontiguousarray(sample["color"]).tobytes()))
        assert await thread.stop()
        assert reader.lost == 0

    clock.run(main)
    world.close()
    return seen, reported


@pytest.mark.parametrize("make", [realsense, mjpeg])
def test_without_faults_every_frame_is_seen_once(make):
    seen, reported = run(make, {})
    assert [stamp for stamp, _ in seen] == [k * PERIOD_NS for k in range(1, 100)]
    assert reported == []


@pytest.mark.parametrize("make", [realsense, mjpeg])
def test_gone_and_back_repeats_exactly(make):
    faults = {10: "torn", 20: "gone", 50: "back", 60: "freeze", 70: "back"}
    seen, reported = run(make, faults)
    assert (seen, reported) == run(make, faults)
    stamps = [stamp // PERIOD_NS for stamp, _ in seen]
    assert stamps == sorted(set(stamps))
    assert 10 not in stamps  # torn
    assert not any(20 <= stamp < 50 or 60 <= stamp < 70 for stamp in stamps)
    assert {*range(1, 10), *range(11, 20)} <= set(stamps)
    assert {*range(85, 100)} <= set(stamps)
    kinds = [kind for _, kind in reported]
    assert kinds[0] == "timeout"
    assert kinds[1] == "not_found"
    assert reported[0][0] == 19 * PERIOD_NS + 200_000_000


def test_what_waited_while_the_process_stood_still_is_not_taken_for_new():
    clock = SteppedClock()
    world, camera = mjpeg(clock)
    stamps: list[int] = []

    async def main() -> None:
        thread = DeviceThread(camera, clock, lambda error: Decision.HOLD)
        reader = camera.frames.reader()
        await thread.start()
        for period in range(60):
            if period == 20:
                clock.stall(30 * PERIOD_NS)
            await clock.sleep_until_ns(period * PERIOD_NS + PERIOD_NS // 2)
            while (sample := reader.next()) is not None:
                stamps.append(sample.stamp_ns)
        assert await thread.stop()
        assert reader.lost == 0

    clock.run(main)
    world.close()
    assert stamps == [k * PERIOD_NS for k in (*range(1, 20), *range(50, 60))]
    assert camera.statistics() == {"torn": 0, "stale": 30}
