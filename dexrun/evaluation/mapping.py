"""How a Gymnasium environment's observations and actions are the runtime's: the file of ``--mapping``."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
from pydantic import Field, ValidationError, model_validator

from dexrun.config.sources import ConfigError
from runtime.joints import JointLayout
from runtime.messages import ArmState, ColorImage, DepthImage, Floats, Frame, Mask, Observation, TrackedMask
from runtime.options import Options


class EnvironmentMapping(Options):
    """Paths into an observation are keys joined by dots, as in ``pixels.top``; empty: the observation itself.

    Attributes:
        make: keywords of ``gymnasium.make``. steps: at most so many of a scene.
        rate_hz: steps a second of the environment's own time.
        execute_steps: rows of a chunk that are executed before the next is asked for; 0: all.
        joints, low, high: names and ranges, in the runtime's units. grippers: those that are grippers.
        state: where the joints are. entries: which entries of that vector they are; empty: all.
        images, depth, masks: by the policy's camera, where its pictures are.
        scale, offset: by joint, ``runtime = environment * scale + offset``, of states and actions alike;
            empty: they are the same.
        success: the key of the step's info that says so. success_reward: a reward that says it, too.
    """

    make: dict[str, Any] = Field(default_factory=dict)
    steps: int = Field(default=400, ge=1, le=1_000_000)
    rate_hz: float = Field(default=30.0, gt=0, le=1000)
    execute_steps: int = Field(default=0, ge=0, le=10_000)
    joints: tuple[str, ...] = Field(min_length=1)
    low: tuple[float, ...]
    high: tuple[float, ...]
    grippers: tuple[str, ...] = ()
    state: str = ""
    entries: tuple[int, ...] = ()
    images: dict[str, str] = Field(default_factory=dict)
    depth: dict[str, str] = Field(default_factory=dict)
    masks: dict[str, str] = Field(default_factory=dict)
    scale: tuple[float, ...] = ()
    offset: tuple[float, ...] = ()
    success: str = "is_success"
    success_reward: float | None = None

    @model_validator(mode="after")
    def _one_each(self) -> Self:
        count = len(self.joints)
        for key in ("low", "high", "scale", "offset"):
            given = getattr(self, key)
            if len(given) != count and (given or key in ("low", "high")):
                raise ValueError(f"{key}: {len(given)} values for {count} joints")
        if self.entries and (len(self.entries) != count or min(self.entries) < 0):
            raise ValueError(f"entries: give {count} numbers from 0 on, one for each joint")
        if unknown := [name for name in self.grippers if name not in self.joints]:
            raise ValueError(f"grippers: {', '.join(unknown)} are no joints")
        if any(scale == 0 for scale in self.scale):
            raise ValueError("scale: 0 leaves nothing")
        return self

    @property
    def layout(self) -> JointLayout:
        """The joints, as a policy is told of them."""
        ranges = np.array([self.low, self.high]).T
        return JointLayout(self.joints, ranges, tuple(self.joints.index(name) for name in self.grippers))

    def observation(self, seen: Any, step: int, instruction: str) -> Observation:
        """What the policy is shown of the environment's observation `seen`.

        Raises:
            ConfigError: there is nothing where the mapping points to, or it is no picture or joint vector.
        """
        stamp_ns = round(step * 1e9 / self.rate_hz)
        state = np.asarray(_at(seen, self.state), np.float64)
        if self.entries and state.ndim == 1 and len(state) > max(self.entries):
            state = state[list(self.entries)]
        if state.shape != (len(self.joints),):
            raise ConfigError(
                f"state {self.state!r} is {list(state.shape)}; there are {len(self.joints)} joints"
            )
        none = np.zeros(len(self.joints))
        arm = ArmState(stamp_ns, state * self._scale + self._offset, none, none)
        frames = {name: self._frame(name, seen, stamp_ns) for name in self.images}
        masks = {
            name: TrackedMask(name, stamp_ns, _picture(Mask, seen, path, 2), 1.0)
            for name, path in self.masks.items()
        }
        return Observation(step, 0, stamp_ns, arm, frames, masks, instruction=instruction)

    def _frame(self, name: str, seen: Any, stamp_ns: int) -> Frame:
        color: ColorImage = _picture(ColorImage, seen, self.images[name], 3)
        depth: DepthImage | None = None
        if name in self.depth:
            depth = _picture(DepthImage, seen, self.depth[name], 2)
        return Frame(name, stamp_ns, color, depth)

    def action(self, row: Floats) -> Floats:
        """The environment's action for a row ``[D]`` of a chunk."""
        return np.asarray((row - self._offset) / self._scale)

    @property
    def _scale(self) -> Floats:
        return np.array(self.scale) if self.scale else np.ones(len(self.joints))

    @property
    def _offset(self) -> Floats:
        return np.array(self.offset) if self.offset else np.zeros(len(self.joints))


def _at(seen: Any, path: str) -> Any:
    found = seen
    for key in filter(None, path.split(".")):
        if not isinstance(found, Mapping) or key not in found:
            there = ", ".join(map(str, found)) if isinstance(found, Mapping) else type(found).__name__
            raise ConfigError(f"the observation has no {path!r}; where {key!r} was looked for is {there}")
        found = found[key]
    return found


def _picture(kind: object, seen: Any, path: str, dimensions: int) -> Any:
    made = np.asarray(_at(seen, path))
    dtype = np.uint16 if kind is DepthImage else np.uint8
    if made.ndim != dimensions or made.dtype != dtype:
        raise ConfigError(
            f"{path!r} is {made.dtype} {list(made.shape)}; a picture of {np.dtype(dtype)} is needed"
        )
    return made


def read_mapping(path: Path) -> EnvironmentMapping:
    """The mapping in the TOML file at `path`.

    Raises:
        ConfigError: it cannot be read or used; one line.
    """
    try:
        return EnvironmentMapping.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ConfigError(f"{path}: {where + ': ' if where else ''}{first['msg']}") from None
