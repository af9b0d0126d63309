"""One MCAP file being written: whole chunks, appended and synchronised, and a summary at the end.

Chunks are made here and not by a library's writer because three things are asked for at once: a chunk at
least every so many milliseconds (what a crash may cost), each kind of data with the compression that suits
it, and no second copy of an image. Format: https://mcap.dev/spec; record layouts are the `mcap` package's.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtime.recording.schemas import Piece, Schema

if TYPE_CHECKING:
    from mcap.data_stream import RecordBuilder

MAGIC = b"\x89MCAP0\r\n"
OPEN_SUFFIX = ".open"
LIBRARY = "dexrun"

_MESSAGE = struct.Struct("<BQHIQQ")
_CHUNK = struct.Struct("<BQQQQII")
_INDEX = struct.Struct("<BQHI")
_ENTRY = struct.Struct("<QQ")
_U64 = struct.Struct("<Q")
_IOV = 512
_WRITE_BYTES = 128 * 1024
"""In one system call. A kernel that is not preemptible copies all of it before a thread of higher priority,
the control loop's, may run on that processor: 5 MB at once kept it waiting for 3 to 5 ms."""


@dataclass(frozen=True, slots=True)
class Channel:
    """One topic. Its id is its place in the file's list, from 1."""

    topic: str
    schema: Schema
    metadata: Mapping[str, str] = field(default_factory=dict)


class Batch:
    """Messages that become one chunk. `compression` is ``""`` or ``"zstd"`` (at `level`)."""

    def __init__(self, compression: str = "", level: int = 1) -> None:
        self.compression = compression
        self.level = level
        self.pieces: list[Piece] = []
        self.size = 0
        self.start_ns = self.end_ns = 0
        self.index: dict[int, list[tuple[int, int]]] = {}

    def add(self, channel: int, sequence: int, log_ns: int, publish_ns: int, data: Sequence[Piece]) -> None:
        """Append one message."""
        size = sum(len(piece) for piece in data)
        self.index.setdefault(channel, []).append((log_ns, self.size))
        self.start_ns = log_ns if self.size == 0 else min(self.start_ns, log_ns)
        self.end_ns = max(self.end_ns, log_ns)
        head = _MESSAGE.pack(5, size + 22, channel, sequence & 0xFFFFFFFF, log_ns, publish_ns)
        self.pieces.append(head)
        self.pieces.extend(data)
        self.size += len(head) + size

    def checksum(self) -> int:
        """CRC-32 of the uncompressed messages."""
        crc = 0
        for piece in self.pieces:
            crc = zlib.crc32(piece, crc)
        return crc

    def packed(self) -> list[Piece]:
        """The messages as they are stored. Gives up the GIL while it works."""
        if self.compression != "zstd":
            return self.pieces
        import zstandard

        stream = zstandard.ZstdCompressor(level=self.level).compressobj(size=self.size)
        packed: list[Piece] = [stream.compress(piece) for piece in self.pieces]
        return [*packed, stream.flush()]


@dataclass(slots=True)
class Summary:
    """What the end of a file says about its inside. Mended files are given one from a scan."""

    chunks: list[Any] = field(default_factory=list)
    metadata: list[Any] = field(default_factory=list)
    counts: dict[int, int] = field(default_factory=dict)
    start_ns: int = 0
    end_ns: int = 0

    def saw(self, index: Mapping[int, Sequence[tuple[int, int]]], start_ns: int, end_ns: int) -> None:
        """Count the messages of one chunk."""
        self.start_ns = start_ns if not self.counts else min(self.start_ns, start_ns)
        self.end_ns = max(self.end_ns, end_ns)
        for channel, entries in index.items():
            self.counts[channel] = self.counts.get(channel, 0) + len(entries)


def builder() -> RecordBuilder:
    """An empty buffer for the `mcap` package's records."""
    from mcap.data_stream import RecordBuilder

    return RecordBuilder()


def built(out: RecordBuilder) -> bytes:
    """What was put into `out`."""
    return bytes(out.end())  # type: ignore[no-untyped-call]


