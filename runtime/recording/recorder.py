"""The recorder: one thread that takes every sample of every ring while an episode is on.

The loop's thread says when an episode begins and ends; that takes microseconds and nothing is waited for.
The recorder's thread copies samples out of the rings, hands images to encoders and finished messages to the
disk's thread. A sample belongs to an episode by its own stamp, not by when it was seen: one that was taken
before the end and arrives after it is still recorded, and nothing of a reset phase ever is. What a ring
overwrote before it was read is counted, by topic.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from runtime.clock import Clock, ClockThread
from runtime.messages import TrackedMask
from runtime.recording import schemas
from runtime.recording.config import RecorderOptions
from runtime.recording.disk import Disk, Draft
from runtime.recording.intake import EVENTS, Intake, Note, NoteSource
from runtime.recording.mcap_file import Channel
from runtime.recording.schemas import Piece
from runtime.recording.takes import LABELS, Cursor, Take
from runtime.recording.tracks import Track, encode_color, tip_message, tip_topic


class EpisodeError(Exception):
    """An episode cannot begin, end, or be changed now. One line."""


class Recorder:
    """Records episodes into ``<folder>/episode_000000.mcap`` and so on.

    `begin`, `end`, `label`, `discard` and `close` are for one thread, the loop's; `event` and `put` for any.

    Args:
        folder: exists.
        tracks: rings to record. `notes` are further channels, for `put`; ``/events`` is always there.
        metadata: records written at the start of every file.
        watches: sources of events.
    """

    def __init__(
        self,
        clock: Clock,
        options: RecorderOptions,
        folder: Path,
        tracks: Sequence[Track],
        notes: Sequence[Channel] = (),
        metadata: Mapping[str, Mapping[str, str]] | None = None,
        watches: Sequence[NoteSource] = (),
    ) -> None:
        self.folder = folder
        self._take: Take | None = None
        self._last: Take | None = None
        self._kept: list[Take] = []
        self._clock = clock
        self._options = options
        self._tracks = tuple(tracks)
        outputs = [output for track in self._tracks for output in track.outputs]
        self._channels = [output.channel for output in outputs] + [*notes, Channel(EVENTS, schemas.EVENT)]
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
        self._disk = Disk(folder)
        self._intake = Intake(clock, options, self._tracks, self._channels, watches, self._disk)
        self._thread: ClockThread | None = None

    # --- for the loop

    def start(self) -> None:
        """Start the thread; nothing is recorded yet."""
        self._thread = self._clock.spawn("record", self._intake.main)

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
    def trouble(self) -> str:
        """Why no episode can be recorded at present; empty if one can."""
        return self._intake.trouble

    @property
    def stopped_early(self) -> str:
        """Why the newest episode was ended by the recorder itself; empty if it was not."""
        return self._intake.stopped_early

    @property
    def reports(self) -> list[dict[str, Any]]:
        """What became of each episode that was not discarded, in order."""
        return [take.report() for take in self._kept if not take.discarded]

    def begin(self, index: int, task: str) -> Take:
        """Begin episode `index`: what is acquired from now on belongs to it. Seals the one before.

        Raises:
            EpisodeError: one is on already, the disk is too full, or `task` does not encode as UTF-8.
        """
        if self.take is not None:
            raise EpisodeError(f"episode {self.take.index} is being recorded already")
        if self.trouble:
            self._disk.look()
            self._intake.look_at_disk()
        if self.trouble:
            raise EpisodeError(self.trouble)
        event = _start_event(index, task)
        self.seal()
        self._intake.stopped_early = ""
        start_ns = self._clock.now_ns()
        draft = Draft(self.folder / file_name(index), self._channels)
        cursors = [Cursor(track) for track in self._tracks]
        take = Take(index, task, start_ns, draft, cursors, self._options.depth_level, self.wall_offset_ns)
        take.flushed_ns = start_ns
        self._disk.open(draft, {**self._metadata, "episode_start": take.begin_metadata()})
        self._kept.append(take)
        self._intake.takes.append(take)
        self._take = take
        self.put(EVENTS, self._clock.now_ns(), event)
        self._intake.wake.set()
        return take

    def end(self, label: str | None = None, reason: str = "") -> Take:
        """End the episode: nothing acquired from now on belongs to it. With a `label` it is sealed, too.

        Raises:
            EpisodeError: none is on, or the label is none.
        """
        known_label(label)
        take = self.take
        if take is None:
            raise EpisodeError("no episode is being recorded")
        take.label, take.reason = label or take.label, reason
        self._note_of(take, "episode_end", label=take.label, reason=reason)
        take.end_ns = self._clock.now_ns()
        self._take, self._last = None, take
        if label is not None:
            self.seal()
        self._intake.wake.set()
        return take

    def label(self, label: str) -> Take:
        """Say how the episode that is on, or the one just ended, went; the latter is sealed.

        Raises:
            EpisodeError: there is none, or it is finished.
        """
        known_label(label)
        take = self.take or self.last
        if take is None:
            raise EpisodeError("there is no episode left that could be labelled")
        take.label = label
        self._note_of(take, "label", label=label)
        if take.end_ns is not None:
            self.seal()
        return take

    def discard(self, reason: str = "") -> Take:
        """Throw away the episode that is on, or the one just ended, if nothing sealed it.

        Raises:
            EpisodeError: there is none.
        """
        take = self.take or self.last
        if take is None:
            raise EpisodeError("there is no episode left that could be discarded")
        take.discarded, take.reason = True, reason
        take.end_ns = take.end_ns if take.end_ns is not None else self._clock.now_ns()
        self._disk.discard(take.draft)  # before the next file of that name is opened
        self._take, self._last = None, take
        self.seal()
        self.event("discard", episode=take.index, reason=reason)
        return take

    def _note_of(self, take: Take, kind: str, **values: Any) -> None:
        data = schemas.event(kind, {"episode": take.index, **values})
        self._intake.notes.append(Note(EVENTS, self._clock.now_ns(), data, take=take))

    def seal(self) -> None:
        """The last episode stays as it is from now on, and its file is finished."""
        if self._take is not None and self._take.end_ns is not None:  # the recorder ended it
            self._take, self._last = None, self._take
        if self._last is not None:
            self._last.sealed = True
            self._last = None
            self._intake.wake.set()

    async def close(self) -> None:
        """End and finish everything; returns when it is on the disk."""
        if self.take is not None:
            self.end(reason="the run ended")
        self.seal()
        self._intake.closing = True
        self._intake.wake.set()
        if self._thread is not None:
            await self._thread.join()
        await self._clock.run_blocking(self._close)

    def _close(self) -> None:
        self._intake.close()
        self._disk.close()

    # --- for anyone

    def nudge(self) -> None:
        """Look into the rings now. Called after every tick, the recorder works while the loop rests."""
        if self._intake.takes:
            self._intake.wake.set()

    def event(self, kind: str, **values: Any) -> None:
        """Something happened now. Outside an episode it is kept for the next one's beginning."""
        self.put(EVENTS, self._clock.now_ns(), schemas.event(kind, values))

    def put(self, topic: str, stamp_ns: int, data: bytes) -> None:
        """A message of one of the `notes` channels. Returns at once."""
        self._intake.notes.append(Note(topic, stamp_ns, data, take=self._holding(stamp_ns)))

    def put_later(self, topic: str, stamp_ns: int, make: Callable[[], bytes]) -> None:
        """Like `put`, with bytes that an encoder's thread makes. What `make` uses must not change."""
        holding = self._holding(stamp_ns)
        self._intake.notes.append(Note(topic, stamp_ns, b"", lambda wall_ns: [make()], holding))

    def _holding(self, stamp_ns: int) -> Take | None:
        """The episode that is on, and may yet end at this very stamp where time is simulated."""
        take = self.take
        return take if take is not None and take.holds(stamp_ns) else None

    def put_mask(self, mask: TrackedMask) -> None:
        """A tracked mask, which nobody changes afterwards, and its tip."""

        def encode(wall_ns: int) -> list[Piece]:
            image = encode_color(mask.mask * 255, self._options)
            return schemas.compressed_image(wall_ns, mask.camera, "png", image)

        self._intake.notes.append(Note(f"/mask/{mask.camera}", mask.stamp_ns, b"", encode))
        if mask.tip is not None:
            data = tip_message(mask.tip, mask.stamp_ns)
            self._intake.notes.append(Note(tip_topic(mask.camera), mask.stamp_ns, data))


def _start_event(index: int, task: str) -> bytes:
    """Made before anything is begun, since this is where a lone surrogate in `task` shows."""
    try:
        return schemas.event("episode_start", {"episode": index, "task": task})
    except UnicodeEncodeError:
        raise EpisodeError(f"task {task!r} cannot be written as UTF-8") from None


def known_label(label: str | None) -> None:
    """Refuse what is not a label.

    Raises:
        EpisodeError: the label is none of `LABELS`.
    """
    if label is not None and label not in LABELS:
        raise EpisodeError(f"label {label!r}: accepted are {', '.join(LABELS)}")


def file_name(index: int) -> str:
    """Of episode `index`."""
    return f"episode_{index:06d}.mcap"
