"""The whole annotation of one episode in this process: the pipeline's own steps, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from dexrun.annotation.locating import located
from dexrun.annotation.looking import look, survey
from dexrun.annotation.masks import kept
from dexrun.annotation.options import AnnotateOptions
from dexrun.annotation.steps import named, said
from dexrun.annotation.stretches import Stretch, prompt_of, stretches
from planner.perception.following import Follower
from policies.data.recorded import EpisodeRef
from runtime.recording.annotations import Anchor, Annotation, FrameMask, annotation_path, write_annotation
from runtime.recording.reader import Episode

Tell = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Annotated:
    """An annotation and its masks, by frame."""

    about: Annotation
    masks: Mapping[int, FrameMask]


def followed(
    episode: Episode, camera: str, stretch: Stretch, anchor: Anchor, options: AnnotateOptions
) -> Iterator[FrameMask]:
    """The stretch's masks, in the order in which its frames are followed.

    Raises:
        PerceptionError: there is nothing where the anchor says.
    """
    models = options.perception
    follower = Follower(models.segmenter.build(), models.tracker.build(), camera, prompt_of(anchor))
    for frame in stretch.frames:
        tracked = follower.follow(episode.color(camera, frame))
        if stretch.kept or frame != stretch.first:
            yield kept(frame, tracked.mask, tracked.confidence, stretch.anchor)


def annotate_inside(
    ref: EpisodeRef,
    episode: Episode,
    options: AnnotateOptions,
    anchors: Sequence[Anchor] = (),
    tell: Tell = lambda frames: None,
    known: Mapping[int, FrameMask] | None = None,
) -> Annotated:
    """Annotate an episode; nothing is written.

    With `anchors` it is known already what the object is; a stretch whose masks are all `known` is not
    followed. `tell` is told of every frame that is done.

    Raises:
        PerceptionError: there is no telling what the object is.
        RecordingError: the file is damaged.
    """
    about = survey(ref, episode, options)
    if not anchors:
        looks = [look(episode, about, moment) for moment in about.moments]
        anchors = (named(about, looks, ref.task, options),)
    masks: dict[int, FrameMask] = dict(known or {})
    for stretch in stretches(anchors, about.frames):
        if all(frame in masks for frame in stretch.masks):
            continue
        for mask in followed(episode, about.camera, stretch, anchors[stretch.anchor], options):
            masks[mask.frame] = mask
            tell(1)
    confidences = {frame: mask.confidence for frame, mask in masks.items()}
    return Annotated(said(ref.task, episode, about, anchors, confidences, options), masks)


def write_beside(episode: Episode, found: Annotated) -> None:
    """Put an annotation beside its recording, in place of one that is there.

    Raises:
        OSError: it cannot be written.
    """
    camera = found.about.camera
    ordered = located(episode, camera, (found.masks[frame] for frame in sorted(found.masks)))
    write_annotation(annotation_path(episode.path, camera), episode, found.about, ordered)


def annotate_file(ref: EpisodeRef, options: AnnotateOptions, anchors: Sequence[Anchor] = ()) -> Annotation:
    """Annotate a recording and put the annotation beside it.

    Raises:
        PerceptionError, RecordingError, OSError: it cannot be.
    """
    with Episode(ref.path, afterwards=False) as episode:
        found = annotate_inside(ref, episode, options, anchors)
        write_beside(episode, found)
    return found.about
