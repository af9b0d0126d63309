"""The rows that are still to be executed, and how a new chunk is spliced into them.

Rows are addressed by *step*: the number of rows executed so far. Row ``k`` of a chunk observed at step
``s`` is for step ``s + k``, whatever the inference took; rows whose step was executed meanwhile are
dropped. A tick without a row (starved, held or skipped) executes nothing and so does not advance the
step: the arm waited, and the plan waits with it.

Chunks have a rate of their own, and the loop has another. Then a tick goes on by a part of a row, or by more
than one: the step advances when a row is reached, and in between the point is interpolated
(`runtime.interpolation`). At equal rates every tick takes one row as it is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from runtime.blends import Blend, RowCounts, latest
from runtime.interpolation import Way
from runtime.messages import MOST_ACTION, ActionChunk, Floats
from runtime.snapshots import State, recall, remember

_STATE = ("step", "epoch", "_rows", "_count", "_next", "_last", "_progress")
_STATE_OF_RATES = ("rows_per_tick", "discrete")
_ROUNDING = 1e-9
_MOST_ROWS_PER_TICK = 1e3
CAPACITY = 4096
"""Rows that a horizon holds at most, by default: 136 s at 30 Hz."""


@dataclass(frozen=True, slots=True)
class Splice:
    """What became of a chunk.

    Attributes:
        verdict: ``"spliced"``; or why it was dropped: ``"stale"`` (another epoch), ``"late"`` (every row
            was executed meanwhile), ``"gap"`` (it starts beyond the end of the horizon), ``"shape"``,
            ``"rate"`` (not that of the epoch's other chunks, or none; discrete joints that do not exist),
            ``"not_finite"`` (or beyond any number that a joint has), ``"too_long"``.
        dropped_rows: rows executed, or begun, before the chunk arrived.
        seam: the largest jump of a joint at the splice, in radians, grippers left out: new against old
            plan at the next step, or against the row executed last if the old plan had run dry;
            ``None`` where there was nothing to compare with.
    """

    verdict: str
    dropped_rows: int = 0
    seam: float | None = None


def splice_rows(
    old: Floats, old_count: RowCounts, new: Floats, offset: int, blend: Blend
) -> tuple[Floats, RowCounts]:
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


def bounded(actions: Floats) -> bool:
    """Whether every number is one that a joint can have: finite, and not so large that sums overflow."""
    with np.errstate(over="ignore", invalid="ignore"):
        return bool((np.abs(actions.astype(np.float64)) <= MOST_ACTION).all())


class Horizon:
    """The action horizon of `joints` joints, of which those at `grippers` are no part of a seam.

    Used by the control loop's task alone.

    Attributes:
        rate_hz: ticks per second.
        step: rows executed so far, which is the step of the next row.
        epoch: chunks of any other epoch are dropped.
        rows_per_tick: of the present epoch's chunks, at full speed.
        discrete: joints that stay at the row reached last until the next one is, and are not blended.
    """

    def __init__(
        self,
        joints: int,
        blend: Blend = latest,
        capacity: int = CAPACITY,
        rate_hz: float = 30.0,
        grippers: Sequence[int] = (),
    ) -> None:
        self.joints = joints
        self._seam_joints = [joint for joint in range(joints) if joint not in grippers]
        self.capacity = capacity
        self.rate_hz = rate_hz
        self.rows_per_tick = 1.0
        self.discrete: list[int] = []
        self.step = 0
        self.epoch = 0
        self._blend = blend
        self._rows: Floats = np.zeros((0, joints))
        self._count: RowCounts = np.zeros(0, np.int64)
        self._next = 0
        self._last: Floats | None = None
        self._progress = 0.0
        self._way = Way()
        self._straight = self._blends_discrete = False

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

    @property
    def open_step(self) -> int:
        """The first step whose row may still be replaced: one that is on the way there is begun and stays."""
        return self.step + (self._progress > _ROUNDING and not self._straight)

    def reached_in(self, ticks: float) -> int:
        """Rows that will have been reached or begun after `ticks` at full speed, left or not."""
        return math.ceil(self._progress + ticks * self.rows_per_tick - _ROUNDING)

    def take(self, speed: float = 1.0) -> Floats | None:
        """Go on by a tick at `speed`, 0 to 1, of the chunks' own rate, and return the point ``[D]`` that is
        reached; ``None`` if there is no row left.

        The first point of an epoch is its first row. At equal rates and full speed the point is the next row
        itself, also after a slower stretch.
        """
        if not len(self):
            self._way.rest()
            return None
        whole = self._last is None or (speed >= 1.0 and self.rows_per_tick == 1.0)
        progress = 1.0 if whole else self._progress + speed * self.rows_per_tick
        passed = min(int(progress + _ROUNDING), len(self))
        if passed:
            self._pass(passed)
            progress = max(0.0, progress - passed) if len(self) else 0.0
        self._progress = progress
        return self._last if progress <= _ROUNDING else self._between(progress)

    def _pass(self, rows: int) -> None:
        self._next += rows
        self.step += rows
        if rows > 1:
            self._way.reached(self._rows[self._next - 2])
        self._last = self._rows[self._next - 1]
        self._way.reached(self._last)

    def _between(self, progress: float) -> Floats | None:
        """The point after `progress` of the way to the next row."""
        if self._straight and self._last is not None:
            return np.asarray(self._last + progress * (self._rows[self._next] - self._last))
        beyond = self._rows[self._next + 1] if len(self) > 1 else None
        point = self._way.point(progress, self._rows[self._next], beyond)
        if self.discrete and self._last is not None:
            point[self.discrete] = self._last[self.discrete]
        return point

    def restart(self) -> int:
        """Forget all rows and begin a new epoch, whose number is returned."""
        self.epoch += 1
        self._keep(np.zeros((0, self.joints)), np.zeros(0, np.int64))
        self._last, self._progress = None, 0.0
        self._way = Way()
        self.rows_per_tick, self.discrete = 1.0, []
        return self.epoch

    def snapshot(self) -> State:
        """What is remembered between ticks, for `restore`."""
        state = remember(self, (*_STATE, *_STATE_OF_RATES))
        return {**state, "way": self._way.snapshot(), "blends_discrete": self._blends_discrete}

    def restore(self, state: State) -> None:
        """Go on from where another one was at its `snapshot`.

        Without a ``way`` that was in a recording older than rates, whose points between rows lay on straight
        lines: they are made so again. Without ``blends_discrete`` it was in one whose discrete joints were
        blended as the others.
        """
        recall(self, _STATE, state)
        self._blends_discrete = bool(state.get("blends_discrete", True))
        self._straight = "way" not in state
        if not self._straight:
            recall(self, _STATE_OF_RATES, state)
            self._way.restore(state["way"])

    def splice(self, chunk: ActionChunk) -> Splice:
        """Merge `chunk` with the rows left, or drop it and say why."""
        verdict = self._judge(chunk)
        executed, begun = max(0, self.open_step - chunk.step), self.open_step - self.step
        if verdict is not None:
            return Splice(verdict, executed)
        new = np.asarray(chunk.actions, np.float64)[executed:]
        old = self._rows[self._next :]
        reference = old[begun] if begun < len(old) else old[-1] if len(old) else self._last
        offset = max(begun, chunk.step - self.step)
        self.rows_per_tick, self.discrete = self._rows_per_tick(chunk), list(chunk.discrete)
        rows, count = splice_rows(old, self._count[self._next :], new, offset, self._blend)
        if not self._blends_discrete:  # what has no value between two rows has none between two plans
            rows[offset:, self.discrete] = new[:, self.discrete]
        self._keep(rows, count)
        return Splice("spliced", executed, self._seam(begun, reference))

    def _rows_per_tick(self, chunk: ActionChunk) -> float:
        return chunk.rate_hz / self.rate_hz if chunk.rate_hz else 1.0

    def _plays(self, chunk: ActionChunk) -> bool:
        """Whether its rows can go on from those of the same epoch."""
        rate = self._rows_per_tick(chunk)
        if not 0.0 < rate <= _MOST_ROWS_PER_TICK or any(
            not 0 <= joint < self.joints for joint in chunk.discrete
        ):
            return False
        return self._last is None or rate == self.rows_per_tick

    def _keep(self, rows: Floats, count: RowCounts) -> None:
        self._rows, self._count, self._next = rows, count, 0

    def _judge(self, chunk: ActionChunk) -> str | None:
        actions = np.asarray(chunk.actions)
        if chunk.epoch != self.epoch:
            return "stale"
        if actions.ndim != 2 or actions.shape[1] != self.joints or actions.dtype.kind not in "fiu":
            return "shape"
        if not self._plays(chunk):
            return "rate"
        if chunk.step + len(actions) - self.step > self.capacity:
            return "too_long"
        if chunk.step > self.step + len(self):
            return "gap"
        if chunk.step + len(actions) <= self.open_step:
            return "late"
        return None if bounded(actions) else "not_finite"

    def _seam(self, row: int, reference: Floats | None) -> float | None:
        if reference is None or not self._seam_joints:
            return None
        return float(np.abs(self._rows[row, self._seam_joints] - reference[self._seam_joints]).max())
