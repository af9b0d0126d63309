"""From what OpenCV hands out to RGB, and what a UVC camera grants against what was asked."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from drivers.opencv_camera import driver
from drivers.opencv_camera.capture import _check, lasting, to_rgb
from drivers.opencv_camera.config import OpenCvConfig
from drivers.realsense.config import RealSenseConfig
from runtime.messages import DeviceError
from runtime.stepped import SteppedClock

RAMP = np.zeros((48, 64, 3), np.uint8)
RAMP[..., 0], RAMP[..., 1], RAMP[..., 2] = 200, np.arange(48)[:, None] * 4, np.arange(64) // 2 * 4
JPEG = cv2.imencode(".jpg", RAMP[..., ::-1])[1].reshape(1, -1)


@pytest.mark.parametrize(
    ("data", "tolerance"),
    [
        (np.ascontiguousarray(RAMP[..., ::-1]), 0),
        (cv2.cvtColor(RAMP, cv2.COLOR_RGB2YUV_YUY2), 4),
        (JPEG, 40),
        (np.pad(JPEG, ((0, 0), (0, 5000))), 40),
    ],
    ids=["bgr", "yuyv", "jpeg", "padded-jpeg"],
)
def test_every_form_of_a_frame_becomes_rgb(data, tolerance):
    into = np.zeros_like(RAMP)
    assert to_rgb(cv2, data, into) == (64, 48)
    error = np.abs(into.astype(int) - RAMP)
    assert error.max() <= tolerance
    assert error.mean() <= 4


@settings(max_examples=200, deadline=None)
@given(st.integers(0, JPEG.size - 1))
def test_a_jpeg_cut_anywhere_is_refused(length):
    into = np.full_like(RAMP, 7)
    assert to_rgb(cv2, JPEG[:, :length], into) is None
    assert (into == 7).all()


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300), st.booleans())
def test_noise_is_refused(noise, dressed):
    data = b"\xff\xd8" + noise + b"\xff\xd9" if dressed else noise
    into = np.full_like(RAMP, 7)
    assert to_rgb(cv2, np.frombuffer(data, np.uint8).reshape(1, -1), into) is None
    assert (into == 7).all()


def test_another_size_is_told_and_nothing_is_written():
    into = np.full((24, 32, 3), 7, np.uint8)
    assert to_rgb(cv2, JPEG, into) == (64, 48)
    assert to_rgb(cv2, RAMP, into) == (64, 48)
    assert (into == 7).all()


def test_what_says_that_it_unfolds_to_gigabytes_is_not_unfolded(monkeypatch):
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("it was decoded"))
    bomb = bytearray(JPEG.tobytes())
    at = bomb.index(b"\xff\xc0")
    bomb[at + 5 : at + 9] = b"\xff\xdc\xff\xdc"
    assert to_rgb(cv2, np.frombuffer(bytes(bomb), np.uint8).reshape(1, -1), np.zeros_like(RAMP)) is None


class _Granted:
    """What V4L2 reports after the request."""

    def __init__(self, width: int, height: int, fps: float, fourcc: str | int) -> None:
        self._values = {
            cv2.CAP_PROP_FRAME_WIDTH: width,
            cv2.CAP_PROP_FRAME_HEIGHT: height,
            cv2.CAP_PROP_FPS: fps,
            cv2.CAP_PROP_FOURCC: fourcc if isinstance(fourcc, int) else cv2.VideoWriter.fourcc(*fourcc),
        }

    def get(self, key: int) -> float:
        return float(self._values[key])


def test_what_is_not_granted_is_listed():
    config = OpenCvConfig(source=0)
    _check(cv2, _Granted(640, 480, 30.0, "MJPG"), "wrist", config)
    with pytest.raises(
        DeviceError,
        match=r"asked for 640x480 MJPG at 30 fps, the camera gives 800x600 YUYV at 15 fps",
    ):
        _check(cv2, _Granted(800, 600, 15.0, "YUYV"), "wrist", config)
    for fps, fourcc, said in (
        (float("nan"), "MJPG", "MJPG at nan fps"),
        (float("inf"), "MJPG", "MJPG at inf fps"),
        (-1.0, -1, r"\\xff\\xff\\xff\\xff at -1 fps"),
        (30.0, 0, r"\\x00\\x00\\x00\\x00 at 30 fps"),
    ):
        with pytest.raises(DeviceError, match=f"the camera gives 640x480 {said}"):
            _check(cv2, _Granted(640, 480, fps, fourcc), "wrist", config)


@pytest.mark.parametrize(
    ("model", "options"),
    [
        (OpenCvConfig, {"source": 0, "widht": 640}),
        (OpenCvConfig, {"source": 0, "fourcc": "MJPEG"}),
        (OpenCvConfig, {"source": 0, "fps": 30, "timeout_s": 0.049}),  # less than one and a half frames
        (OpenCvConfig, {}),
        (OpenCvConfig, {"source": ""}),
        (OpenCvConfig, {"source": -1}),  # OpenCV takes any camera for it
        (OpenCvConfig, {"source": True}),
        (OpenCvConfig, {"source": "htp://camera/stream"}),
        (OpenCvConfig, {"source": "rtsp://"}),
        (RealSenseConfig, {"serial": ""}),
        (RealSenseConfig, {"serial": "1", "color_format": "bgr8"}),
        (RealSenseConfig, {"serial": "1", "timeout_s": float("nan")}),
    ],
)
def test_impossible_options_are_refused(model, options):
    with pytest.raises(ValidationError):
        model(**options)


# --- which camera it is


def test_an_index_is_one_as_text_too_and_the_same_device_as_its_path():
    for source in (6, "6", "/dev/video6"):
        assert OpenCvConfig(source=source).addresses() == {"source": "/dev/video6"}
    assert OpenCvConfig(source="6").source == 6


def plugged(dev: Path, **links: int) -> None:
    """Links as udev makes them: ``by_id=3`` points from ``v4l/by-id`` to ``video3``."""
    for kind, number in links.items():
        link = dev / "v4l" / kind.replace("_", "-") / f"usb-{number}-video-index0"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(f"../../video{number}")


def test_a_camera_is_known_by_serial_number_else_by_port(tmp_path):
    plugged(tmp_path, by_id=3, by_path=3)
    plugged(tmp_path, by_path=5)
    by_id = str(tmp_path / "v4l/by-id/usb-3-video-index0")
    assert lasting(3, tmp_path) == lasting(f"{tmp_path}/video3", tmp_path) == by_id
    assert lasting(5, tmp_path) == str(tmp_path / "v4l/by-path/usb-5-video-index0")


def test_a_camera_without_links_and_what_is_a_name_already_stay(tmp_path):
    assert lasting(3, tmp_path) == 3
    plugged(tmp_path, by_id=3)
    (tmp_path / "video3").touch()
    (tmp_path / "wrist").symlink_to("video3")  # a rule of the lab's own
    named = (f"{tmp_path}/v4l/by-id/usb-3-video-index0", f"{tmp_path}/wrist", "http://10.0.0.7/video3")
    for source in (4, *named):
        assert lasting(source, tmp_path) == source


def test_it_is_reopened_as_what_it_was_known_by(tmp_path, monkeypatch):
    """No UVC camera is emulated: what would be opened is noted, and is not there."""
    asked = []

    class Open:
        def release(self) -> None: ...

    def connect(cv2, name, config, least_wait_s):
        asked.append(config.source)
        return Open()

    monkeypatch.setattr(driver, "connect", connect)
    monkeypatch.setattr(driver.OpenCvCamera, "_first", lambda self: None)
    monkeypatch.setattr(driver, "lasting", lambda source: lasting(source, tmp_path))
    plugged(tmp_path, by_id=3)
    camera = driver.OpenCvCamera("wrist", OpenCvConfig(source=3), SteppedClock())
    camera.open()
    (tmp_path / "v4l/by-id/usb-3-video-index0").unlink()  # away
    camera.open()
    camera.close()
    assert asked == [3, f"{tmp_path}/v4l/by-id/usb-3-video-index0"]
