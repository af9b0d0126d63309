"""Points between the rows of a plan: smooth, and never beyond the rows on either side.

Between two rows lies one cubic (Hermite) piece. Its slopes are those of Catmull-Rom, the mean of the chords
on both sides of a row, so limited that the piece goes one way only: no steeper than three times either chord,
and flat where the chords disagree (Fritsch and Carlson, "Monotone Piecewise Cubic Interpolation", SIAM J.
Numer. Anal. 17, 1980). Position and velocity are continuous. Slopes are per row.
"""

from __future__ import annotations

import numpy as np

from runtime.messages import Floats
from runtime.snapshots import State, recall, remember

_STEEPEST = 3.0
_STATE = ("begin", "slope", "end_slope", "before")


def limited(slope: Floats, chord: Floats) -> Floats:
    """`slope` at an end of a piece along `chord`, so limited that the piece does not turn round."""
    steepest = _STEEPEST * np.abs(chord)
    return np.where(slope * chord > 0.0, np.minimum(np.maximum(slope, -steepest), steepest), 0.0)


def slope_between(before: Floats, after: Floats) -> Floats:
    """The slope at a row, from the chords that lead to it and away from it."""
    return limited(limited(0.5 * (before + after), before), after)


class Cubic:
    """The piece from `begin` to `end`; `slope` and `end_slope` are as `limited` makes them."""

    def __init__(self, begin: Floats, end: Floats, slope: Floats, end_slope: Floats) -> None:
        whole = end - begin
        self._begin, self._slope = begin, slope
        self._bend = 3.0 * whole - 2.0 * slope - end_slope
        self._turn = slope + end_slope - 2.0 * whole
        self._low, self._high = np.minimum(begin, end), np.maximum(begin, end)

    def at(self, share: float) -> Floats:
        """The point at `share`, 0 to 1, of the way: between the two ends."""
        point = self._begin + share * (self._slope + share * (self._bend + share * self._turn))
        return np.minimum(np.maximum(point, self._low), self._high)


class Way:
    """The piece that is being played. Once begun it stays as it is, whatever becomes of the rows behind it.

    Arrays that it is given are kept, not copied.

    Attributes:
        begin: the row reached last; ``None`` before the first.
        slope, end_slope: at its ends; ``None`` as long as no point between them was asked for.
        before: the row reached before that one.
    """

    def __init__(self) -> None:
        self.begin: Floats | None = None
        self.slope: Floats | None = None
        self.end_slope: Floats | None = None
        self.before: Floats | None = None
        self._piece: Cubic | None = None

    def reached(self, row: Floats) -> None:
        """`row` was reached; a new piece begins there, as steep as the one before it ended."""
        self.before, self.begin = self.begin, row
        self.slope, self.end_slope = self.end_slope, None
        self._piece = None

    def rest(self) -> None:
        """Nothing comes next: what does so later sets out from standstill."""
        if self.begin is not None:
            self.slope = np.zeros_like(self.begin)

    def point(self, share: float, ahead: Floats, beyond: Floats | None) -> Floats:
        """The point at `share`, 0 to 1, of the way to the next row `ahead`, the same until it is reached.

        `beyond` is the row after it; where none is known yet, the piece ends as steep as it is on the whole.
        """
        if self._piece is None:
            begin = ahead if self.begin is None else self.begin
            chord = ahead - begin
            if self.end_slope is None or self.slope is None:
                self.slope = limited(self._first(begin, chord), chord)
                self.end_slope = chord if beyond is None else slope_between(chord, beyond - ahead)
            self._piece = Cubic(begin, ahead, self.slope, self.end_slope)
        return self._piece.at(share)

    def _first(self, begin: Floats, chord: Floats) -> Floats:
        if self.slope is not None:
            return self.slope
        return chord if self.before is None else slope_between(begin - self.before, chord)

    def snapshot(self) -> State:
        """What is remembered between ticks, for `restore`."""
        return remember(self, _STATE)

    def restore(self, state: State) -> None:
        """Go on from where another one was at its `snapshot`."""
        recall(self, _STATE, state)
        self._piece = None
