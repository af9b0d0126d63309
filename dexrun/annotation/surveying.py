"""What is looked at before an episode is annotated: by the pipeline's reader and by Ray's workers alike."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dexrun.annotation.looking import Survey, survey
from dexrun.annotation.options import AnnotateOptions
from dexrun.annotation.steps import HAS_ITS_OWN, annotated, has_its_own
from policies.data.dataset import DatasetError
from policies.data.recorded import EpisodeRef, describe
from runtime.recording.annotations import Annotation
from runtime.recording.reader import Episode, RecordingError


class NotAnnotatedError(Exception):
    """An episode is left alone. One line: why."""


@dataclass(frozen=True, slots=True)
class Surveyed:
    """An episode's numbers, and its annotation if there is one of it as it is now."""

    ref: EpisodeRef
    about: Survey
    there: Annotation | None

    def same(self, options: AnnotateOptions) -> bool:
        """Whether the annotation that is there is what would be made."""
        return self.there is not None and self.there.models == options.models()


def survey_file(path: Path, options: AnnotateOptions, *, again: bool) -> Surveyed:
    """Look at the recording at `path`; `again` as if nothing had been found out about it.

    An annotation beside it that is damaged, or is of another recording, counts for nothing: it is made anew.

    Raises:
        NotAnnotatedError: it was discarded, or has masks of its own.
        DatasetError, RecordingError: it is damaged, or there is no such camera.
    """
    if again:
        return _surveyed(path, options, again=True, afterwards=False)
    try:
        return _surveyed(path, options, again=False, afterwards=True)
    except (DatasetError, RecordingError):
        return _surveyed(path, options, again=False, afterwards=False)


def _surveyed(path: Path, options: AnnotateOptions, *, again: bool, afterwards: bool) -> Surveyed:
    ref = describe(path, afterwards=afterwards)
    if ref is None:
        raise NotAnnotatedError("discarded")
    with Episode(path, afterwards=afterwards) as episode:
        about = survey(ref, episode, options)
        if not again and has_its_own(ref, about.camera):
            raise NotAnnotatedError(HAS_ITS_OWN)
        return Surveyed(ref, about, annotated(episode, about.camera))
