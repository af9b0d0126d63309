"""Which episodes are exported, and why the others are not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol, TypeVar

from dexrun.export.errors import ExportError
from dexrun.export.options import ExportOptions
from policies.data.dataset import DatasetError
from policies.data.piloted import marked_alike
from policies.data.recorded import (
    DatasetShape,
    EpisodeRef,
    check_alike,
    describe,
    episode_files,
    name_of,
    open_episode,
)
from policies.data.tips import first_tip
from runtime.recording.bounds import RecordingError
from runtime.tip import with_tip

UNLESS_ASKED = ("success", "none")
"""Labels of the episodes that are exported where nobody says which: not those that failed."""
_REASONS = 5

_Kept = TypeVar("_Kept")


class FormatContent(Protocol):
    """What of an episode a data set of one kind holds.

    Attributes:
        force: whether it holds the force sensor's samples.
    """

    name: str
    force: bool

    def cameras(self, shape: DatasetShape, options: ExportOptions) -> Sequence[str]:
        """Whose pictures it holds."""

    def depth(self, options: ExportOptions) -> bool:
        """Whether it holds depth."""

    def tasks(self, ref: EpisodeRef, options: ExportOptions) -> tuple[str, ...]:
        """What can be done for an episode independently; with a colon where it reads a stream of images.

        Raises:
            ExportError: the episode cannot be exported.
        """


@dataclass
class LeftOut:
    """Episodes that are not exported.

    Attributes:
        skipped: by name, why. refused: those that cannot be.
    """

    skipped: dict[str, str] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)

    def refuse(self, name: str, why: str) -> None:
        """An episode that cannot be exported."""
        self.skipped[name] = why
        self.refused.append(name)

    def others(self, kept: list[_Kept]) -> list[_Kept]:
        """`kept`, unless nothing is.

        Raises:
            ExportError: why; it is what was asked for that is at fault if an episode could not be exported.
        """
        if not kept:
            reasons = list(self.skipped.items())
            if self.refused and len(set(self.skipped.values())) == 1:  # of all alike, such as an option
                raise ExportError(reasons[0][1])
            why = "; ".join(f"{name}: {reason}" for name, reason in reasons[:_REASONS])
            more = f"; and {len(reasons) - _REASONS} more" if len(reasons) > _REASONS else ""
            raise ExportError(f"no episode is left to export ({why}{more})", usage=bool(self.refused))
        return kept


def choose(
    runs: Sequence[Path], kind: FormatContent, options: ExportOptions, left_out: LeftOut
) -> list[EpisodeRef]:
    """The episodes that can be exported, all of one shape. One that cannot costs itself alone.

    Raises:
        ExportError: none can, or they are of different robots.
    """
    refs = []
    for path in episode_files(runs):
        try:
            ref = _described(path, kind, options, left_out)
        except (DatasetError, RecordingError) as error:
            left_out.refuse(name_of(path), str(error))
            continue
        if ref is not None:
            refs.append(ref)
    check_alike(left_out.others(refs))
    return marked_alike(refs)


def _described(
    path: Path, kind: FormatContent, options: ExportOptions, left_out: LeftOut
) -> EpisodeRef | None:
    ref = describe(path, options.cameras)
    if ref is None:
        left_out.skipped[name_of(path)] = "discarded"
        return None
    if ref.label not in (options.labels or UNLESS_ASKED):
        asked = "" if options.labels else "; --labels success,none,failure takes all"
        left_out.skipped[ref.name] = f"label is {ref.label}{asked}"
        return None
    shape = ref.shape.exported(kind.cameras(ref.shape, options), depth=kind.depth(options), force=kind.force)
    _nothing_lost(ref, kind, options)
    ref = replace(ref, shape=shape)
    shape.latencies(options)
    kind.tasks(ref, options)
    return ref if options.tip == "none" else _hinted(ref, kind, options)


def _hinted(ref: EpisodeRef, kind: FormatContent, options: ExportOptions) -> EpisodeRef:
    """`ref`, which knows where its object is, with the hint after its task if that is asked for."""
    if options.tip != "task" and not kind.name.startswith("lerobot"):
        raise ExportError(f"tip = {options.tip!r}: {kind.name} has none; --tip task says it in words")
    with open_episode(ref.path) as episode:
        first = first_tip(episode, ref.shape.cameras)
    if first is None:
        raise ExportError(
            f"{ref.path}: it is not known where its object is: no tracked mask in an exported camera with "
            "depth and calibrated to the arm; --tip none exports without"
        )
    return ref if options.tip == "feature" else replace(ref, task=with_tip(ref.task, first))


def _nothing_lost(ref: EpisodeRef, kind: FormatContent, options: ExportOptions) -> None:
    for name in ref.missing:
        if (name == "force" and not kind.force) or (name != "force" and options.cameras):
            continue  # not exported, or asked for by name and refused there
        hint = "" if name == "force" else "; --cameras names those to export"
        raise ExportError(f"{ref.path}: there is not one sample of {name}{hint}")
