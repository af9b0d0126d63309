"""The tracker's role: the object's mask in the first picture of a stretch, followed through the others."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dexrun.annotation.commands import Commands
from dexrun.annotation.options import AnnotateOptions
from dexrun.annotation.roles import TOLD_EVERY_NS, WAIT_NS, LeaseInbox, Senders
from dexrun.annotation.stretches import Stretch, prompt_of
from planner.perception.following import Follower
from runtime.clock import Clock
from runtime.frame_channel import FrameMessage, FrameReceiver, FrameSender
from runtime.interfaces import PerceptionError
from runtime.recording.annotations import Anchor
from runtime.recording.bounds import one_line


@dataclass
class _Following:
    """One stretch under way."""

    lease: int
    stretch: Stretch
    follower: Follower
    sender: FrameSender
    done: int = 0


class TrackerRole:
    """Makes the object's mask in the first picture of a stretch, and follows it through the others."""

    def __init__(
        self,
        options: AnnotateOptions,
        commands: Commands,
        inbox: FrameReceiver,
        senders: Senders,
        clock: Clock,
    ) -> None:
        self._models = options.perception
        self._segmenter = self._models.segmenter.build()
        self._commands = commands
        self._inbox = LeaseInbox(inbox)
        self._senders = senders
        self._clock = clock
        self._work: _Following | None = None
        self._unsent: FrameMessage | None = None
        self._told_ns = 0

    def handle(self, command: Mapping[str, Any]) -> None:
        """See `Role`: ``follow``, ``drop``."""
        self._inbox.told_of(command["lease"])
        if command["do"] == "follow":
            with self._telling(command["lease"]):
                self._work, self._unsent = self._begun(command), None
        elif command["do"] == "drop" and self._work and self._work.lease == command["lease"]:
            self._work = self._unsent = None

    def _begun(self, command: Mapping[str, Any]) -> _Following:
        anchor = Anchor.of(command["anchor"])
        tracker = self._models.tracker.build()
        follower = Follower(self._segmenter, tracker, command["camera"], prompt_of(anchor))
        return _Following(
            command["lease"], Stretch(*command["stretch"]), follower, self._senders(command["to"])
        )

    @contextlib.contextmanager
    def _telling(self, lease: int) -> Iterator[None]:
        """What goes wrong costs the episode, and is told.

        Raises:
            Exception: it was not foreseen; after some of a GPU's only a new process helps.
        """
        try:
            yield
        except Exception as error:
            self._work = self._unsent = None
            self._commands.answer(lease=lease, refused=one_line(error))
            if not isinstance(error, PerceptionError):
                raise

    def step(self) -> bool:
        """The next picture's mask."""
        work = self._work
        if work is None:
            return False
        with self._telling(work.lease):
            self._go_on(work)
        return not self._inbox.waits

    def _go_on(self, work: _Following) -> None:
        if self._unsent is not None:
            if work.sender.send(self._unsent, WAIT_NS):
                self._unsent = None
            return
        if work.done == len(work.stretch.frames):
            if work.sender.settle(WAIT_NS):
                self._work = None
            return
        message = self._inbox.receive(WAIT_NS)
        if message is not None and message.about.get("lease") == work.lease:
            self._follow(work, message)

    def _follow(self, work: _Following, message: FrameMessage) -> None:
        about, frame = message.about, work.stretch.frames[work.done]
        if (about["n"], about["frame"]) != (work.done, frame):
            self._work = None
            came = f"picture {about['n']} of frame {about['frame']} came instead of frame {frame}'s"
            self._commands.answer(lease=work.lease, lost=came)
            return
        try:
            tracked = work.follower.follow(message.data)
        except PerceptionError as error:
            raise PerceptionError(f"frame {frame}: {error}") from None
        skipped = not work.stretch.kept and work.done == 0
        if not skipped:
            number = work.done - (not work.stretch.kept)
            said = {"lease": work.lease, "n": number, "frame": frame, "confidence": tracked.confidence}
            self._unsent = FrameMessage({**said, "anchor": work.stretch.anchor}, tracked.mask)
        work.done += 1
        if self._clock.now_ns() - self._told_ns > TOLD_EVERY_NS:
            self._told_ns = self._clock.now_ns()
            self._commands.answer(lease=work.lease, at=work.done)

    def close(self) -> None:
        """See `Role`."""
        self._inbox.close()
