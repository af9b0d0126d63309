"""The masks of one stretch on disk: there whole, by being renamed, or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

from runtime.recording.annotations import FrameMask

_HEAD = struct.Struct("<III")
"""Sizes of a mask's JSON and its PNG, and the CRC-32 of both."""


class MaskFileError(Exception):
    """A file of masks is damaged."""


class MaskWriter:
    """Appends masks to a file beside `path` that is its own, and gives it that name when it has all of them.

    Its own: a writer that outlived its command may be at the same stretch.
    """

    def __init__(self, path: Path) -> None:
        """Begin it anew.

        Raises:
            OSError: it cannot be written.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._part = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
        self._file = self._part.open("wb")

    def add(self, mask: FrameMask) -> None:
        """Append one."""
        said = {
            "frame": mask.frame,
            "confidence": mask.confidence,
            "anchor": mask.anchor,
            "box": mask.box,
            "point": mask.point,
        }
        text = json.dumps(said).encode()
        crc = zlib.crc32(mask.png, zlib.crc32(text))
        self._file.write(_HEAD.pack(len(text), len(mask.png), crc) + text + mask.png)

    def finish(self) -> None:
        """It is whole, and stays so whatever happens."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._part.replace(self._path)

    def discard(self) -> None:
        """It is not wanted."""
        with contextlib.suppress(OSError):  # as full as before
            self._file.close()
        self._part.unlink(missing_ok=True)


def read_masks(path: Path) -> Iterator[FrameMask]:
    """The masks of a whole file, in the order in which they were made.

    Raises:
        MaskFileError: it is damaged.
        OSError: it cannot be read.
    """
    data = path.read_bytes()
    at = 0
    while at < len(data):
        try:
            texts, pngs, crc = _HEAD.unpack_from(data, at)
            begin = at + _HEAD.size
            text, png = data[begin : begin + texts], data[begin + texts : begin + texts + pngs]
            at = begin + texts + pngs
            if at > len(data) or zlib.crc32(png, zlib.crc32(text)) != crc:
                raise MaskFileError(f"{path}: a mask is damaged")
            said = json.loads(text)
        except (struct.error, ValueError) as error:
            raise MaskFileError(f"{path}: {error}") from None
        box, point = (None if said[key] is None else tuple(said[key]) for key in ("box", "point"))
        yield FrameMask(said["frame"], png, said["confidence"], said["anchor"], box, point)
