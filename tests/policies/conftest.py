"""Shared builders for policy tests."""

import numpy as np
import pytest

from runtime.messages import ArmState, Observation

JOINTS = 6


@pytest.fixture
def observation() -> Observation:
    return make_observation()


def make_observation(tick: int = 0, epoch: int = 0, stamp_ns: int = 0) -> Observation:
    zeros = np.zeros(JOINTS)
    return Observation(tick, epoch, stamp_ns, ArmState(stamp_ns, zeros, zeros, zeros))
