"""Scenes side by side: each process has a table of its own, and files appear whole or not at all."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

from dexrun.collecting.scenes import Collected, CollectOptions, Collector, objects_in, scene_of
from dexrun.config.settings import Settings
from runtime.recording.mcap_file import OPEN_SUFFIX
from runtime.recording.reader import Episode
from runtime.recording.recorder import file_name

_collector: Collector | None = None


@dataclass(frozen=True, slots=True)
class SceneJob:
    """A scene's seed, the number of its first episode, and how many it may give."""

    seed: int
    first: int
    objects: int


@dataclass
class Harvest:
    """What was collected so far.

    Attributes:
        found: by episode number. kept: how many of them were there before.
    """

    found: dict[int, Collected] = field(default_factory=dict)
    kept: int = 0

    @property
    def successes(self) -> int:
        """Labelled so by the judge."""
        return sum(each.label == "success" for each in self.found.values())


def scenes_from(settings: Settings, options: CollectOptions, seed: int) -> Iterator[SceneJob]:
    """Seeds from `seed` on; every object of a scene is one episode, numbered through."""
    first = 0
    while True:
        objects = objects_in(scene_of(settings.world, seed, options))
        yield SceneJob(seed, first, objects)
        seed, first = seed + 1, first + objects


def collect(
    settings: Settings,
    options: CollectOptions,
    folder: Path,
    episodes: int,
    seed: int,
    jobs: int,
    tell: Callable[[Harvest], None],
) -> Harvest:
    """`episodes` demonstrations in `folder`; those that are there already are left, as far as they are whole.

    Raises:
        OSError: one cannot be written.
    """
    harvest = Harvest()
    with contextlib.ExitStack() as stack:
        pool: ProcessPoolExecutor | None = None
        if jobs > 1:
            context = multiprocessing.get_context("spawn")
            pool = ProcessPoolExecutor(jobs, context, _begin, (settings, options))
            stack.callback(pool.shutdown, cancel_futures=True)
        else:
            _begin(settings, options, watch=False)
        under_way: set[Future[list[Collected]]] = set()
        for scene in scenes_from(settings, options, seed):
            promised = len(harvest.found) + sum(getattr(each, "objects", 0) for each in under_way)
            while under_way and (promised >= episodes or len(under_way) > 2 * jobs):
                under_way = _taken(under_way, harvest, tell)
                promised = len(harvest.found) + sum(getattr(each, "objects", 0) for each in under_way)
            if len(harvest.found) >= episodes:
                break
            there = whole_episodes(folder, scene)
            if there is not None:
                harvest.kept += len(there)
                _found(there, harvest, tell)
            elif pool is None:
                _found(_scene(scene, folder), harvest, tell)
            else:
                future = pool.submit(_scene, scene, folder)
                future.objects = scene.objects  # type: ignore[attr-defined]
                under_way.add(future)
    _drop_surplus(folder, harvest, episodes)
    return harvest


def _taken(
    under_way: set[Future[list[Collected]]], harvest: Harvest, tell: Callable[[Harvest], None]
) -> set[Future[list[Collected]]]:
    done, rest = wait(under_way, return_when=FIRST_COMPLETED)
    for future in done:
        _found(future.result(), harvest, tell)
    return set(rest)


def _found(found: list[Collected], harvest: Harvest, tell: Callable[[Harvest], None]) -> None:
    harvest.found.update({each.index: each for each in found})
    tell(harvest)


def whole_episodes(folder: Path, scene: SceneJob) -> list[Collected] | None:
    """What is there of a scene already, if its last episode is: then all that it gives were written."""
    last = folder / file_name(scene.first + scene.objects - 1)
    if not last.exists():
        return None
    numbers = range(scene.first, scene.first + scene.objects)
    return [_there(folder / file_name(n), n, scene.seed) for n in numbers if (folder / file_name(n)).exists()]


def _there(path: Path, number: int, seed: int) -> Collected:
    with Episode(path) as episode:
        return Collected(number, seed, episode.label, episode.topics.get("/ticks", 0), episode.duration_s)


def _drop_surplus(folder: Path, harvest: Harvest, episodes: int) -> None:
    """The last scene may have had more objects than were wanted."""
    for number in sorted(harvest.found)[episodes:]:
        (folder / file_name(number)).unlink(missing_ok=True)
        del harvest.found[number]


def clean(folder: Path) -> int:
    """Remove what a killed run left half written; returns how many files."""
    drafts = list(folder.glob(f"*.mcap{OPEN_SUFFIX}"))
    for draft in drafts:
        draft.unlink(missing_ok=True)
    return len(drafts)


# --- in a process of its own


def _begin(settings: Settings, options: CollectOptions, *, watch: bool = True) -> None:
    global _collector
    parent = multiprocessing.parent_process()
    if watch and parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    _collector = Collector(settings, options)


def _end_with(parent: multiprocessing.process.BaseProcess) -> None:
    """A pool's process waits for work for ever, whether or not anybody is left to give it any."""
    parent.join()
    os._exit(1)


def _scene(scene: SceneJob, folder: Path) -> list[Collected]:
    assert _collector is not None  # noqa: S101 - `_begin` made it
    return _collector.scene(scene.seed, scene.first, folder)
