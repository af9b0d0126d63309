"""Reads recordings back: typed samples, whole columns, decoded images.

Times are nanoseconds since the epoch (simulated nanoseconds where time was simulated), the same for all
topics of a recording. Files are only ever read.
"""

from __future__ import annotations

import json
import os
import struct
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from runtime.messages import CameraInfo, ColorImage, DepthImage, Mask
from runtime.recording import protobuf as pb
from runtime.recording.mcap_file import MAGIC, OPEN_SUFFIX
from runtime.recording.repair import RepairError, chunk_messages
from runtime.recording.schemas import Rows, info_of

_CACHED_CHUNKS = 6
_MESSAGE = struct.Struct("<BQHIQQ")
EPISODES = "episodes"


class RecordingError(Exception):
    """A file or topic cannot be read. One line: which file, what is wrong, what would be accepted."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One message.

    Attributes:
        time_ns: when it was acquired, see the module.
        stamp_ns: the same by the recording's monotonic clock. index: of the sample in its ring.
        values: the fields of a row (arrays, or numbers for scalars), or of a JSON message; ``data`` and
            ``format`` of an image.
    """

    topic: str
    time_ns: int
    stamp_ns: int
    index: int
    values: Mapping[str, Any]

    def __getitem__(self, name: str) -> Any:
        return self.values[name]


@dataclass(slots=True)
class _Topic:
    name: str
    schema: str
    encoding: str
    metadata: dict[str, str]
    times: NDArray[np.int64]
    chunks: NDArray[np.int64]
    offsets: NDArray[np.int64]


