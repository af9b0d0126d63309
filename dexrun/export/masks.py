"""Masks for recordings that have none: the planner marks the task's object once, then it is tracked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from dexrun.export.errors import BadEpisodeError
from dexrun.export.options import ExportOptions
from dexrun.export.sampled import Sampled
from runtime.messages import ColorImage, Frame, Mask

if TYPE_CHECKING:
    from planner.questions.mark import BoundingBox

_MARK_ROWS = 5
"""The object is looked for at so many moments of the episode's first second, until it is found."""


def tracked(sampled: Sampled, camera: str, options: ExportOptions) -> Iterator[Mask]:
    """Row by row, the mask ``[H, W]`` of what the episode's task names.

    Rows before the one in which the object was marked have no mask (zeros); so have rows in which the tracker
    does not see it.

    Raises:
        BadEpisodeError: the object is not found.
    """
    from planner.perception.config import PerceptionConfig
    from runtime.interfaces import PerceptionError

    first, box = _marked(sampled, camera, options)
    config = PerceptionConfig()
    tracker = config.tracker.build()
    indices = sampled.frames[camera].tolist()
    first = indices.index(indices[first])
    last, mask = -1, None
    for row, index in enumerate(indices):
        if index != last:
            image = sampled.recording.color(camera, index)
            frame = Frame(camera, int(sampled.times[row]), image)
            try:
                if row < first:
                    mask = np.zeros(image.shape[:2], np.uint8)
                elif row == first:
                    mask = config.segmenter.build().segment(image, box.bbox_2d)
                    tracker.init(frame, mask)
                else:
                    mask = tracker.update(frame).mask
            except PerceptionError as error:
                raise _refused(sampled, str(error)) from None
            last = index
        assert mask is not None  # noqa: S101 - the first row has an index of its own
        yield mask


def _marked(sampled: Sampled, camera: str, options: ExportOptions) -> tuple[int, BoundingBox]:
    """The first row in which the object was found, and its box there."""
    rows: list[int] = np.linspace(0, min(len(sampled) - 1, options.fps), _MARK_ROWS).astype(int).tolist()
    rows = list(dict.fromkeys(rows))
    pictures = [sampled.recording.color(camera, int(sampled.frames[camera][row])) for row in rows]
    found = _ask(pictures, sampled, options)
    if found is None:
        raise _refused(sampled, f"the planner does not see what {sampled.ref.task!r} names")
    return rows[found[0]], found[1]


def _ask(
    pictures: list[ColorImage], sampled: Sampled, options: ExportOptions
) -> tuple[int, BoundingBox] | None:
    from planner.client import Planner
    from planner.config import PlannerConfig
    from planner.errors import PlannerError
    from planner.questions.mark import Mark
    from planner.questions.question import View
    from runtime.clock import RealClock

    config = PlannerConfig(base_url=options.vlm_url or None, model=options.vlm_model or None)
    question, clock = Mark(sampled.ref.task), RealClock()

    async def ask() -> tuple[int, BoundingBox] | None:
        async with Planner(config, clock) as planner:
            for place, picture in enumerate(pictures):
                try:
                    return place, await planner.ask(question, {View.HEAD: picture})
                except PlannerError as error:
                    if error.kind != "no_object":
                        raise
        return None

    try:
        return clock.run(ask)
    except PlannerError as error:
        raise _refused(sampled, str(error)) from None


def _refused(sampled: Sampled, why: str) -> BadEpisodeError:
    return BadEpisodeError(
        sampled.ref.name,
        f"no mask of the object: {why}; "
        "--missing-mask zeros exports without, --vlm-url asks a vision-language model",
    )
