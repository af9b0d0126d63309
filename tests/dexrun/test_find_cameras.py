"""``dexrun find-cameras``: what V4L2 lists, what an MJPEG server delivers, and what fits a USB bus."""

from __future__ import annotations

import json
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from dexrun.config.load import load
from dexrun.setup.cameras import FoundCamera, buses, local_cameras
from dexrun.setup.deep_checks import cameras
from dexrun.setup.find_cameras import main
from dexrun.setup.findings import Grade
from drivers.opencv_camera.config import OpenCvConfig
from drivers.opencv_camera.emulator import MjpegEmulator
from drivers.opencv_camera.usb import UsbBus
from drivers.opencv_camera.v4l2 import CameraMode, best_of
from runtime.clock import RealClock

ROOT = Path(__file__).parents[2]

FORMATS = {b"YUYV": ((640, 480), (320, 240)), b"MJPG": ((640, 480), (1280, 720)), b"Z16 ": ((640, 480),)}


def driver(descriptor: int, request: int, data: bytearray) -> int:
    """A UVC driver's answers, in the kernel's layout."""
    del descriptor
    if request == 0x80685600:
        struct.pack_into("<16s32s32sIII", data, 0, b"uvcvideo", b"C270 HD WEBCAM", b"usb-1", 0, 0x84A00001, 1)
        return 0
    (index,) = struct.unpack_from("<I", data)
    if request == 0xC0405602:
        if index >= len(FORMATS):
            raise OSError(22, "Invalid argument")
        data[44:48] = list(FORMATS)[index]
    elif request == 0xC02C564A:
        sizes = FORMATS[bytes(data[4:8])]
        if index >= len(sizes):
            raise OSError(22, "Invalid argument")
        struct.pack_into("<III", data, 8, 1, *sizes[index])
    elif request == 0xC034564B:
        rates = (30, 15) if bytes(data[4:8]) == b"MJPG" else (10,)
        if index >= len(rates):
            raise OSError(22, "Invalid argument")
        struct.pack_into("<III", data, 16, 1, 1, rates[index])
    return 0


def test_what_the_kernel_lists_is_read_and_mjpg_is_taken(tmp_path: Path) -> None:
    (tmp_path / "dev/v4l/by-id").mkdir(parents=True)
    for number in (0, 10):
        (tmp_path / f"dev/video{number}").touch()
    (tmp_path / "dev/v4l/by-id/usb-046d_C270-video-index0").symlink_to(tmp_path / "dev/video10")
    first, second = local_cameras(tmp_path, driver)
    assert (first.source, second.source) == ("/dev/video0", "/dev/v4l/by-id/usb-046d_C270-video-index0")
    assert second.name == "C270 HD WEBCAM"
    assert second.modes == (
        CameraMode("YUYV", 640, 480, 10),
        CameraMode("YUYV", 320, 240, 10),
        CameraMode("MJPG", 640, 480, 30),
        CameraMode("MJPG", 640, 480, 15),
        CameraMode("MJPG", 1280, 720, 30),
        CameraMode("MJPG", 1280, 720, 15),
    )
    assert second.mode == CameraMode("MJPG", 640, 480, 30)
    assert best_of(second.modes[:2]) == CameraMode("YUYV", 640, 480, 10)


def test_what_is_no_camera_is_left_out(tmp_path: Path) -> None:
    def none(descriptor: int, request: int, data: bytearray) -> int:
        raise OSError(25, "Inappropriate ioctl for device")

    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/video0").touch()
    assert local_cameras(tmp_path, none) == []


def test_two_yuyv_cameras_do_not_fit_one_bus(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    bus = UsbBus("usb1", 480.0)
    mode = CameraMode("MJPG", 640, 480, 30)
    two = [
        FoundCamera(path, path, mode=mode, bus=bus, trouble="busy") for path in ("/dev/video0", "/dev/video2")
    ]
    assert [finding.grade for finding in buses(two)] == [Grade.PASS]
    assert main(["--to", str(tmp_path)], lambda: two) == 1
    said = capsys.readouterr().out
    assert "(640 x 480 x 2 bytes x 30 = 18 MB/s each = 147 Mbit/s, reserved as 197)" in said
    assert "in YUYV these would not fit: usb1: video0 in YUYV 18.4 MB/s" in said


@pytest.fixture
def stream() -> Iterator[MjpegEmulator]:
    emulator = MjpegEmulator(160, 120)
    ended = threading.Event()
    picture = np.full((120, 160, 3), (200, 40, 40), np.uint8)

    def film() -> None:
        while not ended.wait(0.005):
            emulator.publish(picture, 0)

    thread = threading.Thread(target=film)
    thread.start()
    yield emulator
    ended.set()
    thread.join()
    emulator.close()


def test_a_picture_is_saved_and_the_rate_measured(
    stream: MjpegEmulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--to", str(tmp_path / "seen"), "--pictures", "5", "--source", stream.url, "--json"]
    assert main(arguments, list) == 0
    (camera,) = json.loads(capsys.readouterr().out)
    assert (camera["mode"]["width"], camera["mode"]["height"]) == (160, 120)
    assert camera["fps"] > 0
    saved = cv2.imread(camera["picture"])
    assert saved.shape == (120, 160, 3)
    assert saved[60, 80, 2] > 150


@pytest.mark.parametrize(
    ("width", "fps", "line"),
    [
        (160, 1, "PASS  cameras.net rate: 160x120, "),
        (160, 5000, "WARN  cameras.net rate: 160x120, "),
        (320, 1, "FAIL  cameras.net rate: 160x120, "),
    ],
)
def test_the_doctor_measures_a_camera_against_its_table(
    stream: MjpegEmulator, width: int, fps: int, line: str
) -> None:
    table = OpenCvConfig(source=stream.url, width=width, height=120, fps=30).model_copy(update={"fps": fps})
    settings = load(["--config", str(ROOT / "config.toml"), "--mode", "teleop"], {})
    (finding,) = cameras(settings.model_copy(update={"cameras": {"net": table}}), RealClock())
    assert finding.line().startswith(line)


def test_a_camera_that_is_not_there_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--to", str(tmp_path), "--source", "http://127.0.0.1:9/x"], list) == 1
    assert "no picture: cannot connect" in capsys.readouterr().out
    (tmp_path / "file").touch()
    assert main(["--to", str(tmp_path / "file")], list) == 2
