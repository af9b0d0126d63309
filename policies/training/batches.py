"""Which samples a batch has: the same for the same seed, from any step on."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from policies.data.dataset import RowNumbers

Weights = NDArray[np.float64]


class Batches:
    """Endless batches of sample numbers, a pure function of the seed: what goes on at batch N is what would
    have followed.

    Every epoch has each sample once, in an order of its own; with weights, as many draws, each sample as
    often as its weight says on average. A batch may reach over the end of an epoch. Of several processes each
    has every n-th batch.
    """

    def __init__(
        self,
        samples: RowNumbers,
        weights: Weights | None,
        size: int,
        seed: int,
        *,
        start: int = 0,
        process: int = 0,
        processes: int = 1,
    ) -> None:
        """`samples` are not empty, `weights` ``[len(samples)]`` are above 0; `start` batches were had."""
        self._samples, self._size, self._seed = samples, size, seed
        self._chances = None if weights is None else weights / weights.sum()
        self._next, self._stride = start * processes + process, processes

    def __iter__(self) -> Iterator[list[int]]:
        number = self._next
        epoch, order = -1, self._samples
        while True:
            batch: list[int] = []
            place = number * self._size
            while len(batch) < self._size:
                wanted, within = divmod(place + len(batch), len(self._samples))
                if wanted != epoch:
                    epoch, order = wanted, self._order(wanted)
                batch += order[within : within + self._size - len(batch)].tolist()
            yield batch
            number += self._stride

    def _order(self, epoch: int) -> RowNumbers:
        random = np.random.default_rng((self._seed, epoch))
        count = len(self._samples)
        if self._chances is None:
            return self._samples[random.permutation(count)]
        return self._samples[random.choice(count, count, p=self._chances)]
