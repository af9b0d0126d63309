"""Between the robot's observation and a policy's own keys, units, joint order and image format.

The robot speaks radians (gripper 0 closed to 1 open), RGB uint8 and its own joint and camera names. What a
policy was trained on is configured here, never guessed (units: `runtime.units`). Everything is a pure
function on arrays; the constructors check once, before anything moves.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, Field, model_validator

from policies.entries import (
    JOINT_STATES,
    TIP_ENTRIES,
    Entry,
    EntryKind,
    action_entry,
    force_of,
    pose_of,
    read_entries,
    state_entry,
    thought_size,
)
from runtime.interfaces import NoAnswerError, PolicyError
from runtime.joints import JointLayout
from runtime.messages import ColorImage, Floats, Observation, Tip
from runtime.options import Options
from runtime.part_context import CameraNeed
from runtime.tip import with_tip
from runtime.units import Plausibility, UnitError, UnitMap, joint_units


class ImageRule(Options):
    """The image that a policy wants.

    Attributes:
        width, height: in pixels; 0 keeps the camera's.
        order: channel order.
        resize: ``stretch`` ignores the aspect ratio, ``pad`` keeps it and fills with black, ``crop``
            keeps it and cuts the middle out.
        interpolation: ``bilinear``, ``area`` or ``nearest``.
    """

    width: int = Field(default=0, ge=0)
    height: int = Field(default=0, ge=0)
    order: Literal["rgb", "bgr"] = "rgb"
    resize: Literal["stretch", "pad", "crop"] = "stretch"
    interpolation: Literal["bilinear", "area", "nearest"] = "bilinear"


_TARGETS = (EntryKind.POSITION, EntryKind.DELTA)


def _all_joints_as_state() -> dict[str, tuple[str, ...]]:
    return {"state": ()}


def _all_joints_as_action() -> dict[str, tuple[str, ...]]:
    return {"action": ()}


class KeyMap(Options):
    """Which of the robot's things a policy wants, under which of its own names.

    Attributes:
        cameras: the robot's camera name to the policy's key.
        depths: the same for aligned depth images.
        masks: the robot's camera name to the key under which the policy wants its tracked mask.
        state: the policy's key to the entries of that vector, in order: ``<joint>``,
            ``<joint>.velocity``, ``<joint>.load``, ``force.<i>``, ``end_effector.x`` (``y``, ``z``,
            ``rot6d.0`` to ``5``, ``axis_angle.0`` to ``2``; of several arms ``<arm>.end_effector.x``) in the
            base frame, ``tip.x`` (``y``, ``z``), where the instruction's object was seen last (metres, in the
            base frame), ``thought.<i>`` and ``thought.age``, a slow half's latent and how old it is (seconds;
            type ``slow_fast``), a number (``"0.35"``: the same in every
            observation, in the policy's units) or ``zero``. An empty list means all joints in the robot's
            order.
        action: the policy's key to the entries of that part of a row: ``<joint>``, its target;
            ``<joint>.delta``, how far from where it was observed its target is; ``<joint>.velocity`` or
            ``skip``, which are not used. An empty list means all joints in the robot's order. Joints that
            no entry names stay where they are.
        instruction: the policy's key for the text, or ``""``.
        instruction_tip: whether the text ends with where its object was seen first: ``... The object is at
            x 0.212 m, y -0.034 m, z 0.041 m.``, in the base frame.
        tip_camera: the camera, of depth and a known pose, in which the object is tracked for ``tip.x`` or
            `instruction_tip`.
        image: the format of all images, unless `images` says otherwise for a camera.
    """

    cameras: dict[str, str] = Field(default_factory=dict)
    depths: dict[str, str] = Field(default_factory=dict)
    masks: dict[str, str] = Field(default_factory=dict)
    state: dict[str, tuple[str, ...]] = Field(default_factory=_all_joints_as_state)
    action: dict[str, tuple[str, ...]] = Field(default_factory=_all_joints_as_action)
    instruction: str = ""
    instruction_tip: bool = False
    tip_camera: str = "head"
    image: ImageRule = ImageRule()
    images: dict[str, ImageRule] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _a_tip_is_wanted_of_its_camera(self) -> KeyMap:
        if self.tip_camera != type(self).model_fields["tip_camera"].default and not self.wants_tip:
            raise ValueError(
                f"tip_camera = {self.tip_camera!r} has no effect without tip.x, tip.y or tip.z in state, or "
                "instruction_tip = true"
            )
        return self

    @property
    def wants_tip(self) -> bool:
        """Whether anything of it is where the instruction's object is (`PolicySpec.tip`)."""
        return self.instruction_tip or any(
            entry in TIP_ENTRIES for entries in self.state.values() for entry in entries
        )

    @property
    def thought_size(self) -> int:
        """How many numbers of a thought's latent it looks at (`PolicySpec.thought`)."""
        return thought_size(entry for entries in self.state.values() for entry in entries)

    @property
    def tracked(self) -> tuple[str, ...]:
        """The cameras in which the object is tracked."""
        return tuple(dict.fromkeys((*self.masks, *([self.tip_camera] if self.wants_tip else []))))

    def as_sent(self) -> KeyMap:
        """As the far end of a wire has it: it reads in the text where the object is, and needs no camera."""
        return self.model_copy(
            update={name: type(self).model_fields[name].default for name in ("instruction_tip", "tip_camera")}
        )

    def tip_needs(self) -> list[CameraNeed]:
        """The camera that tells where the object is, if anything wants to know."""
        need = CameraNeed("keys.tip_camera", self.tip_camera, depth=True, mask=True, calibration=True)
        return [need] if self.wants_tip else []

    def rule_for(self, camera: str) -> ImageRule:
        """The image format for one of the robot's cameras."""
        return self.images.get(camera, self.image)


_NOT_TARGETS = re.compile(r"(^|[^a-z])(eef|ee|tcp|end_?effector|delta|relative|rel)([^a-z]|$)", re.IGNORECASE)
"""In the name of an action: it is no joint's target."""


def _check_targets(action: Mapping[str, Sequence[Entry]]) -> None:
    for key, entries in action.items():
        named = next((each.text for each in entries if each.kind is EntryKind.POSITION), "")
        if named and _NOT_TARGETS.search(key):
            raise PolicyError(
                f"action {key!r} is by its name of an end effector or relative, and entry {named!r} would "
                "take it for a joint's target; a policy here gives joints: <joint> or <joint>.delta, or skip"
            )


def _vectors_only(keys: KeyMap) -> KeyMap:
    default = KeyMap()
    for key in ("cameras", "depths", "masks", "instruction", "instruction_tip", "image", "images"):
        if getattr(keys, key) != getattr(default, key):
            raise ValueError(f"{key} has no effect here: the network, or another key of [policy], says it")
    return keys


def _pictures_of_one_size(keys: KeyMap) -> KeyMap:
    for name, rule in (("image", keys.image), *((f"images.{each}", r) for each, r in keys.images.items())):
        if rule.width or rule.height:
            raise ValueError(
                f"{name}.width and height have no effect here: image_width and image_height say it"
            )
    _vectors_only(keys.model_copy(update={"image": ImageRule(), "images": {}}))
    return keys


VectorKeys = Annotated[KeyMap, AfterValidator(_vectors_only)]
"""The map of a policy whose network fixes what its images are called: `state` and `action` alone."""
PictureKeys = Annotated[KeyMap, AfterValidator(_pictures_of_one_size)]
"""The same, and how pictures become those of the network's size: order, resize, interpolation."""


class ObservationMap:
    """A `KeyMap` and a `UnitMap` bound to a robot; checked once here, then only applied.

    Raises:
        PolicyError: an entry names a joint that the robot does not have, in one line.
    """

    def __init__(self, keys: KeyMap, units: UnitMap, robot: JointLayout) -> None:
        self.keys = keys
        self.robot = robot
        try:
            self.units = joint_units(robot, units)
            self._plausibility = Plausibility(robot, units)
        except UnitError as error:
            raise PolicyError(str(error)) from None
        self.state = {k: read_entries(e, robot, k, "state", state_entry) for k, e in keys.state.items()}
        self.action = {k: read_entries(e, robot, k, "action", action_entry) for k, e in keys.action.items()}
        _check_targets(self.action)
        targets = [robot.names[each.index] for each in self._row if each.kind in _TARGETS]
        twice = sorted({name for name in targets if targets.count(name) > 1})
        if twice:
            raise PolicyError(f"action map names joint {twice[0]!r} twice; each joint takes one entry")

    @property
    def _row(self) -> list[Entry]:
        return [entry for entries in self.action.values() for entry in entries]

    @property
    def takes_deltas(self) -> bool:
        """Whether an action is relative to the observed position."""
        return any(entry.kind is EntryKind.DELTA for entry in self._row)

    def doubt(
        self, kind: Literal["state", "action"], low: Floats, high: Floats, *, spans: bool = False
    ) -> str:
        """Why a state or a row between `low` and `high`, each by the entries of all keys together, is not of
        this robot in these units; empty if it may be (`runtime.units.Plausibility`).
        """
        ends = self._by_joint(kind, EntryKind.POSITION, low, high)
        return self._plausibility.doubt(*ends, spans=spans)

    def doubt_of_changes(self, low: Floats, high: Floats) -> str:
        """The same of the differences (``<joint>.delta``) in rows of the action."""
        return self._plausibility.doubt_of_changes(*self._by_joint("action", EntryKind.DELTA, low, high))

    def _by_joint(
        self, part: Literal["state", "action"], kind: EntryKind, low: Floats, high: Floats
    ) -> Floats:
        """``[2, D]``: of the entries of one kind, by joint; NaN where there is none."""
        ends = np.full((2, self.robot.joints), np.nan)
        entries = [each for entries in getattr(self, part).values() for each in entries]
        for column, entry in enumerate(entries):
            if entry.kind is kind:
                ends[:, entry.index] = low[column], high[column]
        return ends

    @property
    def wants_poses(self) -> bool:
        """Whether a state entry is of an end effector (`PolicySpec.end_effector`)."""
        return any(entry.kind is EntryKind.POSE for entries in self.state.values() for entry in entries)

    @property
    def state_size(self) -> int:
        """Entries of all state keys together."""
        return sum(len(entries) for entries in self.state.values())

    @property
    def action_size(self) -> int:
        """Entries of all action keys together: the width of a row of the policy's own."""
        return sum(len(entries) for entries in self.action.values())

    def state_vectors(self, observation: Observation, unseen: float | None = None) -> dict[str, Floats]:
        """The policy's state, by its keys, each float64 ``[n]`` in its units.

        Args:
            observation: what is seen.
            unseen: of the tip's entries, before the object was seen.

        Raises:
            PolicyError: the observation lacks a force that an entry asks for.
            NoAnswerError: the object was not seen yet, and `unseen` is not given.
        """
        if unseen is not None and observation.tip is None:
            nowhere = np.full(3, unseen)
            observation = replace(observation, tip=Tip(nowhere, nowhere, nowhere, 0))
        columns = {
            EntryKind.POSITION: self.units.observed(observation.arm.position),
            EntryKind.VELOCITY: self.units.rate_to_policy(observation.arm.velocity),
            EntryKind.LOAD: observation.arm.load,
        }
        return {
            key: np.array([_value(entry, columns, observation) for entry in entries])
            for key, entries in self.state.items()
        }

    def actions_to_robot(self, actions: Mapping[str, Floats], present: Floats) -> Floats:
        """A chunk by the policy's keys, each ``[T, n]`` in its units, to ``[T, D]`` in the robot's.

        Raises:
            PolicyError: a key is missing or a part has another width than configured.
        """
        parts = [(key, self._part(actions, key), entries) for key, entries in self.action.items()]
        steps = min(part.shape[0] for _, part, _ in parts)
        rows = np.repeat(self.units.to_policy(present)[None], steps, axis=0)
        for _, part, entries in parts:
            for column, entry in enumerate(entries):
                if entry.kind is EntryKind.POSITION:
                    rows[:, entry.index] = part[:steps, column]
                elif entry.kind is EntryKind.DELTA:
                    rows[:, entry.index] += part[:steps, column]
        return self.units.to_robot(rows)

    def _part(self, actions: Mapping[str, Floats], key: str) -> Floats:
        if key not in actions:
            raise PolicyError(f"the policy answered without {key!r}; it gave {', '.join(sorted(actions))}")
        part = np.asarray(actions[key], float)
        if part.ndim != 2 or part.shape[1] != len(self.action[key]):
            wanted = len(self.action[key])
            raise PolicyError(f"action {key!r} has shape {list(part.shape)}; expected [steps, {wanted}]")
        return part

    def rows_to_policy(self, robot_rows: Floats, present: Floats | None = None) -> Floats:
        """``[n, D]`` in the robot's units to the policy's concatenated rows ``[n, action_size]``; entries
        that are not used become 0. For handing ``Observation.committed`` to a policy.

        `present` ``[D]`` is the observed position that deltas are counted from (zeros if it is not given).
        """
        rows = self.units.to_policy(robot_rows)
        start = self.units.to_policy(np.zeros(self.robot.joints) if present is None else present)
        out = np.zeros((rows.shape[0], self.action_size))
        for column, entry in enumerate(self._row):
            if entry.kind is EntryKind.POSITION:
                out[:, column] = rows[:, entry.index]
            elif entry.kind is EntryKind.DELTA:
                out[:, column] = rows[:, entry.index] - start[entry.index]
        return out

    def split_action(self, rows: Floats) -> dict[str, Floats]:
        """The policy's concatenated rows ``[T, action_size]`` by its keys."""
        ends = np.cumsum([len(entries) for entries in self.action.values()])[:-1]
        return dict(zip(self.action, np.split(rows, ends, axis=1), strict=True))

    def images(self, observation: Observation) -> dict[str, NDArray[Any]]:
        """Images, depths and masks by the policy's keys, in its format (uint8, uint16, uint8).

        Raises:
            PolicyError: a camera, its depth or its mask is not in the observation.
        """
        out: dict[str, NDArray[Any]] = {}
        for camera, key in self.keys.cameras.items():
            frame = _need(observation.frames, camera, "camera")
            out[key] = fit_image(frame.color, self.keys.rule_for(camera))
        for camera, key in self.keys.depths.items():
            depth = _need(observation.frames, camera, "camera").depth
            if depth is None:
                raise PolicyError(f"camera {camera!r} gives no depth, which the policy wants as {key!r}")
            out[key] = fit_plane(depth, self.keys.rule_for(camera))
        for camera, key in self.keys.masks.items():
            mask = _need(observation.masks, camera, "mask of camera").mask
            out[key] = fit_plane(mask, self.keys.rule_for(camera))
        return out

    def observation(self, observation: Observation) -> dict[str, Any]:
        """Everything by the policy's keys: state vectors, images and the instruction.

        Raises:
            PolicyError: something that the map names is not in the observation.
        """
        out: dict[str, Any] = {**self.state_vectors(observation), **self.images(observation)}
        if self.keys.instruction:
            out[self.keys.instruction] = self.instruction(observation)
        return out

    def instruction(self, observation: Observation) -> str:
        """The text, with where its object was seen first if that is wanted.

        Raises:
            NoAnswerError: it was not seen yet.
        """
        said = observation.instruction
        return with_tip(said, tip_of(observation).first_m) if self.keys.instruction_tip else said


def _need(mapping: Mapping[str, Any], name: str, what: str) -> Any:
    if name not in mapping:
        have = ", ".join(sorted(mapping)) or "none"
        raise PolicyError(f"no {what} {name!r} in the observation (there is: {have})")
    return mapping[name]


def _value(entry: Entry, columns: Mapping[EntryKind, Floats], observation: Observation) -> float:
    if entry.kind in JOINT_STATES:
        return float(columns[entry.kind][entry.index])
    if entry.kind is EntryKind.FORCE:
        return force_of(entry, observation.force_n)
    if entry.kind is EntryKind.POSE:
        return pose_of(entry, observation.end_effector)
    if entry.kind is EntryKind.TIP:
        return float(tip_of(observation).point_m[entry.index])
    if entry.kind in (EntryKind.THOUGHT, EntryKind.THOUGHT_AGE):
        return _of_thought(entry, observation)
    return entry.value


def _of_thought(entry: Entry, observation: Observation) -> float:
    thought = observation.thought
    if thought is None:
        raise PolicyError(
            f"state entry {entry.text!r}: there is no thought; it is for the fast half of type 'slow_fast'"
        )
    if entry.kind is EntryKind.THOUGHT_AGE:
        return thought.age_s(observation.stamp_ns)
    if entry.index >= thought.latent.size:
        raise PolicyError(f"state entry {entry.text!r}: the thought has {thought.latent.size} numbers")
    return float(thought.latent[entry.index])


def tip_of(observation: Observation) -> Tip:
    """Where its object was seen last.

    Raises:
        NoAnswerError: it was not seen yet.
    """
    if observation.tip is None:
        raise NoAnswerError("where the object is was not seen yet: no mask with depth")
    return observation.tip


def fit_image(image: ColorImage, rule: ImageRule) -> ColorImage:
    """An RGB image ``[H, W, 3]`` in the size and channel order of `rule`."""
    sized = _resize(image, rule, rule.interpolation)
    if rule.order == "bgr":
        sized = sized[..., ::-1]
    return np.ascontiguousarray(sized)


def fit_plane(plane: NDArray[Any], rule: ImageRule) -> NDArray[Any]:
    """A depth image or a mask ``[H, W]`` in the size of `rule`: nearest neighbour, no values invented."""
    return np.ascontiguousarray(_resize(plane, rule, "nearest"))


def _resize(image: NDArray[Any], rule: ImageRule, interpolation: str) -> NDArray[Any]:
    height, width = image.shape[:2]
    to_w, to_h = rule.width or width, rule.height or height
    if (to_w, to_h) == (width, height):
        return image
    if rule.resize == "stretch":
        return _scaled(image, to_w, to_h, interpolation)
    factors = (to_w / width, to_h / height)
    factor = min(factors) if rule.resize == "pad" else max(factors)
    mid_w, mid_h = max(1, round(width * factor)), max(1, round(height * factor))
    scaled = _scaled(image, mid_w, mid_h, interpolation)
    left, top = (mid_w - to_w) // 2, (mid_h - to_h) // 2
    if rule.resize == "crop":
        return scaled[top : top + to_h, left : left + to_w]
    out = np.zeros((to_h, to_w, *image.shape[2:]), image.dtype)
    out[-top : -top + mid_h, -left : -left + mid_w] = scaled
    return out


def _scaled(image: NDArray[Any], width: int, height: int, interpolation: str) -> NDArray[Any]:
    import cv2

    flags = {"bilinear": cv2.INTER_LINEAR, "area": cv2.INTER_AREA, "nearest": cv2.INTER_NEAREST_EXACT}
    return np.asarray(cv2.resize(image, (width, height), interpolation=flags[interpolation]))
