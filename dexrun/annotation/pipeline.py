"""The pipeline: gives work to reader, namer, trackers and writer, and takes it back from those that are lost.

No picture passes through here. One thread; it waits for what the workers say on their pipes. Work is leased:
a lease whose reader, tracker or writer ends is taken back from all three and given out anew under another
number, so that no mask is lost and none is written twice.
"""

from __future__ import annotations

import secrets
import select
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dexrun.annotation.errors import AnnotateError
from dexrun.annotation.jobs import AnnotationOutcome, Job, Lease, known_of
from dexrun.annotation.looking import Survey
from dexrun.annotation.options import AnnotateOptions
from dexrun.annotation.processes import WorkerOptions, WorkerProcess, close_all
from runtime.clock import NS_PER_S, Clock
from runtime.frame_channel import FrameRings
from runtime.recording.annotations import Anchor

_SURVEYS = 8
"""Questions to the reader at once: more would fill both pipes."""
_LOOK_S = 0.5
_STOOD_STILL_NS = 10 * NS_PER_S
READER, NAMER, WRITER = "reader", "namer", "writer"

Tell = Callable[[str, Mapping[str, Any]], None]
"""Told what happens: a word, and what there is to say."""


class Pipeline:
    """Annotates recordings by worker processes.

    Args:
        again: also those that have masks already, from the beginning.
        tell: ``at`` (how far a stretch is), ``frames`` (how many more are done), ``job`` (one is over),
            ``started``, ``lost`` (a worker).
    """

    def __init__(
        self,
        paths: Sequence[Path],
        options: AnnotateOptions,
        workers: WorkerOptions,
        clock: Clock,
        tell: Tell = lambda word, about: None,
        *,
        again: bool = False,
    ) -> None:
        self._jobs = [Job(number, path) for number, path in enumerate(paths)]
        self._options = options
        self._how = workers
        self._clock = clock
        self._tell = tell
        self._again = again
        self._workers: dict[str, WorkerProcess] = {}
        self._rings: dict[str, FrameRings] = {}
        self._leases: dict[int, Lease] = {}
        self._numbers = 0
        self._token = secrets.token_hex(16)
        self._trackers = [f"tracker {place + 1}" for place in range(workers.trackers)]
        self._failed_starts = 0
        self._looked_ns = clock.now_ns()

    def run(self) -> AnnotationOutcome:
        """Annotate all; those that cannot be are told, and cost themselves alone.

        Raises:
            AnnotateError: a worker cannot be started, or ends whenever it is.
        """
        try:
            self._start(READER)
            while not all(job.over for job in self._jobs):
                self._assign()
                self._listen()
                self._end_hung()
            return AnnotationOutcome(tuple(self._jobs))
        finally:
            close_all(list(self._workers.values()))
            for rings in self._rings.values():
                rings.close()

    # --- workers

    def _start(self, name: str) -> None:
        role = name.partition(" ")[0]
        start = {
            "options": self._options.model_dump(mode="json"),
            "rings": self._inbox(name),
            "host": self._host(role),
            "most_bytes": self._most_bytes(),
            "token": self._token,
        }
        worker = WorkerProcess(name, role, self._how.pythons.get(role, ""), start, self._clock)
        self._workers[name] = worker
        self._tell("started", {"worker": name, "pid": worker.pid})

    def _host(self, role: str) -> str:
        """On which it listens; everything goes over ZeroMQ or nothing does."""
        return self._how.hosts.get(role, "127.0.0.1") if self._how.hosts else ""

    def _inbox(self, name: str) -> list[str]:
        """The rings into which others write what is for `name`; made once, whoever comes and goes."""
        if name == READER or self._how.hosts:
            return []
        senders = self._trackers if name == WRITER else [READER]
        size = self._most_bytes() // (3 if name == WRITER else 1)
        for sender in senders:
            if (key := f"{sender} to {name}") not in self._rings:
                self._rings[key] = self._made(size)
        return [self._rings[f"{sender} to {name}"].address for sender in senders]

    def _made(self, size: int) -> FrameRings:
        try:
            return FrameRings(size)
        except OSError as error:
            raise AnnotateError(
                f"a ring of pictures of {size} bytes in /dev/shm: {error.strerror or error}; make it larger, "
                "or give --host reader=127.0.0.1, which does without",
                usage=False,
            ) from None

    def _most_bytes(self) -> int:
        return max((job.about.most_bytes for job in self._jobs if job.about is not None), default=0)

    def _way(self, sender: str, to: str) -> str:
        """The address under which `sender` reaches `to`."""
        return self._workers[to].address if self._how.hosts else self._rings[f"{sender} to {to}"].address

    def _idle(self, name: str) -> bool:
        """Whether a worker is there, is ready, and does nothing."""
        worker = self._workers.get(name)
        busy = any(name in lease.workers for lease in self._leases.values())
        return worker is not None and worker.ready and not busy

    def _ready(self, *names: str) -> bool:
        return all(name in self._workers and self._workers[name].ready for name in names)

    # --- giving work out

    def _assign(self) -> None:
        states = [job.state for job in self._jobs]
        if self._ready(READER):
            for job in self._jobs:
                if job.state == "new" and states.count("surveying") < _SURVEYS:
                    job.state = states[job.number] = "surveying"
                    job.since_ns = self._clock.now_ns()
                    self._workers[READER].say(
                        do="survey", job=job.number, path=str(job.path), again=self._again
                    )
        if "new" in states or "surveying" in states or all(job.over for job in self._jobs):
            return  # how large pictures are is not known yet
        for name in (NAMER, *self._trackers, WRITER):
            if name not in self._workers:
                self._start(name)
        self._name_next()
        for name in self._trackers:
            if self._idle(name) and self._ready(READER, WRITER):
                self._follow_next(name)
        self._assemble()

    def _name_next(self) -> None:
        for job in self._jobs:
            if job.state == "surveyed" and job.recall(self._options):
                self._planned(job)
        waiting = sum(bool(job.todo) for job in self._jobs)
        unnamed = [job for job in self._jobs if job.state == "surveyed"]
        if not unnamed or not self._idle(NAMER) or not self._ready(READER) or waiting > len(self._trackers):
            return
        job = unnamed[0]
        lease = self._leased(job, "name", (READER, NAMER))
        job.state = "naming"
        about = job.surveyed
        frames = [
            (camera, range(frame, frame + 1))
            for moment in about.moments
            for camera, frame in ((about.camera, moment.frame), (about.wrist, moment.wrist))
            if frame >= 0
        ]
        self._workers[NAMER].say(do="name", lease=lease, task=job.task, survey=about.as_json())
        self._send_frames(lease, job, frames, NAMER)

    def _send_frames(self, lease: int, job: Job, frames: list[tuple[str, range]], to: str) -> None:
        """As ranges: a pipe takes 64 KiB without anybody who reads, and nobody here may wait for that."""
        said = [[camera, each.start, each.stop, each.step] for camera, each in frames]
        way = self._way(READER, to)
        self._workers[READER].say(do="frames", lease=lease, path=str(job.path), frames=said, to=way)

    def _planned(self, job: Job) -> None:
        """The object is known: its stretches can be followed."""
        try:
            job.remember(self._options)
        except OSError as error:
            job.refuse(f"{job.work}: cannot be written: {error.strerror}")
            return
        job.plan(self._options)

    def _follow_next(self, name: str) -> None:
        job = next((job for job in self._jobs if job.todo), None)
        if job is None:
            return
        stretch = job.todo.pop(0)
        lease = self._leased(job, "follow", (READER, name, WRITER), stretch)
        masks = stretch.masks
        path = str(job.file(stretch, self._options))
        kept = [masks.start, masks.stop, masks.step]
        self._workers[WRITER].say(do="keep", lease=lease, path=path, frames=kept)
        self._workers[name].say(
            do="follow",
            lease=lease,
            anchor=job.anchors[stretch.anchor].as_json(),
            camera=job.surveyed.camera,
            stretch=[stretch.anchor, stretch.first, stretch.last, stretch.kept],
            to=self._way(name, WRITER),
        )
        self._send_frames(lease, job, [(job.surveyed.camera, stretch.frames)], name)

    def _leased(self, job: Job, kind: str, workers: tuple[str, ...], stretch: Any = None) -> int:
        self._numbers += 1
        now_ns = self._clock.now_ns()
        self._leases[self._numbers] = Lease(self._numbers, job, kind, workers, now_ns, stretch)
        job.leased += 1
        return self._numbers

    def _assemble(self) -> None:
        if not self._ready(WRITER):
            return
        for job in self._jobs:
            if job.state == "following" and not job.todo and not job.leased:
                job.state, job.since_ns = "assembling", self._clock.now_ns()
                self._workers[WRITER].say(
                    do="assemble",
                    job=job.number,
                    path=str(job.path),
                    task=job.task,
                    survey=job.surveyed.as_json(),
                    anchors=[each.as_json() for each in job.anchors],
                    files=[str(each) for each in job.files(self._options)],
                )

    # --- hearing of it

    def _listen(self) -> None:
        by_descriptor = {worker.descriptor: worker for worker in self._workers.values()}
        unsaid = [each for worker in self._workers.values() for each in worker.waits_for]
        readable, _, _ = select.select(list(by_descriptor), unsaid, [], _LOOK_S)
        for worker in self._workers.values():
            worker.flush()
        for descriptor in readable:
            worker = by_descriptor[descriptor]
            for said in worker.answers():
                self._heard(worker, said)
            if worker.ended:
                self._lost(worker, worker.last_words())

    def _heard(self, worker: WorkerProcess, said: Mapping[str, Any]) -> None:
        if "unfit" in said:
            raise AnnotateError(f"the {worker.name} cannot work: {said['unfit']}")
        if "ready" in said:
            worker.ready, worker.address = True, said["address"]
        elif "job" in said:
            self._heard_of_job(self._jobs[said["job"]], said)
        elif (lease := self._leases.get(said.get("lease", -1))) is not None:
            lease.moved_ns = self._clock.now_ns()
            self._heard_of_lease(lease, said)

    def _heard_of_job(self, job: Job, said: Mapping[str, Any]) -> None:
        if "refused" in said:
            job.refuse(said["refused"])
        elif "survey" in said:
            self._surveyed(job, said)
        elif "damaged" in said:
            job.plan(self._options)
            self._tried(job, f"{said['damaged']} cannot be read")
        elif "done" in said:
            job.forget()
            job.state, job.low = "done", tuple(said["low"])
            job.phrase = job.anchors[-1].phrase
        if job.over:
            self._tell("job", {"job": job})

    def _surveyed(self, job: Job, said: Mapping[str, Any]) -> None:
        job.task, job.about, job.state = said["task"], Survey.of(said["survey"]), "surveyed"
        job.frames, job.lost = job.about.frames, 0
        if self._again:
            job.forget()
            return
        job.known = known_of(said)
        if said["same"]:
            job.forget()
            job.state, job.low = "kept", tuple(said["known"][1])
            job.phrase = job.known[-1].phrase

    def _heard_of_lease(self, lease: Lease, said: Mapping[str, Any]) -> None:
        job = lease.job
        if "refused" in said:
            self._take_back(lease)
            job.todo = []
            job.refuse(said["refused"])
            for other in [each for each in self._leases.values() if each.job is job]:
                self._take_back(other)
            self._tell("job", {"job": job})
        elif "lost" in said:
            self._give_again(lease, f"masks were lost: {said['lost']}")
        elif "anchor" in said:
            self._take_back(lease)
            job.anchors, job.lost = [Anchor.of(said["anchor"])], 0
            self._planned(job)
        elif "kept" in said:
            self._take_back(lease)
            job.lost = 0
            self._tell("frames", {"job": job, "frames": said["kept"]})
        elif "at" in said:
            self._tell("at", {"job": job, "frames": said["at"]})

    # --- taking it back

    def _take_back(self, lease: Lease) -> None:
        """Nobody works on it any more; whoever still does, stops."""
        del self._leases[lease.number]
        lease.job.leased -= 1
        for name in lease.workers:
            if name in self._workers:
                self._workers[name].say(do="drop", lease=lease.number)

    def _give_again(self, lease: Lease, why: str) -> None:
        """A worker was lost over it: somebody else gets it, unless it costs one after the other."""
        job = lease.job
        self._take_back(lease)
        if job.over:
            return
        if lease.stretch is not None:
            job.todo.insert(0, lease.stretch)
        else:
            job.state = "surveyed"
        self._tried(job, why)

    def _tried(self, job: Job, why: str) -> None:
        """Once more it came no further."""
        job.lost += 1
        if job.lost >= self._how.tries:
            job.todo = []
            job.refuse(f"given up after {job.lost} tries: {why}")
            self._tell("job", {"job": job})

    def _lost(self, worker: WorkerProcess, why: str) -> None:
        """It has ended: what it had under way is given out anew, and another takes its place."""
        self._tell("lost", {"worker": worker.name, "why": why})
        del self._workers[worker.name]
        worker.kill()
        self._failed_starts = 0 if worker.ready else self._failed_starts + 1
        if self._failed_starts >= self._how.tries:
            raise AnnotateError(why, usage=False)
        for lease in [each for each in self._leases.values() if worker.name in each.workers]:
            self._give_again(lease, why)
        if worker.address.startswith("tcp:"):  # its successor has a port of its own
            for other in self._workers.values():
                other.say(do="gone", address=worker.address)
        self._ask_again(worker.name, why)
        self._start(worker.name)

    def _ask_again(self, name: str, why: str) -> None:
        """What a lost reader or writer had been asked of whole episodes; it took them one after the other."""
        asked_for = {READER: ("surveying", "new"), WRITER: ("assembling", "following")}
        state, before = asked_for.get(name, ("", ""))
        asked = sorted((job for job in self._jobs if job.state == state), key=lambda job: job.since_ns)
        for job in asked:
            job.state = before
        for job in asked[:1]:  # the others had not begun
            self._tried(job, why)

    def _end_hung(self) -> None:
        """Whoever has said nothing for too long: one that works says that it lives."""
        now_ns, patience = self._clock.now_ns(), f"{self._how.patience_s:g} s"
        before_ns = now_ns - round(self._how.patience_s * NS_PER_S)
        stood_still, self._looked_ns = now_ns - self._looked_ns > _STOOD_STILL_NS, now_ns
        if stood_still:  # this command was stopped for a while, and its workers with it
            for worker in self._workers.values():
                worker.heard_ns = now_ns
        if stood_still or any(job.state == "assembling" for job in self._jobs):  # the writer takes no masks
            for lease in self._leases.values():
                lease.moved_ns = now_ns
        for worker in [each for each in self._workers.values() if each.heard_ns < before_ns]:
            worker.kill()
            self._lost(worker, f"the {worker.name} said nothing for {patience}")
        for lease in [each for each in self._leases.values() if each.moved_ns < before_ns]:
            self._give_again(lease, f"it came no further for {patience}")
