"""A policy in a process of its own: everything arrives, and every way to fail is one line."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dexrun.policies import policy_context
from drivers.arms import describe
from policies.process import ProcessPolicy
from policies.process_start import start_message, started
from runtime.clock import RealClock
from runtime.interfaces import Policy, PolicyError
from runtime.limits import SafetyOptions
from runtime.messages import ArmState, Frame, Observation, PolicyStatus, Snapshot, Thought, TrackedMask
from runtime.safety import SafetyStage
from tests.plugins.distribution import distribution, installed
from tests.policies.scripted_process import ScriptOptions

CONTEXT = policy_context(describe().model(), {}, RealClock())


@pytest.fixture(autouse=True, scope="module")
def _part(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The scripted policy is installed."""
    folder = tmp_path_factory.mktemp("installed")
    points = {"scripted": "tests.policies.scripted_process:ScriptOptions", "absent": "absent.module:Table"}
    distribution(folder, "scripted", {"dexrun.policies": points})
    with installed(folder):
        yield


def observe(instruction: str = "", height: int = 4) -> Observation:
    rng = np.random.default_rng(height)
    color = rng.integers(0, 255, (height, 6, 3), dtype=np.uint8)
    depth = rng.integers(0, 9999, (height, 6), dtype=np.uint16)
    mask = np.ones((height, 6), np.uint8)
    return Observation(
        7, 2, 99, ArmState(98, np.arange(6.0), np.zeros(6), np.full(6, 0.5)),
        {"head": Frame("head", 97, color, depth)}, {"head": TrackedMask("head", 96, mask, 0.5)},
        np.array([1.0, 2.0]), instruction, np.full((3, 6), 0.25), 2,
    )  # fmt: skip


OURS = "/dev/shm/dexrun-"  # noqa: S108


