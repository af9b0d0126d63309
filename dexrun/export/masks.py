"""Masks for recordings that have none: the planner marks the task's object once, then it is tracked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from dexrun.export.errors import BadEpisodeError
from dexrun.export.options import ExportOptions
from planner.scene_reader.language import Query, parse_request
from planner.scene_reader.select import fitting, label
from planner.scene_reader.vision import SceneObject, read
from policies.data.sampled import Sampled
from runtime.messages import ColorImage, Frame, Mask

Box = tuple[Any, ...]
"""``x1, y1, x2, y2`` in pixels."""

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
    from runtime.interfaces import PerceptionError, Prompt

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
                    mask = config.segmenter.build().segment(image, Prompt(box=box)).mask
                    tracker.init(frame, mask)
                else:
                    mask = tracker.update(frame).mask
            except PerceptionError as error:
                raise _refused(sampled, str(error)) from None
            last = index
        assert mask is not None  # noqa: S101 - the first row has an index of its own
        yield mask


def _marked(sampled: Sampled, camera: str, options: ExportOptions) -> tuple[int, Box]:
    """The first row in which the object was found, and its box there."""
    rows: list[int] = np.linspace(0, min(len(sampled) - 1, options.fps), _MARK_ROWS).astype(int).tolist()
    rows = list(dict.fromkeys(rows))
    pictures = [sampled.recording.color(camera, int(sampled.frames[camera][row])) for row in rows]
    found = _asked(pictures, sampled, options) if options.vlm_url else _read(pictures, sampled)
    if found is None:
        raise _refused(sampled, f"the planner does not see what {sampled.ref.task!r} names")
    return rows[found[0]], found[1]


def _read(pictures: list[ColorImage], sampled: Sampled) -> tuple[int, Box] | None:
    """By the scene reader's own eyes: the one thing that fits, in the first picture that has it.

    Raises:
        BadEpisodeError: several things fit, in any of the pictures.
    """
    found: tuple[int, Box] | None = None
    for place, picture in enumerate(pictures):
        fits = named_by(picture, sampled.ref.task)
        if len(fits) > 1:
            names = ", ".join(label(each) for each in fits)
            raise _refused(sampled, f"{len(fits)} things fit {sampled.ref.task!r}: {names}; a task names one")
        if fits and found is None:
            found = place, fits[0].box
    return found


def named_by(picture: ColorImage, task: str) -> list[SceneObject]:
    """Everything on the table that a task may be about; all that is there if it says nothing of it."""
    things, request = read(picture).on_table, parse_request(task)
    wanted = [each for query in request.wanted or (Query(),) for each in fitting(things, query)]
    unwanted = [each for query in request.unwanted for each in fitting(things, query)]
    return [each for each in dict.fromkeys(wanted) if each not in unwanted]


def _asked(pictures: list[ColorImage], sampled: Sampled, options: ExportOptions) -> tuple[int, Box] | None:
    """By a vision-language model, in the first picture that has it and, to be sure, in another one.

    Raises:
        BadEpisodeError: it marks two things, or does not answer.
    """
    from planner.client import Planner
    from planner.config import PlannerConfig
    from planner.errors import PlannerError
    from planner.questions.mark import Mark
    from planner.questions.question import View
    from runtime.clock import RealClock

    config = PlannerConfig(base_url=options.vlm_url or None, model=options.vlm_model or None)
    question, clock = Mark(sampled.ref.task), RealClock()
    found: list[tuple[int, Box]] = []

    async def ask() -> None:
        async with Planner(config, clock) as planner:
            for place, picture in enumerate(pictures):
                try:
                    answer = await planner.ask(question, {View.HEAD: picture})
                    found.append((place, tuple(answer.bbox_2d)))
                except PlannerError as error:
                    if error.kind != "no_object":
                        raise
                if len(found) == 2:
                    return

    try:
        clock.run(ask)
    except PlannerError as error:
        raise _refused(sampled, str(error)) from None
    if len(found) == 2 and not _overlap(found[0][1], found[1][1]):
        raise _refused(sampled, f"the planner marks different things as {sampled.ref.task!r}")
    return found[0] if found else None


def _overlap(one: Box, other: Box) -> bool:
    return all(max(one[i], other[i]) < min(one[i + 2], other[i + 2]) for i in (0, 1))


def _refused(sampled: Sampled, why: str) -> BadEpisodeError:
    return BadEpisodeError(
        sampled.ref.name,
        f"no mask of the object: {why}; "
        "--missing-mask zeros exports without, --vlm-url asks a vision-language model",
    )
