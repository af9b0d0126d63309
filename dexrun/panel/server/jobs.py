"""What pages have started: children of the server, which end when it ends."""

from __future__ import annotations

import itertools
import signal
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import anyio
from anyio.abc import TaskGroup, TaskStatus

from dexrun.panel.server.job import INPUT, PanelJob
from dexrun.panel.server.job_kinds import KINDS, JobKind
from dexrun.panel.server.places import BadArgumentError, Places
from runtime.clock import Clock
from runtime.http_server import RefusedError

MOST_RUNNING, MOST_KEPT = 6, 40
_SHARED = ("--panel.share=always", "--panel.port=-1")
"""A run that is started from a page is shown on it, and has no second server."""


class Jobs:
    """Those of one server. The event loop's.

    Args:
        run_lives: what a job that moves an arm would be in the way of; ``""``: nothing.
        changed: called when one begins or ends.
    """

    def __init__(
        self,
        places: Places,
        clock: Clock,
        run_lives: Callable[[], str],
        changed: Callable[[], None],
    ) -> None:
        self._places = places
        self._clock = clock
        self._run_lives = run_lives
        self._changed = changed
        self._jobs: dict[int, PanelJob] = {}
        self._numbers = itertools.count(1)
        self._group: TaskGroup | None = None
        self._drafts = Path(tempfile.mkdtemp(prefix="dexrun-panel-"))

    async def forever(self, *, task_status: TaskStatus[None]) -> None:
        """Until cancelled, which ends all jobs."""
        try:
            async with anyio.create_task_group() as self._group:
                task_status.started()
                await anyio.sleep_forever()
        finally:
            self._group = None
            for draft in self._drafts.iterdir():
                draft.unlink()
            self._drafts.rmdir()

    def start(self, name: object, given: object) -> PanelJob:
        """Start a job.

        Raises:
            RefusedError: there is no such kind, an argument cannot be used, or something is in the way.
        """
        kind = KINDS.get(name) if isinstance(name, str) else None
        if kind is None:
            raise RefusedError(400, f"kind: one of {', '.join(KINDS)}")
        if not isinstance(given, Mapping):
            raise RefusedError(400, "args: an object")
        self._check_room(kind)
        number = next(self._numbers)
        try:
            words = self._words(kind, given, number)
        except BadArgumentError as error:
            raise RefusedError(400, str(error)) from None
        places = [word.partition("=")[2] for word in words if word.startswith(("--to=", "--resume="))]
        folder = Path(places[0]) if places else None
        job = self._jobs[number] = PanelJob(number, kind, given, folder, self._clock)
        if self._group is None:
            raise RefusedError(503, "the server ends")
        self._group.start_soon(job.run, words, self._changed)
        self._forget()
        self._changed()
        return job

    def _check_room(self, kind: JobKind) -> None:
        running = [job for job in self._jobs.values() if job.code is None]
        if len(running) >= MOST_RUNNING:
            raise RefusedError(409, f"{MOST_RUNNING} jobs are running already")
        if not kind.moves:
            return
        moving = next((job for job in running if job.kind.moves), None)
        if moving is not None:
            raise RefusedError(409, f"{moving.kind.name} (job {moving.number}) has the arm; stop it first")
        if what := self._run_lives():
            raise RefusedError(409, f"{what} has the arm; end it first")

    def _words(self, kind: JobKind, given: Mapping[str, Any], number: int) -> list[str]:
        """The command line.

        Raises:
            BadArgumentError: an argument cannot be used.
        """
        if kind.name == "run":
            used = {"config": str(self._places.usual), **given}
            return [
                *kind.command(self._places, used),
                f"--runs={self._places.runs}",
                "--panel.port=-1",
                "--panel.share=always",
            ]
        words = kind.command(self._places, given)
        if kind.name == "train" and not given.get("config"):
            # A training's own file may say more; this much a policy's authors have decided for all of it.
            draft = self._drafts / f"train-{number}.toml"
            draft.write_text(f'[policy]\ntype = "{given.get("policy") or "act"}"\n', encoding="utf-8")
            words.append(f"--config={draft}")
        return words

    def _forget(self) -> None:
        """What ended long ago."""
        ended = [number for number, job in self._jobs.items() if job.code is not None]
        for number in ended[: max(0, len(ended) - MOST_KEPT)]:
            del self._jobs[number]

    def job(self, number: int) -> PanelJob:
        """The job.

        Raises:
            RefusedError: there is none (any more).
        """
        if number not in self._jobs:
            raise RefusedError(404, f"no job {number}")
        return self._jobs[number]

    def stop(self, number: int) -> PanelJob:
        """Interrupt it; asked again, terminate it."""
        job = self.job(number)
        job.interrupt(signal.SIGTERM if job.stopped else signal.SIGINT)
        return job

    def type(self, number: int, line: object, question: object) -> PanelJob:
        """Type a line at its terminal, as the answer to the question of that number.

        Raises:
            RefusedError: it is no line, or this is not asked.
        """
        job = self.job(number)
        if not isinstance(line, str) or len(line) > INPUT or not (line.isprintable() or not line):
            raise RefusedError(400, f"line: at most {INPUT} letters")
        if not isinstance(question, int):
            raise RefusedError(400, "question: the number of what is answered")
        try:
            job.type(line, question)
        except ValueError as error:
            raise RefusedError(409, f"job {number}: {error}") from None
        return job

    def as_json(self) -> list[dict[str, Any]]:
        """All of them, the newest first."""
        return [job.as_json() for job in reversed(self._jobs.values())]
