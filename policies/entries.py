"""What one number of a policy's state or action may be, and where it comes from.

A joint of one of several arms has a dot in its name (``left.shoulder_pan``), so a whole name is looked for
before a quantity is split off its end.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from runtime.interfaces import PolicyError
from runtime.joints import JointLayout
from runtime.messages import Floats
from runtime.rotations import rotation_vector

SKIP = "skip"
"""An action entry that the robot has no use for."""
ZERO = "zero"
"""A state entry that is always 0."""

STATE_FORM = (
    "<joint>[.velocity|.load], force.<i>, tip.x|y|z, thought.<i>|age, "
    "[<arm>.]end_effector.x|y|z|rot6d.<0-5>|axis_angle.<0-2>, a number or zero"
)
ACTION_FORM = f"<joint>[.delta|.velocity] or {SKIP}"
_END_EFFECTOR = "end_effector"
_POSE = ("x", "y", "z", *(f"rot6d.{i}" for i in range(6)), *(f"axis_angle.{i}" for i in range(3)))
"""What `pose_numbers` gives, in its order."""


_AXES = ("x", "y", "z")
THOUGHT_AGE = "thought.age"
"""How old the slow half's thought is, seconds; ``thought.<i>`` is a number of its latent."""
TIP_ENTRIES = tuple(f"tip.{axis}" for axis in _AXES)
"""Where the instruction's object was seen last, in the base frame."""


class EntryKind(enum.Enum):
    """Where an entry's number comes from, or goes to."""

    POSITION = "position"
    VELOCITY = "velocity"
    LOAD = "load"
    DELTA = "delta"
    FORCE = "force"
    TIP = "tip"
    THOUGHT = "thought"
    THOUGHT_AGE = "thought_age"
    POSE = "pose"
    NUMBER = "number"
    NOTHING = "nothing"


JOINT_STATES = (EntryKind.POSITION, EntryKind.VELOCITY, EntryKind.LOAD)


@dataclass(frozen=True, slots=True)
class Entry:
    """One number of a vector.

    Attributes:
        text: as configured.
        kind: what it is.
        index: which joint, which force channel, which axis of the tip, which number of a thought's latent, or
            which of a pose's numbers.
        arm: whose end effector.
        value: of a constant.
    """

    text: str
    kind: EntryKind
    index: int = -1
    value: float = 0.0
    arm: str = ""


def state_entry(text: str, robot: JointLayout) -> Entry | None:
    """The state entry `text`; ``None`` if it is none."""
    quantities = {each.value: each for each in (EntryKind.VELOCITY, EntryKind.LOAD)}
    if (found := _of_a_joint(text, robot, quantities)) is not None:
        return found
    if text == ZERO:
        return Entry(text, EntryKind.NUMBER)
    arm, is_pose, quantity = f".{text}".partition(f".{_END_EFFECTOR}.")
    if is_pose:
        known = quantity in _POSE and (not arm or robot.of(arm[1:]))
        return Entry(text, EntryKind.POSE, _POSE.index(quantity), arm=arm[1:]) if known else None
    name, _, channel = text.partition(".")
    if name == "force":
        return Entry(text, EntryKind.FORCE, int(channel)) if channel.isdecimal() else None
    if name == "tip" and channel in _AXES:
        return Entry(text, EntryKind.TIP, _AXES.index(channel))
    if name == "thought":
        return _of_a_thought(text, channel)
    value = _number(text)
    return None if value is None else Entry(text, EntryKind.NUMBER, value=value)


def _of_a_thought(text: str, channel: str) -> Entry | None:
    if text == THOUGHT_AGE:
        return Entry(text, EntryKind.THOUGHT_AGE)
    return Entry(text, EntryKind.THOUGHT, int(channel)) if channel.isdecimal() else None


def thought_size(texts: Iterable[str]) -> int:
    """How many numbers of a thought's latent the entries `texts` look at; 1 of its age alone, 0 of none."""
    numbers = [text.partition(".")[2] for text in texts if text.startswith("thought.")]
    return max((int(each) + 1 if each.isdecimal() else 1 for each in numbers), default=0)


def action_entry(text: str, robot: JointLayout) -> Entry | None:
    """The action entry `text`; ``None`` if it is none.

    A ``<joint>.velocity`` is nothing to the robot: targets are positions, and the loop and the servos make
    the velocities that lead there.

    Raises:
        PolicyError: it is one of the end effector.
    """
    if text == SKIP:
        return Entry(text, EntryKind.NOTHING)
    quantities = {"delta": EntryKind.DELTA, "velocity": EntryKind.NOTHING}
    found = _of_a_joint(text, robot, quantities)
    if found is None and f".{_END_EFFECTOR}." in f".{text}.":
        raise PolicyError(
            f"action entry {text!r}: end-effector actions are not supported; a policy here gives joints"
        )
    return found


def _of_a_joint(text: str, robot: JointLayout, quantities: dict[str, EntryKind]) -> Entry | None:
    if text in robot.names:
        return Entry(text, EntryKind.POSITION, robot.names.index(text))
    name, _, quantity = text.rpartition(".")
    if name in robot.names and quantity in quantities:
        return Entry(text, quantities[quantity], robot.names.index(name))
    return None


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def read_entries(
    texts: tuple[str, ...],
    robot: JointLayout,
    key: str,
    kind: str,
    read: Callable[[str, JointLayout], Entry | None],
) -> tuple[Entry, ...]:
    """The entries of `key`, which is ``state`` or ``action`` (`kind`); all joints if none is named.

    Raises:
        PolicyError: an entry is none of those accepted.
    """
    form = STATE_FORM if kind == "state" else ACTION_FORM
    found = []
    for text in texts or robot.names:
        entry = read(text, robot)
        if entry is None:
            accepted = f"{form} with joints {', '.join(robot.names)}"
            raise PolicyError(f"{kind} {key!r}: entry {text!r}; accepted: {accepted}")
        found.append(entry)
    return tuple(found)


def force_of(entry: Entry, force_n: Floats | None) -> float:
    """The force channel that `entry` asks for.

    Raises:
        PolicyError: it was not measured.
    """
    have = 0 if force_n is None else np.shape(force_n)[0]
    if force_n is None or entry.index >= have:
        raise PolicyError(f"state entry {entry.text!r}: the observation has {have} force channels")
    return float(force_n[entry.index])


def pose_numbers(pose: Floats) -> Floats:
    """``[12]`` of a pose 4x4: position (m), first two rows of the rotation matrix, rotation vector.

    The rows are the 6-D rotation of Zhou et al. (2019) as UMI has it; the vector is in radians.
    """
    rotation = pose[:3, :3]
    return np.concatenate([pose[:3, 3], rotation[:2].ravel(), rotation_vector(rotation)])


def pose_of(entry: Entry, poses: Mapping[str, Floats]) -> float:
    """The number of an end effector's pose that `entry` asks for; `poses` 4x4 by arm.

    Raises:
        PolicyError: there is no such arm.
    """
    if entry.arm not in poses:
        known = ", ".join(repr(arm) for arm in poses) or "none"
        raise PolicyError(
            f"state entry {entry.text!r}: no end effector of arm {entry.arm!r} (there is: {known})"
        )
    return float(pose_numbers(poses[entry.arm])[entry.index])
