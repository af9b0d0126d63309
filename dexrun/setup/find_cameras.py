"""``dexrun find-cameras``: which cameras there are, a picture of each, and what they really deliver."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

from dexrun.printing import complain, say
from dexrun.setup.cameras import FoundCamera, buses, local_cameras, looked_at, realsense_serials
from dexrun.setup.findings import failures
from drivers.opencv_camera.usb import reserved_mbit_s, stream_mb_s
from runtime.clock import Clock, RealClock
from runtime.masking import masked

ListCameras = Callable[[], Sequence[FoundCamera]]
"""Lists the cameras of the machine."""


def _shown(number: int, camera: FoundCamera) -> Iterable[str]:
    yield f"  {number}  {masked(camera.source)}"
    about = [camera.name, camera.device if camera.device != camera.source else ""]
    if camera.bus is not None:
        about.append(f"USB bus {camera.bus.name}, {camera.bus.mbit_s:g} Mbit/s")
    if any(about):
        yield f"     {', '.join(each for each in about if each)}"
    for fourcc in dict.fromkeys(mode.fourcc for mode in camera.modes):
        yield f"     {fourcc}: {', '.join(_sizes(camera, fourcc))}"
    if camera.trouble:
        yield f"     no picture: {camera.trouble}"
    elif camera.mode is not None:
        mb_s = stream_mb_s(camera.mode.width, camera.mode.height, camera.fps, camera.mode.fourcc)
        size = f"{camera.mode.width}x{camera.mode.height} {camera.mode.fourcc}"
        yield f"     delivers {size}, {camera.fps:.1f} fps ({mb_s:.1f} MB/s); picture: {camera.picture}"


def _sizes(camera: FoundCamera, fourcc: str) -> Iterable[str]:
    """Each size with its highest rate."""
    best: dict[tuple[int, int], int] = {}
    for mode in camera.modes:
        if mode.fourcc == fourcc:
            best[mode.width, mode.height] = max(best.get((mode.width, mode.height), 0), mode.fps)
    return [f"{width}x{height} at {fps}" for (width, height), fps in best.items()]


def _on_buses(cameras: Sequence[FoundCamera]) -> Iterable[str]:
    if len([camera for camera in cameras if camera.bus is not None]) > 1:
        for finding in failures(buses(cameras, "YUYV")):
            mb_s = stream_mb_s(640, 480, 30, "YUYV")
            yield f"in YUYV these would not fit: {finding.said}"
            yield (
                f"(640 x 480 x 2 bytes x 30 = {mb_s:.0f} MB/s each = {8 * mb_s:.0f} Mbit/s, reserved as "
                f"{reserved_mbit_s(mb_s):.0f}): MJPG is taken where it is offered"
            )
    for finding in buses(cameras):
        yield finding.line()


def _parsed(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="dexrun find-cameras",
        description="List the cameras by names that last, save a picture of each, and measure what they "
        "deliver: in MJPG at 640x480 and 30 fps, or what is nearest.",
        epilog="example: dexrun find-cameras --to pictures",
    )
    parser.add_argument("--to", type=Path, default=Path("cameras"), help="folder for the pictures (cameras)")
    parser.add_argument("--source", nargs="+", default=[], help="these as well: URLs of network cameras")
    parser.add_argument("--pictures", type=int, default=40, help="so many are taken to measure the rate (40)")
    parser.add_argument("--json", action="store_true", help="what was found as JSON")
    options = parser.parse_args(arguments)
    if options.pictures < 2:
        parser.error(f"--pictures {options.pictures}: a rate takes at least 2")
    return options


def main(arguments: list[str], finder: ListCameras = local_cameras, clock: Clock | None = None) -> int:
    """The command; returns its exit code: 0 if a camera delivers."""
    options = _parsed(arguments)
    clock = clock or RealClock()
    cameras = [*finder(), *(FoundCamera(source) for source in options.source)]
    try:
        options.to.mkdir(parents=True, exist_ok=True)
        seen = []
        for number, camera in enumerate(cameras, start=1):
            looked = camera
            if not camera.trouble:
                looked = looked_at(camera, options.to / f"{number}.jpg", clock, options.pictures)
            seen.append(looked)
            if not options.json:
                say("\n".join(_shown(number, looked)) + "\n")
    except ValueError as error:
        complain(f"dexrun: --source: {' '.join(str(error).split())}\n")
        return 2
    except OSError as error:
        complain(f"dexrun: --to {options.to}: {error.strerror or error}\n")
        return 2
    if options.json:
        say(json.dumps([asdict(camera) for camera in seen], indent=2) + "\n")
    else:
        lines = [*_on_buses(seen), *(f"RealSense: {each}" for each in realsense_serials())]
        say("\n".join(lines or ([] if seen else ["no camera is there"])) + "\n")
    return 0 if any(camera.picture for camera in seen) else 1
