"""Episodes: what a person, a script or a button box may ask for, and in which order.

Everything here happens on the loop's thread and takes microseconds: nobody waits for an encoder or a disk.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import anyio
from loguru import logger

from dexrun.episodes.unrecorded import Unrecorded
from runtime.recording.recorder import EpisodeError
from runtime.recording.takes import Take

if TYPE_CHECKING:
    from dexrun.config.recording_options import RecordingOptions
    from dexrun.episodes.unrecorded import Keeper

__all__ = ["EpisodeError", "EpisodeStatus", "Episodes", "said"]


@dataclass(frozen=True, slots=True)
class EpisodeStatus:
    """For panels and pages.

    Attributes:
        state: ``recording``; ``review`` after an episode that may still be labelled or discarded; ``ready``;
            ``done`` once all are recorded; ``blocked`` if none can be recorded, and `trouble` says why.
        episode: number of the one that is on or in review, else of the next.
        recorded: kept so far, of `wanted` (0: no limit). made: what was done with those, in a word.
    """

    state: str
    episode: int
    elapsed_s: float
    recorded: int
    wanted: int
    task: str
    last_label: str
    trouble: str
    made: str = "recorded"

    def as_json(self) -> dict[str, Any]:
        """For the HTTP API."""
        return asdict(self)

    def __str__(self) -> str:
        many = f"/{self.wanted}" if self.wanted else ""
        on = f" {self.elapsed_s:.1f} s" if self.state == "recording" else ""
        return f"{self.state} {self.episode}{on} ({self.recorded}{many} {self.made}) {self.trouble}".rstrip()


def _nothing() -> None:
    """Nobody waits for it."""


def _open() -> str:
    """Nothing is in the way."""
    return ""


class Episodes:
    """The session's episodes.

    Args:
        recorder: started; or what only counts, where nothing is recorded.
        first: number of the next episode.
        on_start: called when one begins (tares the force sensor, notes the control loop's state).
        on_end: called when one is over, kept or not, and nothing is recorded.

    Attributes:
        task: what is done in the next episodes.
        discarded: thrown away so far.
        quitting: somebody asked to end the run.
        gate: says why no episode can begin now; empty while one can.
        ended: what else is called, in order and at once, when one is over, kept or not.
    """

    def __init__(
        self,
        recorder: Keeper,
        options: RecordingOptions,
        first: int = 0,
        on_start: Callable[[Take], None] = lambda take: None,
        now_ns: Callable[[], int] = lambda: 0,
        on_end: Callable[[], None] = _nothing,
    ) -> None:
        self.recorder = recorder
        self.options = options
        self.task = options.task
        self.discarded = 0
        self.quitting = False
        self._next = first
        self._unrecorded = isinstance(recorder, Unrecorded)
        self._on_start = on_start
        self._now_ns = now_ns
        self._on_end = on_end
        self.gate: Callable[[], str] = _open
        self.ended: list[Callable[[], None]] = []
        self._last_label = ""
        self._on: Take | None = None
        self._kept: list[Take] = []
        self._changed = anyio.Event()

    # --- what may be asked for

    def start(self, task: str | None = None) -> Take:
        """Begin an episode now.

        Raises:
            EpisodeError: one is on, all wanted ones are recorded, something is in the way, or the disk is too
                full.
        """
        self.notice()
        if why := self.gate():
            raise EpisodeError(why)
        if self.finished:
            raise EpisodeError(f"all {self.options.episodes} episodes are {self.made}")
        if task is not None:
            self.task = task
        self.settle()
        take = self.recorder.begin(self._next, self.task)
        self._on = take
        self._on_start(take)
        begins = "begins" if self._unrecorded else "recording"
        logger.info("episode {}: {}{}", take.index, begins, f": {take.task}" if take.task else "")
        self._notify()
        return take

    def stop(self, label: str | None = None, reason: str = "") -> Take:
        """End the episode that is on now; with a label it cannot be discarded any more.

        Raises:
            EpisodeError: none is on, or the label is none.
        """
        self.notice()
        take = self.recorder.end(label, reason)
        self._keep(take)
        return take

    def label(self, label: str) -> Take:
        """Say how the episode that is on, or was on last, went. While one is on, this does not end it.

        Raises:
            EpisodeError: there is none, or the label is none.
        """
        take = self.recorder.label(label)
        self._last_label = take.label
        logger.info("episode {}: {}", take.index, label)
        self._notify()
        return take

    def discard(self, reason: str = "") -> Take:
        """Throw away the episode that is on, or was on last; the next one takes its number.

        Raises:
            EpisodeError: there is none, or it is labelled or followed by another already.
        """
        self.notice()
        was_on = self.recorder.take is not None
        take = self.recorder.discard(reason)
        self._on = None
        self.discarded += 1
        self._next = take.index
        logger.info("episode {}: discarded", take.index)
        self._notify()
        if was_on:
            self._over()
        return take

    def broken_off(self, why: str) -> None:
        """A person has stopped the arm: what is on ends here, whole, as a failure unless it is labelled.

        It may still be labelled anew, or discarded.
        """
        self.notice()
        if self.on is None:
            return
        with said():
            if self.on.label == "none":
                self.label("failure")
            self.stop(reason=why)

    def settle(self) -> None:
        """The last episode stays as it is."""
        self.recorder.seal()
        self._notify()

    def quit(self) -> None:
        """End the run; what is on is kept."""
        self.quitting = True
        self._notify()

    # --- what is so

    @property
    def recording(self) -> bool:
        """Whether an episode is on."""
        return self.recorder.take is not None

    @property
    def on(self) -> Take | None:
        """The episode that is on."""
        return self.recorder.take

    @property
    def recorded(self) -> int:
        """Kept so far; not one of which nothing could be written, which may turn out after its end."""
        return sum(not take.draft.empty for take in self._takes())

    @property
    def lost(self) -> int:
        """The newest ones in a row of which nothing could be written."""
        return sum(1 for _ in itertools.takewhile(lambda take: take.draft.empty, reversed(self._takes())))

    def _takes(self) -> list[Take]:
        return [take for take in self._kept if not take.discarded]

    @property
    def made(self) -> str:
        """What is done with episodes, in a word."""
        return "made" if self._unrecorded else "recorded"

    @property
    def finished(self) -> bool:
        """Whether as many as wanted are recorded."""
        return 0 < self.options.episodes <= self.recorded

    @property
    def done(self) -> bool:
        """Whether there is nothing left to record, label or discard."""
        return self.quitting or (self.finished and self.recorder.last is None)

    @property
    def blocked(self) -> str:
        """Why none can be recorded at present, or the last one was ended early; empty otherwise."""
        return self.recorder.trouble or self.recorder.stopped_early

    def notice(self) -> None:
        """See to an episode that the recorder ended by itself, because the disk is full."""
        if self._on is not None and self._on.end_ns is not None:
            self._keep(self._on)

    def status(self) -> EpisodeStatus:
        """For a person."""
        recorder = self.recorder
        take = recorder.take
        shown = take or recorder.last
        elapsed = 0.0 if take is None else (self._now_ns() - take.start_ns) / 1e9
        return EpisodeStatus(
            self._state(),
            self._next if shown is None else shown.index,
            round(elapsed, 2),
            self.recorded,
            self.options.episodes,
            self.task if take is None else take.task,
            self._last_label,
            self.blocked,
            self.made,
        )

    def _state(self) -> str:
        if self.recording:
            return "recording"
        if self.recorder.last is not None:
            return "review"
        if self.finished:
            return "done"
        return "blocked" if self.recorder.trouble else "ready"

    async def changed(self) -> None:
        """Wait until something is asked for."""
        await self._changed.wait()

    def _keep(self, take: Take) -> None:
        self._on = None
        self._next = take.index + 1
        self._last_label = take.label
        self._kept.append(take)
        if take.draft.empty:
            logger.error("episode {} is not recorded: {}", take.index, take.draft.failed)
        else:
            logger.info("episode {}: {:.1f} s, {}", take.index, take.duration_s, take.label)
        self._notify()
        self._over()

    def _over(self) -> None:
        for tell in self.ended:
            tell()
        self._on_end()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    def summary(self) -> dict[str, Any]:
        """For ``summary.json``."""
        return {
            "folder": str(self.recorder.folder),
            "recorded": self.recorded,
            "discarded": self.discarded,
            "episodes": self.recorder.reports,
        }


@contextlib.contextmanager
def said() -> Iterator[None]:
    """What cannot be done is said, and that is all."""
    try:
        yield
    except EpisodeError as error:
        logger.error("{}", error)