class Episode:
    """One file. A context manager; the file is opened at once and its messages are read when asked for.

    Attributes:
        path: the file.
        metadata: the record ``episode``: index, task, label, repaired, drops..., all strings.
        records: every metadata record by name (``robot``, ``calibration``, ``config``, ``clock``...).
    """

    def __init__(self, path: Path) -> None:
        """Read the summary.

        Raises:
            RecordingError: no such file, or not a finished recording.
        """
        self.path = Path(path)
        try:
            self._file = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise RecordingError(f"{path}: {error.strerror}") from None
        self._cache: OrderedDict[int, bytes] = OrderedDict()
        self.records: dict[str, dict[str, str]] = {}
        self._topics: dict[str, _Topic] = {}
        try:
            self._read_summary()
        except RecordingError:
            self.close()
            raise
        except Exception as error:  # a damaged file fails in as many ways as there are bytes
            self.close()
            raise RecordingError(f"{path}: damaged: {error}") from None
        self.metadata: dict[str, str] = self.records.get("episode", {})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __del__(self) -> None:
        if getattr(self, "_file", -1) >= 0:
            self.close()

    # --- what it says about itself

    @property
    def index(self) -> int:
        """Of the episode in its recording, from 0."""
        return int(self.metadata.get("index", "0"))

    @property
    def task(self) -> str:
        """What was to be done."""
        return self.metadata.get("task", "")

    @property
    def label(self) -> str:
        """``success``, ``failure`` or ``none``."""
        return self.metadata.get("label", "none")

    @property
    def repaired(self) -> bool:
        """Whether it was mended after a crash."""
        return self.metadata.get("repaired") == "true"

    @property
    def drops(self) -> dict[str, int]:
        """Samples that were delivered and are not in the file, by topic."""
        return dict(json.loads(self.metadata.get("drops", "{}")))

    @property
    def start_ns(self) -> int:
        """When it began; what is in it is stamped no earlier."""
        return int(self.metadata.get("start_time_ns", self._ends()[0]))

    @property
    def end_ns(self) -> int:
        """When it ended."""
        return int(self.metadata.get("end_time_ns", self._ends()[1]))

    def _ends(self) -> tuple[int, int]:
        times = [topic.times for topic in self._topics.values() if len(topic.times)]
        return (int(min(t.min() for t in times)), int(max(t.max() for t in times))) if times else (0, 0)

    @property
    def duration_s(self) -> float:
        """From start to end."""
        return (self.end_ns - self.start_ns) / 1e9

    @property
    def topics(self) -> dict[str, int]:
        """Messages by topic; topics without any are there, too."""
        return {name: len(topic.times) for name, topic in self._topics.items()}

    @property
    def cameras(self) -> list[str]:
        """Cameras with colour images."""
        return [name.split("/")[2] for name, n in self.topics.items() if n and name.endswith("/color")]

    @property
    def depth_cameras(self) -> list[str]:
        """Cameras with depth images."""
        return [name.split("/")[2] for name, n in self.topics.items() if n and name.endswith("/depth")]

    @property
    def robot(self) -> dict[str, Any]:
        """Joint names, ranges, rates: the record ``robot``, its values parsed."""
        return {key: json.loads(value) for key, value in self.records.get("robot", {}).items()}

    @property
    def config(self) -> dict[str, Any]:
        """The whole resolved configuration."""
        return dict(json.loads(self.records.get("config", {}).get("json", "{}")))

    @property
    def calibration(self) -> dict[str, Any]:
        """Calibration of each arm, in the layout of LeRobot's files."""
        return {key: json.loads(value) for key, value in self.records.get("calibration", {}).items()}

    def camera_info(self, name: str) -> CameraInfo:
        """Intrinsics, depth scale and pose of a camera.

        Raises:
            RecordingError: there is no such camera.
        """
        return info_of(name, self._topic(f"/cameras/{name}/info").metadata)

    # --- what is in it

    def times(self, topic: str) -> NDArray[np.int64]:
        """Acquisition times, ascending as far as the device's clock was.

        Raises:
            RecordingError: there is no such topic.
        """
        return self._topic(topic).times

    def stamps(self, topic: str) -> NDArray[np.int64]:
        """The same by the recording's monotonic clock."""
        offset = int(self.records.get("clock", {}).get("offset_ns", "0"))
        return np.asarray(self.times(topic) - offset)

    def samples(self, topic: str) -> Iterator[Sample]:
        """Every message of a topic, decoded, in order.

        Raises:
            RecordingError: there is no such topic.
        """
        entry = self._topic(topic)
        rows = Rows.of(entry.schema, entry.metadata) if "layout" in entry.metadata else None
        for number in range(len(entry.times)):
            index, stamp_ns, data = self._message(entry, number)
            values = _decode(entry, rows, data)
            yield Sample(topic, int(entry.times[number]), stamp_ns, index, values)

    def array(self, topic: str, field: str) -> NDArray[Any]:
        """One field of all rows of a topic, first axis time.

        Raises:
            RecordingError: there is no such topic or field.
        """
        columns = self.columns(topic)
        if field not in columns:
            raise RecordingError(f"{self.path}: {topic} has no field {field!r}; it has {', '.join(columns)}")
        return columns[field]

    def columns(self, topic: str) -> dict[str, NDArray[Any]]:
        """All fields of all rows of a topic, and ``stamp_ns`` and ``index``.

        Raises:
            RecordingError: there is no such topic, or it is not one of rows.
        """
        entry = self._topic(topic)
        if "layout" not in entry.metadata:
            raise RecordingError(f"{self.path}: {topic} has no rows but {entry.schema}")
        rows = Rows.of(entry.schema, entry.metadata)
        data = [self._message(entry, number)[2] for number in range(len(entry.times))]
        whole = np.frombuffer(b"".join(data), np.uint8)
        try:
            return rows.decode(whole.reshape(-1, rows.size))
        except ValueError as error:
            raise RecordingError(f"{self.path}: {topic}: {error}") from None

    def color(self, camera: str, index: int) -> ColorImage:
        """RGB ``[H, W, 3]`` of frame `index` of this file.

        Raises:
            RecordingError: there is no such camera or frame.
        """
        import cv2

        data, _ = self.color_bytes(camera, index)
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        if image is None:
            raise RecordingError(f"{self.path}: image {index} of camera {camera} cannot be decoded")
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)

    def color_bytes(self, camera: str, index: int) -> tuple[memoryview, str]:
        """The encoded image and its format, ``jpeg`` or ``png``."""
        values = self._image(f"/cameras/{camera}/color", index)
        return values["data"], values["format"]

    def depth(self, camera: str, index: int) -> DepthImage:
        """Depth ``[H, W]`` of frame `index`, exactly as the device gave it; 0 is no reading.

        Raises:
            RecordingError: there is no such camera or frame.
        """
        values = self._image(f"/cameras/{camera}/depth", index)
        image = np.frombuffer(values["data"], "<u2").reshape(values["height"], values["width"])
        return image.astype(np.uint16)

    def mask(self, camera: str, index: int) -> Mask:
        """Tracked mask ``[H, W]``, 1 on the object.

        Raises:
            RecordingError: there are no masks of that camera.
        """
        import cv2

        data = self._image(f"/mask/{camera}", index)["data"]
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
        return (np.asarray(image) > 127).astype(np.uint8)

    def _image(self, topic: str, index: int) -> dict[str, Any]:
        entry = self._topic(topic)
        if not 0 <= index < len(entry.times):
            raise RecordingError(
                f"{self.path}: {topic} has {len(entry.times)} images, not one numbered {index}"
            )
        return _decode(entry, None, self._message(entry, index)[2])

    # --- the file

    def _topic(self, name: str) -> _Topic:
        if name not in self._topics:
            known = ", ".join(sorted(self._topics)) or "none"
            raise RecordingError(f"{self.path}: no topic {name}; there are: {known}")
        return self._topics[name]

    def _message(self, topic: _Topic, number: int) -> tuple[int, int, memoryview]:
        """``(sequence, publish time, data)``."""
        chunk = self._chunk(int(topic.chunks[number]))
        at = int(topic.offsets[number])
        _, size, _, sequence, _, publish_ns = _MESSAGE.unpack_from(chunk, at)
        return sequence, publish_ns, memoryview(chunk)[at + _MESSAGE.size : at + 9 + size]

    def _chunk(self, at: int) -> bytes:
        if at in self._cache:
            self._cache.move_to_end(at)
            return self._cache[at]
        (size,) = struct.unpack("<Q", os.pread(self._file, 8, at + 1))
        try:
            messages = chunk_messages(os.pread(self._file, size, at + 9))
        except RepairError as error:
            raise RecordingError(f"{self.path}: at byte {at}: {error}") from None
        self._cache[at] = messages
        if len(self._cache) > _CACHED_CHUNKS:
            self._cache.popitem(last=False)
        return messages

    def _read_summary(self) -> None:
        from mcap import records
        from mcap.reader import SeekingReader

        size = os.fstat(self._file).st_size
        if os.pread(self._file, len(MAGIC), 0) != MAGIC:
            raise RecordingError(f"{self.path}: not an MCAP file")
        if size < 2 * len(MAGIC) or os.pread(self._file, len(MAGIC), size - len(MAGIC)) != MAGIC:
            hint = "the next start of dexrun mends it" if self.path.name.endswith(OPEN_SUFFIX) else "cut off"
            raise RecordingError(f"{self.path}: not finished ({hint})")
        with open(self._file, "rb", closefd=False) as stream:
            summary = SeekingReader(stream).get_summary()
            if summary is None:
                raise RecordingError(f"{self.path}: has no summary")
            for record in summary.metadata_indexes:
                stream.seek(record.offset + 9)
                from mcap.data_stream import ReadDataStream

                metadata = records.Metadata.read(ReadDataStream(stream))
                self.records[metadata.name] = dict(metadata.metadata)
        entries: dict[int, list[tuple[int, bytes]]] = {}
        for chunk in sorted(summary.chunk_indexes, key=lambda chunk: chunk.chunk_start_offset):
            for number, at in chunk.message_index_offsets.items():
                entries.setdefault(number, []).append((chunk.chunk_start_offset, self._index(at)))
        for channel in summary.channels.values():
            schema = summary.schemas.get(channel.schema_id)
            self._topics[channel.topic] = _topic(
                channel, "" if schema is None else schema.name, entries.get(channel.id, [])
            )

    def _index(self, at: int) -> bytes:
        (size,) = struct.unpack_from("<I", os.pread(self._file, 15, at), 11)
        return os.pread(self._file, size, at + 15)


