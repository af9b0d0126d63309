"""ACT's temporal ensembling, in memory that grows with the chunk and not with the episode."""

from __future__ import annotations

import numpy as np

from runtime.messages import Floats

DECAY = 0.01
"""The original's weight of the i-th oldest prediction of a step is ``exp(-DECAY * i)``."""


class TemporalEnsemble:
    """Averages all predictions for the present step; a chunk is added, then one step taken.

    The original keeps every chunk of the episode, ``[T, T + chunk, D]``. The weight of a prediction only
    depends on how many came before it for the same step, so a weighted sum, a sum of weights and a count
    per future step are enough.
    """

    def __init__(self, chunk: int, size: int, decay: float = DECAY) -> None:
        self._decay = decay
        self._sums = np.zeros((chunk, size))
        self._weights = np.zeros(chunk)
        self._counts = np.zeros(chunk, int)

    def add(self, actions: Floats) -> None:
        """Take in ``actions[T, D]``, T at most the chunk, whose row 0 is for the present step.

        Raises:
            ValueError: the chunk is longer than the ensemble, or has another width.
        """
        steps = actions.shape[0]
        if steps > self._counts.shape[0] or actions.shape[1:] != self._sums.shape[1:]:
            raise ValueError(f"a chunk of shape {actions.shape}; at most {self._sums.shape} fits")
        weights = np.exp(-self._decay * self._counts[:steps])
        self._sums[:steps] += weights[:, None] * actions
        self._weights[:steps] += weights
        self._counts[:steps] += 1

    def step(self) -> Floats:
        """The action ``[D]`` of the present step; the next one becomes present.

        Raises:
            LookupError: no chunk covers the present step.
        """
        if self._counts[0] == 0:
            raise LookupError("no chunk covers this step; add one first")
        action: Floats = self._sums[0] / self._weights[0]
        for array in (self._sums, self._weights, self._counts):
            array[:-1] = array[1:]
            array[-1] = 0
        return action

    def reset(self) -> None:
        """Forget the episode."""
        for array in (self._sums, self._weights, self._counts):
            array[:] = 0
