"""Episodes that are driven, counted and labelled, and of which nothing is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from runtime.clock import Clock
from runtime.recording.disk import Draft
from runtime.recording.recorder import EpisodeError, known_label
from runtime.recording.takes import Take


class Keeper(Protocol):
    """What `dexrun.episodes.episodes.Episodes` needs: a recorder, or `Unrecorded`.

    Its methods are those of `runtime.recording.recorder.Recorder`, and raise what they raise.
    """

    folder: Path

    @property
    def take(self) -> Take | None: ...

    @property
    def last(self) -> Take | None: ...

    @property
    def trouble(self) -> str: ...

    @property
    def stopped_early(self) -> str: ...

    @property
    def reports(self) -> list[dict[str, Any]]: ...

    def begin(self, index: int, task: str) -> Take: ...

    def end(self, label: str | None = None, reason: str = "") -> Take: ...

    def label(self, label: str) -> Take: ...

    def discard(self, reason: str = "") -> Take: ...

    def seal(self) -> None: ...

    def event(self, kind: str, **values: Any) -> None: ...


class Unrecorded:
    """In a recorder's place where nothing is recorded: the same order of things, and no file.

    Attributes:
        folder: where nothing is.
    """

    def __init__(self, clock: Clock) -> None:
        self.folder = Path()
        self.trouble = self.stopped_early = ""
        self._clock = clock
        self._take: Take | None = None
        self._kept: list[Take] = []

    @property
    def take(self) -> Take | None:
        """The episode that is on."""
        return self._take if self._take is not None and self._take.end_ns is None else None

    @property
    def last(self) -> Take | None:
        """The episode before, as long as it may be labelled or discarded."""
        take = self._take
        return take if take is not None and take.end_ns is not None and not take.sealed else None

    @property
    def reports(self) -> list[dict[str, Any]]:
        """What became of each episode that was not discarded, in order."""
        return [{**take.report(), "state": "unrecorded"} for take in self._kept if not take.discarded]

    def begin(self, index: int, task: str) -> Take:
        """Begin episode `index`; the one before stays as it is."""
        if self.take is not None:
            raise EpisodeError(f"episode {self.take.index} is on already")
        self.seal()
        take = self._take = Take(index, task, self._clock.now_ns(), Draft(self.folder, ()), (), 0, 0)
        self._kept.append(take)
        return take

    def end(self, label: str | None = None, reason: str = "") -> Take:
        """End it; with a `label` it is sealed, too."""
        known_label(label)
        take = self.take
        if take is None:
            raise EpisodeError("no episode is on")
        take.label, take.reason, take.end_ns = label or take.label, reason, self._clock.now_ns()
        take.sealed = label is not None
        return take

    def label(self, label: str) -> Take:
        """Say how the episode that is on, or the one just ended, went; the latter is sealed."""
        known_label(label)
        take = self.take or self.last
        if take is None:
            raise EpisodeError("there is no episode left that could be labelled")
        take.label, take.sealed = label, take.end_ns is not None
        return take

    def discard(self, reason: str = "") -> Take:
        """Do as if the episode that is on, or the one just ended, had not been."""
        take = self.take or self.last
        if take is None:
            raise EpisodeError("there is no episode left that could be discarded")
        take.discarded, take.sealed, take.reason = True, True, reason
        take.end_ns = take.end_ns if take.end_ns is not None else self._clock.now_ns()
        return take

    def seal(self) -> None:
        """The last episode stays as it is."""
        if self.last is not None:
            self.last.sealed = True

    def event(self, kind: str, **values: Any) -> None:
        """Nobody writes it down."""
