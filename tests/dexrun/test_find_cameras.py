"""``dexrun find-cameras``: what V4L2 lists, what an MJPEG server delivers, and what fits a USB bus."""

from __future__ import annotations

import itertools
import json
import struct
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from shutil import which

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
from drivers.opencv_camera.v4l2 import CameraMode, best_of, offers
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


_HEADER = Path("/usr/include/linux/videodev2.h")
_C = """
#include <linux/videodev2.h>
#include <stdio.h>
#include <string.h>
static void say(unsigned long request, const void *data, unsigned long size)
{
    printf("%lu ", request);
    for (unsigned long i = 0; i < size; i++) printf("%02x", ((const unsigned char *)data)[i]);
    printf("\\n");
}
int main(void)
{
    struct v4l2_capability about = {.capabilities = V4L2_CAP_DEVICE_CAPS};
    about.device_caps = V4L2_CAP_VIDEO_CAPTURE;
    strcpy((char *)about.driver, "uvcvideo");
    strcpy((char *)about.card, "Any size");
    say(VIDIOC_QUERYCAP, &about, sizeof about);
    struct v4l2_fmtdesc format = {.type = V4L2_BUF_TYPE_VIDEO_CAPTURE, .pixelformat = V4L2_PIX_FMT_MJPEG};
    say(VIDIOC_ENUM_FMT, &format, sizeof format);
    struct v4l2_frmsizeenum size = {.pixel_format = V4L2_PIX_FMT_MJPEG, .type = SIZE_TYPE, SIZE};
    say(VIDIOC_ENUM_FRAMESIZES, &size, sizeof size);
    struct v4l2_frmivalenum interval = {.pixel_format = V4L2_PIX_FMT_MJPEG, .type = INTERVAL_TYPE, INTERVAL};
    say(VIDIOC_ENUM_FRAMEINTERVALS, &interval, sizeof interval);
    return 0;
}
"""


@pytest.mark.skipif(not (_HEADER.exists() and which("cc")), reason="no C compiler, or no linux/videodev2.h")
@pytest.mark.parametrize(
    ("size", "interval", "modes"),
    [
        (
            ("DISCRETE", ".discrete = {640, 480}"),
            ("DISCRETE", ".discrete = {333333, 10000000}"),
            ["640x480 MJPG at 30 fps"],
        ),
        (
            ("STEPWISE", ".stepwise = {160, 800, 16, 120, 600, 8}"),
            ("CONTINUOUS", ".stepwise = {{1, 24}, {1, 5}, {1, 1}}"),
            [
                f"{size} MJPG at {fps} fps"
                for size in ("320x240", "640x480", "800x600")
                for fps in (5, 10, 15, 20, 24)
            ],
        ),
    ],
)
def test_what_is_read_is_laid_out_as_the_kernels_header_says(
    tmp_path: Path, size: tuple[str, str], interval: tuple[str, str], modes: list[str]
) -> None:
    text = _C.replace("SIZE_TYPE", f"V4L2_FRMSIZE_TYPE_{size[0]}").replace(" SIZE}", f" {size[1]}}}")
    text = text.replace("INTERVAL_TYPE", f"V4L2_FRMIVAL_TYPE_{interval[0]}")
    (tmp_path / "layout.c").write_text(text.replace(" INTERVAL}", f" {interval[1]}}}"))
    subprocess.run(["cc", "layout.c", "-o", "layout"], cwd=tmp_path, check=True)
    said = subprocess.run([tmp_path / "layout"], capture_output=True, text=True, check=True).stdout
    answers = {
        int(number): bytes.fromhex(data) for number, data in (line.split() for line in said.splitlines())
    }

    def kernel(descriptor: int, request: int, data: bytearray) -> int:
        assert len(data) == len(answers[request]) == request >> 16 & 0x3FFF
        if request != 0x80685600 and data[:4] != bytes(4):
            raise OSError(22, "Invalid argument")
        data[:] = answers[request]
        return 0

    (tmp_path / "video0").touch()
    name, found = offers(str(tmp_path / "video0"), kernel)
    assert (name, [str(mode) for mode in found]) == ("Any size", modes)


@pytest.mark.parametrize(("fps", "configured"), [(29.8, 30), (14.93, 15), (18.0, 15), (26.0, 30)])
def test_a_rate_that_is_configured_is_one_that_the_camera_grants(fps: float, configured: int) -> None:
    modes = tuple(CameraMode("MJPG", 640, 480, rate) for rate in (30, 15, 5))
    slow = FoundCamera("/dev/video0", modes=modes, mode=modes[0], fps=fps)
    assert slow.delivers == CameraMode("MJPG", 640, 480, configured)
    assert FoundCamera("http://cam", mode=modes[0], fps=fps).delivers == modes[0]


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


def _pause_s(number: int) -> float:
    """Between two pictures; more than a run waits for one, now and then."""
    return 0.005 if number % 40 else 0.3


@pytest.fixture
def stream() -> Iterator[MjpegEmulator]:
    emulator = MjpegEmulator(160, 120)
    ended = threading.Event()
    picture = np.full((120, 160, 3), (200, 40, 40), np.uint8)

    def film() -> None:
        for number in itertools.count(1):
            if ended.wait(_pause_s(number)):
                return
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
