"""One finished file as topics and messages, and what their bytes mean."""

from __future__ import annotations

import io
import json
import os
import stat
import struct
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime import protobuf as pb
from runtime.messages import PolicyStatus
from runtime.recording.bounds import (
    CHUNK_BYTES,
    RECORD_BYTES,
    SUMMARY_BYTES,
    RecordingError,
    one_line,
    reading,
    unpacked_bytes,
)
from runtime.recording.mcap_file import MAGIC, OPEN_SUFFIX
from runtime.recording.repair import RepairError, chunk_messages
from runtime.recording.schemas import Rows

_CACHED_CHUNKS = 6
_MESSAGE = struct.Struct("<BQHIQQ")
_OPCODE, _CHUNK, _METADATA = 5, 6, 12


@dataclass(slots=True)
class Topic:
    """Where a topic's messages are: `times`, and for each the offset of its chunk and its own in there."""

    name: str
    schema: str
    encoding: str
    metadata: dict[str, str]
    times: NDArray[np.int64]
    chunks: NDArray[np.int64]
    offsets: NDArray[np.int64]


class RecordingFile:
    """One file, opened.

    Attributes:
        records: every metadata record by name; the last, where there are more.
    """

    def __init__(self, path: Path) -> None:
        """Open the file and read its summary.

        Raises:
            RecordingError: no such file, or not a finished recording.
        """
        self.path = path
        self.records: dict[str, dict[str, str]] = {}
        self.topics: dict[str, Topic] = {}
        self._cache: OrderedDict[int, bytes] = OrderedDict()
        self._sizes: dict[int, int] = {}
        try:  # without waiting for whoever writes into a pipe
            self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise RecordingError(f"{path}: {error.strerror}") from None
        try:
            with reading(path):
                self._read_summary()
        except RecordingError:
            self.close()
            raise
        except Exception as error:  # a damaged file fails in as many ways as there are bytes
            self.close()
            raise RecordingError(f"{path}: damaged: {one_line(error)}") from None

    def close(self) -> None:
        """Let go of the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def topic(self, name: str) -> Topic:
        """The topic `name`.

        Raises:
            RecordingError: there is no such topic.
        """
        if name not in self.topics:
            known = ", ".join(sorted(self.topics)) or "none"
            raise RecordingError(f"{self.path}: no topic {name}; there are: {known}")
        return self.topics[name]

    def message(self, topic: Topic, number: int) -> tuple[int, int, memoryview]:
        """``(sequence, publish time, data)`` of one message.

        Raises:
            RecordingError: its chunk is damaged.
        """
        chunk = self._chunk(int(topic.chunks[number]))
        at = int(topic.offsets[number])
        with reading(self.path, topic.name):
            opcode, size, _, sequence, _, publish_ns = _MESSAGE.unpack_from(chunk, at)
            data = memoryview(chunk)[at + _MESSAGE.size : at + 9 + size]
            if opcode != _OPCODE or len(data) != size + 9 - _MESSAGE.size:
                raise ValueError(f"there is no message {number} where it should be")
        return sequence, publish_ns, data

    def rows(self, topic: Topic, size: int) -> NDArray[np.uint8]:
        """Every message of a topic, ``[N, size]``; all at once, since there are hundreds in a second.

        Raises:
            RecordingError: a chunk is damaged.
            ValueError: a message is not of that size, or not where it should be.
        """
        out = np.empty((len(topic.times), size), np.uint8)
        for at in np.unique(topic.chunks).tolist():
            chunk = np.frombuffer(self._chunk(at), np.uint8)
            which = np.flatnonzero(topic.chunks == at)
            starts = topic.offsets[which]
            if starts.min() < 0 or int(starts.max()) + _MESSAGE.size + size > len(chunk):
                raise ValueError("a message is not where it should be")
            heads = chunk[starts[:, None] + np.arange(9)]
            lengths = np.ascontiguousarray(heads[:, 1:]).view("<u8")[:, 0]
            if not (heads[:, 0] == _OPCODE).all():
                raise ValueError("a message is not where it should be")
            if wrong := set(lengths.tolist()) - {size + _MESSAGE.size - 9}:
                raise ValueError(f"a row of {min(wrong) + 9 - _MESSAGE.size} bytes instead of {size}")
            out[which] = chunk[starts[:, None] + np.arange(_MESSAGE.size, _MESSAGE.size + size)]
        return out

    def _chunk(self, at: int) -> bytes:
        if at in self._cache:
            self._cache.move_to_end(at)
            return self._cache[at]
        try:
            content = self._record(at, _CHUNK)
            messages = chunk_messages(content)
            if len(messages) != self._sizes[at]:
                raise RepairError(f"a chunk of {len(messages)} bytes, not {self._sizes[at]} as listed")
        except (RepairError, OSError) as error:
            raise RecordingError(f"{self.path}: at byte {at}: {one_line(error)}") from None
        self._cache[at] = messages
        while len(self._cache) > 1 and (
            len(self._cache) > _CACHED_CHUNKS or sum(map(len, self._cache.values())) > CHUNK_BYTES
        ):
            self._cache.popitem(last=False)
        return messages

    def _record(self, at: int, opcode: int) -> bytes:
        """The content of the record at byte `at`.

        Raises:
            RepairError: there is no such record.
        """
        head = os.pread(self._file, 9, at) if at >= 0 else b""
        there, size = struct.unpack("<BQ", head) if len(head) == 9 else (0, 0)
        if there != opcode or size > min(RECORD_BYTES, self._size):
            raise RepairError("there is no such record")
        return os.pread(self._file, size, at + 9)

    def _read_summary(self) -> None:
        from mcap.data_stream import ReadDataStream
        from mcap.reader import SeekingReader
        from mcap.records import Metadata

        self._size = size = self._finished()
        summary = SeekingReader(io.BufferedReader(_Bounded(self._file, size))).get_summary()
        if summary is None:
            raise RecordingError(f"{self.path}: has no summary")
        for record in summary.metadata_indexes:
            content = self._record(record.offset, _METADATA)
            metadata = Metadata.read(ReadDataStream(io.BytesIO(content)))
            self.records[metadata.name] = dict(metadata.metadata)
        chunks = sorted(summary.chunk_indexes, key=lambda chunk: chunk.chunk_start_offset)
        self._sizes = {chunk.chunk_start_offset: chunk.uncompressed_size for chunk in chunks}
        if sum(chunk.uncompressed_size for chunk in chunks) > unpacked_bytes(size):
            raise ValueError("its chunks would unfold into more than such a file holds")
        entries: dict[int, list[tuple[int, bytes]]] = {}
        read = 0
        for chunk in chunks:
            for number, at in chunk.message_index_offsets.items():
                index = self._index(at)
                read += len(index)
                if read > size:
                    raise ValueError("its messages are listed more than once")
                entries.setdefault(number, []).append((chunk.chunk_start_offset, index))
        for channel in summary.channels.values():
            schema = summary.schemas.get(channel.schema_id)
            self.topics[channel.topic] = _topic(
                channel, "" if schema is None else schema.name, entries.get(channel.id, [])
            )

    def _finished(self) -> int:
        """The file's size.

        Raises:
            RecordingError: it is not a finished MCAP file.
        """
        status = os.fstat(self._file)
        size = status.st_size
        if not stat.S_ISREG(status.st_mode) or os.pread(self._file, len(MAGIC), 0) != MAGIC:
            raise RecordingError(f"{self.path}: not an MCAP file")
        if size < 2 * len(MAGIC) or os.pread(self._file, len(MAGIC), size - len(MAGIC)) != MAGIC:
            hint = "the next start of dexrun mends it" if self.path.name.endswith(OPEN_SUFFIX) else "cut off"
            raise RecordingError(f"{self.path}: not finished ({hint})")
        start, _, _ = struct.unpack("<QQI", os.pread(self._file, 20, max(0, size - len(MAGIC) - 20)))
        if start and not 0 < size - start <= SUMMARY_BYTES:
            raise ValueError("its summary is not where it should be")
        return size

    def _index(self, at: int) -> bytes:
        head = os.pread(self._file, 15, at)
        (size,) = struct.unpack_from("<I", head, 11)
        if size > self._size:
            raise ValueError("an index is longer than the file")
        return os.pread(self._file, size, at + 15)


class _Bounded(io.RawIOBase):
    """A file of which nothing is read past its end, so that no length in it can ask for more."""

    def __init__(self, file: int, size: int) -> None:
        self._file = file
        self._size = size
        self._at = 0

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        data = os.pread(self._file, min(len(buffer), max(0, self._size - self._at)), self._at)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def _topic(channel: Any, schema: str, parts: list[tuple[int, bytes]]) -> Topic:
    tables = [np.frombuffer(index, "<i8").reshape(-1, 2) for _, index in parts]
    whole = np.concatenate(tables) if tables else np.zeros((0, 2), np.int64)
    chunks = np.repeat([at for at, _ in parts], [len(t) for t in tables]).astype(np.int64)
    places = np.unique(np.stack([chunks, whole[:, 1]]), axis=1)
    if places.shape[1] != len(whole):
        raise ValueError(f"{channel.topic}: a message is listed more than once")
    return Topic(
        channel.topic,
        schema,
        channel.message_encoding,
        dict(channel.metadata),
        whole[:, 0].copy(),
        chunks,
        whole[:, 1].copy(),
    )


_IMAGE_FIELDS = {
    "foxglove.CompressedImage": {2: "data", 3: "format"},
    "foxglove.RawImage": {2: "width", 3: "height", 4: "encoding", 6: "data"},
}
_CHUNK_FIELDS = ("stamp_ns", "after_tick", "step", "epoch", "observed_ns", "rows")


def decode(entry: Topic, rows: Rows | None, data: memoryview) -> dict[str, Any]:
    """A message's fields; `rows` for topics of rows."""
    if rows is not None:
        columns = rows.decode(np.frombuffer(data, np.uint8)[None])
        return {key: column[0] for key, column in columns.items()}
    if entry.encoding == "json":
        return dict(json.loads(bytes(data)))
    if entry.schema in _IMAGE_FIELDS:
        return _decode_image(_IMAGE_FIELDS[entry.schema], data)
    if entry.schema == "dexrun.Chunk":
        return _decode_chunk(data)
    return {"data": bytes(data)}


