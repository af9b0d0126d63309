"""Which objects lie where: a pure function of the seed."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from drivers.world.config import Color, Shape, WorldConfig
from runtime.table_model import FixedBox

COLORS: dict[str, tuple[float, float, float]] = {
    "red": (0.80, 0.05, 0.06),
    "green": (0.06, 0.52, 0.12),
    "blue": (0.05, 0.20, 0.80),
    "yellow": (0.93, 0.83, 0.06),
    "orange": (0.95, 0.40, 0.02),
    "purple": (0.42, 0.08, 0.58),
}

X_RANGE_M = (0.16, 0.29)
Y_RANGE_M = (-0.16, 0.07)
PAN_AXIS_X_M = 0.0452
REACH_M = (0.115, 0.24)
"""Distance from the pan axis within which objects are put: reachable top-down with room to lift."""

GAP_M = 0.026
"""Free table between any two objects, so that the open jaws fit."""

TRAY_CENTER_M = (0.11, 0.188)
TRAY_INNER_M = (0.14, 0.12)
TRAY_WALL_M = 0.006
TRAY_HEIGHT_M = 0.035
TRAY_FLOOR_M = 0.002

_TRIES = 400
_RESIZED = 0.08


def fixed_boxes() -> tuple[FixedBox, ...]:
    """The tray, as the clearance check knows it: its walls, and its floor."""
    (x, y), (along, across), wall, height = TRAY_CENTER_M, TRAY_INNER_M, TRAY_WALL_M, TRAY_HEIGHT_M
    out_x, out_y, middle = 0.5 * (along + wall), 0.5 * (across + wall), 0.5 * height
    side = (wall, across + 2 * wall, height), (along, wall, height)
    walls = [FixedBox((x + sign * out_x, y, middle), side[0]) for sign in (1, -1)]
    walls += [FixedBox((x, y + sign * out_y, middle), side[1]) for sign in (1, -1)]
    floor = FixedBox((x, y, 0.5 * TRAY_FLOOR_M), (along, across, TRAY_FLOOR_M))
    return (*walls, floor)


@dataclass(frozen=True)
class ObjectSpec:
    """One object at the start: `size_m` is width, depth, height; `x_m`, `y_m` its centre."""

    name: str
    shape: Shape
    color: Color
    size_m: tuple[float, float, float]
    x_m: float
    y_m: float
    yaw_rad: float
    present: bool = True

    @property
    def radius_m(self) -> float:
        """Of the circle that its footprint fits into."""
        if self.shape == "cylinder":
            return self.size_m[0] / 2
        return math.hypot(self.size_m[0], self.size_m[1]) / 2


def object_name(color: str, shape: str) -> str:
    """What the object is called, as in ``"red cube"``."""
    return f"{color} {shape}"


def draw_objects(config: WorldConfig) -> tuple[ObjectSpec, ...]:
    """The scene's objects, placed by configuration or random, and last a spare one that waits."""
    if config.placed:
        return _with_spare(_placed(config))
    rng = np.random.default_rng([config.seed, 1])
    wanted = config.objects if config.objects is not None else int(rng.integers(3, 6))
    while True:
        specs = _attempt(rng, wanted)
        if specs is not None:
            return _with_spare(_resized(specs, config))


def _resized(specs: tuple[ObjectSpec, ...], config: WorldConfig) -> tuple[ObjectSpec, ...]:
    """Each a little larger or smaller than it was drawn, where looks vary."""
    if not config.look.vary:
        return specs
    rng = np.random.default_rng([config.seed, 6])
    found = []
    for spec in specs:
        scale = 1.0 + config.look.vary * float(rng.uniform(-_RESIZED, _RESIZED))
        width, depth, height = (round(size * scale, 4) for size in spec.size_m)
        found.append(replace(spec, size_m=(width, depth, height)))
    return tuple(found)


def away(index: int) -> tuple[float, float]:
    """Where object `index` waits while it takes no part: out of every camera's sight."""
    return 3.0 + 0.2 * index, 3.0


def _with_spare(specs: tuple[ObjectSpec, ...]) -> tuple[ObjectSpec, ...]:
    """One cube more, of a colour that is not there, which waits to be added."""
    free = [c for c in COLORS if c not in {s.color for s in specs}] or ["red"]
    name = object_name(free[0], "cube")
    if any(s.name == name for s in specs):
        name = f"spare {name}"
    x, y = away(len(specs))
    spare = ObjectSpec(name, "cube", free[0], (0.025, 0.025, 0.025), x, y, 0.0, present=False)  # type: ignore[arg-type]
    return (*specs, spare)


def _placed(config: WorldConfig) -> tuple[ObjectSpec, ...]:
    return tuple(
        ObjectSpec(o.called, o.shape, o.color, o.size_m, o.x_m, o.y_m, o.yaw_rad) for o in config.placed
    )


def _attempt(rng: np.random.Generator, wanted: int) -> tuple[ObjectSpec, ...] | None:
    """Draw all objects, or ``None`` if they did not find room."""
    colors = [list(COLORS)[i] for i in rng.permutation(len(COLORS))]
    specs: list[ObjectSpec] = []
    for number in range(wanted):
        spec = _draw_one(rng, colors[number % len(colors)], specs)
        if spec is None:
            return None
        specs.append(spec)
    return tuple(specs)


def _draw_one(rng: np.random.Generator, color: str, others: list[ObjectSpec]) -> ObjectSpec | None:
    shapes: tuple[Shape, ...] = ("cube", "cuboid", "cylinder")
    taken = {o.name for o in others}
    for _ in range(_TRIES):
        shape = shapes[int(rng.integers(3))]
        spec = ObjectSpec(
            name=object_name(color, shape),
            shape=shape,
            color=color,  # type: ignore[arg-type]
            size_m=_draw_size(rng, shape),
            x_m=round(float(rng.uniform(*X_RANGE_M)), 4),
            y_m=round(float(rng.uniform(*Y_RANGE_M)), 4),
            yaw_rad=round(float(rng.uniform(-math.pi, math.pi)), 4),
        )
        if spec.name not in taken and reachable(spec) and all(_apart(spec, other) for other in others):
            return spec
    return None


def reachable(spec: ObjectSpec) -> bool:
    """Whether the arm can grasp it from above where it lies, and lift it."""
    near, far = REACH_M
    return near <= math.hypot(spec.x_m - PAN_AXIS_X_M, spec.y_m) <= far


def _draw_size(rng: np.random.Generator, shape: Shape) -> tuple[float, float, float]:
    width = round(float(rng.uniform(0.020, 0.030)), 4)
    if shape == "cube":
        return width, width, width
    if shape == "cylinder":
        return width, width, round(float(rng.uniform(0.024, 0.045)), 4)
    width = round(float(rng.uniform(0.020, 0.028)), 4)
    return width, round(width * float(rng.uniform(1.4, 1.9)), 4), round(float(rng.uniform(0.020, 0.035)), 4)


def _apart(one: ObjectSpec, other: ObjectSpec) -> bool:
    distance = math.hypot(one.x_m - other.x_m, one.y_m - other.y_m)
    return distance >= one.radius_m + other.radius_m + GAP_M
