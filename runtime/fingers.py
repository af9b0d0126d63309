"""What opens and closes on an object: grippers, and those joints of a hand that have two postures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from runtime.messages import Floats


@dataclass(frozen=True, slots=True, eq=False)
class Fingers:
    """`F` joints of a joint vector ``[D]``, each with one value for closed and one for open.

    A gripper is 0 closed and 1 open. A joint of a hand is an angle like any other, which a description
    names two of: policies, limits and recordings have it in radians. One whose two angles are the same stays
    there and holds against the others, as a thumb may.

    Attributes:
        joints: ``[F]`` indices, ascending.
        closed, opened: ``[F]``, in the robot's units.
        of_hand: ``[F]``, which of them are joints of a hand.
    """

    joints: NDArray[np.int64]
    closed: Floats
    opened: Floats
    of_hand: NDArray[np.bool_]

    @classmethod
    def of(
        cls, grippers: Sequence[int] = (), hand: Mapping[int, tuple[float, float]] | None = None
    ) -> Fingers:
        """Of `grippers`, and of a `hand`'s joints with their closed and open angles."""
        hand = hand or {}
        joints = sorted({*grippers, *hand})
        ends = np.array([hand.get(joint, (0.0, 1.0)) for joint in joints]).reshape(-1, 2)
        of_hand = np.array([joint in hand for joint in joints], dtype=bool)
        return cls(np.array(joints, dtype=np.int64), ends[:, 0], ends[:, 1], of_hand)

    def openings(self, q: Floats) -> Floats:
        """``[F]``, 0 closed to 1 open (a hand's joints go beyond; 0 for one that stays), at `q` ``[D]``."""
        span = self.opened - self.closed
        return np.where(span == 0.0, 0.0, (q[self.joints] - self.closed) / np.where(span == 0.0, 1.0, span))

    def opened_to(self, q: Floats, openings: Floats | float) -> Floats:
        """A copy of `q` ``[D]`` with the fingers at `openings` ``[F]``."""
        out = q.copy()
        out[self.joints] = self.closed + openings * (self.opened - self.closed)
        return out

    def no_further_closed(self, q: Floats, limit: Floats) -> Floats:
        """A copy of `q` ``[D]`` whose hand is nowhere closed further than that of `limit` ``[D]``."""
        opens = np.sign(self.opened - self.closed)
        moving = self.of_hand & (opens != 0.0)
        hand, opens = self.joints[moving], opens[moving]
        out = q.copy()
        out[hand] = opens * np.maximum(opens * q[hand], opens * limit[hand])
        return out
