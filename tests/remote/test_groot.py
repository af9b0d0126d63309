"""GR00T: both ends against each other."""

from __future__ import annotations

import numpy as np
import pytest

from dexrun.serve.options import ServeOptions
from policies.remote.config import GrootOptions
from policies.remote.groot.client import GrootPolicy
from runtime.clock import RealClock
from runtime.interfaces import PolicyError
from tests.remote.support import ROBOT, EchoPolicy, expected, observation, serving


def client(port: int, **options: object) -> GrootPolicy:
    return GrootPolicy(GrootOptions(port=port, **options), ROBOT, RealClock())  # type: ignore[arg-type]


def test_a_chunk_crosses_exactly() -> None:
    policy = EchoPolicy()
    with serving(policy, ServeOptions(protocol="gr00t")) as server:
        remote = client(server.port)
        try:
            remote.warm_up()
            made = observation()
            rows = remote.infer(made)
            assert np.abs(rows - expected(made)).max() < 1e-6
            seen = policy.seen[0]
            assert seen.instruction == made.instruction
            for camera, frame in made.frames.items():
                assert (seen.frames[camera].color == frame.color).all()
            remote.reset()
            assert policy.resets == 1
            assert remote.statistics() == {"connects": 1, "requests": 1, "replies": 1}
        finally:
            remote.close()
    assert policy.closed


def test_an_error_of_the_policy_is_one_line_and_the_link_goes_on() -> None:
    with serving(EchoPolicy(), ServeOptions(protocol="gr00t")) as server:
        remote = client(server.port)
        try:
            with pytest.raises(PolicyError, match="told to refuse"):
                remote.infer(observation(instruction="refuse"))
            with pytest.raises(PolicyError, match="raised ZeroDivisionError"):
                remote.infer(observation(instruction="raise"))
            remote.infer(observation())
            assert remote.statistics()["refused"] == 2
            assert remote.statistics()["connects"] == 1
        finally:
            remote.close()
