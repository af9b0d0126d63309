"""Single pictures out of video files: decoders stay open, and runs of pictures are decoded once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from policies.data.dataset import Array, DatasetError
from runtime.recording.bounds import one_line

_OPEN_FILMS = 24
_READ_ON = 12
"""Pictures ahead that are decoded and thrown away rather than looked for: a seek costs about as much."""


class Film:
    """One video file that is open, its decoder somewhere in it."""

    def __init__(self, path: Path) -> None:
        """Open it.

        Raises:
            DatasetError: it is no video.
        """
        import av

        self.path = path
        try:
            self._file = av.open(str(path))
            self._stream: Any = self._file.streams.video[0]
        except (av.FFmpegError, IndexError, OSError) as error:
            raise DatasetError(f"{path}: no video, or cut off: {one_line(error)}") from None
        # One thread: those of the decoder would have to be filled again after every seek.
        self._stream.codec_context.thread_count = 1
        self._ticks_s = float(self._stream.time_base or 0.0)
        self._start = self._stream.start_time or 0
        self._frames: Iterator[Any] = iter(())
        self._at_s = float("inf")

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def pictures(self, times_s: list[float], slack_s: float, *, depth: bool = False) -> Iterator[Array]:
        """The picture shown at each time, in order: RGB ``[H, W, 3]``, or codes ``[H, W]`` of depth.

        Args:
            times_s: ascending, from the beginning of the file.
            slack_s: how far a picture's own time may be off.
            depth: whether it is one of grey levels.

        Raises:
            DatasetError: there is none, or it cannot be decoded.
        """
        import av

        for time_s in times_s:
            try:
                frame = self._frame(time_s, slack_s)
            except (av.FFmpegError, StopIteration, OSError) as error:
                self._at_s = float("inf")
                why = "it ends before" if isinstance(error, (StopIteration, EOFError)) else one_line(error)
                raise DatasetError(
                    f"{self.path}: no picture at {time_s:.3f} s ({why}); the file is damaged or cut off"
                ) from None
            yield _codes(frame) if depth else frame.to_ndarray(format="rgb24")

    def _frame(self, time_s: float, slack_s: float) -> Any:
        """The frame at `time_s`: what comes next if it is near, else from the key frame before it on."""
        if not self._at_s + slack_s < time_s <= self._at_s + _READ_ON * 2 * slack_s:
            self._file.seek(self._start + round(time_s / self._ticks_s), stream=self._stream)
            self._frames = self._file.decode(self._stream)
        while True:
            frame = next(self._frames)
            if frame.pts is None:
                continue
            self._at_s = (frame.pts - self._start) * self._ticks_s
            if self._at_s >= time_s - slack_s:
                break
        if self._at_s > time_s + slack_s:
            raise DatasetError(
                f"{self.path}: no picture at {time_s:.3f} s, the next is at {self._at_s:.3f} s; "
                "the data set's times are not the video's"
            )
        return frame


def _codes(frame: Any) -> Array:
    """Grey levels ``[H, W]`` of a frame of ``gray12le`` or ``gray16le``."""
    plane = frame.planes[0]
    rows = np.frombuffer(plane, "<u2").reshape(frame.height, plane.line_size // 2)
    return rows[:, : frame.width].copy()


class Films:
    """Video files, a few of them open at a time; pickles without them."""

    def __init__(self) -> None:
        self._open: OrderedDict[Path, Film] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {"_open": OrderedDict()}

    def get(self, path: Path) -> Film:
        """The file, opened if it is not.

        Raises:
            DatasetError: it is no video.
        """
        film = self._open.pop(path, None) or Film(path)
        self._open[path] = film
        while len(self._open) > _OPEN_FILMS:
            self._open.popitem(last=False)[1].close()
        return film

    def close(self) -> None:
        """Close all."""
        while self._open:
            self._open.popitem()[1].close()
