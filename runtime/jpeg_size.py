"""How large a JPEG unfolds, from its headers: to be asked before anything is allocated for its pixels."""

from __future__ import annotations

_WITHOUT_LENGTH = (0x01, *range(0xD0, 0xD8))
"""TEM and the restart markers."""


def jpeg_size(data: bytes | memoryview) -> tuple[int, int]:
    """Height and width of a JPEG.

    Markers are followed as decoders do: any number of 0xFF may stand before one, and some have no length.

    Raises:
        ValueError: it is not a JPEG, or has no frame header.
    """
    view = memoryview(data)
    at = 2
    if len(view) < 4 or bytes(view[:2]) != b"\xff\xd8":
        raise ValueError("not a JPEG")
    while at + 9 <= len(view) and view[at] == 0xFF:
        marker = view[at + 1]
        if marker == 0xFF or marker in _WITHOUT_LENGTH:
            at += 1 if marker == 0xFF else 2
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return int.from_bytes(view[at + 5 : at + 7], "big"), int.from_bytes(view[at + 7 : at + 9], "big")
        at += 2 + int.from_bytes(view[at + 2 : at + 4], "big")
    raise ValueError("a JPEG without a frame header")
