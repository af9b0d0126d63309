"""The recorder's own thread: samples out of rings, through the encoders, into chunks for the disk.

It works in rounds. In each, every ring is read up to its newest sample, what the encoders have finished is
put into the episodes' chunks, and chunks that are old enough go to the disk. Images wait in their rings, at
their own risk, while the encoders or the disk are behind; rows, which are small, never wait.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from loguru import logger

from runtime.clock import NS_PER_S, Clock
from runtime.recording import schemas
from runtime.recording.config import RecorderOptions
from runtime.recording.disk import Disk
from runtime.recording.mcap_file import Channel
from runtime.recording.schemas import Piece
from runtime.recording.takes import Buffers, Cursor, Take
from runtime.recording.tracks import IMAGES, ROWS, Output, Track
from runtime.ring import Sample

_POLL_NS = NS_PER_S // 25
"""How often rings are looked into if nobody nudges."""

_MIB = 1 << 20
EVENTS = "/events"

NoteSource = Callable[[], Iterable[tuple[str, Mapping[str, Any]]]]
"""Looked at every round, on the recorder's thread: events that happened since."""


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
class Note:
    """Something that does not come from a ring.

    Attributes:
        data: the message; or `encode` makes it, on the pool.
        take: the episode it belongs to, where its stamp does not say so.
    """

    topic: str
    stamp_ns: int
    data: bytes
    encode: Callable[[int], list[Piece]] | None = None
    take: Take | None = None


