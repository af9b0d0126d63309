"""Encoding video with PyAV, and joining encoded episodes without encoding them again."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dexrun.export.errors import ExportError
from runtime.realtime import keep_scheduling

CRF = {"h264": 23, "av1": 30}
KEYFRAME_EVERY = 2
"""As LeRobot: a training sample is one frame anywhere, so that most frames are near a key frame."""


def color_options(codec: str, crf: int, threads: int) -> tuple[str, dict[str, str]]:
    """The encoder's name and options for colour. Never frames out of order, so that joining is a copy."""
    options = {"g": str(KEYFRAME_EVERY), "crf": str(crf or CRF[codec])}
    if codec == "av1":
        os.environ.setdefault("SVT_LOG", "1")
        return "libsvtav1", {**options, "preset": "12", "svtav1-params": f"lp={threads}"}
    return "libx264", {**options, "preset": "veryfast", "bf": "0", "threads": str(threads)}


def encode_color(
    path: Path, images: Iterable[NDArray[np.uint8]], size: tuple[int, int], fps: int, options: Any
) -> int:
    """RGB ``[H, W, 3]`` images as yuv420p; `size` is ``(height, width)``. Returns how many there were.

    Raises:
        OSError: the file cannot be written. ExportError: the encoder does not do that size or rate.
    """
    import av

    frames = (av.VideoFrame.from_ndarray(image, format="rgb24") for image in images)
    return _encode(path, frames, size, fps, "yuv420p", options)


def _encode(
    path: Path, frames: Iterator[Any], size: tuple[int, int], fps: int, pix_fmt: str, options: Any
) -> int:
    import av

    encoder, settings = options
    count = 0
    try:
        with av.open(str(path), "w") as out:
            stream = out.add_stream(encoder, rate=fps, options=settings)
            stream.height, stream.width, stream.pix_fmt = *size, pix_fmt
            with keep_scheduling():  # as root, SVT-AV1 puts itself and us before all that is ordinary
                stream.codec_context.open()
            for count, frame in enumerate(frames, 1):
                frame.pts, frame.time_base = count - 1, Fraction(1, fps)
                out.mux(stream.encode(frame))
            out.mux(stream.encode())
    except av.FFmpegError as error:
        if isinstance(error, OSError):  # the disk's doing, not the encoder's
            raise
        what = f"{size[1]}x{size[0]} {pix_fmt} at {fps} frames per second"
        raise ExportError(f"{encoder} does not encode {what}: {error.strerror}") from None
    return count


_FAST = "ctu=16:min-cu-size=16:rd=1:me=dia:subme=0"
"""Lossless noise hardly gets smaller by searching: 20 ms an image instead of 32, at the same size.

Two frames at a time, since depth takes longest and is often what is left to wait for; without x265's pool of
threads, which is slower (39 ms for 29), and with which it once waited for its own lookahead for ever.
"""


def encode_gray12(path: Path, codes: Iterable[NDArray[np.uint16]], size: tuple[int, int], fps: int) -> int:
    """12-bit ``[H, W]`` images as lossless HEVC, gray12le. Returns how many there were.

    Raises:
        OSError: the file cannot be written. ExportError: the encoder does not do that size or rate.
    """
    import av

    def frames() -> Iterator[Any]:
        for image in codes:
            frame = av.VideoFrame(image.shape[1], image.shape[0], "gray12le")
            plane: Any = frame.planes[0]
            rows = np.frombuffer(plane, np.uint16).reshape(image.shape[0], plane.line_size // 2)
            rows[:, : image.shape[1]] = image
            yield frame

    settings = {
        "g": str(KEYFRAME_EVERY),
        "bf": "0",
        "preset": "ultrafast",
        "x265-params": f"lossless=1:log-level=none:pools=none:frame-threads=2:bframes=0:{_FAST}",
    }
    return _encode(path, frames(), size, fps, "gray12le", ("libx265", settings))


def join(path: Path, parts: Sequence[Path], lengths: Sequence[int], fps: int) -> None:
    """One file of the `parts`, which have `lengths` frames each, by copying what is encoded.

    Frame `i` of a part that `n` frames precede is shown at ``(n + i) / fps`` exactly.

    Raises:
        OSError: the file cannot be written.
    """
    import av

    with av.open(str(path), "w") as out:
        target: Any = None
        before = 0
        for part, length in zip(parts, lengths, strict=True):
            with av.open(str(part)) as source:
                stream: Any = source.streams.video[0]
                if target is None:
                    target = out.add_stream_from_template(stream)
                start = round(Fraction(before, fps) / stream.time_base)
                packet: Any
                for packet in source.demux(stream):
                    if packet.size == 0:
                        continue
                    packet.pts += start
                    packet.dts += start
                    packet.stream = target
                    out.mux(packet)
            before += length


def describe(path: Path, fps: int) -> dict[str, Any]:
    """What LeRobot's ``info.json`` says about a video."""
    import av

    with av.open(str(path)) as source:
        stream: Any = source.streams.video[0]
        gray = stream.pix_fmt.startswith("gray")
        return {
            "video.height": stream.height,
            "video.width": stream.width,
            "video.codec": stream.codec.canonical_name,
            "video.pix_fmt": stream.pix_fmt,
            "video.is_depth_map": gray,
            "video.fps": fps,
            "video.channels": 1 if gray else 3,
            "has_audio": False,
        }
