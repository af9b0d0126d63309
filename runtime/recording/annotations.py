"""What was found out about a recording afterwards: masks and words, in a file of its own beside it.

The recording is never written to. ``RUN/annotations/CAMERA/episode_000000.mcap`` belongs to
``RUN/episodes/episode_000000.mcap``; of a single file, ``annotations`` is beside it. It holds

* ``/mask/CAMERA``: a mask for every frame of that camera, stamped like the frame, as recorded masks are;
* ``/annotation/CAMERA``: a row for every frame (`ROWS`): how sure its mask is, where the object is, and which
  of the anchors it comes from;
* the metadata record ``annotation``: the anchors (who said what the object is, in which frame), models,
  sub-steps.

It appears whole, by being renamed.
"""

from __future__ import annotations

import json
import secrets
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from runtime.interfaces import Box
from runtime.recording import schemas
from runtime.recording.mcap_file import OPEN_SUFFIX, Batch, Channel, McapFile, sync_folder
from runtime.recording.schemas import Rows
from runtime.recording.tracks import mask_channel
from runtime.ring import Layout

ANNOTATIONS = "annotations"
RECORD = "annotation"
PERSON = "person"
ROWS: Layout = {
    "frame": ((), "<i8"),
    "confidence": ((), "<f8"),
    "anchor": ((), "<i8"),
    "box": ((4,), "<f8"),
    "point": ((2,), "<f8"),
    "point_m": ((3,), "<f8"),
    "spread_m": ((), "<f8"),
}
"""``box`` and ``point`` (the middle of the mask) in pixels, ``point_m`` in the arm's base frame with its
uncertainty ``spread_m``; NaN where the object is not seen, or depth or pose is not known."""

_CHUNK_BYTES = 1 << 20
_DRAFT = ".draft"


class RecordedFrames(Protocol):
    """What is needed of the episode that is annotated: `runtime.recording.reader.Episode`."""

    @property
    def offset_ns(self) -> int: ...

    def times(self, topic: str) -> Any: ...

    def color_bytes(self, camera: str, index: int) -> tuple[memoryview, str]: ...


@dataclass(frozen=True, slots=True)
class Anchor:
    """What is known of the object in one frame, and who says so.

    Attributes:
        frame: its number in the recording, of that camera. phrase: what the object is called.
        box: in pixels. points: ``(x, y, inside)`` in pixels.
        by: ``scene_reader``, ``vlm``, ``detector`` or ``person``. model: which. prompt: what was asked.
        confidence: 0 to 1, as far as whoever says it tells. person: who, where it was one.
        since, until: from which frame to which it counts beside anchors that were given earlier: as far as
            masks were doubtful around a correction.
    """

    frame: int
    phrase: str
    box: Box | None = None
    points: tuple[tuple[float, float, bool], ...] = ()
    by: str = "scene_reader"
    model: str = ""
    prompt: str = ""
    confidence: float = 1.0
    person: str = ""
    since: int = -1
    until: int = -1

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Anchor:
        """The inverse of `as_json`.

        Raises:
            TypeError, ValueError, KeyError: it is none.
        """
        box, points = values.get("box"), values.get("points", ())
        if box is not None:
            x1, y1, x2, y2 = (float(each) for each in box)
            box = (x1, y1, x2, y2)
        marks = tuple((float(x), float(y), bool(inside)) for x, y, inside in points)
        return cls(**{**values, "frame": int(values["frame"]), "box": box, "points": marks})

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class FrameMask:
    """One frame's mask: PNG with 255 on the object, and how sure it is (0: not seen, the mask is empty)."""

    frame: int
    png: bytes
    confidence: float
    anchor: int
    box: tuple[float, ...] | None = None
    point: tuple[float, ...] | None = None
    point_m: tuple[float, ...] | None = None
    spread_m: float = float("nan")


@dataclass(frozen=True, slots=True)
class Substep:
    """From `time_ns` (since the epoch) on, this is being done."""

    time_ns: int
    text: str


