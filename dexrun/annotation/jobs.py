"""An episode on its way through the pipeline, and what of it is on disk already."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dexrun.annotation.looking import Survey
from dexrun.annotation.options import AnnotateOptions
from dexrun.annotation.stretches import Stretch, stretches
from policies.data.recorded import name_of
from runtime.recording.annotations import Anchor, annotations_of

_ANCHORS = "anchors.json"


@dataclass
class Job:
    """One episode.

    Attributes:
        state: ``new``, ``surveying``, ``surveyed``, ``naming``, ``following``, ``assembling``; at last
            ``done``, ``kept`` (it was annotated already) or ``refused`` (`why`).
        todo: stretches that nobody does yet. leased: how many are under way.
        lost: how often a worker was lost over it since it last came further. since_ns: since when the reader
            surveys it, or the writer assembles it. recalled: whether the disk was asked for its anchors.
        low: the frames that a person is to look at.
        phrase: what the object is called. frames: how many there are.
    """

    number: int
    path: Path
    state: str = "new"
    why: str = ""
    task: str = ""
    about: Survey | None = None
    anchors: list[Anchor] = field(default_factory=list)
    todo: list[Stretch] = field(default_factory=list)
    leased: int = 0
    lost: int = 0
    low: tuple[int, ...] = ()
    known: Sequence[Anchor] = ()
    phrase: str = ""
    frames: int = 0
    recalled: bool = False
    since_ns: int = 0

    @property
    def name(self) -> str:
        """Run and episode, for messages."""
        return name_of(self.path)

    @property
    def over(self) -> bool:
        """Whether there is nothing left to do."""
        return self.state in ("done", "kept", "refused")

    @property
    def surveyed(self) -> Survey:
        """What is known of it."""
        assert self.about is not None  # noqa: S101 - asked for after that alone
        return self.about

    @property
    def work(self) -> Path:
        """What is kept until the annotation is whole, so that it can be gone on with."""
        return annotations_of(self.path) / self.surveyed.camera / f".{self.path.name}.work"

    def file(self, stretch: Stretch, options: AnnotateOptions) -> Path:
        """Where the masks of a stretch are, once they are whole."""
        of = {**options.models(), "recording": self.surveyed.known_by}
        return self.work / f"{stretch.key(self.anchors, of)}.masks"

    def files(self, options: AnnotateOptions) -> list[Path]:
        """Those of all its stretches."""
        return [self.file(each, options) for each in stretches(self.anchors, self.surveyed.frames)]

    def remember(self, options: AnnotateOptions) -> None:
        """Keep the anchors: a model is asked once.

        Raises:
            OSError: they cannot be written.
        """
        self.work.mkdir(parents=True, exist_ok=True)
        for left in self.work.glob("*.part"):  # by a writer that was killed, or outlived its command
            left.unlink(missing_ok=True)
        path = self.work / _ANCHORS
        said = {"asked": self._asked(options), "anchors": [each.as_json() for each in self.anchors]}
        draft = path.with_name(path.name + ".part")
        draft.write_text(json.dumps(said, ensure_ascii=False), encoding="utf-8")
        draft.replace(path)

    def forget(self) -> None:
        """Remove what is kept until the annotation is whole."""
        shutil.rmtree(self.work, ignore_errors=True)

    def recall(self, options: AnnotateOptions) -> bool:
        """Whether the anchors are known: from before it was stopped, or from what other models annotated.

        The disk is asked once.
        """
        if self.recalled:
            return False
        self.recalled = True
        found: list[Anchor] = list(self.known)
        try:
            said = json.loads((self.work / _ANCHORS).read_text(encoding="utf-8"))
            if said["asked"] == self._asked(options):
                found = [Anchor.of(each) for each in said["anchors"]]
        except (OSError, ValueError, LookupError, TypeError):
            pass
        self.anchors = found
        return bool(found)

    def _asked(self, options: AnnotateOptions) -> dict[str, Any]:
        """What the anchors' own answer depends on."""
        detector = options.perception.detector.model_dump(mode="json")
        moments = [[each.frame, each.held] for each in self.surveyed.moments]
        return {
            "task": self.task,
            "recording": list(self.surveyed.known_by),
            "moments": moments,
            "vlm": [options.asked().base_url, options.asked().model],
            "detector": detector,
            "known": [each.as_json() for each in self.known],
        }

    def plan(self, options: AnnotateOptions) -> None:
        """What is still to be done, now that the anchors are known."""
        wanted = stretches(self.anchors, self.surveyed.frames)
        self.todo = [each for each in wanted if not self.file(each, options).exists()]
        self.state = "following"

    def refuse(self, why: str) -> None:
        """It cannot be annotated."""
        self.state, self.why = "refused", why


@dataclass
class Lease:
    """One piece of work under way.

    Attributes:
        kind: ``name`` or ``follow``. workers: the names of all who have a part in it. moved_ns: when it was
            last heard of.
    """

    number: int
    job: Job
    kind: str
    workers: tuple[str, ...]
    moved_ns: int
    stretch: Stretch | None = None


@dataclass(frozen=True, slots=True)
class AnnotationOutcome:
    """What became of every episode."""

    jobs: tuple[Job, ...]

    def named(self, state: str) -> list[Job]:
        """Those that ended so."""
        return [job for job in self.jobs if job.state == state]


def known_of(said: Mapping[str, Any]) -> tuple[Anchor, ...]:
    """The anchors of the annotation that is there, as the reader tells."""
    known = said.get("known")
    return tuple(Anchor.of(each) for each in known[0]) if known else ()
