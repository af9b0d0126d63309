"""How the table looks: as configured, and the rest by chance from the seed. The task stays the same."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from drivers.world.config import WorldConfig
from drivers.world.layout import COLORS, X_RANGE_M, Y_RANGE_M
from runtime.messages import Floats

Rgb = tuple[float, float, float]

TABLE_RGB: Rgb = (0.50, 0.49, 0.47)
TRAY_RGB: Rgb = (0.16, 0.17, 0.19)
_SEED = 5
_SHIFT_M, _TURN_RAD = 0.01, 0.035
"""How far, and by how much, a camera is off where its calibration has it, at most."""
_LIGHT = (0.75, 1.25)
_TINT = 0.03
"""Of hue, in turns: a red thing stays a red one."""
_MOST_PATCHES = 5
_PALE = 0.22
"""The most saturation of table and patches: what is colourful is an object."""


@dataclass(frozen=True, slots=True)
class Patch:
    """Something flat on the table that is no object: paper, a spot, a print. Nothing touches it."""

    x_m: float
    y_m: float
    half_m: tuple[float, float]
    yaw_rad: float
    rgb: Rgb


@dataclass(frozen=True, slots=True)
class Look:
    """Everything that is seen and changes nothing.

    Attributes:
        light: of all lamps, as a share of the usual. lamp_turn_rad: how far they stand around the table.
        colors: of the objects, by the names of their colours.
        shift_m, turn_rad: by camera (``head``, ``wrist``), how far it is moved and turned, in its own axes,
            from where its calibration has it.
    """

    table: Rgb
    tray: Rgb
    light: float
    lamp_turn_rad: float
    colors: dict[str, Rgb]
    shift_m: dict[str, Floats]
    turn_rad: dict[str, Floats]
    patches: tuple[Patch, ...]

    @property
    def moved(self) -> bool:
        """Whether a camera is not where its calibration has it."""
        return any(
            float(np.abs(each).max()) > 0 for each in (*self.shift_m.values(), *self.turn_rad.values())
        )


def look_of(config: WorldConfig) -> Look:
    """The look of a scene: a pure function of its configuration."""
    options, vary = config.look, config.look.vary
    rng = np.random.default_rng([config.seed, _SEED])
    drawn_table, drawn_tray = _pale(rng, 0.25, 0.72), _pale(rng, 0.08, 0.3)
    light = 1.0 + vary * (float(rng.uniform(*_LIGHT)) - 1.0)
    turn = vary * float(rng.uniform(-np.pi, np.pi))
    colors = {name: _tinted(rgb, rng, vary) for name, rgb in COLORS.items()}
    shifts = {name: vary * rng.uniform(-1, 1, 3) for name in ("head", "wrist")}
    turns = {name: vary * rng.uniform(-1, 1, 3) for name in ("head", "wrist")}
    count = round(vary * float(rng.integers(0, _MOST_PATCHES + 1)))
    patches = options.distractors if options.distractors is not None else count
    head_shift, head_turn = options.camera_shift_m, options.camera_turn_rad
    return Look(
        table=options.table_rgb or _between(TABLE_RGB, drawn_table, vary),
        tray=_between(TRAY_RGB, drawn_tray, vary),
        light=options.light if options.light is not None else light,
        lamp_turn_rad=turn,
        colors=colors,
        shift_m={
            "head": _bounded(shifts["head"], _SHIFT_M) if head_shift is None else np.array(head_shift),
            "wrist": _bounded(shifts["wrist"], _SHIFT_M / 2),
        },
        turn_rad={
            "head": _bounded(turns["head"], _TURN_RAD) if head_turn is None else np.array(head_turn),
            "wrist": _bounded(turns["wrist"], _TURN_RAD),
        },
        patches=tuple(_patch(rng) for _ in range(patches)),
    )


def _bounded(direction: Floats, most: float) -> Floats:
    """`direction` within the cube of edge 2, as a vector no longer than `most`."""
    return np.asarray(direction * most / max(1.0, float(np.linalg.norm(direction))))


def _pale(rng: np.random.Generator, dark: float, bright: float) -> Rgb:
    hue, saturation, value = rng.random(), rng.uniform(0.0, _PALE), rng.uniform(dark, bright)
    red, green, blue = colorsys.hsv_to_rgb(float(hue), float(saturation), float(value))
    return red, green, blue


def _tinted(rgb: Rgb, rng: np.random.Generator, vary: float) -> Rgb:
    turn, pale, bright = rng.uniform(-_TINT, _TINT), rng.uniform(0.85, 1.0), rng.uniform(0.8, 1.1)
    if not vary:
        return rgb
    hue, saturation, value = colorsys.rgb_to_hsv(*rgb)
    saturation *= 1 + vary * (float(pale) - 1)
    value = min(1.0, value * (1 + vary * (float(bright) - 1)))
    red, green, blue = colorsys.hsv_to_rgb((hue + vary * float(turn)) % 1.0, saturation, value)
    return red, green, blue


def _between(usual: Rgb, drawn: Rgb, vary: float) -> Rgb:
    red, green, blue = (a + vary * (b - a) if vary else a for a, b in zip(usual, drawn, strict=True))
    return red, green, blue


def _patch(rng: np.random.Generator) -> Patch:
    x, y = (
        rng.uniform(X_RANGE_M[0] - 0.06, X_RANGE_M[1] + 0.06),
        rng.uniform(Y_RANGE_M[0] - 0.05, Y_RANGE_M[1]),
    )
    half = float(rng.uniform(0.01, 0.05)), float(rng.uniform(0.005, 0.04))
    return Patch(float(x), float(y), half, float(rng.uniform(-np.pi, np.pi)), _pale(rng, 0.1, 0.95))


def turned(axes: Sequence[float], by_rad: Floats) -> list[float]:
    """A camera's x and y axes ``[6]``, turned by a rotation vector in its own axes."""
    import mujoco

    x, y = np.array(axes[:3]), np.array(axes[3:])
    frame = np.stack([x, y, np.cross(x, y)], axis=1)
    quaternion, rotation = np.zeros(4), np.zeros(9)
    angle = float(np.linalg.norm(by_rad))
    if angle == 0.0:
        return list(axes)
    mujoco.mju_axisAngle2Quat(quaternion, by_rad / angle, angle)
    mujoco.mju_quat2Mat(rotation, quaternion)
    out = frame @ rotation.reshape(3, 3)
    return [*map(float, out[:, 0]), *map(float, out[:, 1])]


def moved_by(axes: Sequence[float], position: Sequence[float], shift_m: Floats) -> tuple[float, float, float]:
    """A camera's position, moved by `shift_m` in its own axes."""
    x, y = np.array(axes[:3]), np.array(axes[3:])
    out = np.array(position) + np.stack([x, y, np.cross(x, y)], axis=1) @ shift_m
    return float(out[0]), float(out[1]), float(out[2])
