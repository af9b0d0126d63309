"""A picture and its depth out of files, which may be anything: their sizes are asked before they unfold."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

from dexrun.perceiving.errors import InputError
from runtime.messages import ColorImage, DepthImage
from runtime.recording.bounds import BROKEN, one_line
from runtime.recording.pictures import unfolded

METRES_AS = 0.0001
"""What metres in floating point are counted in."""
_MOST_BYTES = 1 << 28


def read_color(path: Path) -> ColorImage:
    """RGB ``[H, W, 3]`` of a PNG or JPEG.

    Raises:
        InputError: it is none, or too large.
    """
    import cv2

    image = _decoded(path, cv2.IMREAD_COLOR, "picture", "a PNG or JPEG file is")
    return np.ascontiguousarray(image[..., ::-1], np.uint8)


def read_depth(path: Path, size: tuple[int, int]) -> tuple[DepthImage, float | None]:
    """Depth ``[H, W]`` of a PNG of 16 bits or an array in ``.npy``, in counts.

    Args:
        path: the file.
        size: height and width that it must have.

    Returns:
        The counts, and what one is in metres where the file holds metres.

    Raises:
        InputError: it is none, or of another size.
    """
    found: Any = _array(path) if path.suffix.lower() == ".npy" else _png(path)
    if found.ndim == 3 and found.shape[2] == 1:
        found = found[..., 0]
    if found.shape != size:
        given = "x".join(map(str, found.shape[1::-1] + found.shape[2:])) or "one value"
        raise InputError(f"{path}: {given}; depth must be as large as the picture, {size[1]}x{size[0]}")
    if found.dtype.kind == "u" and found.dtype.itemsize == 2:  # of either byte order
        return np.ascontiguousarray(found, np.uint16), None
    if found.dtype.kind == "f":
        return _counted(path, found.astype(np.float64)), METRES_AS
    raise InputError(
        f"{path}: {found.dtype} is no depth; accepted are uint16 counts, or metres in floating point (.npy)"
    )


def _counted(path: Path, metres: Any) -> DepthImage:
    known = np.nan_to_num(metres, nan=0.0, posinf=0.0, neginf=0.0)
    if known.min() < 0 or not 0 < known.max() < 65535 * METRES_AS:
        raise InputError(
            f"{path}: {known.min():g} to {known.max():g}; metres are between 0 (no reading) and 6.5"
        )
    return np.ascontiguousarray(np.rint(known / METRES_AS), np.uint16)


def _array(path: Path) -> Any:
    try:  # not `np.load`, which opens archives, too
        return np.lib.format.read_array(io.BytesIO(_bytes(path)), allow_pickle=False)
    except (*BROKEN, EOFError) as error:
        raise InputError(f"{path}: no array that can be read ({one_line(error)}); an .npy file is") from None


def _png(path: Path) -> Any:
    import cv2

    image = _decoded(path, cv2.IMREAD_UNCHANGED, "depth", "a PNG of 16 bits, or .npy is")
    if image.dtype != np.uint16 or image.ndim != 2:
        bits = f"{image.dtype}, {1 if image.ndim == 2 else image.shape[2]} channels"
        raise InputError(
            f"{path}: {bits}; depth is one channel of 16 bits (colour that paints depth is none)"
        )
    return image


def _decoded(path: Path, kind: int, what: str, accepted: str) -> Any:
    data = _bytes(path)
    try:
        return unfolded(data, kind)
    except (ValueError, MemoryError) as error:
        raise InputError(f"{path}: no {what} that can be read ({one_line(error)}); {accepted}") from None


def _bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: {getattr(error, 'strerror', None) or error}") from None
    if len(data) > _MOST_BYTES:
        raise InputError(f"{path}: a picture has at most {_MOST_BYTES >> 20} MiB, and this file has more")
    if not data:
        raise InputError(f"{path}: the file is empty")
    return data
