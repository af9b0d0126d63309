"""The recorder: one thread that takes every sample of every ring while an episode is on.

The loop's thread says when an episode begins and ends; that takes microseconds and nothing is waited for.
The recorder's thread copies samples out of the rings, hands images to encoders and finished messages to the
disk's thread. A sample belongs to an episode by its own stamp, not by when it was seen: one that was taken
before the end and arrives after it is still recorded, and nothing of a reset phase ever is. What a ring
overwrote before it was read is counted, by topic.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loguru import logger

from runtime.clock import NS_PER_S, Clock, ClockThread
from runtime.recording import schemas
from runtime.recording.config import RecorderOptions
from runtime.recording.disk import Disk, Draft
from runtime.recording.mcap_file import Channel
from runtime.recording.schemas import Piece
from runtime.recording.takes import LABELS, Buffers, Cursor, Take
from runtime.recording.tracks import IMAGES, ROWS, Output, Track, encode_color
from runtime.ring import Sample

_POLL_NS = NS_PER_S // 25
"""How often rings are looked into if nobody nudges."""
_MIB = 1 << 20

EVENTS = "/events"


class RecordingError(Exception):
    """An episode cannot begin, end, or be changed now. One line."""


@dataclass(slots=True)
class _Pending:
    """A sample with the encoders, in the order in which it was taken."""

    take: Take
    cursor: Cursor | None
    sample: Sample | None
    outputs: Sequence[Output]
    future: Future[list[list[Piece]]]
    stamp_ns: int
    index: int


@dataclass(frozen=True, slots=True)
class _Note:
    """Something that does not come from a ring: encoded by `encode` on the pool, if that is given."""

    topic: str
    stamp_ns: int
    data: bytes
    encode: Callable[[int], list[Piece]] | None = None
    take: Take | None = None


Watch = Callable[[], Iterable[tuple[str, Mapping[str, Any]]]]
"""Looked at every round, on the recorder's thread: events that happened since."""


