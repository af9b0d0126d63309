"""Drop, keep, split, merge, trim, relabel: what becomes of which episodes, and where the result appears."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from dexrun.curation.journal import entries, held, replaced, undo
from dexrun.curation.links import lasting
from dexrun.curation.pieces import Excerpt, alike, assemble, chosen, pieces_of, relabelled
from dexrun.exit_codes import OK
from dexrun.export import target
from dexrun.printing import say
from policies.data.dataset import DatasetError
from policies.data.opened import OpenDataset
from policies.data.opening import open_dataset
from policies.data.splitting import held_back
from runtime.recording.mcap_file import OPEN_SUFFIX

_LONGEST_S = 1e6
Change = Callable[[OpenDataset], list[Excerpt]]


def drop(arguments: argparse.Namespace) -> int:
    """Leave the chosen episodes out."""

    def change(dataset: OpenDataset) -> list[Excerpt]:
        gone = set(_chosen(dataset, arguments))
        return [piece for number, piece in enumerate(pieces_of(dataset)) if number not in gone]

    return _edit(arguments, change)


def keep(arguments: argparse.Namespace) -> int:
    """Leave all others out; in the order that was given."""

    def change(dataset: OpenDataset) -> list[Excerpt]:
        every = pieces_of(dataset)
        return [every[number] for number in _chosen(dataset, arguments)]

    return _edit(arguments, change)


def trim(arguments: argparse.Namespace) -> int:
    """Cut the chosen episodes."""

    def change(dataset: OpenDataset) -> list[Excerpt]:
        cut = set(_chosen(dataset, arguments))
        return [_cut(p, arguments) if n in cut else p for n, p in enumerate(pieces_of(dataset))]

    return _edit(arguments, change)


def _cut(piece: Excerpt, arguments: argparse.Namespace) -> Excerpt:
    rate = piece.source.rate_hz
    for key, value in (("--begin-s", arguments.begin_s), ("--end-s", arguments.end_s or 0.0)):
        if not abs(value) <= _LONGEST_S:
            raise DatasetError(f"{key} {value:g}: expected seconds of an episode")
    first = round(arguments.begin_s * rate)
    end = piece.length if arguments.end_s is None else min(piece.length, round(arguments.end_s * rate))
    if not 0 <= first < end:
        raise DatasetError(
            f"{piece.episode.name} has {piece.length / rate:.2f} s; nothing is left from "
            f"{arguments.begin_s:g} s to {end / rate:g} s"
        )
    return replace(piece, first=first, end=end)


def relabel(arguments: argparse.Namespace) -> int:
    """Give the chosen episodes another task or label."""
    if arguments.task is None and arguments.label is None:
        raise DatasetError("relabel to what? give --task TEXT or --label success|failure|none")

    def change(dataset: OpenDataset) -> list[Excerpt]:
        meant = set(_chosen(dataset, arguments))
        return [
            relabelled(piece, arguments.task, arguments.label) if number in meant else piece
            for number, piece in enumerate(pieces_of(dataset))
        ]

    return _edit(arguments, change)


def split(arguments: argparse.Namespace) -> int:
    """Two data sets."""
    if not 0 < arguments.share < 1:
        raise DatasetError(f"--share {arguments.share:g}: expected more than 0 and less than 1")
    dataset = _opened(arguments.path)
    if len(dataset.episodes) < 2:
        raise DatasetError(f"{arguments.path}: a single episode is not split")
    for to in (arguments.to, arguments.rest):
        _clear(to, [dataset])
    if arguments.to.resolve() == arguments.rest.resolve():
        raise DatasetError(f"{arguments.to}: --to and --rest are the same; two data sets need two places")
    away = held_back(len(dataset.episodes), arguments.share, arguments.seed)
    every = pieces_of(dataset)
    for to, wanted in ((arguments.to, False), (arguments.rest, True)):
        _new([piece for piece, gone in zip(every, away.tolist(), strict=True) if gone == wanted], to)
    return OK


def merge(arguments: argparse.Namespace) -> int:
    """One data set of several."""
    places = [path.resolve() / "episodes" for path in arguments.paths]
    for path, place in zip(arguments.paths, places, strict=True):
        # A run that another was gone on with has the same episodes, by a link.
        if sum(place.resolve() == other.resolve() for other in places) > 1:
            raise DatasetError(f"{path}: is given twice, or goes on with another of them; give it once")
    datasets = [_opened(path) for path in arguments.paths]
    _clear(arguments.to, datasets)
    alike(datasets)
    _new([piece for dataset in datasets for piece in pieces_of(dataset)], arguments.to)
    return OK


def undo_last(arguments: argparse.Namespace) -> int:
    """Take back the last edit."""
    with held(arguments.path) as path:
        what, kept = undo(path)
        left = len(entries(path))
    if kept is not None:
        say(f"{path}: had been changed since that edit; what was there is now {kept}\n")
    say(f"{arguments.path}: taken back: {what}; {left} earlier edits can be\n")
    return OK


def _chosen(dataset: OpenDataset, arguments: argparse.Namespace) -> list[int]:
    return chosen(dataset, arguments.episodes, arguments.labels, arguments.task_is)


def _opened(path: Path) -> OpenDataset:
    dataset = open_dataset(path)
    if dataset.left_out:
        why = "; ".join(f"{name}: {reason}" for name, reason in list(dataset.left_out.items())[:3])
        say(f"{path}: {len(dataset.left_out)} episodes cannot be used and are left out: {why}\n")
    return dataset


def _edit(arguments: argparse.Namespace, change: Change) -> int:
    if arguments.to is not None:
        dataset = _opened(arguments.path)
        _clear(arguments.to, [dataset])
        _new(change(dataset), arguments.to)
        return OK
    with held(arguments.path) as path:
        dataset = _opened(path)
        _whole(dataset, path)
        pieces = change(dataset)
        replaced(path, _command(arguments), lambda draft: assemble(pieces, draft))
        dataset.close()
    say(f"{arguments.path}: {len(pieces)} episodes; dexrun data undo {arguments.path} takes it back\n")
    return OK


def _whole(dataset: OpenDataset, path: Path) -> None:
    """Whether the data set is what is at `path`, and nothing besides.

    Raises:
        DatasetError: it is not; --to would do.
    """
    if path.is_file() and dataset.format != "umi-zarr" and dataset.format != "dexgrasp-zarr":
        raise DatasetError(f"{path}: is one episode of a data set; give the folder, or --to")
    if dataset.format == "mcap" and not any((*path.glob("episodes/*.mcap"), *path.glob("*.mcap"))):
        raise DatasetError(f"{path}: holds several runs; name one, or give --to for one data set of all")
    if dataset.format == "mcap":
        _own_and_finished(path)


def _own_and_finished(path: Path) -> None:
    """Whether a run's episodes are its own, and all finished.

    Raises:
        DatasetError: they are another run's, which would stay as it is; or one was not finished when the run
            died, and would be gone before it is mended.
    """
    own = path / "episodes"
    if own.is_symlink():
        raise DatasetError(
            f"{path}: its episodes are those of {own.resolve().parent}; edit that, or give --to"
        )
    if drafts := sorted((own if own.is_dir() else path).glob(f"*.mcap{OPEN_SUFFIX}")):
        raise DatasetError(
            f"{drafts[0]}: was not finished, and is mended at the start of the next run; edit after that, or "
            "give --to"
        )


def _command(arguments: argparse.Namespace) -> str:
    given = {key: value for key, value in vars(arguments).items() if value not in (None, "", 0.0)}
    command, path = given.pop("command"), given.pop("path")
    options = [f"--{key.replace('_', '-')} {shlex.quote(str(value))}" for key, value in given.items()]
    return f"dexrun data {command} {path} {' '.join(options)}".strip()


def _clear(to: Path, sources: Sequence[OpenDataset]) -> None:
    """See that a data set can appear at `to`.

    Raises:
        DatasetError: something is there, or it is within what it would be made of.
    """
    target.check(to, file=_as_file(sources[0]), append=False)
    for source in sources:
        if to.resolve().is_relative_to(source.path.resolve()):
            raise DatasetError(f"{to}: is inside {source.path}; give a place outside of it")


def _as_file(source: OpenDataset) -> bool:
    """Whether what is made of it is one file, as it is."""
    return source.path.is_file() and source.format.endswith("-zarr")


def _new(pieces: list[Excerpt], to: Path) -> None:
    """Put the pieces together at `to`, whole or not at all."""
    if not pieces:
        raise DatasetError("nothing would be left of the data set")
    as_file = _as_file(pieces[0].source)
    with target.building(to, file=as_file) as draft:
        made = draft / "whole"
        assemble(pieces, made)
        lasting(draft)
        if as_file:
            made.rename(draft / target.RESULT)
        else:
            for entry in made.iterdir():
                entry.rename(draft / entry.name)
            made.rmdir()
    say(f"{to}: {len(pieces)} episodes\n")
