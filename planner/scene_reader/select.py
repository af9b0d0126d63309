"""Which of the things on the table a description fits, in which order to take them, and how to name them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from planner.scene_reader.language import PromptQuery, Query
from planner.scene_reader.vision import SceneObject

_SOON = 0.12
"""How far from its stated place, as a fraction of the picture, something may still be the thing meant."""
_MIN_SPREAD = 0.15
_NUMBER_WORDS = {2: "two", 3: "three", 4: "four", 5: "five", 6: "six"}

Things = Sequence[SceneObject]


def grasping_order(things: Things, arm_side: str) -> list[SceneObject]:
    """Those on the arm's side first, so that reaching for the others passes over nothing."""
    keys: dict[str, Callable[[SceneObject], tuple[float, float]]] = {
        "bottom": lambda each: (-each.at[1], -each.at[0]),
        "top": lambda each: (each.at[1], -each.at[0]),
        "left": lambda each: (each.at[0], -each.at[1]),
        "right": lambda each: (-each.at[0], -each.at[1]),
    }
    return sorted(things, key=keys[arm_side])


def of_kind(things: Things, query: Query) -> list[SceneObject]:
    """Those whose colour and shape fit; none if something unheard of is asked for.

    A half hidden thing's shape fits anything, unless one that is seen whole fits.
    """
    if query.unknown:
        return []
    same = [each for each in things if not query.colors or each.color in query.colors]
    exact = [each for each in same if not query.shapes or each.shape in query.shapes]
    return exact or [each for each in same if each.partly_hidden and query.colors]


def fitting(things: Things, query: Query) -> list[SceneObject]:
    """Those that fit the whole description."""
    fits = of_kind(things, query)
    if query.at is not None:
        near = [each for each in fits if distance(each, query.at) <= _SOON]
        return sorted(near, key=lambda each: distance(each, query.at or (0, 0)))[:1]
    for place in sorted(query.places):
        fits = [each for each in fits if _is_at(each, place, things)]
    if query.size:
        fits = _of_size(fits, query.size)
    if query.extreme:
        fits = _extreme(fits, query.extreme)[: query.count or 1]
    return fits


def meant(things: Things, query: Query) -> SceneObject | None:
    """The one thing that an instruction means.

    First what fits it all; then what is of that kind elsewhere, if there is only one (it was pushed); then
    what has that colour and stands in the stated place (it fell over, or is half hidden).
    """
    if fits := fitting(things, query):
        return fits[0]
    alike = of_kind(things, query)
    if alike and query.at is not None:
        return min(alike, key=lambda each: distance(each, query.at or (0, 0)))
    if len(alike) == 1:
        return alike[0]
    return None if alike else recolored(things, query)


def recolored(things: Things, query: Query) -> SceneObject | None:
    """Something of the stated colour, whatever its shape, in the stated place."""
    if query.at is None or not query.colors or query.unknown:
        return None
    same = [each for each in things if each.color in query.colors and distance(each, query.at) <= _SOON]
    return min(same, key=lambda each: distance(each, query.at or (0, 0)), default=None)


def asked_for(things: Things, request: PromptQuery, arm_side: str) -> list[SceneObject]:
    """Everything that a prompt means, in grasping order."""
    ordered = grasping_order(things, arm_side)
    chosen: list[SceneObject] = []
    for query in request.wanted or (Query(),):
        fits = set(fitting(things, query))
        chosen += [each for each in ordered if each in fits and each not in chosen][: query.count]
    unwanted = {each for query in request.unwanted for each in fitting(things, query)}
    kept = [each for each in chosen if each not in unwanted]
    return kept if request.in_order else [each for each in ordered if each in kept]


def distance(thing: SceneObject, at: tuple[float, float]) -> float:
    """In fractions of the picture."""
    return math.hypot(thing.at[0] - at[0], thing.at[1] - at[1])


def _relative(thing: SceneObject, axis: int, things: Things) -> float:
    """Where it stands among all, 0 to 1; 0.5 if they do not spread."""
    values = [each.at[axis] for each in things]
    low, high = min(values), max(values)
    return 0.5 if high - low < _MIN_SPREAD else (thing.at[axis] - low) / (high - low)


def _is_at(thing: SceneObject, place: str, things: Things) -> bool:
    u, v = _relative(thing, 0, things), _relative(thing, 1, things)
    tests = {"left": u < 0.4, "right": u > 0.6, "far": v < 0.4, "near": v > 0.6, "middle": 0.3 <= u <= 0.7}
    return tests[place]


def _of_size(things: list[SceneObject], size: str) -> list[SceneObject]:
    """The larger or the smaller half by area; all of them if they hardly differ."""
    if len(things) < 2:
        return things
    areas = sorted(each.area for each in things)
    if areas[-1] < 1.3 * areas[0]:
        return things
    middle = math.sqrt(areas[0] * areas[-1])
    return [each for each in things if (each.area >= middle) == (size == "large")]


def _extreme(things: list[SceneObject], word: str) -> list[SceneObject]:
    """The most extreme first."""
    keys: dict[str, Callable[[SceneObject], float]] = {
        "leftmost": lambda each: each.at[0],
        "rightmost": lambda each: -each.at[0],
        "farthest": lambda each: each.at[1],
        "nearest": lambda each: -each.at[1],
        "smallest": lambda each: each.area,
        "largest": lambda each: -each.area,
    }
    return sorted(things, key=keys[word])


def label(thing: SceneObject) -> str:
    """``"red cube"``."""
    return f"{thing.color} {thing.shape}"


def describe(thing: SceneObject, things: Things) -> str:
    """A phrase by which it can be found again among `things`: colour, shape and position."""
    alike = sum(label(each) == label(thing) for each in things)
    name = f"the {label(thing)}"
    if alike > 1:
        name = f"one of the {_NUMBER_WORDS.get(alike, str(alike))} {label(thing)}s, the one"
    u, v = _relative(thing, 0, things), _relative(thing, 1, things)
    across = "on the left" if u < 0.4 else "on the right" if u > 0.6 else "in the middle"
    along = " at the far side" if v < 0.4 else " at the near side" if v > 0.6 else ""
    x, y = (round(100 * fraction) for fraction in thing.at)
    return f"{name} {across}{along}, about {x}% across and {y}% down the picture"
