"""Where what a phrase names is: by the detector that is configured, else by the planner."""

from __future__ import annotations

from collections.abc import Mapping

from loguru import logger

from dexrun.modes.perception import DetectorFailedError, Perception
from planner.client import Planner
from planner.errors import PlannerError
from planner.questions.mark import BoundingBox, Mark
from planner.questions.question import View
from runtime.messages import ColorImage, Frame


async def located(
    question: Mark,
    frame: Frame,
    pictures: Mapping[View, ColorImage],
    planner: Planner,
    perception: Perception,
) -> BoundingBox:
    """The box in `frame`. Where the detector fails, or sees nothing, and something is to take over, the
    planner is asked as if there were no detector.

    Raises:
        DetectorFailedError: the detector does not answer, and nothing takes over.
        PlannerError: of kind ``no_object`` if it is not to be seen; else the planner's own.
    """
    if not perception.detects:
        return await planner.ask(question, pictures)
    phrase = question.instruction
    try:
        found = await perception.detect(frame, phrase)
    except DetectorFailedError as error:
        if not perception.falls_back:
            raise
        logger.warning("perception: {}; the planner is asked where {} is", error, phrase)
        return await planner.ask(question, pictures)
    if found is not None:
        box = ", ".join(f"{each:.0f}" for each in found.box)
        logger.info("perception: {} at [{}], score {:.2f}", phrase, box, found.score)
        return BoundingBox(bbox_2d=found.box, label=phrase)
    if not perception.falls_back:
        raise PlannerError(question.task, "no_object", f"the detector sees no {phrase!r}")
    logger.warning("perception: the detector sees no {!r}; the planner is asked where it is", phrase)
    return await planner.ask(question, pictures)