def _records(channels: Sequence[Channel], out: RecordBuilder) -> None:
    """Schema and Channel records; schemas are shared by name."""
    from mcap import records

    ids: dict[str, int] = {}
    for channel in channels:
        schema = channel.schema
        if schema.name not in ids:
            ids[schema.name] = len(ids) + 1
            records.Schema(
                id=ids[schema.name], name=schema.name, encoding=schema.encoding, data=schema.data
            ).write(out)
    for number, channel in enumerate(channels, 1):
        records.Channel(
            id=number,
            topic=channel.topic,
            message_encoding=channel.schema.message_encoding,
            metadata=dict(channel.metadata),
            schema_id=ids[channel.schema.name],
        ).write(out)


def metadata_record(name: str, values: Mapping[str, str]) -> bytes:
    """A Metadata record."""
    from mcap import records

    out = builder()
    records.Metadata(name=name, metadata=dict(values)).write(out)
    return built(out)


def ending(channels: bytes, schemas: int, channel_count: int, summary: Summary, at: int) -> bytes:
    """Everything from DataEnd to the closing magic, for a data section that ends at offset `at`.

    `channels` are the Schema and Channel records to be repeated.
    """
    from mcap import records

    data_end = builder()
    records.DataEnd(data_section_crc=0).write(data_end)
    head = built(data_end)
    out = builder()
    out.write(channels)
    records.Statistics(
        attachment_count=0,
        channel_count=channel_count,
        channel_message_counts=dict(summary.counts),
        chunk_count=len(summary.chunks),
        message_count=sum(summary.counts.values()),
        message_start_time=summary.start_ns,
        message_end_time=summary.end_ns,
        metadata_count=len(summary.metadata),
        schema_count=schemas,
    ).write(out)
    for record in (*summary.chunks, *summary.metadata):
        record.write(out)
    body = built(out)
    start = at + len(head)
    footer = struct.pack("<BQQQ", 2, 20, start, 0)
    crc = zlib.crc32(footer, zlib.crc32(body))
    return head + body + footer + struct.pack("<I", crc) + MAGIC


def sync_folder(folder: Path) -> None:
    """Make creations and renames in `folder` last."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


Index = Mapping[int, Sequence[tuple[int, int]]]
"""Channel id to ``(log time, offset in the chunk)`` of its messages."""


def index_records(index: Index) -> tuple[bytes, dict[int, int]]:
    """The MessageIndex records that follow a chunk, and where each channel's begins among them."""
    out, offsets = bytearray(), {}
    for channel, entries in index.items():
        offsets[channel] = len(out)
        out += _INDEX.pack(7, 6 + 16 * len(entries), channel, 16 * len(entries))
        for entry in entries:
            out += _ENTRY.pack(*entry)
    return bytes(out), offsets


def index_of(messages: bytes | memoryview, most: int) -> dict[int, list[tuple[int, int]]]:
    """The index of a chunk's messages, at `most` so many.

    Raises:
        struct.error: they are not whole, or are more.
    """
    found: dict[int, list[tuple[int, int]]] = {}
    at = 0
    while at < len(messages):
        most -= 1
        if most < 0:
            raise struct.error("more messages than a file of this size holds")
        opcode, size, channel, _, log_ns, _ = _MESSAGE.unpack_from(messages, at)
        if opcode == 5:
            found.setdefault(channel, []).append((log_ns, at))
        at += 9 + size
    return found


def chunk_index(
    about: tuple[int, int, int, str],
    begin: int,
    length: int,
    packed_size: int,
    offsets: Mapping[int, int],
    index_size: int,
) -> Any:
    """The ChunkIndex record; `about` is the chunk's start, end, unpacked size and compression."""
    from mcap import records

    start_ns, end_ns, size, compression = about
    return records.ChunkIndex(
        message_start_time=start_ns,
        message_end_time=end_ns,
        chunk_start_offset=begin,
        chunk_length=length,
        message_index_offsets={channel: begin + length + at for channel, at in offsets.items()},
        message_index_length=index_size,
        compression=compression,
        compressed_size=packed_size,
        uncompressed_size=size,
    )