def shared() -> list[Path]:
    """Our shared memory that this process has mapped."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return [Path(line.split()[-1]) for line in lines if OURS in line and "(deleted)" not in line]


@pytest.fixture
def policy() -> Iterator[ProcessPolicy]:
    made = ProcessPolicy(ScriptOptions(), CONTEXT, timeout_s=60.0)
    yield made
    mapped = shared()
    made.close()
    assert not [path for path in mapped if path.exists()]


def test_everything_arrives_and_comes_back(policy: ProcessPolicy) -> None:
    asked: Policy = policy
    spec = asked.spec
    assert (spec.name, spec.cameras, spec.discrete, spec.notes) == ("scripted", ("head",), (5,), {"a": "b"})
    asked.warm_up()
    asked.reset()
    for height in (4, 8, 4):  # images that change size get a new ring
        given = observe("lift", height)
        frame = given.frames["head"]
        assert frame.depth is not None
        rows = asked.infer(given).rows
        assert rows[0].tolist() == [frame.color.sum(), frame.depth.sum(), 6 * height, 3.0, 4.5, 1.0]
        assert rows[1, :3].tolist() == [7, 2, 2]
        assert rows[1, 3] != os.getpid()
        assert rows[1, 4] == 97
        np.testing.assert_array_equal(rows[2:], [np.arange(6.0), np.full(6, 0.5)])


def test_history_and_poses_arrive(policy: ProcessPolicy) -> None:
    made = observe("look back")
    pose = np.eye(4)
    pose[0, 3] = 0.25
    history = tuple(
        Snapshot(stamp, ArmState(stamp - 1, np.zeros(6), np.zeros(6), np.full(6, stamp)), made.frames)
        for stamp in (50, 60)
    )
    rows = policy.infer(replace(made, history=history, end_effector={"left": pose})).rows
    color = made.frames["head"].color.sum()
    assert rows.tolist() == [[50, 49, 50, color, 1, 0.25], [60, 59, 60, color, 1, 0.25]]


def test_a_thought_arrives_and_one_comes_back(policy: ProcessPolicy) -> None:
    thought = Thought(np.array([0.25, -1.5], np.float32), 60, "it is there", "lift", 2, 5)
    answer = policy.infer(replace(observe(), thought=thought))
    assert answer.reasoning == "it is there 60 lift 2 5"
    assert answer.latent is not None
    assert (answer.latent.dtype, answer.latent.tolist()) == (np.float32, [0.5, -3.0])


def test_what_becomes_known_of_the_policy_while_it_warms_up_is_known_here(policy: ProcessPolicy) -> None:
    assert policy.spec.chunk_steps == 0
    policy.warm_up()
    assert policy.spec.chunk_steps == 4
    assert policy.spec.discrete == (5,)


def test_a_policy_may_keep_what_it_was_shown(policy: ProcessPolicy) -> None:
    first, second = observe(), observe("and before?")
    policy.infer(first)
    moved = replace(second, arm=replace(second.arm, position=np.full(6, 9.0)))
    assert policy.infer(moved).rows.tolist() == [first.arm.position.tolist()]


def test_how_the_attempt_stands_comes_back_with_or_without_rows(policy: ProcessPolicy) -> None:
    policy.reset()
    assert policy.infer(observe()).status is PolicyStatus.RUNNING
    ended = policy.infer(observe("end"))
    assert (ended.rows.shape, ended.status, ended.why) == ((0, 6), PolicyStatus.FAILED, "it slipped")
    assert policy.statistics() == {"resets": 1}
    assert policy.infer(observe()).rows.shape == (4, 6)


def test_a_policy_that_fails_goes_on(policy: ProcessPolicy) -> None:
    with pytest.raises(PolicyError, match="no mask"):
        policy.infer(observe("fail"))
    assert policy.infer(observe()).rows.shape == (4, 6)


def test_a_child_that_dies_is_said_so_and_started_anew(policy: ProcessPolicy) -> None:
    first = policy.infer(observe()).rows[1, 3]
    with pytest.raises(PolicyError, match="process ended with code 3"):
        policy.infer(observe("die"))
    assert policy.infer(observe()).rows[1, 3] != first


def test_a_child_that_hangs_is_ended() -> None:
    made = ProcessPolicy(ScriptOptions(), CONTEXT, timeout_s=60.0)
    made.warm_up()
    assert made._child is not None
    made._child._timeout_s = 0.2
    with pytest.raises(PolicyError, match=r"said nothing for 0\.2 s; ended it"):
        made.infer(observe("hang"))
    made.close()


def test_what_a_library_prints_does_not_disturb() -> None:
    made = ProcessPolicy(ScriptOptions(mode="noise"), CONTEXT, timeout_s=60.0)
    assert made.infer(observe()).rows.shape == (4, 6)
    made.close()


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"mode": "refuse"}, "^no such checkpoint$"),
        ({"type": "os:system"}, "'os:system' is unknown; installed are .*scripted"),
        ({"type": "absent"}, "scripted 1.2: ModuleNotFoundError: No module named 'absent'"),
    ],
)
def test_what_cannot_be_made_is_one_line(given: dict[str, str], says: str) -> None:
    with pytest.raises(PolicyError, match=says):
        ProcessPolicy(ScriptOptions(**given), CONTEXT, timeout_s=60.0)


def test_warm_up_that_fails_is_one_line() -> None:
    made = ProcessPolicy(ScriptOptions(mode="cold"), CONTEXT, timeout_s=60.0)
    with pytest.raises(PolicyError, match="RuntimeError: no kernel image"):
        made.warm_up()
    made.close()


def test_the_process_knows_what_the_safety_stage_lets_through(tmp_path: Path) -> None:
    permitted = SafetyStage(SafetyOptions(), describe().model()).permitted
    for joints in (CONTEXT.joints, CONTEXT.joints.within(permitted)):
        context = replace(CONTEXT, joints=joints)
        _, there = started(start_message(ScriptOptions(), context, tmp_path / "body.mjb"))
        np.testing.assert_array_equal(there.joints.usable, joints.usable)
        assert (there.joints.permitted is None) == (joints.permitted is None)
    known = there.joints.permitted
    np.testing.assert_array_equal(known.velocity, permitted.velocity)
    np.testing.assert_array_equal(known.acceleration, permitted.acceleration)
    assert known.table_m == permitted.table_m
