"""The steps of an annotation that have nothing to do with where they are done."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

from dexrun.annotation.looking import Survey, substeps
from dexrun.annotation.options import AnnotateOptions
from planner.perception.naming import ShownMoment, asked, detected, read_off
from planner.perception.one_thing import telling_of_several
from policies.data.recorded import EpisodeRef
from runtime.interfaces import Detector, PerceptionError
from runtime.parts import DetectorTable
from runtime.recording.annotations import PERSON, Anchor, Annotation, fingerprint
from runtime.recording.reader import Episode


def named(
    about: Survey,
    looks: Sequence[ShownMoment],
    task: str,
    options: AnnotateOptions,
    tell: Callable[[], object] = lambda: None,
) -> Anchor:
    """What the object is and where, in one of the frames that `looks` show, which are the survey's moments.

    `tell` is told before each picture that a model is asked about.

    Raises:
        PerceptionError: nothing is seen that `task` names, or several things are.
    """
    detector = telling_of_several(options.perception.detector).build()
    if detector is not None:
        found = detected(looks, task, detector, options.perception.detector.type)
    else:
        found = asked(looks, task, options.asked(), tell) if options.has_vlm else read_off(looks, task)
    if found is None:
        if detector is None:
            raise PerceptionError(f"the planner does not see what {task!r} names")
        hint = "" if task.isascii() else "; tasks are read in English alone"
        raise PerceptionError(f"the detector does not see what {task!r} names{hint}")
    frame = about.moments[found.look].frame
    said = (found.by, found.model, found.prompt, found.confidence)
    return Anchor(frame, found.phrase, found.box, (), *said)


@lru_cache(maxsize=1)
def loaded(table: DetectorTable) -> Detector | None:
    """The one for all episodes: loading its weights takes longer than asking it."""
    return table.build()


HAS_ITS_OWN = "it has masks of its own, whose place these would take; --again makes them all the same"


def has_its_own(ref: EpisodeRef, camera: str) -> bool:
    """Whether the recording has masks of `camera` that its own run made: of each object in its turn."""
    return camera in ref.masks and camera not in ref.annotated


def annotated(episode: Episode, camera: str) -> Annotation | None:
    """What is there already of `camera`, of the recording as it is now.

    Nothing if it was cut since, as frames have new numbers.
    """
    topics = episode.topics
    if topics.get(f"/annotation/{camera}") != topics.get(f"/cameras/{camera}/color"):
        return None
    return episode.annotation(camera)


def doubtful(confidences: Mapping[int, float], options: AnnotateOptions) -> tuple[int, ...]:
    """The frames that a person is to look at."""
    return tuple(sorted(frame for frame, sure in confidences.items() if sure < options.low_confidence))


def said(
    task: str,
    episode: Episode,
    about: Survey,
    anchors: Sequence[Anchor],
    confidences: Mapping[int, float],
    options: AnnotateOptions,
) -> Annotation:
    """What is kept of an annotation beside its masks."""
    frame = anchors[0].frame
    return Annotation(
        about.camera,
        task,
        tuple(anchors),
        substeps(about, anchors[-1].phrase),
        options.models(),
        doubtful({**confidences, **{each.frame: 1.0 for each in anchors if each.by == PERSON}}, options),
        fingerprint(episode, about.camera, frame),
    )
