"""What inverse kinematics is asked for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class IkOptions:
    """How inverse kinematics weighs what an arm of few joints cannot have all at once.

    Attributes:
        position_cost: of a metre of distance; the position always comes first.
        approach_cost: of a radian between the approach direction and the wanted one.
        yaw_cost: of a radian of rotation about the approach direction.
        posture_cost: of a radian away from the seed; keeps redundant joints still.
        iterations: Gauss-Newton steps at most.
        tolerance_m: position error at which the search ends.
    """

    position_cost: float = 100.0
    approach_cost: float = 0.6
    yaw_cost: float = 0.6
    posture_cost: float = 1e-4
    iterations: int = 80
    tolerance_m: float = 5e-5
