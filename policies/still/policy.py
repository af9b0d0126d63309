"""Holds still."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from runtime.interfaces import PolicySpec
from runtime.messages import Observation, PolicyAnswer


class StillPolicy:
    """`runtime.interfaces.Policy`: rows that are where the arm is asked to be, or where it is."""

    def __init__(self, chunk_steps: int, joints: int) -> None:
        self.spec = PolicySpec("still", chunk_steps, joints=joints, tells_end=True)

    def warm_up(self) -> None:
        """There is nothing to load."""

    def infer(self, observation: Observation) -> PolicyAnswer:
        """Rows ``[chunk_steps, D]``, all the same."""
        committed = observation.committed
        place = committed[-1] if len(committed) else observation.arm.position
        return PolicyAnswer(np.repeat(place[None], self.spec.chunk_steps, axis=0))

    def reset(self) -> None:
        """Nothing is kept."""

    def statistics(self) -> Mapping[str, int]:
        """It counts nothing."""
        return {}

    def close(self) -> None:
        """Nothing to release."""