def _at_most(pieces: Sequence[Piece], size: int) -> list[Piece]:
    """The first `size` bytes of `pieces`; all of them if there are no more."""
    out: list[Piece] = []
    for piece in pieces:
        out.append(piece if len(piece) <= size else memoryview(piece)[:size])
        size -= len(out[-1])
        if size <= 0:
            break
    return out


class McapFile:
    """Appends to ``<path>.open`` and renames it to `path` when it is whole.

    Every method may raise OSError (a full disk); what was written before stays whole, since a partial record
    is cut off again. The file is locked while it is open, so that nobody mends it meanwhile.
    """

    def __init__(self, path: Path, channels: Sequence[Channel]) -> None:
        """Create the file. If that fails there is none, so that it can be tried again.

        Raises:
            FileExistsError: `path`, or its open form, is there already.
        """
        if path.exists():
            raise FileExistsError(f"{path} is there already")
        self.path = path
        self.draft = path.with_name(path.name + OPEN_SUFFIX)
        self.summary = Summary()
        self._channels = tuple(channels)
        self._fd = os.open(self.draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self.size = 0
        try:
            self._begin()
            sync_folder(path.parent)
        except OSError:
            self.discard()
            raise

    def _begin(self) -> None:
        from mcap import records

        out = builder()
        out.write(MAGIC)
        records.Header(profile="", library=LIBRARY).write(out)
        _records(self._channels, out)
        self._append([built(out)])

    def _append(self, pieces: Iterable[Piece]) -> int:
        """Write `pieces` whole or not at all; returns where they begin."""
        begin, rest = self.size, [piece for piece in pieces if len(piece)]
        try:
            done = 0
            while done < len(rest):
                written = os.writev(self._fd, _at_most(rest[done : done + _IOV], _WRITE_BYTES))
                while done < len(rest) and written >= len(rest[done]):
                    written -= len(rest[done])
                    self.size += len(rest[done])
                    done += 1
                if written:
                    self.size += written
                    rest[done] = memoryview(rest[done])[written:]
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, begin)
            os.lseek(self._fd, begin, os.SEEK_SET)
            self.size = begin
            raise
        return begin

    def write(self, batch: Batch) -> None:
        """Append `batch` as one chunk with its index. An empty one is left out."""
        if not batch.pieces:
            return
        name = batch.compression.encode()
        packed = batch.packed()
        packed_size = sum(len(piece) for piece in packed)
        size = 40 + len(name) + packed_size
        head = _CHUNK.pack(6, size, batch.start_ns, batch.end_ns, batch.size, batch.checksum(), len(name))
        index, offsets = index_records(batch.index)
        begin = self._append([head, name, _U64.pack(packed_size), *packed, index])
        self.summary.saw(batch.index, batch.start_ns, batch.end_ns)
        self.summary.chunks.append(
            chunk_index(
                (batch.start_ns, batch.end_ns, batch.size, batch.compression),
                begin,
                9 + size,
                packed_size,
                offsets,
                len(index),
            )
        )

    def write_metadata(self, name: str, values: Mapping[str, str]) -> None:
        """Append a Metadata record."""
        from mcap import records

        data = metadata_record(name, values)
        begin = self._append([data])
        self.summary.metadata.append(records.MetadataIndex(offset=begin, length=len(data), name=name))

    def sync(self) -> None:
        """Make what was written so far last."""
        os.fdatasync(self._fd)

    def finish(self) -> Path:
        """Write the summary, make everything last, and give the file its name."""
        out = builder()
        _records(self._channels, out)
        schemas = len({channel.schema.name for channel in self._channels})
        tail = ending(built(out), schemas, len(self._channels), self.summary, self.size)
        self._append([tail])
        os.fsync(self._fd)
        self.draft.rename(self.path)
        sync_folder(self.path.parent)
        self.close()
        return self.path

    def discard(self) -> None:
        """Remove the file. It is let go of even if it cannot be removed."""
        try:
            self.draft.unlink(missing_ok=True)
        finally:
            self.close()

    def close(self) -> None:
        """Let go of the file; a draft stays, to be mended later."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
