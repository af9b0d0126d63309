"""The same steps on the machines of a Ray cluster, for thousands of episodes: Ray Data gives them out."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dexrun.annotation.errors import AnnotateError
from dexrun.annotation.inside import annotate_file
from dexrun.annotation.jobs import AnnotationOutcome, Job
from dexrun.annotation.options import AnnotateOptions
from dexrun.annotation.surveying import survey_file
from runtime.recording.bounds import one_line


class EpisodeAnnotator:
    """What each of Ray's workers does with an episode; the recordings are on a disk that they share."""

    def __init__(self, options: Mapping[str, Any], again: bool) -> None:
        self._options = AnnotateOptions.model_validate(options)
        self._again = again

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """From ``path`` to what became of it."""
        path = Path(row["path"])
        try:
            return {"number": row["number"], **self._annotated(path)}
        except Exception as error:  # whatever is wrong with one episode costs it alone
            return {"number": row["number"], **_said("refused", why=one_line(error))}

    def _annotated(self, path: Path) -> dict[str, Any]:
        surveyed = survey_file(path, self._options, again=self._again)
        there, frames = surveyed.there, surveyed.about.frames
        if there is not None and surveyed.same(self._options):
            return _said("kept", there.phrase, frames, there.low)
        found = annotate_file(surveyed.ref, self._options, () if there is None else there.anchors)
        return _said("done", found.phrase, frames, found.low)


def _said(
    state: str, phrase: str = "", frames: int = 0, low: Sequence[int] = (), why: str = ""
) -> dict[str, Any]:
    return {"state": state, "phrase": phrase, "frames": frames, "low": list(low), "why": why}


def annotate_on_ray(
    paths: Sequence[Path], options: AnnotateOptions, *, again: bool = False
) -> AnnotationOutcome:
    """Annotate recordings on the cluster that is there, or on this machine's processors.

    Raises:
        AnnotateError: Ray is not installed, or does not start.
    """
    try:
        import ray
        import ray.data
    except ImportError:
        raise AnnotateError("--engine ray needs the package ray: pip install 'dexrun[ray]'") from None
    started = not ray.is_initialized()
    if started:
        try:
            # Ray's workers are nice by 15 unless told otherwise, and get nothing on a busy machine.
            os.environ.setdefault("RAY_worker_niceness", "0")
            ray.init(log_to_driver=False)
        except Exception as error:  # Ray says with a plain one that its node did not come up
            raise AnnotateError(f"--engine ray: Ray did not start: {_reason(error)}", usage=False) from None
    try:
        ray.data.DataContext.get_current().enable_progress_bars = False
        rows = ray.data.from_items(
            [{"number": n, "path": str(path)} for n, path in enumerate(paths)],
            override_num_blocks=max(1, len(paths)),
        )
        workers = max(1, int(ray.cluster_resources().get("CPU", 1)))
        done = rows.map(
            EpisodeAnnotator,
            fn_constructor_args=(options.model_dump(mode="json"), again),
            concurrency=min(workers, len(paths)),
        )
        try:
            told = done.take_all()
        except Exception as error:  # Ray's own, around whatever its workers could not begin with
            raise AnnotateError(f"--engine ray: {_reason(error)}", usage=False) from None
        return AnnotationOutcome(tuple(_job(paths[row["number"]], row) for row in _ordered(told)))
    finally:
        if started:
            ray.shutdown()


def _reason(error: Exception) -> str:
    return f"{(str(error).strip().splitlines() or [type(error).__name__])[-1]:.300}"


def _ordered(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return sorted(rows, key=lambda row: int(row["number"]))


def _job(path: Path, row: Mapping[str, Any]) -> Job:
    job = Job(int(row["number"]), path, row["state"], row["why"], low=tuple(map(int, row["low"])))
    job.phrase, job.frames = row["phrase"], int(row["frames"])
    return job
