"""``python -m bench.camera``: processor time per frame, from a frame pushed to a sample in the ring.

Per case: what the emulator spends (its copy into librealsense, or JPEG encoding and sending), what the
driver's thread spends in `poll`, and the floor, one ``numpy.copyto`` of the same picture. Medians.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from drivers.opencv_camera.config import OpenCvConfig
from drivers.opencv_camera.driver import OpenCvCamera
from drivers.opencv_camera.emulator import MjpegEmulator
from drivers.realsense.config import RealSenseConfig
from drivers.realsense.driver import RealSenseCamera
from drivers.realsense.emulator import RealSenseEmulator
from runtime.clock import RealClock
from runtime.messages import CameraInfo, Floats, Intrinsics
from runtime.ring import Ring

Case = dict[str, float]


def _scene(width: int, height: int) -> tuple[Any, Any]:
    """A smooth picture with some noise, and a slanted plane with holes, as a depth camera sees a table."""
    random = np.random.default_rng(0)
    ramp = np.linspace(0, 200, width)[None, :, None] + np.linspace(0, 40, height)[:, None, None]
    color = (ramp + random.integers(0, 12, (height, width, 3))).astype(np.uint8)
    depth = np.broadcast_to(np.linspace(4000, 7000, height)[:, None], (height, width)).astype(np.uint16)
    depth[random.random((height, width)) < 0.02] = 0
    return color, depth


def _measure(frames: int, send: Callable[[int], None], camera: Any, floor: Callable[[], None]) -> Case:
    sends, polls, floors = [], [], []
    for k in range(frames + 10):
        begin = time.thread_time_ns()
        send(k)
        sent = time.thread_time_ns()
        camera.poll()
        polled = time.thread_time_ns()
        floor()
        done = time.thread_time_ns()
        if k >= 10:
            sends.append(sent - begin)
            polls.append(polled - sent)
            floors.append(done - polled)
    got = camera.frames.published
    if got != frames + 10:
        raise RuntimeError(f"{got} of {frames + 10} frames arrived")
    medians = [float(np.median(values)) / 1e3 for values in (sends, polls, floors)]
    return {
        "emulator_us": round(medians[0], 1),
        "driver_us": round(medians[1], 1),
        "floor_us": round(medians[2], 1),
        "driver_to_floor": round(medians[1] / medians[2], 2),
    }


def _realsense(frames: int, width: int, height: int, baseline_m: float) -> Case:
    color, depth = _scene(width, height)
    ring = Ring.create_shared({"color": (color.shape, "uint8"), "depth": (depth.shape, "uint16")}, 4)
    pinhole = Intrinsics(width, height, 0.9 * width, 0.9 * width, width / 2, height / 2)
    offset: Floats = np.eye(4)
    offset[0, 3] = baseline_m
    emulator = RealSenseEmulator(
        ring.name, None, CameraInfo("head", pinhole, 0.0001), serial="BENCH", color_from_depth=offset
    )
    config = RealSenseConfig(serial="BENCH", width=width, height=height)
    camera = RealSenseCamera("head", config, RealClock(), emulator.context)
    camera.open()
    copies = (np.empty_like(color), np.empty_like(depth))

    def send(k: int) -> None:
        ring.push(k, color=color, depth=depth)
        emulator.deliver(1)

    def floor() -> None:
        np.copyto(copies[0], color)
        np.copyto(copies[1], depth)

    try:
        return _measure(frames, send, camera, floor)
    finally:
        camera.close()
        emulator.close()
        ring.close()
        ring.unlink()


def _mjpeg(frames: int, width: int, height: int) -> Case:
    color, _ = _scene(width, height)
    copy = np.empty_like(color)
    emulator = MjpegEmulator(width, height)
    config = OpenCvConfig(source=emulator.url, width=width, height=height)
    camera = OpenCvCamera("wrist", config, RealClock())
    camera.open()

    def send(k: int) -> None:
        emulator.publish(color, k)

    try:
        return _measure(frames, send, camera, lambda: np.copyto(copy, color))
    finally:
        camera.close()
        emulator.close()


def main() -> None:
    """Print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=300)
    frames = parser.parse_args().frames
    result = {
        "bench": "camera",
        "machine": f"{platform.machine()}, {platform.system()}",
        "frames": frames,
        "realsense_640x480": _realsense(frames, 640, 480, 0.0),
        "realsense_640x480_aligned": _realsense(frames, 640, 480, 0.015),
        "mjpeg_320x240": _mjpeg(frames, 320, 240),
        "mjpeg_640x480": _mjpeg(frames, 640, 480),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
