"""Which object a task is about, and its box, in one of several pictures: asked of a model, or read off."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from planner.errors import PlannerError
from planner.perception.one_thing import looked_for, the_thing
from planner.questions.mark import Mark
from planner.questions.question import View
from planner.scene_reader.language import Query, parse_request
from planner.scene_reader.select import fitting, label
from planner.scene_reader.vision import SceneObject, between_jaws, read
from runtime.geometry import boxes_meet
from runtime.interfaces import Box, Detector, PerceptionError
from runtime.messages import ColorImage

if TYPE_CHECKING:
    from planner.config import PlannerConfig

READER = "scene_reader"
VLM = "vlm"
DETECTOR = "detector"


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
        if (best := looked_for(detector, look.image, phrase)) is not None:
            return NamedObject(place, best.box, phrase, DETECTOR, model, phrase, best.score)
    return None


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
