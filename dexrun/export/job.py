"""Runs an export: looks at every episode, resamples and writes them in parallel, puts the result in place."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from dexrun.export import target
from dexrun.export.choosing import FormatContent, LeftOut, choose
from dexrun.export.errors import BadEpisodeError, ExportError
from dexrun.export.options import ExportOptions
from dexrun.export.workers import Workers, count
from policies.data.dataset import DatasetError
from policies.data.recorded import EpisodeRef
from policies.data.sampled import Sampled, SensorReport, sample
from runtime.messages import Floats
from runtime.recording.bounds import RecordingError


@dataclass(frozen=True, slots=True)
class Slot:
    """An episode's place in the data set.

    Attributes:
        number: of the episode in this export, from 0. start: rows of this export before it.
        length: its rows. moved: between which positions each joint was sent in it, ``[2, D]``.
    """

    ref: EpisodeRef
    number: int
    start: int
    length: int
    reports: Mapping[str, SensorReport]
    moved: Floats

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

    @property
    def action(self) -> str:
        """Which target of the control loop is the action."""
        return self.options.action or self.slots[0].ref.action


class Format(FormatContent, Protocol):
    """How a data set of one kind is written. Crosses to worker processes.

    Attributes:
        file: whether the data set is one file. appends: whether it can grow.
    """

    file: bool
    appends: bool

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
        slots: episodes that are in the data set. left_out: those that are not.
    """

    target: Path
    slots: tuple[Slot, ...] = ()
    left_out: LeftOut = field(default_factory=LeftOut)


def report_of(plan: ExportPlan, first: int = 0) -> dict[str, Any]:
    """Where every episode came from, the first being number `first`, and how well its sensors fit."""
    slots = plan.slots
    told: dict[str, str] = {} if plan.options.tip == "none" else {"tip": plan.options.tip}
    if told and slots[0].ref.masks:
        told["tip_camera"] = slots[0].ref.masks[0]
    return {
        **told,
        "action": plan.action,
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


class _BadEpisodesError(Exception):
    """Some episodes cannot be written."""

    def __init__(self, episodes: Sequence[BadEpisodeError]) -> None:
        super().__init__()
        self.episodes = episodes


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
    with _told_in_one_line(to):
        refs = choose(runs, kind, options, outcome.left_out)
        while not outcome.slots:
            try:
                outcome.slots = _export(refs, kind, to, options, append, shown, outcome.left_out)
            except _BadEpisodesError as error:  # found when they were written: begun again without them
                for bad in error.episodes:
                    outcome.left_out.refuse(bad.episode, str(bad))
                names = outcome.left_out.skipped
                refs = outcome.left_out.others([ref for ref in refs if ref.name not in names])
    return outcome


def _export(
    refs: Sequence[EpisodeRef],
    kind: Format,
    to: Path,
    options: ExportOptions,
    append: bool,
    shown: Progress,
    left_out: LeftOut,
) -> tuple[Slot, ...]:
    with target.building(to, file=kind.file, append=append) as draft:
        with _closing(), Workers(options.jobs) as workers:
            plan = replace(_survey(refs, options, draft, workers, shown, left_out), append=append)
            prepared = kind.start(plan)
            results = _write(kind, plan, prepared, workers, shown)
        kind.finish(plan, prepared, results)
    return plan.slots


def _survey(
    refs: Sequence[EpisodeRef],
    options: ExportOptions,
    draft: Path,
    workers: Workers,
    progress: Progress,
    left_out: LeftOut,
) -> ExportPlan:
    """How many rows each episode has, and which fit badly."""
    progress.stage("looking", len(refs))
    surveyed = workers.map(_look, [(ref, options) for ref in refs], lambda done, images: progress.at(done))
    kept: list[Slot] = []
    for ref, found in zip(refs, surveyed, strict=True):
        if isinstance(found, str):
            left_out.refuse(ref.name, found)
            continue
        length, reports, moved = found
        slot = Slot(ref, len(kept), sum(s.length for s in kept), length, reports, moved)
        if why := _fits_badly(slot, options):
            left_out.skipped[ref.name] = why
        else:
            kept.append(slot)
    return ExportPlan(tuple(left_out.others(kept)), options, draft)


def _fits_badly(slot: Slot, options: ExportOptions) -> str:
    """Why an episode that was asked to fit better is left out; empty if it is not."""
    if options.max_stamp_error_s and slot.largest_error_s > options.max_stamp_error_s:
        return f"a stamp error of {slot.largest_error_s:.3f} s is over {options.max_stamp_error_s:g} s"
    longest = max(((d, r.name, s) for r in slot.reports.values() for s, d in r.gaps), default=(0.0, "", 0.0))
    if options.max_gap_s and longest[0] > options.max_gap_s:
        where = f"{longest[1]}, at {longest[2]:.2f} s"
        return f"a gap of {longest[0]:.2f} s ({where}) is over {options.max_gap_s:g} s"
    return ""


def _write(
    kind: Format, plan: ExportPlan, prepared: Any, workers: Workers, progress: Progress
) -> list[dict[str, Any]]:
    todo = [(slot, task) for slot in plan.slots for task in kind.tasks(slot.ref, plan.options)]
    images = sum(slot.length for slot, task in todo if ":" in task)
    progress.stage("writing", images or len(todo))
    calls = [(kind, task, slot, plan, prepared) for slot, task in todo]
    done = workers.map(_work, calls, lambda tasks, seen: progress.at(seen if images else tasks))
    if bad := {each.episode: each for each in done if isinstance(each, BadEpisodeError)}:
        raise _BadEpisodesError(list(bad.values()))
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


def _look(ref: EpisodeRef, options: ExportOptions) -> tuple[int, Mapping[str, SensorReport], Floats] | str:
    """Rows, reports, and how far each joint moved; or why the episode cannot be exported."""
    try:
        sampled = _sampled(ref, options)
    except (DatasetError, RecordingError) as error:
        return str(error)
    moved = np.stack([sampled.action.min(axis=0), sampled.action.max(axis=0)])
    return len(sampled), sampled.reports, moved


def _work(kind: Format, task: str, slot: Slot, plan: ExportPlan, prepared: Any) -> Any:
    try:
        return kind.work(task, _sampled(slot.ref, plan.options), slot, plan, prepared)
    except RecordingError as error:
        return BadEpisodeError(slot.ref.name, str(error))
    except BadEpisodeError as error:  # told with all others at the end, not one after the other
        return error


@contextlib.contextmanager
def _told_in_one_line(to: Path) -> Iterator[None]:
    """What goes wrong while reading and writing, as one line."""
    from concurrent.futures.process import BrokenProcessPool

    try:
        yield
    except ExportError:
        raise
    except DatasetError as error:
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
    if str(error.filename or "").startswith("/dev/shm"):  # noqa: S108 - only told
        return f"{error.filename}: {error.strerror}; processes need shared memory: --jobs 1 does without"
    return f"{to}: cannot be written: {text}; nothing was exported"
