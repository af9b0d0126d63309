"""The server's side of `policies.mapping`: a client's keys and units back to the robot's observation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policies.encoding.limits import WireError
from policies.entries import JOINT_STATES, EntryKind
from policies.mapping import KeyMap, ObservationMap
from runtime.clock import NS_PER_S
from runtime.interfaces import PolicyError
from runtime.joints import JointLayout
from runtime.messages import ArmState, ColorImage, Floats, Frame, Observation, Thought, Tip, TrackedMask
from runtime.units import UnitMap

_Said = dict[EntryKind, dict[int, float]]
_OTHERS = (EntryKind.FORCE, EntryKind.TIP, EntryKind.THOUGHT, EntryKind.THOUGHT_AGE)
CERTAIN = 1.0
TURNS_RAD = 2 * np.pi
"""How far beyond its range a joint may be said to be: a servo's scale may be off by a turn."""
LARGEST = 1e6
"""In a velocity, load or force: no arm has more."""


class RobotSide:
    """A `KeyMap` and a `UnitMap` read from the server's end.

    Raises:
        PolicyError: an entry names a joint that the robot does not have, or is relative to its position.
    """

    def __init__(self, keys: KeyMap, units: UnitMap, robot: JointLayout) -> None:
        self.map = ObservationMap(keys, units, robot)
        if self.map.takes_deltas:
            raise PolicyError("action entries <joint>.delta are for clients; a server answers with targets")
        if lonely := sorted(set(keys.depths) - set(keys.cameras)):
            raise PolicyError(f"keys.depths names camera {lonely[0]!r}, which keys.cameras does not")
        self.keys = keys
        self.joints = len(robot.names)
        self._names = robot.names
        self._ranges = robot.ranges[:, 0], robot.ranges[:, 1]

    def observation(
        self,
        state: Mapping[str, Any],
        images: Mapping[str, Any],
        instruction: str,
        *,
        step: int = 0,
        stamp_ns: int = 0,
        prefix: Floats | None = None,
        frozen: int = 0,
    ) -> Observation:
        """What the policy gets.

        Args:
            state: by the client's keys, each ``[n]`` in its units.
            images: by the client's keys.
            instruction: the text.
            step: which step of the client's this is.
            stamp_ns: when it arrived.
            prefix: ``[m, A]`` what the client has committed to, in its units.
            frozen: how much of that will have been executed.

        Raises:
            WireError: kind ``keys`` or ``shape``: something is missing, or has another form than configured.
        """
        frames = {camera: self._frame(camera, key, images, stamp_ns) for camera, key in self._cameras()}
        masks = {
            camera: TrackedMask(camera, stamp_ns, self._plane(images, key, np.uint8), CERTAIN)
            for camera, key in self.keys.masks.items()
        }
        arm, said = self._arm(state, stamp_ns)
        committed = np.zeros((0, self.joints)) if prefix is None else self._rows(prefix, arm.position)
        return Observation(
            step=step,
            epoch=0,
            stamp_ns=stamp_ns,
            arm=arm,
            frames=frames,
            masks=masks,
            force_n=_force(said[EntryKind.FORCE]),
            instruction=instruction,
            committed=committed,
            frozen_steps=max(0, min(int(frozen), len(committed))),
            tip=_tip(said[EntryKind.TIP], stamp_ns),
            thought=_thought(said, stamp_ns, instruction),
        )

    def actions(self, rows: Floats) -> dict[str, Floats]:
        """A chunk ``[T, D]`` in the robot's units by the client's keys, each ``[T, n]`` in its units."""
        return self.map.split_action(self.map.rows_to_policy(rows))

    def _cameras(self) -> list[tuple[str, str]]:
        return list(self.keys.cameras.items())

    def _frame(self, camera: str, key: str, images: Mapping[str, Any], stamp_ns: int) -> Frame:
        image = _array(images, key, "image")
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            raise WireError(f"image {key!r} is {_form(image)}; uint8 [height, width, 3] is wanted", "shape")
        rule = self.keys.rule_for(camera)
        wanted = (rule.height or image.shape[0], rule.width or image.shape[1])
        if image.shape[:2] != wanted:
            raise WireError(
                f"image {key!r} is {image.shape[1]}x{image.shape[0]}; {wanted[1]}x{wanted[0]} is wanted",
                "shape",
            )
        color: ColorImage = image[..., ::-1] if rule.order == "bgr" else image
        depth = None
        if camera in self.keys.depths:
            depth = self._plane(images, self.keys.depths[camera], np.uint16)
        return Frame(camera, stamp_ns, color, depth)

    def _plane(self, images: Mapping[str, Any], key: str, dtype: Any) -> NDArray[Any]:
        plane = _array(images, key, "image")
        if plane.dtype != dtype or plane.ndim != 2 or 0 in plane.shape:
            wanted = np.dtype(dtype).name
            raise WireError(f"image {key!r} is {_form(plane)}; {wanted} [height, width] is wanted", "shape")
        return plane

    def _arm(self, state: Mapping[str, Any], stamp_ns: int) -> tuple[ArmState, _Said]:
        """The arm, and what else the state says, by kind and index."""
        size, units = self.joints, self.map.units
        columns = {
            EntryKind.POSITION: units.to_policy(np.zeros(size)),
            EntryKind.VELOCITY: np.zeros(size),
            EntryKind.LOAD: np.zeros(size),
        }
        others: _Said = {kind: {} for kind in _OTHERS}
        given: list[Floats] = []
        for key, entries in self.map.state.items():
            values = self._vector(state, key, len(entries))
            given.append(values)
            for value, entry in zip(values, entries, strict=True):
                if entry.kind in others:
                    others[entry.kind][entry.index] = float(value)
                elif entry.kind in JOINT_STATES:
                    columns[entry.kind][entry.index] = value
        said = np.concatenate(given) if given else np.zeros(0)
        if doubt := self.map.doubt("state", said, said):
            raise WireError(f"state: {doubt}", "shape")
        position = units.to_robot(columns[EntryKind.POSITION])
        velocity = columns[EntryKind.VELOCITY] / units.scale
        self._check_joints(position, "state")
        arm = ArmState(stamp_ns, position, velocity, columns[EntryKind.LOAD])
        return arm, others

    def _vector(self, state: Mapping[str, Any], key: str, size: int) -> Floats:
        values = _array(state, key, "state")
        if values.dtype.kind not in "fiu" or values.shape != (size,):
            raise WireError(f"state {key!r} is {_form(values)}; {size} numbers are wanted", "shape")
        values = values.astype(np.float64)
        if not np.isfinite(values).all():
            raise WireError(f"state {key!r} holds NaN or infinity", "shape")
        if np.abs(values).max(initial=0.0) > LARGEST:
            raise WireError(f"state {key!r} holds numbers beyond {LARGEST:g}", "shape")
        return values

    def _check_joints(self, rows: Floats, what: str) -> None:
        """Refuse positions ``[..., D]`` in the robot's units that no joint has: policies plan from them."""
        low, high = self._ranges
        off = ~((rows >= low - TURNS_RAD) & (rows <= high + TURNS_RAD)).reshape(-1, self.joints).all(axis=0)
        if off.any():
            joint = int(off.argmax())
            value = rows.reshape(-1, self.joints)[:, joint]
            worst = value[np.abs(value).argmax()]
            raise WireError(
                f"{what}: joint {self._names[joint]} at {worst:.4g} by the units of [serve]; its range is "
                f"{low[joint]:.3g} to {high[joint]:.3g}: are the client's units others?",
                "shape",
            )

    def _rows(self, prefix: Floats, present: Floats) -> Floats:
        if prefix.ndim == 2 and not len(prefix):
            return np.zeros((0, self.joints))
        if prefix.ndim != 2 or prefix.shape[1] != self.map.action_size or prefix.dtype.kind != "f":
            wanted = self.map.action_size
            raise WireError(f"prefix is {_form(prefix)}; [steps, {wanted}] is wanted", "shape")
        if not np.isfinite(prefix).all() or len(prefix) > 1000:
            raise WireError("prefix holds NaN or infinity, or more than 1000 steps", "shape")
        rows = self.map.actions_to_robot(self.map.split_action(prefix.astype(np.float64)), present)
        self._check_joints(rows, "prefix")
        return rows


