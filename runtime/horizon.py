"""The rows that are still to be executed, and how a new chunk is spliced into them.

Rows are addressed by *step*: the number of rows executed so far. Row ``k`` of a chunk observed at step
``s`` is for step ``s + k``, whatever the inference took; rows whose step was executed meanwhile are
dropped. A tick without a row (starved, held or skipped) executes nothing and so does not advance the
step: the arm waited, and the plan waits with it. Rows may be played slower than one per tick, with points in
between; then the step advances when a row is reached.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from runtime.blends import Blend, Counts, latest
from runtime.messages import ActionChunk, Floats
from runtime.snapshots import State, recall, remember

_STATE = ("step", "epoch", "_rows", "_count", "_next", "_last", "_progress")
_ROUNDING = 1e-9
CAPACITY = 4096
"""Rows that a horizon holds at most, by default: 136 s at 30 Hz."""


@dataclass(frozen=True, slots=True)
class Splice:
    """What became of a chunk.

    Attributes:
        verdict: ``"spliced"``; or why it was dropped: ``"stale"`` (another epoch), ``"late"`` (every row
            was executed meanwhile), ``"gap"`` (it starts beyond the end of the horizon), ``"shape"``,
            ``"not_finite"``, ``"too_long"``.
        dropped_rows: rows executed before the chunk arrived.
        seam: the largest jump of a joint at the splice, in radians, the gripper left out: new against old
            plan at the next step, or against the row executed last if the old plan had run dry;
            ``None`` where there was nothing to compare with.
    """

    verdict: str
    dropped_rows: int = 0
    seam: float | None = None


def splice_rows(
    old: Floats, old_count: Counts, new: Floats, offset: int, blend: Blend
) -> tuple[Floats, Counts]:
    """The rows after `new` arrived, and how many predictions each is made of.

    Args:
        old: ``[n, D]`` rows not executed yet, from the next step on.
        old_count: ``[n]`` predictions that went into each.
        new: ``[T, D]`` the chunk's rows that are not executed yet.
        offset: row of `old` that ``new[0]`` belongs to, 0 to n.
        blend: merges rows that both have.

    Old rows beyond the end of the chunk are dropped: they belong to an older plan.
    """
    overlap = min(len(old) - offset, len(new))
    rows = np.concatenate([old[:offset], new])
    count = np.concatenate([old_count[:offset], np.ones(len(new), np.int64)])
    if overlap > 0:
        shared = slice(offset, offset + overlap)
        rows[shared] = blend(old[shared], new[:overlap], old_count[shared])
        count[shared] = old_count[shared] + 1
    return rows, count


class Horizon:
    """The action horizon of `joints` joints. Used by the control loop's task alone.

    Attributes:
        step: rows executed so far, which is the step of the next row.
        epoch: chunks of any other epoch are dropped.
    """

    def __init__(self, joints: int, blend: Blend = latest, capacity: int = CAPACITY) -> None:
        self.joints = joints
        self.capacity = capacity
        self.step = 0
        self.epoch = 0
        self._blend = blend
        self._rows: Floats = np.zeros((0, joints))
        self._count: Counts = np.zeros(0, np.int64)
        self._next = 0
        self._last: Floats | None = None
        self._progress = 0.0

    def __len__(self) -> int:
        """Rows left."""
        return len(self._rows) - self._next

    def pending(self) -> Floats:
        """``[n, D]`` the rows left, as a copy."""
        return self._rows[self._next :].copy()

    @property
    def left(self) -> float:
        """Rows left, what was played of the next one taken off."""
        return len(self) - self._progress

    def take(self, speed: float = 1.0) -> Floats | None:
        """Go on by `speed` rows, 0 < `speed` <= 1, and return the point ``[D]`` that is reached; ``None`` if
        there is no row left. At full speed that is the next row itself, also after a slower stretch.
        """
        if not len(self):
            return None
        progress = 1.0 if speed >= 1.0 or self._last is None else self._progress + speed
        if progress >= 1.0 - _ROUNDING:
            self._last = self._rows[self._next]
            self._next += 1
            self.step += 1
            progress = max(0.0, progress - 1.0) if len(self) else 0.0
        self._progress = progress
        if progress <= _ROUNDING or self._last is None:
            return self._last
        following: Floats = self._rows[self._next]
        return np.asarray(self._last + progress * (following - self._last))

    def restart(self) -> int:
        """Forget all rows and begin a new epoch, whose number is returned."""
        self.epoch += 1
        self._keep(np.zeros((0, self.joints)), np.zeros(0, np.int64))
        self._last, self._progress = None, 0.0
        return self.epoch

    def snapshot(self) -> State:
        """What is remembered between ticks, for `restore`."""
        return remember(self, _STATE)

    def restore(self, state: State) -> None:
        """Go on from where another one was at its `snapshot`."""
        recall(self, _STATE, state)

    def splice(self, chunk: ActionChunk) -> Splice:
        """Merge `chunk` with the rows left, or drop it and say why."""
        verdict = self._judge(chunk)
        executed = max(0, self.step - chunk.step)
        if verdict is not None:
            return Splice(verdict, executed)
        new = np.asarray(chunk.actions, np.float64)[executed:]
        before = self._rows[self._next : self._next + 1]
        reference = before[0] if len(before) else self._last
        old = self._rows[self._next :]
        offset = max(0, chunk.step - self.step)
        self._keep(*splice_rows(old, self._count[self._next :], new, offset, self._blend))
        return Splice("spliced", executed, self._seam(reference))

    def _keep(self, rows: Floats, count: Counts) -> None:
        self._rows, self._count, self._next = rows, count, 0

    def _judge(self, chunk: ActionChunk) -> str | None:
        actions = np.asarray(chunk.actions)
        if chunk.epoch != self.epoch:
            return "stale"
        if actions.ndim != 2 or actions.shape[1] != self.joints or actions.dtype.kind not in "fiu":
            return "shape"
        if chunk.step + len(actions) - self.step > self.capacity:
            return "too_long"
        if chunk.step > self.step + len(self):
            return "gap"
        if chunk.step + len(actions) <= self.step:
            return "late"
        return None if np.isfinite(actions).all() else "not_finite"

    def _seam(self, reference: Floats | None) -> float | None:
        if reference is None or self.joints < 2:
            return None
        return float(np.abs(self._rows[0, :-1] - reference[:-1]).max())
