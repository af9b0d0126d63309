"""Opening a source with OpenCV, and turning what it gives into RGB."""

from __future__ import annotations

import contextlib
import math
import os
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from drivers.opencv_camera.options import OpenCvOptions
from runtime.jpeg_size import jpeg_size
from runtime.messages import ColorImage, DeviceError, FaultKind

_PORTS = {"http": 80, "https": 443, "rtsp": 554, "rtsps": 322, "rtmp": 1935, "rtmps": 443}
_CONNECTED = (*_PORTS, "tcp")
"""Schemes at whose port somebody can be asked whether he is there."""


def is_network(source: int | str) -> bool:
    """Whether `source` is a URL."""
    return isinstance(source, str) and "://" in source


def lasting(source: int | str, dev: Path = Path("/dev")) -> int | str:
    """What names the camera itself where `source` is an index or ``/dev/videoN``, which is whose turn it was.

    That is udev's link by serial number, else the one by USB port; `source`, where there is none.
    """
    device = dev / f"video{source}" if isinstance(source, int) else Path(source)
    if device.parent != dev or not re.fullmatch(r"video\d+", device.name):
        return source
    links = [link for kind in ("by-id", "by-path") for link in sorted((dev / "v4l" / kind).glob("*"))]
    return next((str(link) for link in links if link.resolve() == device.resolve()), source)


def library() -> Any:
    """OpenCV, with its own messages on stderr off: what goes wrong is reported as `DeviceError`."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    _ask_no_proxy_for_this_machine()
    import cv2

    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)
    return cv2


def _ask_no_proxy_for_this_machine() -> None:
    """FFmpeg goes through ``http_proxy`` to this machine's own cameras, too, unless ``no_proxy`` has them."""
    if not os.environ.get("http_proxy"):
        return
    given = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    names = [each for each in given.split(",") if each]
    os.environ["no_proxy"] = ",".join(dict.fromkeys((*names, "localhost", "127.0.0.1", "::1")))


def connect(cv2: Any, name: str, config: OpenCvOptions, least_wait_s: float = 0.0) -> Any:
    """An opened ``cv2.VideoCapture`` that hands out frames as encoded by the camera where it can.

    A network camera is waited for no shorter than `least_wait_s`, whatever the configuration says.

    Raises:
        DeviceError: ``not_found``, the source is not there; ``not_granted``, it does not do what was asked.
    """
    network = is_network(config.source)
    capture = _network(cv2, config, least_wait_s) if network else _local(cv2, name, config)
    if not capture.isOpened():
        raise DeviceError(name, FaultKind.NOT_FOUND, str(config.source), why_not(config))
    try:
        if not is_network(config.source):
            _check(cv2, capture, name, config)
        # Undecoded frames: FFmpeg and the V4L2 backend both repair a torn JPEG into half a grey picture.
        if _fourcc(cv2, capture) == "MJPG":
            raw = (cv2.CAP_PROP_FORMAT, -1) if is_network(config.source) else (cv2.CAP_PROP_CONVERT_RGB, 0)
            capture.set(*raw)
    except DeviceError:
        capture.release()
        raise
    return capture


def _network(cv2: Any, config: OpenCvOptions, least_wait_s: float) -> Any:
    # One decoder thread: with more, FFmpeg keeps back as many frames.
    parameters = {
        cv2.CAP_PROP_OPEN_TIMEOUT_MSEC: round(1e3 * max(config.open_timeout_s, least_wait_s)),
        cv2.CAP_PROP_READ_TIMEOUT_MSEC: round(1e3 * max(config.frame_timeout_s, least_wait_s)),
        cv2.CAP_PROP_N_THREADS: 1,
    }
    return cv2.VideoCapture(config.source, cv2.CAP_FFMPEG, _flat(parameters))