def _decode_image(names: Mapping[int, str], data: memoryview) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for number, value in pb.fields(data):
        name = names.get(number)
        if name is None or isinstance(value, int):
            continue
        if name in ("width", "height"):
            out[name] = int.from_bytes(value, "little")
        else:
            out[name] = value if name == "data" else bytes(value).decode()
    return out


def _decode_chunk(data: memoryview) -> dict[str, Any]:
    raw = {number: value for number, value in pb.fields(data) if not isinstance(value, int)}
    out: dict[str, Any] = {
        name: int.from_bytes(raw[number], "little", signed=True)
        for number, name in enumerate(_CHUNK_FIELDS, 1)
    }
    out["inference_s"] = float(np.frombuffer(raw[7], "<f8")[0])
    values = np.frombuffer(raw.get(8, b""), "<f8")
    out["actions"] = values.reshape(out["rows"], values.size // max(1, out["rows"])).copy()
    # Recordings made before chunks had rates say neither: one row per tick.
    out["rate_hz"] = float(np.frombuffer(raw[9], "<f8")[0]) if 9 in raw else 0.0
    out["discrete"] = tuple(np.frombuffer(raw.get(10, b""), "<i8").tolist())
    # Nor how the attempt stands.
    out["status"] = bytes(raw.get(11, b"")).decode() or PolicyStatus.RUNNING.value
    out["why"] = bytes(raw.get(12, b"")).decode()
    out["reasoning"] = bytes(raw.get(13, b"")).decode()
    return out
