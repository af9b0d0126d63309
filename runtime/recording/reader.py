"""Reads recordings back: typed samples, whole columns, decoded images.

Times are nanoseconds since the epoch (simulated nanoseconds where time was simulated), the same for all
topics of a recording. Files are only ever read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from runtime.messages import CameraInfo, ColorImage, DepthImage, Mask
from runtime.recording.annotations import RECORD, Annotation, annotation_files, fingerprint
from runtime.recording.bounds import RecordingError, reading
from runtime.recording.mcap_file import OPEN_SUFFIX
from runtime.recording.pictures import decoded, picture_size
from runtime.recording.schemas import Rows, info_of
from runtime.recording.source import RecordingFile, decode

EPISODES = "episodes"
_MOST = 1 << 62
_AFTERWARDS = ("/mask/", "/annotation/")

__all__ = ["EPISODES", "Episode", "RecordedSample", "Recording", "RecordingError"]


@dataclass(frozen=True, slots=True)
class RecordedSample:
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


class Episode:
    """One file. A context manager; the file is opened at once and its messages are read when asked for.

    Args:
        afterwards: whether what was found out about it afterwards (`runtime.recording.annotations`) counts.

    Attributes:
        path: the file.
        metadata: the record ``episode``: index, task, label, repaired, drops..., all strings.
        records: every metadata record by name (``robot``, ``calibration``, ``config``, ``clock``...).
    """

    def __init__(self, path: Path, *, afterwards: bool = True) -> None:
        """Read the summary.

        Raises:
            RecordingError: no such file, or not a finished recording.
        """
        self.path = Path(path)
        self._source = RecordingFile(self.path)
        self._sizes: dict[str, tuple[int, int]] = {}
        self._beside: dict[str, RecordingFile] | None = None if afterwards else {}
        self.records = self._source.records
        self.metadata: dict[str, str] = self.records.get("episode", {})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        for source in (self._source, *(self._beside or {}).values()):
            source.close()

    def __del__(self) -> None:
        if getattr(self, "_source", None) is not None:
            self.close()

    # --- what was found out about it afterwards

    def _annotations(self) -> dict[str, RecordingFile]:
        """The annotations beside it that are of this recording, by topic; opened when they are asked for.

        One that was made for another task, which the episode had before it was relabelled, is of another
        object, and counts for nothing.

        Raises:
            RecordingError: one is damaged, or is of another recording.
        """
        if self._beside is None:
            found: dict[str, RecordingFile] = {}
            for path in annotation_files(self.path):
                source = RecordingFile(path)
                try:
                    counts = self._of_its_task(source)
                except RecordingError:
                    for each in (source, *found.values()):
                        each.close()
                    raise
                if counts:
                    found.update(dict.fromkeys(source.topics, source))
                else:
                    source.close()
            self._beside = found
        return self._beside

    def _of_its_task(self, source: RecordingFile) -> bool:
        """It is of this recording: known again by the bytes of one frame, unless that was cut away since."""
        with reading(source.path, f"record {RECORD!r}"):
            about = Annotation.of(source.records[RECORD])
        times = self._source.topic(f"/cameras/{about.camera}/color").times
        (at,) = np.nonzero(times == about.checked[0])
        if len(at) and fingerprint(self, about.camera, int(at[0])) != about.checked:
            raise RecordingError(
                f"{source.path}: is of another recording than {self.path.name}; remove it, or make it anew "
                "with dexrun annotate"
            )
        return about.task == self.task

    def _of(self, topic: str) -> RecordingFile:
        """The file that has `topic`: masks that were made afterwards take the place of recorded ones."""
        if topic.startswith(_AFTERWARDS):
            return self._annotations().get(topic, self._source)
        return self._source

    def annotation(self, camera: str) -> Annotation | None:
        """What was found out about `camera` afterwards.

        Raises:
            RecordingError: it is damaged, or of another recording.
        """
        source = self._annotations().get(f"/annotation/{camera}")
        return None if source is None else Annotation.of(source.records[RECORD])

    # --- what it says about itself

    def _number(self, record: str, key: str, otherwise: int) -> int:
        with reading(self.path, f"record {record!r}"):
            value = int(self.records.get(record, {}).get(key, otherwise))
            if abs(value) > _MOST:
                raise ValueError(f"{key} = {value} is no time and no number of an episode")
            return value

    def _parsed(self, record: str) -> dict[str, Any]:
        with reading(self.path, f"record {record!r}"):
            return {key: json.loads(value) for key, value in self.records.get(record, {}).items()}

    @property
    def index(self) -> int:
        """Of the episode in its recording, from 0."""
        return self._number("episode", "index", 0)

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
        with reading(self.path, "record 'episode'"):
            drops = dict(json.loads(self.metadata.get("drops", "{}")))
            return {str(topic): int(count) for topic, count in drops.items()}

    @property
    def start_ns(self) -> int:
        """When it began; what is in it is stamped no earlier."""
        return self._number("episode", "start_time_ns", self._ends()[0])

    @property
    def end_ns(self) -> int:
        """When it ended."""
        return self._number("episode", "end_time_ns", self._ends()[1])

    @property
    def offset_ns(self) -> int:
        """What its monotonic clock is behind the times since the epoch."""
        return self._number("clock", "offset_ns", 0)

    def _ends(self) -> tuple[int, int]:
        times = [topic.times for topic in self._source.topics.values() if len(topic.times)]
        return (int(min(t.min() for t in times)), int(max(t.max() for t in times))) if times else (0, 0)

    @property
    def duration_s(self) -> float:
        """From start to end."""
        return (self.end_ns - self.start_ns) / 1e9

    @property
    def topics(self) -> dict[str, int]:
        """Messages by topic; topics without any are there, too."""
        known = {name: len(topic.times) for name, topic in self._source.topics.items()}
        return {**known, **{name: len(file.topics[name].times) for name, file in self._annotations().items()}}

    @property
    def cameras(self) -> list[str]:
        """Cameras with colour images."""
        return self._of_cameras("color")

    def _of_cameras(self, kind: str) -> list[str]:
        parts = [name.split("/") for name, topic in self._source.topics.items() if len(topic.times)]
        return [each[2] for each in parts if len(each) == 4 and each[1] == "cameras" and each[3] == kind]

    @property
    def depth_cameras(self) -> list[str]:
        """Cameras with depth images."""
        return self._of_cameras("depth")

    @property
    def robot(self) -> dict[str, Any]:
        """Joint names, ranges, rates: the record ``robot``, its values parsed."""
        return self._parsed("robot")

    @property
    def config(self) -> dict[str, Any]:
        """The whole resolved configuration."""
        with reading(self.path, "record 'config'"):
            return dict(json.loads(self.records.get("config", {}).get("json", "{}")))

    @property
    def arms(self) -> tuple[str, ...]:
        """The tables of the arms that obeyed: ``arm``, or in the joint vector's order ``arms.<name>``."""
        with reading(self.path, "record 'robot'"):
            return tuple(f"arms.{name}" for name in self.robot.get("arms", ())) or ("arm",)

    @property
    def calibration(self) -> dict[str, Any]:
        """Calibration of each arm, in the layout of LeRobot's files."""
        return self._parsed("calibration")

    def camera_info(self, name: str) -> CameraInfo:
        """Intrinsics, depth scale and pose of a camera.

        Raises:
            RecordingError: there is no such camera.
        """
        topic = self._source.topic(f"/cameras/{name}/info")
        with reading(self.path, topic.name):
            return info_of(name, topic.metadata)

    # --- what is in it

    def times(self, topic: str) -> NDArray[np.int64]:
        """Acquisition times, ascending as far as the device's clock was.

        Raises:
            RecordingError: there is no such topic.
        """
        return self._of(topic).topic(topic).times

    def stamps(self, topic: str) -> NDArray[np.int64]:
        """The same by the recording's monotonic clock."""
        with reading(self.path, topic):
            return np.asarray(self.times(topic) - self.offset_ns)

    def samples(self, topic: str) -> Iterator[RecordedSample]:
        """Every message of a topic, decoded, in order.

        Raises:
            RecordingError: there is no such topic.
        """
        entry = self._of(topic).topic(topic)
        with reading(self.path, topic):
            rows = Rows.of(entry.schema, entry.metadata) if "layout" in entry.metadata else None
        for number in range(len(entry.times)):
            index, stamp_ns, data = self._of(topic).message(entry, number)
            with reading(self.path, topic):
                values = decode(entry, rows, data)
            yield RecordedSample(topic, int(entry.times[number]), stamp_ns, index, values)

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
        entry = self._of(topic).topic(topic)
        if "layout" not in entry.metadata:
            raise RecordingError(f"{self.path}: {topic} has no rows but {entry.schema}")
        with reading(self.path, topic):
            rows = Rows.of(entry.schema, entry.metadata)
            return rows.decode(self._of(topic).rows(entry, rows.size))

    def shape(self, topic: str, field: str) -> tuple[int, ...]:
        """Of one row of a field, without reading any.

        Raises:
            RecordingError: there is no such topic or field.
        """
        entry = self._of(topic).topic(topic)
        with reading(self.path, topic):
            return Rows.of(entry.schema, entry.metadata).layout[field][0]

    def color(self, camera: str, index: int) -> ColorImage:
        """RGB ``[H, W, 3]`` of frame `index` of this file.

        Raises:
            RecordingError: there is no such camera or frame.
        """
        data, _ = self.color_bytes(camera, index)
        with reading(self.path, f"image {index} of camera {camera}"):
            return decoded(data, self.color_size(camera), color=True)

    def color_size(self, camera: str) -> tuple[int, int]:
        """Height and width of a camera's colour images, by the first one's header.

        Raises:
            RecordingError: there is no such camera, or no camera has pictures of that size.
        """
        if camera not in self._sizes:
            data, _ = self.color_bytes(camera, 0)
            with reading(self.path, f"image 0 of camera {camera}"):
                self._sizes[camera] = picture_size(data)
        return self._sizes[camera]

    def color_bytes(self, camera: str, index: int) -> tuple[memoryview, str]:
        """The encoded image and its format, ``jpeg`` or ``png``."""
        topic = f"/cameras/{camera}/color"
        values = self._image(topic, index)
        with reading(self.path, topic):
            return values["data"], values["format"]

    def depth(self, camera: str, index: int) -> DepthImage:
        """Depth ``[H, W]`` of frame `index`, exactly as the device gave it; 0 is no reading.

        Raises:
            RecordingError: there is no such camera or frame.
        """
        topic = f"/cameras/{camera}/depth"
        values = self._image(topic, index)
        with reading(self.path, f"image {index} of {topic}"):
            image = np.frombuffer(values["data"], "<u2").reshape(values["height"], values["width"])
            if not image.size:
                raise ValueError("it is empty")
            return image.astype(np.uint16)

    def mask(self, camera: str, index: int) -> Mask:
        """Tracked mask ``[H, W]``, 1 on the object.

        Raises:
            RecordingError: there are no masks of that camera.
        """
        topic = f"/mask/{camera}"
        values = self._image(topic, index)
        with reading(self.path, f"image {index} of {topic}"):
            size = picture_size(values["data"])
            if camera in self.cameras and size != self.color_size(camera):
                raise ValueError(f"a mask of {size[1]}x{size[0]} is not as large as the camera's pictures")
            return (decoded(values["data"], size, color=False) > 127).astype(np.uint8)

    def _image(self, topic: str, index: int) -> dict[str, Any]:
        entry = self._of(topic).topic(topic)
        if not 0 <= index < len(entry.times):
            raise RecordingError(
                f"{self.path}: {topic} has {len(entry.times)} images, not one numbered {index}"
            )
        with reading(self.path, topic):
            return decode(entry, None, self._of(topic).message(entry, index)[2])


class Recording:
    """A run's folder with its episodes, or a single file. A context manager.

    Attributes:
        path: as given.
        episodes: in order of their index.
        unreadable: of several, those that cannot be read, and why: each costs itself alone.
        unfinished: drafts that a crash left, which are not read.
    """

    def __init__(self, path: str | Path) -> None:
        """Find and open the episodes.

        Raises:
            RecordingError: there is nothing to read, or nothing of it can be read.
        """
        self.path = Path(path)
        files = [self.path] if self.path.is_file() else self._find()
        self.unfinished = sorted(files[0].parent.glob(f"*.mcap{OPEN_SUFFIX}")) if self.path.is_dir() else []
        self.episodes: list[Episode] = []
        self.unreadable: dict[Path, str] = {}
        for file in files:
            try:
                self.episodes.append(Episode(file))
            except RecordingError as error:
                if len(files) == len(self.unreadable) + 1:
                    raise
                self.unreadable[file] = str(error)

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