def _local(cv2: Any, name: str, config: OpenCvOptions) -> Any:
    path = Path(f"/dev/video{config.source}" if isinstance(config.source, int) else config.source)
    if not path.exists():
        raise DeviceError(name, FaultKind.NOT_FOUND, str(config.source), why_not(config))
    parameters = {
        cv2.CAP_PROP_FOURCC: cv2.VideoWriter.fourcc(*config.fourcc),
        cv2.CAP_PROP_FRAME_WIDTH: config.width,
        cv2.CAP_PROP_FRAME_HEIGHT: config.height,
        cv2.CAP_PROP_FPS: config.fps,
        cv2.CAP_PROP_BUFFERSIZE: 1,
    }
    capture = cv2.VideoCapture(config.source, cv2.CAP_V4L2, _flat(parameters))
    if config.autofocus is not None:
        capture.set(cv2.CAP_PROP_AUTOFOCUS, float(config.autofocus))
    if config.exposure_us is not None:
        capture.set(cv2.CAP_PROP_AUTO_EXPOSURE, 1)  # V4L2_EXPOSURE_MANUAL
        capture.set(cv2.CAP_PROP_EXPOSURE, config.exposure_us / 100.0)  # V4L2 counts in 100 us
    return capture


def _flat(parameters: Mapping[int, int]) -> list[int]:
    return [number for pair in parameters.items() for number in pair]


def _fourcc(cv2: Any, capture: Any) -> str:
    code = int(capture.get(cv2.CAP_PROP_FOURCC)) & 0xFFFFFFFF  # -1 is that there is none
    return code.to_bytes(4, "little").decode("latin-1")


def _check(cv2: Any, capture: Any, name: str, config: OpenCvOptions) -> None:
    size = (int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)), int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)))
    fps, fourcc = capture.get(cv2.CAP_PROP_FPS), _fourcc(cv2, capture)
    asked = (config.width, config.height, config.fps, config.fourcc)
    rate = round(fps) if math.isfinite(fps) else 0  # V4L2's period may be 0
    if (*size, rate, fourcc) != asked:
        raise DeviceError(
            name,
            FaultKind.NOT_GRANTED,
            str(config.source),
            f"asked for {config.width}x{config.height} {config.fourcc} at {config.fps} fps, "
            f"the camera gives {size[0]}x{size[1]} {ascii(fourcc)[1:-1]} at {fps:g} fps",
        )


def why_not(config: OpenCvOptions) -> str:
    """One line on why the source cannot be opened."""
    if not is_network(config.source):
        there = sorted(map(str, [*Path("/dev/v4l/by-id").glob("*"), *Path("/dev").glob("video[0-9]*")]))
        return f"no video device there; there are: {', '.join(there) or 'none'}"
    url = urlsplit(str(config.source))
    if url.scheme not in _CONNECTED:
        return "nothing comes from there that OpenCV can read as video"
    try:
        address = (url.hostname or "", url.port or _PORTS.get(url.scheme, 0))
        # Opening took its time already: this only asks whether anybody is there.
        socket.create_connection(address, config.frame_timeout_s).close()
    except socket.gaierror as error:
        return f"host {url.hostname!r} is not known: {error.strerror}"
    except (OSError, ValueError) as error:
        return f"cannot connect: {error}"
    return "the server answers, but sends no video that OpenCV can read"


MOST_PIXELS = 8192 * 4320
"""Of one frame: 8K."""


def to_rgb(cv2: Any, data: NDArray[np.uint8], into: ColorImage) -> tuple[int, int] | None:
    """Write a frame of `VideoCapture.read` into `into` ``[H, W, 3]``, converted to RGB.

    Returns its size (width, height), which may differ from that of `into`, in which case nothing was
    written; ``None`` if it is no whole picture.
    """
    if data.ndim == 3 and data.shape[2] in (2, 3):
        size = (data.shape[1], data.shape[0])
        if into.shape[:2] == data.shape[:2]:
            code = cv2.COLOR_BGR2RGB if data.shape[2] == 3 else cv2.COLOR_YUV2RGB_YUY2
            cv2.cvtColor(data, code, dst=into)
        return size
    encoded = data.tobytes()
    # A JPEG cut short still decodes, to a picture whose rest is grey; its end marker tells.
    if not encoded.startswith(b"\xff\xd8") or not encoded.rstrip(b"\0").endswith(b"\xff\xd9"):
        return None
    try:
        height, width = jpeg_size(encoded)
    except ValueError:
        return None
    if height * width > MOST_PIXELS:  # a few bytes can say that they unfold to gigabytes
        return None
    picture = None
    with contextlib.suppress(cv2.error):
        picture = cv2.imdecode(data.reshape(-1), cv2.IMREAD_COLOR_RGB)
    if picture is None:
        return None
    if picture.shape == into.shape:
        np.copyto(into, picture)
    return picture.shape[1], picture.shape[0]
