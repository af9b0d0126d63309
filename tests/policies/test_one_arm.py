"""A policy for one of several arms: what it sees is its own arm's, and so is what it may move."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from policies.one_arm import OneArm
from runtime.interfaces import PolicyError, PolicySpec
from runtime.messages import ArmState, Floats, Observation, PolicyAnswer, Snapshot

STILL = np.arange(5.0)
JOINTS = (2, 3, 4)


class Own:
    """Answers with `rows`; keeps what it was shown."""

    def __init__(self) -> None:
        self.spec = PolicySpec("own", 0, joints=3, discrete=(2,))
        self.rows: Floats = np.full((2, 3), 9.0)
        self.seen: list[Observation] = []

    def warm_up(self) -> None:
        self.spec = replace(self.spec, chunk_steps=2)

    def infer(self, observation: Observation) -> PolicyAnswer:
        self.seen.append(observation)
        return PolicyAnswer(self.rows)

    def reset(self) -> None:
        pass

    def statistics(self) -> dict[str, int]:
        return {}

    def close(self) -> None:
        pass


def state(stamp_ns: int) -> ArmState:
    return ArmState(stamp_ns, np.arange(5.0) + stamp_ns, np.zeros(5), np.zeros(5))


def observation() -> Observation:
    history = (Snapshot(1, state(1), {}), Snapshot(2, state(2), {}))
    return Observation(0, 0, 3, state(3), {}, committed=np.tile(STILL, (1, 1)), history=history)


def test_it_sees_its_own_joints_now_and_earlier_and_the_others_stay() -> None:
    own = Own()
    rows = OneArm(own, JOINTS, STILL).infer(observation()).rows
    np.testing.assert_array_equal(rows, [[0, 1, 9, 9, 9]] * 2)
    (seen,) = own.seen
    assert [list(each.arm.position) for each in (*seen.history, seen)] == [[3, 4, 5], [4, 5, 6], [5, 6, 7]]
    np.testing.assert_array_equal(seen.committed, [[2, 3, 4]])


@pytest.mark.parametrize("shape", [(2, 1), (2, 5), (2,)])
def test_rows_that_are_not_of_its_arm_are_refused(shape: tuple[int, ...]) -> None:
    own = Own()
    own.rows = np.zeros(shape)
    with pytest.raises(PolicyError, match=r"rows of shape .*; expected \[steps, 3\]"):
        OneArm(own, JOINTS, STILL).infer(observation())


def test_its_spec_is_of_the_whole_robot_as_it_becomes_known() -> None:
    policy = OneArm(Own(), JOINTS, STILL)
    assert (policy.spec.joints, policy.spec.discrete, policy.spec.chunk_steps) == (5, (4,), 0)
    policy.warm_up()
    assert (policy.spec.joints, policy.spec.discrete, policy.spec.chunk_steps) == (5, (4,), 2)
