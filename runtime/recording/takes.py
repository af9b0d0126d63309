"""One episode being recorded: what belongs to it, and what was counted about it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from runtime.clock import NS_PER_S
from runtime.recording.disk import Draft
from runtime.recording.mcap_file import Batch
from runtime.recording.tracks import DEPTH, IMAGES, ROWS, Track
from runtime.ring import RingReader, Sample

LABELS = ("none", "success", "failure")


class Cursor:
    """A take's place in one track.

    Attributes:
        past_end: a sample from after the take's end has been seen: its ring holds nothing more for it.
        caught_up: when last looked at, nothing was left in the ring to be read. Not so while images wait
            there for the encoders or the disk.
    """

    def __init__(self, track: Track) -> None:
        self.track = track
        self.reader: RingReader = track.ring.reader()
        self.past_end = self.caught_up = False
        self.failed = 0
        self.scratch = track.ring.blank() if not track.in_flight else None

    @property
    def lost(self) -> int:
        """Samples that were overwritten before they were read, or could not be encoded."""
        return self.reader.lost + self.failed


class Buffers:
    """Samples to copy frames into, so that nothing image-sized is allocated while recording."""

    def __init__(self, track: Track) -> None:
        self._track = track
        self._free: list[Sample] = []
        self._made = 0

    def take(self) -> Sample | None:
        """A free one, or ``None`` if as many as allowed are with the encoders."""
        if self._free:
            return self._free.pop()
        if self._made < self._track.in_flight:
            self._made += 1
            return self._track.ring.blank()
        return None

    def give(self, sample: Sample) -> None:
        """Back again."""
        self._free.append(sample)


@dataclass
class Take:
    """One episode. The loop's thread sets `end_ns`, `label`, `discarded` and `sealed`; the rest is the
    recorder's.

    Attributes:
        end_ns: from this stamp on nothing belongs to it; ``None`` while it goes on.
        sealed: nobody will change its label or discard it any more.
        pending: messages handed to the encoders and not yet back.
        missed: once it is read to its end, what its cursors had lost, by topic.
    """

    index: int
    task: str
    start_ns: int
    draft: Draft
    cursors: Sequence[Cursor]
    depth_level: int
    wall_offset_ns: int
    end_ns: int | None = None
    label: str = "none"
    reason: str = ""
    discarded: bool = False
    sealed: bool = False
    pending: int = 0
    counts: dict[int, int] = field(default_factory=dict)
    flushed_ns: int = 0
    batches: dict[str, Batch] = field(default_factory=dict)
    missed: Mapping[str, int] | None = None

    def __post_init__(self) -> None:
        self.renew()

    def renew(self) -> list[Batch]:
        """Begin new batches; returns the ones collected so far, the smallest and most precious first."""
        done = list(self.batches.values())
        self.batches = {
            ROWS: Batch("zstd", 1),
            IMAGES: Batch(),
            DEPTH: Batch("zstd", self.depth_level),
        }
        return done

    def holds(self, stamp_ns: int) -> bool:
        """Whether something stamped so belongs to it."""
        return self.start_ns <= stamp_ns and (self.end_ns is None or stamp_ns < self.end_ns)

    def drained(self, now_ns: int, settle_ns: int) -> bool:
        """Whether nothing that belongs to it will come any more: its rings are read up to samples from after
        its end or, where none come, to the newest one `settle_ns` after its end.
        """
        if self.end_ns is None or self.pending or not all(cursor.caught_up for cursor in self.cursors):
            return False
        return all(cursor.past_end for cursor in self.cursors) or now_ns >= self.end_ns + settle_ns

    def drops(self) -> dict[str, int]:
        """Samples that are not in the file, by topic."""
        total = dict(self._missed() if self.missed is None else self.missed)
        for channel, lost in list(self.draft.lost.items()):
            topic = self.draft.channels[channel - 1].topic
            total[topic] = total.get(topic, 0) + lost
        return {topic: lost for topic, lost in total.items() if lost}

    def _missed(self) -> dict[str, int]:
        return {topic: cursor.lost for cursor in self.cursors for topic in cursor.track.topics}

    def let_go(self) -> None:
        """Nothing more is read for it. A run may have thousands of episodes: their figures stay, no more."""
        self.missed = self._missed()
        self.cursors, self.batches = (), {}

    def messages(self) -> dict[str, int]:
        """Messages by topic."""
        return {self.draft.channels[c - 1].topic: n for c, n in sorted(self.counts.items())}

    @property
    def duration_s(self) -> float:
        """From start to end, 0 while it goes on."""
        return 0.0 if self.end_ns is None else (self.end_ns - self.start_ns) / NS_PER_S

    def begin_metadata(self) -> dict[str, str]:
        """What is known at the start, for mending."""
        return {
            "index": str(self.index),
            "task": self.task,
            "start_ns": str(self.start_ns),
            "start_time_ns": str(self.start_ns + self.wall_offset_ns),
        }

    def metadata(self) -> dict[str, str]:
        """Metadata record ``episode``."""
        end_ns = self.end_ns if self.end_ns is not None else self.start_ns
        return {
            **self.begin_metadata(),
            "label": self.label,
            "discarded": "false",
            "repaired": "false",
            "end_ns": str(end_ns),
            "end_time_ns": str(end_ns + self.wall_offset_ns),
            "duration_s": f"{self.duration_s:.6f}",
            "stop_reason": self.reason,
            "messages": json.dumps(self.messages()),
            "drops": json.dumps(self.drops()),
        }

    def report(self) -> dict[str, Any]:
        """For the run's summary."""
        return {
            "episode": self.index,
            "task": self.task,
            "label": self.label,
            "duration_s": round(self.duration_s, 3),
            "stop_reason": self.reason,
            "messages": self.messages(),
            "drops": self.drops(),
            "bytes": self.draft.size,
            "state": self.draft.state,
            **({"error": self.draft.failed} if self.draft.failed else {}),
        }
