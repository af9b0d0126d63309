"""Mends what a crash left behind: cuts a draft after its last whole chunk and gives it its summary.

The file is mended in place and then renamed, both of which may be interrupted and begun again: a draft is
anything that still has its ``.open`` name.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import stat
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from runtime.clock import NS_PER_S
from runtime.recording.bounds import CHUNK_BYTES, RECORD_BYTES, unpacked_bytes
from runtime.recording.bounds import messages as messages_allowed
from runtime.recording.mcap_file import (
    MAGIC,
    OPEN_SUFFIX,
    Summary,
    chunk_index,
    ending,
    index_of,
    index_records,
    metadata_record,
    sync_folder,
)

_HEAD = struct.Struct("<BQ")
_HEADER, _SCHEMA, _CHANNEL, _CHUNK, _INDEX, _METADATA = 1, 3, 4, 6, 7, 12


class RepairError(Exception):
    """A draft cannot be mended. One line that says why."""


class TooLargeError(RepairError):
    """It would unfold into more than a recorder ever wrote."""


@dataclass(frozen=True, slots=True)
class Mended:
    """What was found in a draft, and made of it.

    Attributes:
        path: the finished episode; ``None`` if there was nothing in the draft, which is gone then.
        cut_bytes: what was behind the last whole chunk.
    """

    draft: Path
    path: Path | None
    messages: int = 0
    duration_s: float = 0.0
    cut_bytes: int = 0

    def __str__(self) -> str:
        if self.path is None:
            return f"{self.draft}: nothing had been recorded yet; removed"
        what = f"{self.messages} messages, {self.duration_s:.2f} s"
        return f"{self.path}: mended after a crash: {what}; {self.cut_bytes} bytes of an unfinished chunk cut"


@dataclass(slots=True)
class Scan:
    """The whole records of a file.

    Attributes:
        end: offset after the last whole record that is worth keeping.
        channels: the Schema and Channel records as they are. topics: by channel id.
        metadata: by name, the last of each.
        numbers: by channel id, the lowest and the highest number of its samples; (0, 0) where they have none.
        missing_index: of the last chunk, where the crash cut it off.
        room: bytes that chunks may still unfold into. messages: that may still come.
    """

    end: int = 0
    channels: bytes = b""
    schemas: int = 0
    topics: dict[int, str] = field(default_factory=dict)
    metadata: dict[str, dict[str, str]] = field(default_factory=dict)
    summary: Summary = field(default_factory=Summary)
    numbers: dict[int, tuple[int, int]] = field(default_factory=dict)
    label: str = "none"
    missing_index: bytes = b""
    room: int = 0
    messages: int = 0


def _records(file: BinaryIO, size: int) -> Iterator[tuple[int, int, bytes]]:
    """``(opcode, offset, content)`` of whole records, as far as there are any."""
    at = len(MAGIC)
    while at + _HEAD.size <= size:
        file.seek(at)
        opcode, length = _HEAD.unpack(file.read(_HEAD.size))
        if opcode == 0 or at + _HEAD.size + length > size:
            return
        if length > RECORD_BYTES:
            raise RepairError(f"a record of {length} bytes, which no recorder writes")
        yield opcode, at, file.read(length)
        at += _HEAD.size + length


def scan(file: BinaryIO, size: int) -> Scan:
    """Every whole chunk of a draft, in order, until the first that is not.

    Raises:
        RepairError: this is not one of our files, or its first chunk is damaged.
    """
    file.seek(0)
    if file.read(len(MAGIC)) != MAGIC:
        raise RepairError("it does not begin like an MCAP file")
    found = Scan(end=len(MAGIC), room=unpacked_bytes(size), messages=messages_allowed(size))
    for opcode, at, content in _records(file, size):
        after = at + _HEAD.size + len(content)
        if opcode == _CHUNK:
            if not _chunk(found, file, at, content):
                break
        elif opcode == _METADATA:
            _metadata(found, at, content)
            found.end = after
        elif opcode in (_SCHEMA, _CHANNEL):
            _channel(found, opcode, content)
            found.end = after
        elif opcode == _HEADER:
            found.end = after
        elif opcode != _INDEX:
            break
    return found


def _channel(found: Scan, opcode: int, content: bytes) -> None:
    from mcap.data_stream import ReadDataStream
    from mcap.records import Channel

    found.channels += _HEAD.pack(opcode, len(content)) + content
    if opcode == _SCHEMA:
        found.schemas += 1
        return
    channel = Channel.read(ReadDataStream(_stream(content)))
    found.topics[channel.id] = channel.topic


def _stream(content: bytes) -> BinaryIO:
    import io

    return io.BytesIO(content)


def _metadata(found: Scan, at: int, content: bytes) -> None:
    from mcap.data_stream import ReadDataStream
    from mcap.records import Metadata, MetadataIndex

    record = Metadata.read(ReadDataStream(_stream(content)))
    found.metadata[record.name] = dict(record.metadata)
    index = MetadataIndex(offset=at, length=_HEAD.size + len(content), name=record.name)
    found.summary.metadata.append(index)


def _chunk_parts(content: bytes) -> tuple[int, int, int, int, str, memoryview]:
    """Start, end, size, checksum, compression, stored messages.

    Raises:
        struct.error: the record is too short.
    """
    start, end, size, crc, name = struct.unpack_from("<QQQII", content)
    at = 32 + name
    (stored,) = struct.unpack_from("<Q", content, at)
    return (
        start,
        end,
        size,
        crc,
        content[32:at].decode(errors="replace"),
        memoryview(content)[at + 8 :][:stored],
    )


def unpacked(compression: str, stored: memoryview, size: int) -> bytes:
    """A chunk's messages, which are `size` bytes: what would be more is not unfolded.

    Raises:
        RepairError: they cannot be unpacked.
    """
    if size > CHUNK_BYTES:
        raise TooLargeError(f"a chunk of {size} bytes, which no recorder writes")
    if compression == "":
        return bytes(stored)
    try:
        if compression == "zstd":
            return _zstd(stored, size)
        if compression == "lz4":
            import lz4.frame

            return bytes(lz4.frame.LZ4FrameDecompressor().decompress(stored, max_length=size + 1))
    except RuntimeError as error:
        raise RepairError(f"a chunk cannot be unpacked: {error}") from error
    raise RepairError(f"a chunk is compressed by {compression[:20]!r}, which is not known here")


def _zstd(stored: memoryview, size: int) -> bytes:
    import zstandard

    try:
        about = zstandard.get_frame_parameters(stored)
        # The frame's own claim is what would be allocated.
        if about.content_size not in (size, zstandard.CONTENTSIZE_UNKNOWN):
            raise RepairError(f"a chunk of {size} bytes says that it unfolds into {about.content_size}")
        return zstandard.ZstdDecompressor().decompress(stored, max_output_size=size)
    except zstandard.ZstdError as error:
        raise RepairError(f"a chunk cannot be unpacked: {error}") from error


def chunk_messages(content: bytes) -> bytes:
    """A Chunk record's messages, checked: on power loss a file may be longer than what reached the disk.

    Raises:
        RepairError: they are not what was written.
    """
    try:
        _, _, size, crc, compression, stored = _chunk_parts(content)
    except struct.error:
        raise RepairError("a chunk is too short") from None
    messages = unpacked(compression, stored, size)
    if len(messages) != size or (crc and zlib.crc32(messages) != crc):
        raise RepairError("a chunk's checksum is wrong")
    return messages


def _chunk(found: Scan, file: BinaryIO, at: int, content: bytes) -> bool:
    """Take a chunk in; ``False`` if it, or its index, is the end of what is usable.

    Raises:
        RepairError: it would be the first one: whole ones may follow, and nobody is to throw those away.
    """
    try:
        _within(found, content)
        messages = chunk_messages(content)
        index = index_of(messages, found.messages)
    except TooLargeError:
        raise
    except (RepairError, struct.error):
        if not found.summary.counts:
            raise RepairError("its first chunk is damaged, so that nothing would be left of it") from None
        return False
    start, end, size, _, compression, stored = _chunk_parts(content)
    length = _HEAD.size + len(content)
    expected, offsets = index_records(index)
    file.seek(at + length)
    whole = file.read(len(expected)) == expected
    found.messages -= sum(map(len, index.values()))
    found.summary.saw(index, start, end)
    found.summary.chunks.append(
        chunk_index((start, end, size, compression), at, length, len(stored), offsets, len(expected))
    )
    _look_for_label(found, index, messages)
    _look_for_numbers(found, index, messages)
    found.end = at + length + (len(expected) if whole else 0)
    found.missing_index = b"" if whole else expected
    return whole


def _within(found: Scan, content: bytes) -> None:
    """Before anything unfolds.

    Raises:
        TooLargeError: all chunks together would be more than a file of this size holds.
    """
    size = _chunk_parts(content)[2]
    found.room -= size
    if found.room < 0:
        raise TooLargeError("its chunks would unfold into more than a file of its size holds")


def _look_for_label(found: Scan, index: Mapping[int, Sequence[tuple[int, int]]], messages: bytes) -> None:
    for channel, entries in index.items():
        if found.topics.get(channel) != "/events":
            continue
        for _, at in entries:
            (length,) = struct.unpack_from("<Q", messages, at + 1)
            with contextlib.suppress(ValueError):
                event = json.loads(messages[at + 31 : at + 9 + length])
                if event.get("kind") in ("label", "episode_end"):
                    found.label = str(event.get("label", found.label))


def _look_for_numbers(found: Scan, index: Mapping[int, Sequence[tuple[int, int]]], messages: bytes) -> None:
    for channel, entries in index.items():
        numbers = [struct.unpack_from("<I", messages, at + 11)[0] for _, at in entries]
        known = found.numbers.get(channel, (numbers[0], numbers[0]))
        found.numbers[channel] = min(known[0], *numbers), max(known[1], *numbers)


def mend(draft: Path) -> Mended | None:
    """Finish `draft`; ``None`` if another process is still writing it.

    Raises:
        RepairError: it is no recording, or the disk does not let it be mended; it stays as it is.
    """
    target = draft.with_name(draft.name.removesuffix(OPEN_SUFFIX))
    with _opened(draft) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return None
        size = os.fstat(file.fileno()).st_size
        if target.exists():
            raise RepairError(f"{draft}: {target.name} is there as well; move one of them away")
        if not file.read(len(MAGIC)).strip(b"\0"):
            return _remove(draft, size)
        try:
            found = scan(file, size)
            tail = _tail(found, size)
        except RepairError as error:
            raise RepairError(f"{draft}: {error}; it stays as it is") from None
        except Exception as error:  # a damaged file fails in as many ways as there are bytes
            why = str(error) or type(error).__name__
            raise RepairError(f"{draft}: damaged: {why}; it stays as it is") from None
        if not found.summary.counts:
            return _remove(draft, size)
        try:
            _rewrite(file, found.end, tail)
        except OSError as error:
            raise RepairError(f"{draft}: cannot be mended: {error.strerror}") from None
        draft.rename(target)
        sync_folder(draft.parent)
    messages = sum(found.summary.counts.values())
    seconds = (found.summary.end_ns - found.summary.start_ns) / NS_PER_S
    return Mended(draft, target, messages, seconds, size - found.end)


def _opened(draft: Path) -> BinaryIO:
    """The file itself, and nothing that a link leads to: what is there is cut and written to.

    Raises:
        RepairError: it is a link, or no file, or has another name as well.
    """
    try:
        number = os.open(draft, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        why = "a link" if error.errno == errno.ELOOP else error.strerror
        raise RepairError(f"{draft}: cannot be mended: {why}") from None
    status = os.fstat(number)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
        os.close(number)
        raise RepairError(f"{draft}: cannot be mended: not a file of its own")
    return os.fdopen(number, "r+b")


def _remove(draft: Path, size: int) -> Mended:
    draft.unlink()
    sync_folder(draft.parent)
    return Mended(draft, None, cut_bytes=size)


def _tail(found: Scan, size: int) -> bytes:
    """What belongs behind the last whole record."""
    from mcap.records import MetadataIndex

    episode = metadata_record("episode", _episode(found, size))
    at = found.end + len(found.missing_index)
    found.summary.metadata.append(MetadataIndex(offset=at, length=len(episode), name="episode"))
    end = ending(found.channels, found.schemas, len(found.topics), found.summary, at + len(episode))
    return found.missing_index + episode + end


def _rewrite(file: BinaryIO, at: int, tail: bytes) -> None:
    file.truncate(at)
    file.seek(at)
    file.write(tail)
    file.flush()
    os.fsync(file.fileno())


def _episode(found: Scan, size: int) -> dict[str, str]:
    """The record ``episode``: the recorder's own if it came to writing it, else what the messages say."""
    begin = found.metadata.get("episode_start", {})
    offset = int(found.metadata.get("clock", {}).get("offset_ns", "0"))
    return {
        **begin,
        "label": found.label,
        "discarded": "false",
        "end_ns": str(found.summary.end_ns - offset),
        "end_time_ns": str(found.summary.end_ns),
        "duration_s": f"{(found.summary.end_ns - found.summary.start_ns) / NS_PER_S:.6f}",
        "stop_reason": "the program or the machine was stopped before the episode was finished",
        "drops": json.dumps(_by_topic(found, _gaps(found))),
        "cut_bytes": str(size - found.end),
        **found.metadata.get("episode", {}),
        "repaired": "true",
        "messages": json.dumps(_by_topic(found, found.summary.counts)),
    }


def _gaps(found: Scan) -> dict[int, int]:
    """Samples missing between the first and the last of each channel; those before and after are unknown."""
    counts = found.summary.counts
    missing = {channel: high - low + 1 - counts[channel] for channel, (low, high) in found.numbers.items()}
    return {channel: n for channel, n in missing.items() if n > 0}


def _by_topic(found: Scan, counts: Mapping[int, int]) -> dict[str, int]:
    return {found.topics.get(channel, str(channel)): n for channel, n in sorted(counts.items())}


def mend_all(folders: list[Path]) -> tuple[list[Mended], list[str]]:
    """Mend every draft in `folders`; returns what was mended, and what could not be and why."""
    mended: list[Mended] = []
    refused: list[str] = []
    for folder in folders:
        for draft in sorted(folder.glob(f"*.mcap{OPEN_SUFFIX}")):
            try:
                result = mend(draft)
            except (RepairError, OSError) as error:
                refused.append(str(error))
                continue
            if result is not None:
                mended.append(result)
    return mended, refused
