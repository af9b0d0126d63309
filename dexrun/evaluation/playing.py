"""Plays the scenes that are missing, one after the other or side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from multiprocessing import get_context

from dexrun.config.sources import ConfigError
from dexrun.evaluation.asked import Evaluation
from dexrun.evaluation.results import ResultFile, SceneResult
from dexrun.evaluation.scenes import SceneTask, play_run

Play = Callable[[SceneTask], SceneResult]
Submit = Callable[[SceneTask], "Future[SceneResult]"]
Tell = Callable[[SceneResult], None]


def tasks_of(asked: Evaluation, file: ResultFile) -> list[SceneTask]:
    """What has no result yet, scene by scene, so that an evaluation that is cut off compares as it stands."""
    clock = "real" if asked.engine == "real" else "stepped"
    return [
        SceneTask(candidate, seed, asked.words, file.folder.absolute(), clock, asked.keep)
        for seed in asked.seeds
        for candidate in asked.candidates
        if (candidate.name, seed) not in file.results
    ]


def play_all(asked: Evaluation, file: ResultFile, tell: Tell) -> None:
    """Play what is missing and keep each result at once.

    Raises:
        ConfigError: the engine is not installed, or does not start.
    """
    for result in _played(asked, tasks_of(asked, file)):
        file.add(result)
        tell(result)


def _played(asked: Evaluation, tasks: list[SceneTask]) -> Iterator[SceneResult]:
    if asked.engine == "ray":
        return _on_ray(tasks)
    if asked.engine == "fast":
        from dexrun.evaluation.fast import play_fast

        return _side_by_side(play_fast, tasks, asked.jobs, processes=True)
    return _side_by_side(play_run, tasks, asked.jobs, processes=False)


def _side_by_side(play: Play, tasks: list[SceneTask], jobs: int, *, processes: bool) -> Iterator[SceneResult]:
    if jobs == 1:
        yield from map(play, tasks)
        return
    # a run is a process already; the fast table is played in processes of its own
    pool = ProcessPoolExecutor(jobs, get_context("spawn")) if processes else ThreadPoolExecutor(jobs)
    with pool:
        yield from _as_they_come(tasks, jobs, lambda task: pool.submit(play, task))


def _as_they_come(tasks: Iterable[SceneTask], jobs: int, submit: Submit) -> Iterator[SceneResult]:
    running: set[Future[SceneResult]] = set()
    for task in tasks:
        running.add(submit(task))
        if len(running) < jobs:
            continue
        done, running = wait(running, return_when=FIRST_COMPLETED)
        yield from (each.result() for each in done)
    yield from (each.result() for each in running)


def _on_ray(tasks: list[SceneTask]) -> Iterator[SceneResult]:
    """On every machine of the cluster that is there, or on this one's processors."""
    try:
        import ray
    except ImportError:
        raise ConfigError("--engine ray needs the package ray: pip install 'dexrun[ray]'") from None
    started = not ray.is_initialized()
    if started:
        try:
            ray.init(log_to_driver=False)
        except Exception as error:  # Ray says with a plain one that its node did not come up
            reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
            raise ConfigError(f"--engine ray: Ray did not start: {reason:.300}") from None
    try:
        play = ray.remote(num_cpus=1)(play_run)
        waiting = [play.remote(task) for task in tasks]
        while waiting:
            done, waiting = ray.wait(waiting)
            yield from ray.get(done)
    finally:
        if started:
            ray.shutdown()
