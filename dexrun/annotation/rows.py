"""Masks for the rows of a data set whose recording has none: annotated as it is exported, and not kept."""

from __future__ import annotations

from collections.abc import Iterator

from dexrun.annotation.inside import annotate_inside
from dexrun.annotation.masks import unpacked
from dexrun.annotation.options import AnnotateOptions
from policies.data.sampled import Sampled
from runtime.messages import Mask


def masks_of_rows(sampled: Sampled, options: AnnotateOptions) -> Iterator[Mask]:
    """Row by row, the mask ``[H, W]`` of what the episode's task names; zeros where it is not seen.

    Raises:
        PerceptionError: there is no telling what the object is.
    """
    found = annotate_inside(sampled.ref, sampled.recording, options)
    for frame in sampled.frames[found.about.camera].tolist():
        yield unpacked(found.masks[frame].png)
