"""A slow half in a process of its own, and on a server."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from dexrun.policies import policy_context
from drivers.arms import describe
from policies.mapping import KeyMap, ObservationMap
from policies.process import ProcessPolicy
from policies.remote.serving.robot_side import RobotSide
from policies.slow_fast.thinking import AskedThought, SlowHalf
from runtime.clock import RealClock
from runtime.interfaces import PolicyError
from runtime.messages import Observation, PolicyAnswer, Thought
from runtime.units import UnitMap
from tests.plugins.distribution import distribution, installed
from tests.policies.scripted_process import ScriptOptions
from tests.policies.test_process import observe
from tests.remote.support import ROBOT, EchoPolicy, both_ends
from tests.remote.support import observation as seen_by_a_server


@pytest.fixture(autouse=True, scope="module")
def _part(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The scripted policy is installed."""
    folder = tmp_path_factory.mktemp("installed")
    points = {"scripted": "tests.policies.scripted_process:ScriptOptions"}
    distribution(folder, "scripted", {"dexrun.policies": points})
    with installed(folder):
        yield


def asked(observation: Observation) -> AskedThought:
    return AskedThought(observation, 1, 0)


def test_in_a_process_it_may_die_and_comes_back() -> None:
    context = policy_context(describe().model(), {}, RealClock())
    half = SlowHalf(ProcessPolicy(ScriptOptions(mode="think"), context, timeout_s=60.0))
    try:
        half.warm_up()
        first = half.think(asked(observe("lift")))
        with pytest.raises(PolicyError, match="ended with code 3"):
            half.think(asked(observe("die")))
        second = half.think(asked(observe("lift")))
    finally:
        half.close()
    assert first is not None
    assert second is not None
    assert first.latent.tolist() == second.latent.tolist() == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    assert (first.stamp_ns, first.instruction, first.number) == (99, "lift", 1)
    assert (half.report.thoughts, half.report.failures, half.report.last_error) == (2, 1, "")


@pytest.mark.parametrize("protocol", ["openpi", "gr00t", "act"])
def test_on_a_server_it_thinks_there(protocol: str) -> None:
    class Thinks(EchoPolicy):
        def infer(self, observation: Observation) -> PolicyAnswer:
            latent = np.full(960, len(observation.instruction), np.float32)
            return PolicyAnswer(observation.arm.position[None], reasoning="reach", latent=latent)

    with both_ends(protocol, Thinks()) as remote:
        half = SlowHalf(remote)
        half.warm_up()
        thought = half.think(asked(seen_by_a_server(instruction="cup")))
    assert thought is not None
    assert thought.text == "reach"
    assert thought.latent.shape == (960,)
    assert half.report.spec.latent == 960


def test_a_served_fast_half_is_sent_the_thought_as_numbers() -> None:
    names = [*ROBOT.names, "thought.age", "thought.1", "thought.0"]
    keys, units = KeyMap(state={"state": tuple(names)}), UnitMap(convention="rad")
    made = seen_by_a_server(instruction="cup")
    thought = Thought(np.array([0.25, -2.0], np.float32), made.stamp_ns - 500_000_000)
    ours = ObservationMap(keys, units, ROBOT).state_vectors(replace(made, thought=thought))
    told = RobotSide(keys, units, ROBOT).observation(ours, {}, "cup", stamp_ns=7_000_000_000).thought
    assert told is not None
    assert told.latent.tolist() == [0.25, -2.0]
    assert told.age_s(7_000_000_000) == pytest.approx(0.5)
    assert told.instruction == "cup"