class Intake:
    """What the recorder's thread does and has.

    Attributes:
        takes: episodes that are not finished; appended to by the loop's thread, removed from by this one.
        notes: for the coming round; appended to by anyone.
        trouble: why no episode can be recorded at present; empty if one can.
        stopped_early: why the newest episode was ended here; empty if it was not.
        closing: end once there are no takes.
    """

    def __init__(
        self,
        clock: Clock,
        options: RecorderOptions,
        tracks: Sequence[Track],
        channels: Sequence[Channel],
        watches: Sequence[NoteSource],
        disk: Disk,
    ) -> None:
        self.takes: list[Take] = []
        self.notes: deque[Note] = deque(maxlen=10_000)
        self.trouble = ""
        self.stopped_early = ""
        self.closing = False
        self.wake = clock.signal()
        self.disk = disk
        self._clock = clock
        self._options = options
        self._channels = tuple(channels)
        self._ids = {channel.topic: number for number, channel in enumerate(channels, 1)}
        outputs = [output for track in tracks for output in track.outputs]
        self._lanes = {output.channel.topic: output.lane for output in outputs}
        self._watches = tuple(watches)
        self._line: deque[_Pending] = deque()
        self._buffers = {track.name: Buffers(track) for track in tracks if track.in_flight}
        self._handed = 0
        self._warned = False
        self._pool = ThreadPoolExecutor(options.encoders, thread_name_prefix="record-encode")
        disk.look()
        self.look_at_disk()

    def close(self) -> None:
        """Let go of the encoders, after `main` has returned."""
        self._pool.shutdown()

    def main(self) -> None:
        """The thread: until `closing`, and every episode is finished."""
        while not (self.closing and not self.takes):
            self.wake.wait(_POLL_NS if self.takes else None)
            try:
                self._round()
            except Exception as error:  # a defect must not take the arm's program along
                logger.opt(exception=error).error("recording: the recorder failed: {}", error)
                self._give_up(f"the recorder failed: {error}")

    def _give_up(self, why: str) -> None:
        """Save what is on the disk."""
        for take in list(self.takes):
            if take.end_ns is None:
                self._stop_early(take, why)
            self._finish(take)

    def _round(self) -> None:
        now_ns = self._clock.now_ns()
        if self._clock.stepped:  # what the disk has done by now must not depend on how fast it is
            self.disk.settle()
        for take in list(self.takes):
            for cursor in take.cursors:
                self._drain(take, cursor)
        self._take_events(now_ns)
        self._take_notes()
        self._collect(wait=self._clock.stepped)
        for take in list(self.takes):
            self._advance(take, now_ns)

    def _drain(self, take: Take, cursor: Cursor) -> None:
        """Read what is new in one ring. With too much waiting, images stay there, at their own risk."""
        track = cursor.track
        buffers = self._buffers.get(track.name)
        cursor.caught_up = cursor.past_end
        while not (cursor.caught_up or take.discarded) and not (buffers is not None and self._behind()):
            blank = None
            if buffers is not None:
                blank = buffers.take()
                if blank is None:
                    return
            sample = cursor.reader.next(cursor.scratch if blank is None else blank)
            if sample is None or not take.holds(sample.stamp_ns):
                if buffers is not None and blank is not None:
                    buffers.give(blank)
                if sample is not None:
                    cursor.past_end = take.end_ns is not None and sample.stamp_ns >= take.end_ns
                cursor.caught_up = sample is None or cursor.past_end
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
                self.notes.append(Note(EVENTS, now_ns, schemas.event(kind, values)))

    def _take_notes(self) -> None:
        """A note goes to the episode that its stamp falls into; events between two wait for the next."""
        later: list[Note] = []
        while self.notes:
            note = self.notes.popleft()
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
        self.notes.extendleft(reversed(later[-64:]))

    def _owner(self, note: Note) -> Take | None:
        if note.take is not None:
            return note.take if note.take in self.takes else None
        alive = [take for take in self.takes if not take.discarded]
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
        return self._handed - self.disk.written > self._options.queue_mib * _MIB

    def _advance(self, take: Take, now_ns: int) -> None:
        """Flush when it is time; finish when nothing more can come."""
        if take.discarded:
            if not take.pending:
                self._let_go(take)
            return
        drained = take.drained(now_ns, round(self._options.settle_s * NS_PER_S)) and not self._behind()
        if drained or now_ns - take.flushed_ns >= self._options.flush_s * NS_PER_S:
            self._flush(take, now_ns)
        self.look_at_disk()
        if take.end_ns is None and (self.trouble or take.draft.failed):
            self._stop_early(take, take.draft.failed or self.trouble)
        if drained and take.sealed:
            self._finish(take)

    def _flush(self, take: Take, now_ns: int) -> None:
        take.flushed_ns = now_ns
        batches = [batch for batch in take.renew() if batch.pieces]
        if batches:
            self._handed += sum(batch.size for batch in batches)
            self.disk.write(take.draft, batches)

    def _let_go(self, take: Take) -> None:
        self.takes.remove(take)
        take.let_go()

    def _finish(self, take: Take) -> None:
        self._let_go(take)
        self.disk.finish(take.draft, lambda: self._done(take))

    def _done(self, take: Take) -> dict[str, dict[str, str]]:
        return {"episode": take.metadata()}

    def _stop_early(self, take: Take, why: str) -> None:
        """The disk is full, or will be: save what there is. The mode sees `stopped_early`."""
        logger.error("recording: episode {} ends early: {}", take.index, why)
        take.end_ns = self._clock.now_ns()
        take.reason = self.stopped_early = why

    def look_at_disk(self) -> None:
        """Compare the room left with what was asked for."""
        free = self.disk.free_bytes
        if free is None:
            return
        options, mib = self._options, free / _MIB
        low = mib < options.min_free_mib
        self.trouble = (
            f"{mib:.0f} MiB left in {self.disk.folder}, min_free_mib is {options.min_free_mib:g}"
            if low
            else ""
        )
        if mib < options.warn_free_mib and not self._warned:
            self._warned = True
            logger.warning("recording: {:.0f} MiB left in {}", mib, self.disk.folder)
            data = schemas.event("disk_low", {"free_mib": round(mib)})
            self.notes.append(Note(EVENTS, self._clock.now_ns(), data))


def _encode(outputs: Sequence[Output], sample: Sample, wall_ns: int) -> list[list[Piece]]:
    return [output.encode(sample, wall_ns) for output in outputs]


def _encode_note(encode: Callable[[int], list[Piece]], wall_ns: int) -> list[list[Piece]]:
    return [encode(wall_ns)]


def _never(sample: Sample, wall_ns: int) -> list[Piece]:
    raise AssertionError("a note encodes itself")