def _topic(channel: Any, schema: str, parts: list[tuple[int, bytes]]) -> _Topic:
    tables = [np.frombuffer(index, "<i8").reshape(-1, 2) for _, index in parts]
    whole = np.concatenate(tables) if tables else np.zeros((0, 2), np.int64)
    chunks = np.repeat([at for at, _ in parts], [len(t) for t in tables]).astype(np.int64)
    return _Topic(
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
_CHUNK_FIELDS = ("stamp_ns", "after_tick", "tick", "epoch", "observed_ns", "rows")


def _decode(entry: _Topic, rows: Rows | None, data: memoryview) -> dict[str, Any]:
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
    out["actions"] = np.frombuffer(raw[8], "<f8").reshape(out["rows"], -1).copy()
    return out


class Recording:
    """A run's folder with its episodes, or a single file. A context manager.

    Attributes:
        path: as given.
        episodes: in order of their index.
        unfinished: drafts that a crash left, which are not read.
    """

    def __init__(self, path: str | Path) -> None:
        """Find and open the episodes.

        Raises:
            RecordingError: there is nothing to read, or one of the files cannot be read.
        """
        self.path = Path(path)
        files = [self.path] if self.path.is_file() else self._find()
        self.unfinished = sorted(files[0].parent.glob(f"*.mcap{OPEN_SUFFIX}")) if self.path.is_dir() else []
        self.episodes: list[Episode] = []
        try:
            for file in files:
                self.episodes.append(Episode(file))
        except RecordingError:
            self.close()
            raise

    def _find(self) -> list[Path]:
        if not self.path.exists():
            raise RecordingError(f"{self.path}: there is no such file or folder")
        for folder in (self.path / EPISODES, self.path):
            files = sorted(folder.glob("*.mcap"))
            if files:
                return files
        hint = ", only unfinished ones" if list(self.path.glob(f"{EPISODES}/*{OPEN_SUFFIX}")) else ""
        raise RecordingError(
            f"{self.path}: no recorded episodes here{hint}; give a run's folder or an .mcap file"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close every file."""
        for episode in self.episodes:
            episode.close()
