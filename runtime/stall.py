"""Stall detection: a joint that pushes hard and does not move is asked to push less, then to stop."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from runtime.limits import SafetyOptions
from runtime.messages import Floats
from runtime.snapshots import State, recall, remember

_STATE = ("_anchor", "_pushing_s", "_push", "_stalled", "_stalled_s")
_ROUNDING_S = 1e-6


class StallGuard:
    """Watches every joint over ticks.

    A joint stalls once its load has been high for `stall_s` while its position stayed within
    `stall_motion_rad` and its target lay beyond it by more than the stall offset. From then on its target
    is kept at that offset, until it moves or is no longer asked to push that way: without this memory a
    gripper holding an object would let go as soon as its load fell, and grip again, for ever. Fingers, which
    are there to push and hold, never stop the arm by it.
    """

    def __init__(
        self,
        options: SafetyOptions,
        names: Sequence[str],
        grippers: Sequence[int],
        fingers: Sequence[int] = (),
    ) -> None:
        self._options = options
        self._names = tuple(names)
        joints = len(self._names)
        self._offset = np.full(joints, options.stall_offset_rad)
        self._latches = np.ones(joints, dtype=bool)
        self._offset[list(grippers)] = options.stall_offset_gripper
        self._latches[[*grippers, *fingers]] = False
        self.reset()

    def reset(self) -> None:
        """Forget everything seen."""
        joints = len(self._names)
        self._anchor = np.full(joints, np.nan)
        self._pushing_s = np.zeros(joints)
        self._push = np.zeros(joints)
        self._stalled = np.zeros(joints, dtype=bool)
        self._stalled_s = self._nothing = np.zeros(joints)

    def snapshot(self) -> State:
        """What is remembered between ticks, for `restore`."""
        return remember(self, _STATE)

    def restore(self, state: State) -> None:
        """Go on from where another one was at its `snapshot`."""
        recall(self, _STATE, state)

    @property
    def mask(self) -> NDArray[np.bool_]:
        """``[D]``, which joints stall now."""
        return self._stalled

    def apply(self, target: Floats, present: Floats, load: Floats, dt_s: float) -> tuple[Floats, str | None]:
        """`target` with stalled joints kept near `present`, and a reason to stop if one stalls on."""
        beyond = target - present
        direction = np.sign(beyond)
        moved = ~(np.abs(present - self._anchor) <= self._options.stall_motion_rad)
        self._anchor = np.where(moved, present, self._anchor)
        # A load that is not a number says nothing about pushing.
        loaded = np.abs(load) >= self._options.stall_load
        if not (loaded.any() or self._stalled.any()) and self._options.stall_s > _ROUNDING_S:
            self._push, self._pushing_s, self._stalled_s = direction, self._nothing, self._nothing
            return target, None
        pushing, turned = np.abs(beyond) > self._offset, direction != self._push
        counting = loaded & pushing & ~moved & ~turned
        lasting = np.where(self._stalled, self._pushing_s, 0.0)
        self._pushing_s = np.where(counting, self._pushing_s + dt_s, lasting)
        self._push = direction
        still = pushing & ~moved & ~turned
        self._stalled = (self._stalled & still) | (self._pushing_s >= self._options.stall_s - _ROUNDING_S)
        self._stalled &= still
        self._pushing_s = np.where(moved | turned, 0.0, self._pushing_s)
        self._stalled_s = np.where(self._stalled, self._stalled_s + dt_s, 0.0)
        if not self._stalled.any():
            return target, None
        bound = present + direction * self._offset
        return np.where(self._stalled, bound, target), self._reason()

    def _reason(self) -> str | None:
        late = self._latches & (self._stalled_s > self._options.stall_stop_s)
        if not late.any():
            return None
        names = ", ".join(name for name, is_so in zip(self._names, late, strict=True) if is_so)
        return f"stall: {names} pushing without motion for {self._options.stall_stop_s:g} s"
