"""Runs an export: looks at every episode, resamples and writes them in parallel, puts the result in place."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from dexrun.export import target
from dexrun.export.errors import ExportError
from dexrun.export.options import ExportOptions
from dexrun.export.recordings import EpisodeRef, check_alike, describe, episode_files
from dexrun.export.sampled import Sampled, SensorReport, sample
from dexrun.export.workers import Workers, count


@dataclass(frozen=True, slots=True)
class Slot:
    """An episode's place in the data set.

    Attributes:
        number: of the episode in this export, from 0. start: rows of this export before it.
        length: its rows.
    """

    ref: EpisodeRef
    number: int
    start: int
    length: int
    reports: Mapping[str, SensorReport]

    @property
    def largest_error_s(self) -> float:
        return max((report.largest_error_s for report in self.reports.values()), default=0.0)


@dataclass(frozen=True, slots=True)
class ExportPlan:
    """What is exported, into `folder` (for formats that are one file, to ``folder / target.RESULT``)."""

    slots: tuple[Slot, ...]
    options: ExportOptions
    folder: Path
    append: bool = False

    @property
    def rows(self) -> int:
        return sum(slot.length for slot in self.slots)


class Format(Protocol):
    """How a data set of one kind is written. Crosses to worker processes.

    Attributes:
        file: whether the data set is one file. appends: whether it can grow.
    """

    name: str
    file: bool
    appends: bool

    def tasks(self, ref: EpisodeRef, options: ExportOptions) -> tuple[str, ...]:
        """What can be done for an episode independently; with a colon where it reads a stream of images.

        Raises:
            ExportError: the episode cannot be exported.
        """

    def start(self, plan: ExportPlan) -> Any:
        """Prepare `plan.folder`, before any work; what it returns is given to `work`."""

    def work(self, task: str, sampled: Sampled, slot: Slot, plan: ExportPlan, prepared: Any) -> Any:
        """Do `task` of one episode, in any process."""

    def finish(self, plan: ExportPlan, prepared: Any, results: Sequence[Mapping[str, Any]]) -> None:
        """Complete the data set from what `work` returned, by episode and task."""


@dataclass
class ExportResult:
    """What became of an export.

    Attributes:
        slots: episodes that are in the data set. skipped: names of those that are not, and why.
    """

    target: Path
    slots: tuple[Slot, ...] = ()
    skipped: dict[str, str] = field(default_factory=dict)


def report_of(plan: ExportPlan, first: int = 0) -> dict[str, Any]:
    """Where every episode came from, the first being number `first`, and how well its sensors fit."""
    slots = plan.slots
    return {
        "action": plan.options.action,
        "latency_s": slots[0].ref.shape.latencies(plan.options),
        "episodes": [
            {
                "episode": first + slot.number,
                "source": slot.ref.name,
                "task": slot.ref.task,
                "label": slot.ref.label,
                "rows": slot.length,
                "repaired": slot.ref.repaired,
                "dropped_while_recording": dict(slot.ref.drops),
                "sensors": {name: report.as_json() for name, report in slot.reports.items()},
            }
            for slot in slots
        ],
        "largest_stamp_error_s": max((slot.largest_error_s for slot in slots), default=0.0),
        "gaps": sum(len(report.gaps) for slot in slots for report in slot.reports.values()),
    }


class Progress(Protocol):
    """Told how far an export is, in images."""

    def stage(self, title: str, total: int) -> None: ...

    def at(self, done: int) -> None: ...


class Silent:
    """Tells nobody."""

    def stage(self, title: str, total: int) -> None:
        """Nothing."""

    def at(self, done: int) -> None:
        """Nothing."""


def export(
    runs: Sequence[Path],
    kind: Format,
    to: Path,
    options: ExportOptions,
    *,
    append: bool = False,
    progress: Progress | None = None,
) -> ExportResult:
    """Export `runs` as a data set at `to`, whole or not at all.

    Raises:
        ExportError: something cannot be exported; one line.
    """
    if append and not kind.appends:
        raise ExportError(f"{kind.name} data sets cannot be appended to; export all runs at once")
    target.check(to, file=kind.file, append=append)
    outcome, shown = ExportResult(to), progress or Silent()
    with contextlib.ExitStack() as stack:
        stack.enter_context(_told_in_one_line(to))
        refs = _choose(runs, options, outcome)
        _check(refs, kind, options)
        draft = stack.enter_context(target.building(to, file=kind.file, append=append))
        with _closing(), Workers(options.jobs) as workers:
            plan = _survey(refs, options, draft, workers, shown, outcome)
            plan = replace(plan, append=append)
            prepared = kind.start(plan)
            results = _write(kind, plan, prepared, workers, shown)
        kind.finish(plan, prepared, results)
    outcome.slots = plan.slots
    return outcome


def _check(refs: Sequence[EpisodeRef], kind: Format, options: ExportOptions) -> None:
    check_alike(refs)
    refs[0].shape.latencies(options)
    for ref in refs:
        kind.tasks(ref, options)


def _choose(runs: Sequence[Path], options: ExportOptions, outcome: ExportResult) -> list[EpisodeRef]:
    refs = []
    for path in episode_files(runs):
        ref = describe(path)
        if ref is None:
            outcome.skipped[str(path)] = "discarded"
        elif options.labels and ref.label not in options.labels:
            outcome.skipped[ref.name] = f"label is {ref.label}"
        else:
            refs.append(ref)
    return _some(refs, outcome)


def _some(refs: list[Any], outcome: ExportResult) -> list[Any]:
    if not refs:
        why = "; ".join(f"{name}: {reason}" for name, reason in outcome.skipped.items())
        raise ExportError(f"no episode is left to export ({why})", usage=False)
    return refs


def _survey(
    refs: Sequence[EpisodeRef],
    options: ExportOptions,
    draft: Path,
    workers: Workers,
    progress: Progress,
    outcome: ExportResult,
) -> ExportPlan:
    """How many rows each episode has, and which fit badly."""
    progress.stage("looking", len(refs))
    surveyed = workers.map(_look, [(ref, options) for ref in refs], lambda done, images: progress.at(done))
    kept: list[Slot] = []
    for ref, (length, reports) in zip(refs, surveyed, strict=True):
        slot = Slot(ref, len(kept), sum(s.length for s in kept), length, reports)
        limit = options.max_stamp_error_s
        if limit and slot.largest_error_s > limit:
            outcome.skipped[ref.name] = f"a stamp error of {slot.largest_error_s:.3f} s is over {limit} s"
        else:
            kept.append(slot)
    return ExportPlan(tuple(_some(kept, outcome)), options, draft)


def _write(
    kind: Format, plan: ExportPlan, prepared: Any, workers: Workers, progress: Progress
) -> list[dict[str, Any]]:
    todo = [(slot, task) for slot in plan.slots for task in kind.tasks(slot.ref, plan.options)]
    images = sum(slot.length for slot, task in todo if ":" in task)
    progress.stage("writing", images or len(todo))
    calls = [(kind, task, slot, plan, prepared) for slot, task in todo]
    done = workers.map(_work, calls, lambda tasks, seen: progress.at(seen if images else tasks))
    results: list[dict[str, Any]] = [{} for _ in plan.slots]
    for (slot, task), result in zip(todo, done, strict=True):
        results[slot.number][task] = result
    return results


# --- in a worker's process

_opened: list[tuple[EpisodeRef, ExportOptions, Sampled]] = []


def _sampled(ref: EpisodeRef, options: ExportOptions) -> Sampled:
    """The episode; the last one is kept, since tasks of an episode follow each other."""
    if _opened and _opened[0][:2] == (ref, options):
        return _opened[0][2]
    _close()
    sampled = replace(sample(ref, options), progress=count)
    _opened.append((ref, options, sampled))
    return sampled


def _close() -> None:
    while _opened:
        _opened.pop()[2].recording.close()


@contextlib.contextmanager
def _closing() -> Iterator[None]:
    try:
        yield
    finally:
        _close()


def _look(ref: EpisodeRef, options: ExportOptions) -> tuple[int, Mapping[str, SensorReport]]:
    sampled = _sampled(ref, options)
    return len(sampled), sampled.reports


def _work(kind: Format, task: str, slot: Slot, plan: ExportPlan, prepared: Any) -> Any:
    return kind.work(task, _sampled(slot.ref, plan.options), slot, plan, prepared)


@contextlib.contextmanager
def _told_in_one_line(to: Path) -> Iterator[None]:
    """What goes wrong while reading and writing, as one line."""
    from concurrent.futures.process import BrokenProcessPool

    from runtime.recording.reader import RecordingError

    try:
        yield
    except RecordingError as error:
        raise ExportError(str(error)) from None
    except BrokenProcessPool:
        raise ExportError(
            "a worker process was ended from outside; nothing was exported", usage=False
        ) from None
    except OSError as error:
        raise ExportError(_explain(error, to), usage=False) from None


def _explain(error: OSError, to: Path) -> str:
    text = " ".join(str(error).split())
    if error.errno == errno.ENOSPC or "No space left" in text:
        return f"{to}: the disk is full; nothing was exported"
    if error.errno == errno.EDQUOT:
        return f"{to}: the disk quota is used up; nothing was exported"
    return f"{to}: cannot be written: {text}; nothing was exported"
