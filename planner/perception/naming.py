"""Which object a task is about, and its box, in one of several pictures: asked of a model, or read off."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from planner.errors import PlannerError
from planner.perception.task_words import things_named
from planner.perception.zero_shot_options import ZeroShotOptions
from planner.questions.mark import Mark
from planner.questions.question import View
from planner.scene_reader.language import Query, parse_request
from planner.scene_reader.select import fitting, label
from planner.scene_reader.vision import SceneObject, between_jaws, read
from runtime.geometry import boxes_meet
from runtime.interfaces import Box, Detector, PerceptionError
from runtime.messages import ColorImage
from runtime.parts import DetectorTable

if TYPE_CHECKING:
    from planner.config import PlannerConfig

READER = "scene_reader"
VLM = "vlm"
DETECTOR = "detector"
_AS_GOOD = 0.8
"""Share of the best score from which on another thing may be the one that is meant."""
_LOOKED_AT = 10
"""Boxes of a phrase among which another thing would be seen: one thing may have several."""


@dataclass(frozen=True, slots=True)
class ShownMoment:
    """A moment's picture of the scene.

    Attributes:
        image: ``[H, W, 3]``. wrist: the gripper's own camera's picture then, where there is one.
        held: whether the gripper holds the object at that moment.
    """

    image: ColorImage
    wrist: ColorImage | None = None
    held: bool = False


@dataclass(frozen=True, slots=True)
class NamedObject:
    """The object: in which of the looks it was found, where, what it is called, and who says so."""

    look: int
    box: Box
    phrase: str
    by: str
    model: str = ""
    prompt: str = ""
    confidence: float = 1.0


def read_off(looks: Sequence[ShownMoment], task: str) -> NamedObject | None:
    """By the scene reader's own eyes; ``None`` if nothing that fits `task` is seen.

    Of several things that fit, the one is meant whose colour the gripper's camera sees between the jaws while
    they hold it: the camera over the table may not see it then. Without that, one thing must fit in every
    picture.

    Raises:
        PerceptionError: several things fit.
    """
    found: tuple[int, SceneObject] | None = None
    several: list[SceneObject] = []
    colors = (between_jaws(look.wrist) for look in looks if look.held and look.wrist is not None)
    color = next((each for each in colors if each is not None), None)
    for place, look in enumerate(looks):
        fits = [each for each in named_by(look.image, task) if color in (None, each.color)]
        if len(fits) == 1 and look.held:
            return _read(place, fits[0], task)
        if len(fits) > 1:
            several = several or fits
        elif fits and found is None:
            found = place, fits[0]
    if several:
        names = ", ".join(label(each) for each in several)
        raise PerceptionError(f"{len(several)} things fit {task!r}: {names}; a task names one")
    return None if found is None else _read(*found, task)


def _read(place: int, thing: SceneObject, task: str) -> NamedObject:
    x1, y1, x2, y2 = map(float, thing.box)
    return NamedObject(place, (x1, y1, x2, y2), label(thing), READER, prompt=task)


def named_by(picture: ColorImage, task: str) -> list[SceneObject]:
    """Everything on the table that a task may be about; all that is there if it says nothing of it."""
    things, request = read(picture).on_table, parse_request(task)
    wanted = [each for query in request.wanted or (Query(),) for each in fitting(things, query)]
    unwanted = [each for query in request.unwanted for each in fitting(things, query)]
    return [each for each in dict.fromkeys(wanted) if each not in unwanted]


def detected(looks: Sequence[ShownMoment], task: str, detector: Detector, model: str) -> NamedObject | None:
    """By a detector, in the first picture in which it sees what `task` names; only that is asked for.

    Raises:
        PerceptionError: `task` names no thing, or several; the detector sees several, of which none fits much
            better than another; it cannot answer.
    """
    phrase = the_thing(task)
    for place, look in enumerate(looks):
        found = sorted(detector.detect(look.image, [phrase]), key=lambda each: -each.score)
        if not found:
            continue
        best, *others = found
        alike = [
            each
            for each in others
            if each.score >= _AS_GOOD * best.score and not _same_place(each.box, best.box)
        ]
        if alike:
            scores = ", ".join(f"{each.score:.2f}" for each in (best, *alike))
            raise PerceptionError(
                f"the detector sees {1 + len(alike)} things as {phrase!r} (scores {scores}); a task names one"
            )
        return NamedObject(place, best.box, phrase, DETECTOR, model, phrase, best.score)
    return None


def telling_of_several(table: DetectorTable) -> DetectorTable:
    """`table`, but a detector that keeps the best box of a phrase alone keeps others, too."""
    if not isinstance(table, ZeroShotOptions):
        return table
    return table.model_copy(update={"per_phrase": max(table.per_phrase, _LOOKED_AT)})


def the_thing(task: str) -> str:
    """What a detector is asked for: ``red cup`` of "pick up the red cup and put it in the bowl".

    Raises:
        PerceptionError: `task` names nothing that could be looked for, or several things.
    """
    names = things_named(task)
    if len(names) != 1:
        told = f"names {len(names)} things: {', '.join(names)}" if names else "names no thing to look for"
        raise PerceptionError(f"{task!r} {told}; a detector is asked for one")
    return names[0]


def _same_place(one: Box, other: Box) -> bool:
    """Whether two boxes are of one thing: the smaller lies in the larger for the most part."""
    wide, high = (min(one[i + 2], other[i + 2]) - max(one[i], other[i]) for i in (0, 1))
    least = min((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return wide > 0 and high > 0 and wide * high >= least / 2


def asked(
    looks: Sequence[ShownMoment],
    task: str,
    config: PlannerConfig,
    tell: Callable[[], object] = lambda: None,
) -> NamedObject | None:
    """By a vision-language model, in the first picture in which it sees it.

    Of a moment in which the gripper holds the object, that object is asked for, and one answer is enough. Of
    others, `task` is, and where there is another picture its answer there must be about the same place.
    `tell` is told before each.

    Raises:
        PerceptionError: the model marks two things, or does not answer.
    """
    from planner.client import Planner
    from runtime.clock import RealClock

    found: list[NamedObject] = []
    clock = RealClock()

    async def ask() -> None:
        async with Planner(config, clock) as planner:
            for place, look in enumerate(looks):
                tell()
                wanted = (
                    f"the object that the robot's gripper holds; its task is: {task}" if look.held else task
                )
                try:
                    answer = await planner.ask(Mark(wanted), {View.HEAD: look.image})
                except PlannerError as error:
                    if error.kind != "no_object":
                        raise
                    continue
                model = str(config.model or "")
                found.append(NamedObject(place, answer.bbox_2d, answer.label or task, VLM, model, wanted))
                if look.held or len(found) == 2:
                    return

    try:
        clock.run(ask)
    except PlannerError as error:
        raise PerceptionError(str(error)) from None
    if found and looks[found[-1].look].held:
        return found[-1]
    if len(found) == 2 and not boxes_meet(found[0].box, found[1].box):
        raise PerceptionError(f"the planner marks different things as {task!r}")
    return found[0] if found else None
