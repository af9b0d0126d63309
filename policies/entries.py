"""What one number of a policy's state or action may be, and where it comes from.

A joint of one of several arms has a dot in its name (``left.shoulder_pan``), so a whole name is looked for
before a quantity is split off its end.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from runtime.interfaces import PolicyError
from runtime.joints import JointLayout
from runtime.messages import Floats

SKIP = "skip"
"""An action entry that the robot has no use for."""
ZERO = "zero"
"""A state entry that is always 0."""

STATE_FORM = "<joint>[.velocity|.load], force.<i>, a number or zero"
ACTION_FORM = f"<joint>[.delta|.velocity] or {SKIP}"
_END_EFFECTOR = "end_effector"


class Source(enum.Enum):
    """Where an entry's number comes from, or goes to."""

    POSITION = "position"
    VELOCITY = "velocity"
    LOAD = "load"
    DELTA = "delta"
    FORCE = "force"
    NUMBER = "number"
    NOTHING = "nothing"


JOINT_STATES = (Source.POSITION, Source.VELOCITY, Source.LOAD)


@dataclass(frozen=True, slots=True)
class Entry:
    """One number of a vector.

    Attributes:
        text: as configured.
        source: what it is.
        index: which joint, or which force channel.
        value: of a constant.
    """

    text: str
    source: Source
    index: int = -1
    value: float = 0.0


def state_entry(text: str, robot: JointLayout) -> Entry | None:
    """The state entry `text`; ``None`` if it is none."""
    quantities = {source.value: source for source in (Source.VELOCITY, Source.LOAD)}
    if (found := _of_a_joint(text, robot, quantities)) is not None:
        return found
    if text == ZERO:
        return Entry(text, Source.NUMBER)
    name, _, channel = text.partition(".")
    if name == "force":
        return Entry(text, Source.FORCE, int(channel)) if channel.isdecimal() else None
    value = _number(text)
    return None if value is None else Entry(text, Source.NUMBER, value=value)


def action_entry(text: str, robot: JointLayout) -> Entry | None:
    """The action entry `text`; ``None`` if it is none.

    A ``<joint>.velocity`` is nothing to the robot: targets are positions, and the loop and the servos make
    the velocities that lead there.

    Raises:
        PolicyError: it is one of the end effector.
    """
    if text == SKIP:
        return Entry(text, Source.NOTHING)
    quantities = {"delta": Source.DELTA, "velocity": Source.NOTHING}
    found = _of_a_joint(text, robot, quantities)
    if found is None and text.partition(".")[0] == _END_EFFECTOR:
        raise PolicyError(
            f"action entry {text!r}: end-effector actions are not supported; a policy here gives joints"
        )
    return found


def _of_a_joint(text: str, robot: JointLayout, quantities: dict[str, Source]) -> Entry | None:
    if text in robot.names:
        return Entry(text, Source.POSITION, robot.names.index(text))
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
