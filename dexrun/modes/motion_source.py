"""A prepared motion as a chunk source: homing and placement go the way of every policy's chunk."""

from __future__ import annotations

from runtime.messages import ActionChunk, Floats


class MotionSource:
    """One trajectory ``rows[T, D]``, delivered as one chunk from the step that is asked for first."""

    def __init__(self, rows: Floats) -> None:
        self._rows = rows
        self._pending: ActionChunk | None = None
        self.delivered = False

    def request(self, step: int, epoch: int, committed: Floats, frozen_steps: int) -> bool:
        """Take the first request; every later one is refused, since there is no more to come."""
        del committed, frozen_steps
        if self.delivered or self._pending is not None:
            return False
        self._pending = ActionChunk(self._rows, step, epoch)
        return True

    def poll(self) -> ActionChunk | None:
        """The whole motion, once."""
        chunk, self._pending = self._pending, None
        if chunk is not None:
            self.delivered = True
        return chunk
