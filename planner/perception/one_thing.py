"""A detector is asked for one thing, and its answer is one thing: whoever asks one asks by this."""

from __future__ import annotations

from planner.perception.task_words import things_named
from planner.perception.zero_shot_options import ZeroShotOptions
from runtime.interfaces import Box, Detection, Detector, PerceptionError
from runtime.messages import ColorImage
from runtime.parts import DetectorTable

_AS_GOOD = 0.8
"""Share of the best score from which on another thing may be the one that is meant."""
_LOOKED_AT = 10
"""Boxes of a phrase among which another thing would be seen: one thing may have several."""


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


def looked_for(detector: Detector, image: ColorImage, phrase: str) -> Detection | None:
    """The box of `phrase` in `image`; ``None`` if the detector does not see it.

    Raises:
        PerceptionError: another thing fits nearly as well, so that it is not known which is meant; the
            detector cannot answer.
    """
    found = sorted(detector.detect(image, [phrase]), key=lambda each: -each.score)
    if not found:
        return None
    best, *others = found
    least = _AS_GOOD * best.score
    alike = [each for each in others if each.score >= least and not _same_place(each.box, best.box)]
    if alike:
        scores = ", ".join(f"{each.score:.2f}" for each in (best, *alike))
        raise PerceptionError(
            f"the detector sees {1 + len(alike)} things as {phrase!r} (scores {scores}); a task names one"
        )
    return best


def telling_of_several(table: DetectorTable) -> DetectorTable:
    """`table`, but a detector that keeps the best box of a phrase alone keeps others, too."""
    if not isinstance(table, ZeroShotOptions):
        return table
    return table.model_copy(update={"per_phrase": max(table.per_phrase, _LOOKED_AT)})


def _same_place(one: Box, other: Box) -> bool:
    """Whether two boxes are of one thing: the smaller lies in the larger for the most part."""
    wide, high = (min(one[i + 2], other[i + 2]) - max(one[i], other[i]) for i in (0, 1))
    least = min((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return wide > 0 and high > 0 and wide * high >= least / 2
