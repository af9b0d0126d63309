"""A prepared motion as a chunk source: homing and placement go the way of every policy's chunk."""

from __future__ import annotations

from runtime.messages import ActionChunk, Floats

PIECE_ROWS = 512
"""Less than any horizon holds (`runtime.control_options.ControlOptions.horizon_rows`)."""


class MotionSource:
    """One trajectory ``rows[T, D]``, however long, delivered in pieces from the step that is asked for first.

    Attributes:
        delivered: whether the last piece was.
    """

    def __init__(self, rows: Floats) -> None:
        self._rows = rows
        self._given = 0
        self._pending: ActionChunk | None = None
        self.delivered = False

    def request(self, step: int, epoch: int, committed: Floats, frozen_steps: int) -> bool:
        """Take a request for the piece behind what is `committed`, unless there is no more to come."""
        del frozen_steps
        if self.delivered or self._pending is not None:
            return False
        piece = self._rows[self._given : self._given + PIECE_ROWS]
        self._given += len(piece)
        self._pending = ActionChunk(piece, step + len(committed), epoch)
        return True

    def poll(self) -> ActionChunk | None:
        """The next piece, once it was asked for."""
        chunk, self._pending = self._pending, None
        if chunk is not None:
            self.delivered = self._given >= len(self._rows)
        return chunk