class Recorder:
    """Records episodes into ``<folder>/episode_000000.mcap`` and so on.

    `begin`, `end`, `label`, `discard` and `close` are for one thread, the loop's; `event` and `put` for any.

    Args:
        folder: exists.
        tracks: rings to record. `notes` are further channels, for `put`; ``/events`` is always there.
        metadata: records written at the start of every file.
        watches: sources of events.

    Attributes:
        trouble: why no episode can be recorded at present; empty if one can.
        stopped_early: why the newest episode was ended by the recorder itself; empty if it was not.
    """

    def __init__(
        self,
        clock: Clock,
        options: RecorderOptions,
        folder: Path,
        tracks: Sequence[Track],
        notes: Sequence[Channel] = (),
        metadata: Mapping[str, Mapping[str, str]] | None = None,
        watches: Sequence[Watch] = (),
    ) -> None:
        self.folder = folder
        self.trouble = ""
        self.stopped_early = ""
        self._take: Take | None = None
        self._last: Take | None = None
        self._kept: list[Take] = []
        self._clock = clock
        self._options = options
        self._tracks = tuple(tracks)
        events = Channel(EVENTS, schemas.EVENT)
        outputs = [output for track in self._tracks for output in track.outputs]
        self._channels = [output.channel for output in outputs] + [*notes, events]
        self._ids = {channel.topic: number for number, channel in enumerate(self._channels, 1)}
        self._lanes = {output.channel.topic: output.lane for output in outputs}
        wall_ns, now_ns = clock.wall_ns(), clock.now_ns()
        # Simulated time is written as it is, so that two recordings of one run are equal.
        self.wall_offset_ns = 0 if clock.stepped else wall_ns - now_ns
        self._metadata = {
            "clock": {
                "wall_ns": str(wall_ns),
                "monotonic_ns": str(now_ns),
                "offset_ns": str(self.wall_offset_ns),
                "stepped": str(clock.stepped).lower(),
            },
            **(metadata or {}),
        }
        self._watches = tuple(watches)
        self._takes: list[Take] = []
        self._notes: deque[_Note] = deque(maxlen=10_000)
        self._line: deque[_Pending] = deque()
        self._buffers = {track.name: Buffers(track) for track in self._tracks if track.in_flight}
        self._handed = 0
        self._warned = False
        self._closing = False
        self._wake = clock.signal()
        self._disk = Disk(folder)
        self._pool = ThreadPoolExecutor(options.encoders, thread_name_prefix="record-encode")
        self._thread: ClockThread | None = None
        self._disk.look()
        self._look_at_disk()

    # --- for the loop

    def start(self) -> None:
        """Start the thread; nothing is recorded yet."""
        self._thread = self._clock.spawn("record", self._main)

    @property
    def take(self) -> Take | None:
        """The episode that is on."""
        take = self._take
        return take if take is not None and take.end_ns is None else None

    @property
    def last(self) -> Take | None:
        """The episode before, as long as it may be labelled or discarded."""
        take = self._take
        if take is None:
            return self._last
        return None if take.end_ns is None else take

    @property
    def reports(self) -> list[dict[str, Any]]:
        """What became of each episode that was not discarded, in order."""
        return [take.report() for take in self._kept if not take.discarded]

    def begin(self, index: int, task: str) -> Take:
        """Begin episode `index`: what is acquired from now on belongs to it. Seals the one before.

        Raises:
            RecordingError: one is on already, or the disk is too full.
        """
        if self.take is not None:
            raise RecordingError(f"episode {self.take.index} is being recorded already")
        if self.trouble:
            self._disk.look()
            self._look_at_disk()
        if self.trouble:
            raise RecordingError(self.trouble)
        self.seal()
        self.stopped_early = ""
        start_ns = self._clock.now_ns()
        draft = Draft(self.folder / file_name(index), self._channels)
        cursors = [Cursor(track) for track in self._tracks]
        take = Take(index, task, start_ns, draft, cursors, self._options.depth_level, self.wall_offset_ns)
        take.flushed_ns = start_ns
        self._disk.open(draft, {**self._metadata, "episode_start": take.begin_metadata()})
        self._kept.append(take)
        self._takes.append(take)
        self._take = take
        self.event("episode_start", episode=index, task=task)
        self._wake.set()
        return take

    def end(self, label: str | None = None, reason: str = "") -> Take:
        """End the episode: nothing acquired from now on belongs to it. With a `label` it is sealed, too.

        Raises:
            RecordingError: none is on, or the label is none.
        """
        known_label(label)
        take = self.take
        if take is None:
            raise RecordingError("no episode is being recorded")
        take.label, take.reason = label or take.label, reason
        self._note_of(take, "episode_end", label=take.label, reason=reason)
        take.end_ns = self._clock.now_ns()
        self._take, self._last = None, take
        if label is not None:
            self.seal()
        self._wake.set()
        return take

    def label(self, label: str) -> Take:
        """Say how the episode that is on, or the one just ended, went; the latter is sealed.

        Raises:
            RecordingError: there is none, or it is finished.
        """
        known_label(label)
        take = self.take or self.last
        if take is None:
            raise RecordingError("there is no episode left that could be labelled")
        take.label = label
        self._note_of(take, "label", label=label)
        if take.end_ns is not None:
            self.seal()
        return take

    def discard(self, reason: str = "") -> Take:
        """Throw away the episode that is on, or the one just ended, if nothing sealed it.

        Raises:
            RecordingError: there is none.
        """
        take = self.take or self.last
        if take is None:
            raise RecordingError("there is no episode left that could be discarded")
        take.discarded, take.reason = True, reason
        take.end_ns = take.end_ns if take.end_ns is not None else self._clock.now_ns()
        self._disk.discard(take.draft)  # before the next file of that name is opened
        self._take, self._last = None, take
        self.seal()
        self.event("discard", episode=take.index, reason=reason)
        return take

    def _note_of(self, take: Take, kind: str, **values: Any) -> None:
        data = schemas.event(kind, {"episode": take.index, **values})
        self._notes.append(_Note(EVENTS, self._clock.now_ns(), data, take=take))

    def seal(self) -> None:
        """The last episode stays as it is from now on, and its file is finished."""
        if self._take is not None and self._take.end_ns is not None:  # the recorder ended it
            self._take, self._last = None, self._take
        if self._last is not None:
            self._last.sealed = True
            self._last = None
            self._wake.set()

    async def close(self) -> None:
        """End and finish everything; returns when it is on the disk."""
        if self.take is not None:
            self.end(reason="the run ended")
        self.seal()
        self._closing = True
        self._wake.set()
        if self._thread is not None:
            await self._thread.join()
        await self._clock.run_blocking(self._close)

    def _close(self) -> None:
        self._pool.shutdown()
        self._disk.close()

    # --- for anyone

    def nudge(self) -> None:
        """Look into the rings now. Called after every tick, the recorder works while the loop rests."""
        if self._takes:
            self._wake.set()

    def event(self, kind: str, **values: Any) -> None:
        """Something happened now. Outside an episode it is kept for the next one's beginning."""
        self.put(EVENTS, self._clock.now_ns(), schemas.event(kind, values))

    def put(self, topic: str, stamp_ns: int, data: bytes) -> None:
        """A message of one of the `notes` channels. Returns at once."""
        self._notes.append(_Note(topic, stamp_ns, data))

    def put_later(self, topic: str, stamp_ns: int, make: Callable[[], bytes]) -> None:
        """Like `put`, with bytes that an encoder's thread makes. What `make` uses must not change."""
        self._notes.append(_Note(topic, stamp_ns, b"", lambda wall_ns: [make()]))

    def put_mask(self, camera: str, stamp_ns: int, mask: Any) -> None:
        """A tracked mask ``[H, W]`` of 0 and 1, which nobody changes afterwards."""

        def encode(wall_ns: int) -> list[Piece]:
            return schemas.compressed_image(wall_ns, camera, "png", encode_color(mask * 255, self._options))

        self._notes.append(_Note(f"/mask/{camera}", stamp_ns, b"", encode))

    # --- on the recorder's thread

    def _main(self) -> None:
        while not (self._closing and not self._takes):
            self._wake.wait(_POLL_NS if self._takes else None)
            self._round()

    def _round(self) -> None:
        now_ns = self._clock.now_ns()
        for take in list(self._takes):
            for cursor in take.cursors:
                self._drain(take, cursor)
        self._take_events(now_ns)
        self._take_notes()
        self._collect(wait=self._clock.stepped)
        for take in list(self._takes):
            self._advance(take, now_ns)

    def _drain(self, take: Take, cursor: Cursor) -> None:
        """Read what is new in one ring. With too much waiting, images stay there, at their own risk."""
        track = cursor.track
        buffers = self._buffers.get(track.name)
        while not (cursor.past_end or take.discarded) and not (buffers is not None and self._behind()):
            blank = None
            if buffers is not None:
                blank = buffers.take()
                if blank is None:
                    return
            sample = cursor.reader.next(cursor.scratch if blank is None else blank)
            if sample is None or not take.holds(sample.stamp_ns):
                if buffers is not None and blank is not None:
                    buffers.give(blank)
                if sample is None:
                    return
                cursor.past_end = take.end_ns is not None and sample.stamp_ns >= take.end_ns
                continue
            self._accept(take, cursor, sample)

    def _accept(self, take: Take, cursor: Cursor, sample: Sample) -> None:
        outputs = cursor.track.outputs
        wall_ns = sample.stamp_ns + take.wall_offset_ns
        if cursor.track.in_flight:
            future = self._pool.submit(_encode, outputs, sample, wall_ns)
            pending = _Pending(take, cursor, sample, outputs, future, sample.stamp_ns, sample.index)
            self._line.append(pending)
            take.pending += 1
            return
        for output in outputs:
            self._add(
                take, output.channel.topic, sample.stamp_ns, sample.index, output.encode(sample, wall_ns)
            )

    def _take_events(self, now_ns: int) -> None:
        for watch in self._watches:
            for kind, values in watch():
                self._notes.append(_Note(EVENTS, now_ns, schemas.event(kind, values)))

    def _take_notes(self) -> None:
        """A note goes to the episode that its stamp falls into; events between two wait for the next."""
        later: list[_Note] = []
        while self._notes:
            note = self._notes.popleft()
            take = self._owner(note)
            if take is None:
                if note.topic == EVENTS:
                    later.append(note)
                continue
            stamp_ns = max(note.stamp_ns, take.start_ns)
            if note.encode is None:
                self._add(take, note.topic, stamp_ns, 0, [note.data])
                continue
            output = Output(self._channels[self._ids[note.topic] - 1], IMAGES, _never)
            future = self._pool.submit(_encode_note, note.encode, stamp_ns + take.wall_offset_ns)
            self._line.append(_Pending(take, None, None, [output], future, stamp_ns, 0))
            take.pending += 1
        self._notes.extendleft(reversed(later[-64:]))

    def _owner(self, note: _Note) -> Take | None:
        if note.take is not None:
            return note.take if note.take in self._takes else None
        alive = [take for take in self._takes if not take.discarded]
        for take in alive:
            if take.holds(note.stamp_ns):
                return take
        running = [take for take in alive if take.end_ns is None]
        return running[-1] if running and note.topic == EVENTS else None

    def _collect(self, wait: bool) -> None:
        """Messages back from the encoders, in the order in which they went there."""
        while self._line and (wait or self._line[0].future.done()):
            pending = self._line.popleft()
            take = pending.take
            take.pending -= 1
            try:
                encoded = pending.future.result()
            except Exception as error:  # a defect here must cost one sample, counted, and not the episode
                self._failed(pending, error)
                encoded = []
            for output, pieces in zip(pending.outputs, encoded, strict=False):
                self._add(take, output.channel.topic, pending.stamp_ns, pending.index, pieces)
            if pending.cursor is not None and pending.sample is not None:
                self._buffers[pending.cursor.track.name].give(pending.sample)

    def _failed(self, pending: _Pending, error: Exception) -> None:
        if pending.cursor is None:
            logger.warning("recording: a mask cannot be encoded: {}", error)
            return
        pending.cursor.failed += 1
        if pending.cursor.failed == 1:
            logger.opt(exception=error).error("recording: {}: {}", pending.cursor.track.name, error)

    def _add(self, take: Take, topic: str, stamp_ns: int, index: int, pieces: Sequence[Piece]) -> None:
        channel = self._ids[topic]
        batch = take.batches[self._lanes.get(topic, IMAGES if topic.startswith("/mask/") else ROWS)]
        batch.add(channel, index, stamp_ns + take.wall_offset_ns, stamp_ns, pieces)
        take.counts[channel] = take.counts.get(channel, 0) + 1

    def _behind(self) -> bool:
        return self._handed - self._disk.written > self._options.queue_mib * _MIB

    def _advance(self, take: Take, now_ns: int) -> None:
        """Flush when it is time; finish when nothing more can come."""
        if take.discarded:
            if not take.pending:
                self._takes.remove(take)
            return
        drained = take.drained(now_ns, round(self._options.settle_s * NS_PER_S))
        if drained or now_ns - take.flushed_ns >= self._options.flush_s * NS_PER_S:
            self._flush(take, now_ns)
        self._look_at_disk()
        if take.end_ns is None and (self.trouble or take.draft.failed):
            self._stop_early(take, take.draft.failed or self.trouble)
        if drained and take.sealed:
            self._finish(take)

    def _flush(self, take: Take, now_ns: int) -> None:
        take.flushed_ns = now_ns
        batches = [batch for batch in take.renew() if batch.pieces]
        if batches:
            if self._clock.stepped:  # simulated time may run faster than the disk: let it keep up
                self._disk.settle()
            self._handed += sum(batch.size for batch in batches)
            self._disk.write(take.draft, batches)

    def _finish(self, take: Take) -> None:
        self._takes.remove(take)
        self._disk.finish(take.draft, lambda: self._done(take))

    def _done(self, take: Take) -> dict[str, dict[str, str]]:
        return {"episode": take.metadata()}

    def _stop_early(self, take: Take, why: str) -> None:
        """The disk is full, or will be: save what there is. The mode sees `stopped_early`."""
        logger.error("recording: episode {} ends early: {}", take.index, why)
        take.end_ns = self._clock.now_ns()
        take.reason = self.stopped_early = why

    def _look_at_disk(self) -> None:
        free = self._disk.free_bytes
        if free is None:
            return
        options, mib = self._options, free / _MIB
        low = mib < options.min_free_mib
        self.trouble = (
            f"{mib:.0f} MiB left in {self.folder}, min_free_mib is {options.min_free_mib:g}" if low else ""
        )
        if mib < options.warn_free_mib and not self._warned:
            self._warned = True
            logger.warning("recording: {:.0f} MiB left in {}", mib, self.folder)
            self.event("disk_low", free_mib=round(mib))


def known_label(label: str | None) -> None:
    """Refuse what is not a label.

    Raises:
        RecordingError: the label is none of `LABELS`.
    """
    if label is not None and label not in LABELS:
        raise RecordingError(f"label {label!r}: accepted are {', '.join(LABELS)}")


def file_name(index: int) -> str:
    """Of episode `index`."""
    return f"episode_{index:06d}.mcap"


def _encode(outputs: Sequence[Output], sample: Sample, wall_ns: int) -> list[list[Piece]]:
    return [output.encode(sample, wall_ns) for output in outputs]


def _encode_note(encode: Callable[[int], list[Piece]], wall_ns: int) -> list[list[Piece]]:
    return [encode(wall_ns)]


def _never(sample: Sample, wall_ns: int) -> list[Piece]:
    raise AssertionError("a note encodes itself")