@dataclass(frozen=True, slots=True)
class Annotation:
    """All that an annotation says beside its masks.

    Attributes:
        anchors: in the order in which they were given.
        models: which segmenter and tracker made the masks, with their options.
        low: frames whose mask is to be looked at by a person.
        checked: one frame's time and its bytes' CRC-32, by which the recording is known again.
    """

    camera: str
    task: str
    anchors: tuple[Anchor, ...]
    substeps: tuple[Substep, ...] = ()
    models: Mapping[str, Any] = field(default_factory=dict)
    low: tuple[int, ...] = ()
    checked: tuple[int, int] = (0, 0)

    @property
    def phrase(self) -> str:
        """What the object is called."""
        return self.anchors[-1].phrase if self.anchors else ""

    def record(self) -> dict[str, str]:
        """As the file has it."""
        return {
            "camera": self.camera,
            "task": self.task,
            "phrase": self.phrase,
            "anchors": json.dumps([each.as_json() for each in self.anchors]),
            "substeps": json.dumps([[each.time_ns, each.text] for each in self.substeps]),
            "models": json.dumps(dict(self.models)),
            "low": json.dumps(list(self.low)),
            "checked": json.dumps(list(self.checked)),
        }

    @classmethod
    def of(cls, record: Mapping[str, str]) -> Annotation:
        """The inverse of `record`.

        Raises:
            KeyError, ValueError, TypeError: it is none.
        """
        time_ns, crc = json.loads(record["checked"])
        return cls(
            record["camera"],
            record["task"],
            tuple(Anchor.of(each) for each in json.loads(record["anchors"])),
            tuple(Substep(int(at), str(text)) for at, text in json.loads(record["substeps"])),
            json.loads(record["models"]),
            tuple(map(int, json.loads(record["low"]))),
            (int(time_ns), int(crc)),
        )


def annotations_of(recording: Path) -> Path:
    """The folder of all that belongs to the episodes beside `recording`."""
    folder = recording.parent
    return (folder.parent if folder.name == "episodes" else folder) / ANNOTATIONS


def annotation_path(recording: Path, camera: str) -> Path:
    """Where the annotation of one camera of `recording` is, or would be."""
    return annotations_of(recording) / camera / recording.name


def annotation_files(recording: Path) -> list[Path]:
    """Those that there are of `recording`."""
    folder = annotations_of(recording)
    return sorted(folder.glob(f"*/{recording.name}")) if folder.is_dir() else []


def fingerprint(episode: RecordedFrames, camera: str, frame: int) -> tuple[int, int]:
    """By which the recording is known again: when that frame was, and the CRC-32 of its bytes."""
    data, _ = episode.color_bytes(camera, frame)
    return int(episode.times(f"/cameras/{camera}/color")[frame]), zlib.crc32(data)


def write_annotation(
    path: Path, episode: RecordedFrames, annotation: Annotation, masks: Iterable[FrameMask]
) -> None:
    """The annotation's file at `path`, in place of one that is there; `masks` in the frames' order.

    Raises:
        OSError: it cannot be written.
    """
    camera = annotation.camera
    rows = Rows("dexrun.Annotation", ROWS)
    about = Channel(f"/annotation/{camera}", rows.schema, {"device": camera, **rows.metadata()})
    times, offset_ns = episode.times(f"/cameras/{camera}/color"), episode.offset_ns
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.iterdir():  # by one that was killed; one that goes on then cannot finish
        if left.name.startswith(f"{path.name}.") and left.name.removesuffix(OPEN_SUFFIX).endswith(_DRAFT):
            left.unlink(missing_ok=True)
    draft = path.with_name(f"{path.name}.{secrets.token_hex(4)}{_DRAFT}")
    out = McapFile(draft, [mask_channel(camera), about])
    try:
        for batch in _batches(camera, rows, masks, times, offset_ns):
            out.write(batch)
        out.write_metadata(RECORD, annotation.record())
        out.finish()
        draft.replace(path)
        sync_folder(path.parent)
    finally:
        out.discard()
        draft.unlink(missing_ok=True)


def _batches(
    camera: str, rows: Rows, masks: Iterable[FrameMask], times: Any, offset_ns: int
) -> Iterable[Batch]:
    images, table = Batch(), Batch("zstd")
    for mask in masks:
        time_ns = int(times[mask.frame])
        stamp_ns = time_ns - offset_ns
        picture = schemas.compressed_image(time_ns, camera, "png", mask.png)
        images.add(1, mask.frame, time_ns, stamp_ns, [bytes(each) for each in picture])
        table.add(2, mask.frame, time_ns, stamp_ns, [rows.encode(stamp_ns, mask.frame, _row(mask))])
        if images.size > _CHUNK_BYTES:
            yield images
            images = Batch()
    yield from (each for each in (images, table) if each.size)


def _row(mask: FrameMask) -> dict[str, Any]:
    def numbers(values: Sequence[float] | None, count: int) -> Any:
        return np.full(count, np.nan) if values is None else np.array(values, np.float64)

    return {
        "frame": np.int64(mask.frame),
        "confidence": np.float64(mask.confidence),
        "anchor": np.int64(mask.anchor),
        "box": numbers(mask.box, 4),
        "point": numbers(mask.point, 2),
        "point_m": numbers(mask.point_m, 3),
        "spread_m": np.float64(mask.spread_m),
    }
