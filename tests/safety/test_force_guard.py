"""The force limit by itself: what closes, what gives way, what lifts, and how long it may last."""

from __future__ import annotations

import numpy as np
import pytest

from runtime.force_guard import ForceGuard, largest_force
from runtime.limits import SafetyOptions
from runtime.messages import Floats
from tests.safety.arms import crane, two_cranes

OPTIONS = SafetyOptions()
DT = 1 / 30
SOFT = OPTIONS.soft_force_fraction * OPTIONS.max_force_n
MORE = OPTIONS.max_force_n + 1
HERE = np.array([0.0, 0.0, 0.5])


def eased(target: Floats, force: float, start: Floats = HERE) -> list[float]:
    target, _ = ForceGuard(OPTIONS, crane()).ease(target, start, start, force, DT)
    return target.tolist()


@pytest.mark.parametrize(
    ("force", "moved", "result"),
    [
        (SOFT - 1, [0.1, -0.1, -0.1], [0.1, -0.1, -0.1]),
        (SOFT, [0.1, -0.1, -0.1], [0.1, -0.1, 0.0]),  # closes no further
        (SOFT, [0.1, -0.1, 0.1], [0.1, -0.1, 0.1]),
        (MORE, [0.1, -0.1, -0.1], [0.0, 0.0, 0.0]),  # and moves no further
        (MORE, [0.1, 0.1, -0.1], [0.1, 0.1, 0.0]),  # but up
        (MORE, [0.0, 0.0, 0.1], [0.0, 0.0, 0.1]),
        (np.inf, [0.1, -0.1, -0.1], [0.0, 0.0, 0.0]),
    ],
)
def test_what_a_force_permits(force: float, moved: list[float], result: list[float]) -> None:
    assert eased(HERE + moved, force) == pytest.approx((HERE + result).tolist())


def test_of_two_arms_the_one_that_lifts_goes_on() -> None:
    here = np.concatenate([HERE, HERE])
    target = here + np.array([0.0, 0.1, 0.0, 0.1, -0.1, 0.0])
    result, _ = ForceGuard(OPTIONS, two_cranes()).ease(target, here, here, MORE, DT)
    assert result.tolist() == [*target[:3], *here[3:]]


def test_an_arm_that_pushes_is_drawn_towards_where_it_is() -> None:
    start = HERE + np.array([0.5, 0.0, 0.0])
    result, _ = ForceGuard(OPTIONS, crane()).ease(start, start, HERE, MORE, DT)
    assert start[0] - result[0] == pytest.approx(OPTIONS.force_ease_rad_s * DT)


def test_a_force_that_lasts_stops_and_one_that_ends_is_forgotten() -> None:
    guard, reason = ForceGuard(OPTIONS, crane()), f"force above {OPTIONS.max_force_n:g} N for 3 s"
    assert OPTIONS.force_stop_s == 3
    assert guard.lasting(MORE, 2.5) is None
    assert guard.lasting(OPTIONS.max_force_n, 1.0) is None
    assert guard.lasting(MORE, 2.5) is None
    assert guard.lasting(MORE, 0.6) == reason
    assert guard.ease(HERE, HERE, HERE, MORE, DT)[1] == reason


def test_the_largest_force_is_that_of_any_channel() -> None:
    assert largest_force(None) == 0
    assert largest_force(np.array([])) == 0
    assert largest_force(np.array([-3.0, 2.0])) == 3
    assert largest_force(np.array([1.0, np.nan])) == np.inf
