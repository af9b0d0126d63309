"""From a data set's numbers to -1 to 1, as the normalisers of Diffusion Policy, DexGraspVLA and UMI do."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from policies.data.dataset import Statistics
from runtime.messages import Floats

LIMITS_EPS, RANGE_EPS = 1e-4, 1e-7
"""A number that spans less is not scaled: DexGraspVLA's, and UMI's."""


@dataclass(frozen=True, slots=True)
class Scaling:
    """``scaled = value * scale + offset``, ``[D]`` each."""

    scale: Floats
    offset: Floats

    def apply(self, values: Floats) -> Floats:
        """``[..., D]``."""
        return np.asarray(values * self.scale + self.offset)

    def undo(self, scaled: Floats) -> Floats:
        """The other way."""
        return np.asarray((scaled - self.offset) / self.scale)


def limits(statistics: Statistics, eps: float = LIMITS_EPS) -> Scaling:
    """Smallest to largest onto -1 to 1; what spans less than `eps` is moved to 0 and not scaled."""
    low, high = statistics.minimum, statistics.maximum
    still = high - low < eps
    scale = 2.0 / np.where(still, 2.0, high - low)
    return Scaling(scale, np.where(still, -low, -1.0 - scale * low))


def unscaled(dimensions: int) -> Scaling:
    """As it is: of rotations, and pictures."""
    return Scaling(np.ones(dimensions), np.zeros(dimensions))


def side_by_side(*parts: Scaling) -> Scaling:
    """Of vectors laid one behind the other."""
    return Scaling(np.concatenate([p.scale for p in parts]), np.concatenate([p.offset for p in parts]))
