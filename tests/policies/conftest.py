"""Shared builders for policy tests."""

import numpy as np
import pytest

from runtime.messages import ArmState, Observation

JOINTS = 6


@pytest.fixture
def observation() -> Observation:
    return make_observation()


def make_observation(step: int = 0, epoch: int = 0, stamp_ns: int = 0) -> Observation:
    zeros = np.zeros(JOINTS)
    return Observation(step, epoch, stamp_ns, ArmState(stamp_ns, zeros, zeros, zeros))
