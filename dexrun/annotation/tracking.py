"""The tracker's role: the object's mask in the first picture of a stretch, followed through the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dexrun.annotation.commands import Commands
from dexrun.annotation.options import AnnotateOptions
from dexrun.annotation.roles import TOLD_EVERY_NS, WAIT_NS, Senders
from dexrun.annotation.stretches import Stretch, prompt_of
from planner.perception.following import Follower
from runtime.clock import Clock
from runtime.frame_channel import FrameMessage, FrameReceiver, FrameSender
from runtime.interfaces import PerceptionError
from runtime.recording.annotations import Anchor


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
        self._inbox = inbox
        self._senders = senders
        self._clock = clock
        self._work: _Following | None = None
        self._unsent: FrameMessage | None = None
        self._told_ns = 0

    def handle(self, command: Mapping[str, Any]) -> None:
        """See `Role`: ``follow``, ``drop``."""
        if command["do"] == "follow":
            anchor = Anchor.of(command["anchor"])
            tracker = self._models.tracker.build()
            follower = Follower(self._segmenter, tracker, command["camera"], prompt_of(anchor))
            stretch, sender = Stretch(*command["stretch"]), self._senders(command["to"])
            self._work, self._unsent = _Following(command["lease"], stretch, follower, sender), None
        elif command["do"] == "drop" and self._work and self._work.lease == command["lease"]:
            self._work = self._unsent = None

    def step(self) -> bool:
        """The next picture's mask."""
        work = self._work
        if work is None:
            return False
        if self._unsent is not None:
            if work.sender.send(self._unsent, WAIT_NS):
                self._unsent = None
            return True
        if work.done == len(work.stretch.frames):
            if work.sender.settle(WAIT_NS):
                self._work = None
            return True
        message = self._inbox.receive(WAIT_NS)
        if message is not None and message.about.get("lease") == work.lease:
            self._follow(work, message)
        return True

    def _follow(self, work: _Following, message: FrameMessage) -> None:
        about, frame = message.about, work.stretch.frames[work.done]
        if (about["n"], about["frame"]) != (work.done, frame):
            raise AssertionError(f"picture {about['n']} of frame {about['frame']} instead of {frame}")
        try:
            tracked = work.follower.follow(message.data)
        except PerceptionError as error:
            self._work = None
            self._commands.answer(lease=work.lease, refused=f"frame {frame}: {error}")
            return
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
