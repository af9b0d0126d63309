"""What the bytes of a recording may ask of whoever reads them, and how its mistakes are told.

A file may come from anywhere. Sizes are compared with these bounds before anything of that size is made; and
whatever else its bytes make go wrong is one line that names the file.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator
from pathlib import Path

_MIB = 1 << 20

CHUNK_BYTES = 512 * _MIB
"""Of a chunk's messages; the recorder writes some ten megabytes at once."""
RECORD_BYTES = CHUNK_BYTES + _MIB
SUMMARY_BYTES = 256 * _MIB
PIXELS = 64_000_000
ROW_BYTES = 65_536
EPISODE_S = 7 * 86_400

BROKEN = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, MemoryError, RuntimeError)
"""What code that is right raises on data that is not; `RuntimeError` is h5py's, and too deep a recursion."""


class RecordingError(Exception):
    """A file or topic cannot be read. One line: which file, what is wrong, what would be accepted."""


def unpacked_bytes(size: int) -> int:
    """How much a file of `size` bytes may unfold into. Of a covered camera depth shrinks to a hundredth."""
    return CHUNK_BYTES + 200 * size


def messages(size: int) -> int:
    """How many messages a file of `size` bytes may hold."""
    return 1_000_000 + size


@contextlib.contextmanager
def reading(path: Path, what: str = "") -> Iterator[None]:
    """Whatever goes wrong with the content of the recording at `path` is a RecordingError that names it.

    Raises:
        RecordingError: something went wrong.
    """
    try:
        yield
    except (*BROKEN, struct.error, OSError) as error:
        raise RecordingError(f"{path}: {what or 'damaged'}: {one_line(error)}") from None


def one_line(error: BaseException) -> str:
    """An error's text, or if it has none its kind, short and without line breaks."""
    text = " ".join(str(error).split())
    kind = type(error).__name__
    if isinstance(error, KeyError):
        text = f"{text} is missing"
    elif isinstance(error, BROKEN) and not isinstance(error, ValueError):
        text = f"{kind}: {text}" if text else kind
    return text[:300] or kind
