"""One attempt on the engine, written as one episode: the topics, types and records of a run's recording."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from dexrun.gym.engine import TableEngine
from dexrun.gym.sight import Sight
from runtime.messages import CameraInfo, Floats, Frame, TrackedMask
from runtime.pilot import Pilot
from runtime.recording import schemas
from runtime.recording.config import RecorderOptions
from runtime.recording.disk import Draft
from runtime.recording.intake import EVENTS
from runtime.recording.mcap_file import Channel, McapFile
from runtime.recording.recorder import file_name
from runtime.recording.schemas import Piece
from runtime.recording.takes import Take
from runtime.recording.tracks import (
    DEPTH,
    IMAGES,
    ROWS,
    Track,
    camera_track,
    encode_color,
    info_channel,
    info_message,
    mask_channel,
    rows_track,
    tip_channel,
    tip_message,
    tip_topic,
)
from runtime.ring import Fields, Layout, Ring, Sample
from runtime.tick import TickFlag


def shrunk(frame: Frame, scale: int) -> Frame:
    """`frame` made `scale` times smaller: colour averaged, depth one of each square's pixels."""
    if scale == 1:
        return frame
    import cv2

    height, width = frame.color.shape[0] // scale, frame.color.shape[1] // scale
    color = cv2.resize(frame.color, (width, height), interpolation=cv2.INTER_AREA)
    depth = (
        None
        if frame.depth is None
        else np.ascontiguousarray(frame.depth[scale // 2 :: scale, scale // 2 :: scale])
    )
    return replace(frame, color=np.asarray(color, np.uint8), depth=depth)


def shrunk_mask(mask: TrackedMask, scale: int) -> TrackedMask:
    """The same of a mask: what is half covered is."""
    if scale == 1:
        return mask
    import cv2

    height, width = mask.mask.shape[0] // scale, mask.mask.shape[1] // scale
    share = cv2.resize(mask.mask * 255, (width, height), interpolation=cv2.INTER_AREA)
    return replace(mask, mask=(np.asarray(share) > 127).astype(np.uint8))


class AttemptFile:
    """Takes an attempt down in memory, and writes it whole or not at all.

    Args:
        infos: of the cameras as they are recorded. scale: their pictures are drawn so many times larger.
        every: a picture is kept each so many ticks.
        sights: by camera, the sight whose masks are recorded.

    Attributes:
        pilot: who drives, from now on.
        asked: ``[D]`` what is recorded as requested in the coming tick in place of what was; ``None``: that.
    """

    def __init__(
        self,
        engine: TableEngine,
        infos: Mapping[str, CameraInfo],
        scale: int,
        every: int,
        sights: Mapping[str, Sight],
        options: RecorderOptions,
    ) -> None:
        self.pilot = Pilot.PERSON
        self.asked: Floats | None = None
        self._engine = engine
        self._infos = infos
        self._scale = scale
        self._every = every
        self._sights = sights
        self._options = options
        rows = {
            "/arm/state": ("arm", "dexrun.ArmState", engine.arm.states),
            "/arm/sent": ("arm", "dexrun.Goal", engine.arm.sent),
            "/force": ("force", "dexrun.Force", engine.force),
            "/ticks": ("control", "dexrun.Tick", engine.records),
        }
        self._rows = {
            topic: rows_track(name, topic, kind, ring) for topic, (name, kind, ring) in rows.items()
        }
        self._cameras = {
            name: camera_track(name, Ring(_layout(info), 2), options) for name, info in infos.items()
        }
        self._channels = [
            *(output.channel for track in self._tracks() for output in track.outputs),
            *(replace(info_channel(n), metadata=schemas.info_metadata(i)) for n, i in infos.items()),
            *(mask_channel(name) for name in sights),
            *(tip for name in sights if (tip := tip_channel(infos[name])) is not None),
            Channel(EVENTS, schemas.EVENT),
        ]
        self._ids = {channel.topic: number for number, channel in enumerate(self._channels, 1)}
        self._messages: list[tuple[str, str, int, int, list[Piece]]] = []
        self._start_ns = -1
        self._ticks = 0

    def _tracks(self) -> list[Track]:
        return [*self._cameras.values(), *self._rows.values()]

    @property
    def rows(self) -> int:
        """Ticks taken down so far."""
        return self._ticks

    def take(self) -> None:
        """Take down the tick that was just done."""
        engine = self._engine
        record = engine.records.newest()
        assert record is not None  # noqa: S101 - there was a tick
        assert engine.eyes is not None  # noqa: S101 - a scene is loaded
        if self._start_ns < 0:
            if int(record["flags"]) & TickFlag.WAITING:
                return  # the first chunk has not come yet: nothing is demonstrated
            self._start_ns = engine.eyes.stamp_ns
        if self._ticks % self._every == 0:
            self._look()
        record.fields["pilot"][...] = self.pilot
        if self.asked is not None:
            record.fields["requested"][:] = self.asked
        self._add_row("/ticks", record)
        for topic, ring in (
            ("/arm/state", engine.arm.states),
            ("/arm/sent", engine.arm.sent),
            ("/force", engine.force),
        ):
            sample = ring.newest()
            if sample is not None:
                self._add_row(topic, sample)
        self._ticks += 1

    def _look(self) -> None:
        eyes = self._engine.eyes
        assert eyes is not None  # noqa: S101 - a scene is loaded
        for name, track in self._cameras.items():
            drawn = eyes.frame(name)
            if name in self._sights:
                self._add_mask(name, self._sights[name].look(drawn))
            frame = shrunk(drawn, self._scale)
            fields: Fields = {"color": frame.color}
            if frame.depth is not None:
                fields["depth"] = frame.depth
            sample = Sample(self._ticks // self._every, frame.stamp_ns, fields)
            for output in track.outputs:
                self._add(output.channel.topic, output.lane, sample, output.encode(sample, sample.stamp_ns))

    def _add_mask(self, name: str, mask: TrackedMask) -> None:
        small = shrunk_mask(mask, self._scale)
        data = schemas.compressed_image(
            mask.stamp_ns, name, "png", encode_color(small.mask * 255, self._options)
        )
        self._messages.append((f"/mask/{name}", IMAGES, mask.stamp_ns, 0, data))
        if mask.tip is not None:
            row = tip_message(mask.tip, mask.stamp_ns)
            self._messages.append((tip_topic(name), ROWS, mask.stamp_ns, 0, [row]))

    def _add_row(self, topic: str, sample: Sample) -> None:
        stamp_ns = max(sample.stamp_ns, self._start_ns)
        for output in self._rows[topic].outputs:
            self._messages.append((topic, ROWS, stamp_ns, sample.index, output.encode(sample, stamp_ns)))

    def _add(self, topic: str, lane: str, sample: Sample, pieces: list[Piece]) -> None:
        self._messages.append((topic, lane, sample.stamp_ns, sample.index, pieces))

    def write(
        self,
        folder: Path,
        index: int,
        task: str,
        label: str,
        reason: str,
        records: Mapping[str, Mapping[str, str]],
        events: Mapping[str, Any],
    ) -> Path:
        """Write it as episode `index` into `folder`; a file that is there already is replaced.

        Raises:
            OSError: it cannot be written; nothing of it stays.
        """
        path = folder / file_name(index)
        take = Take(index, task, self._start_ns, Draft(path, self._channels), (), 1, 0)
        take.end_ns = self._engine.clock.now_ns() + 1
        take.label, take.reason = label, reason
        self._told(take, events)
        batches = take.batches
        for topic, lane, stamp_ns, sample, pieces in self._messages:
            number = self._ids[topic]
            batches[lane].add(number, sample, stamp_ns, stamp_ns, pieces)
            take.counts[number] = take.counts.get(number, 0) + 1
        path.unlink(missing_ok=True)
        file = McapFile(path, self._channels)
        try:
            for name, values in {**records, "episode_start": take.begin_metadata()}.items():
                file.write_metadata(name, values)
            for lane in (ROWS, IMAGES, DEPTH):
                file.write(batches[lane])
            file.write_metadata("episode", take.metadata())
            return file.finish()
        except BaseException:
            file.discard()
            raise

    def _told(self, take: Take, events: Mapping[str, Any]) -> None:
        for name, info in self._infos.items():
            data = info_message(info, take.start_ns)
            self._messages.append((f"/cameras/{name}/info", ROWS, take.start_ns, 0, [data]))
        start = schemas.event("episode_start", {"episode": take.index, "task": take.task})
        about = schemas.event("collected", events)
        end = schemas.event(
            "episode_end", {"episode": take.index, "label": take.label, "reason": take.reason}
        )
        last_ns = (take.end_ns or take.start_ns) - 1
        for stamp_ns, data in ((take.start_ns, start), (take.start_ns, about), (last_ns, end)):
            self._messages.append((EVENTS, ROWS, stamp_ns, 0, [data]))


def _layout(info: CameraInfo) -> Layout:
    """Of the frames of a camera as they are recorded."""
    lens = info.intrinsics
    size = lens.height, lens.width
    depth: Layout = {} if info.depth_scale_m is None else {"depth": (size, "<u2")}
    return {"color": ((*size, 3), "u1"), **depth}
