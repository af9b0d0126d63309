"""What an episode's annotation says is being done, in words."""

from __future__ import annotations

import numpy as np

from policies.data.recorded import EpisodeRef
from policies.data.sampled import Sampled
from runtime.recording.reader import Episode


def annotated_substeps(ref: EpisodeRef, episode: Episode) -> list[tuple[int, str]]:
    """The sub-steps that its annotation has, each with the stamp since which it is done."""
    found = (episode.annotation(camera) for camera in ref.annotated)
    steps = next((each.substeps for each in found if each is not None), ())
    return [(step.time_ns - episode.offset_ns, step.text) for step in steps]


def at_rows(sampled: Sampled, known: list[tuple[int, str]]) -> list[str]:
    """One text per row: the newest of `known`, by stamps, else the task."""
    stamps = np.array([stamp for stamp, _ in known], np.int64)
    texts = [sampled.ref.task, *(text for _, text in known)]
    return [texts[place] for place in np.searchsorted(stamps, sampled.observed, side="right").tolist()]


def substeps_of(sampled: Sampled) -> list[str]:
    """One text per row: the annotation's sub-step, else the task."""
    return at_rows(sampled, annotated_substeps(sampled.ref, sampled.recording))