def _force(channels: Mapping[int, float]) -> Floats | None:
    if not channels:
        return None
    out = np.zeros(max(channels) + 1)
    for channel, value in channels.items():
        out[channel] = value
    return out


def _tip(axes: Mapping[int, float], stamp_ns: int) -> Tip | None:
    if not axes:
        return None
    point, unknown = np.array([axes.get(axis, np.nan) for axis in range(3)]), np.full(3, np.nan)
    return Tip(point, unknown, point, stamp_ns)


def _thought(said: _Said, stamp_ns: int, instruction: str) -> Thought | None:
    numbers, ages_s = said[EntryKind.THOUGHT], said[EntryKind.THOUGHT_AGE]
    if not numbers and not ages_s:
        return None
    latent = np.zeros(max(numbers, default=0) + 1, np.float32)
    for index, value in numbers.items():
        latent[index] = value
    age_ns = round(next(iter(ages_s.values()), 0.0) * NS_PER_S)
    return Thought(latent, stamp_ns - age_ns, instruction=instruction)


def _array(values: Mapping[str, Any], key: str, what: str) -> NDArray[Any]:
    if key not in values:
        have = ", ".join(sorted(str(k) for k in values)) or "none"
        raise WireError(f"{what} key {key!r} is missing (there is: {have[:200]})", "keys")
    value = values[key]
    if not isinstance(value, np.ndarray):
        raise WireError(f"{what} {key!r} is a {type(value).__name__}; an array is wanted", "shape")
    return value


def _form(value: NDArray[Any]) -> str:
    return f"{value.dtype} {list(value.shape)}"
