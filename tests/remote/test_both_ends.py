"""Our client against our server, in all four protocols."""

from __future__ import annotations

import dataclasses
import socket

import numpy as np
import pytest

from policies.mapping import ImageRule, KeyMap
from runtime.inference import NotReadyError
from runtime.interfaces import NoAnswerError, Policy, PolicyError
from runtime.messages import Frame, Observation, PolicyAnswer, PolicyStatus
from runtime.units import UnitMap
from tests.remote.support import (
    NAMES,
    OPTIONS,
    PROTOCOLS,
    EchoPolicy,
    both_ends,
    expected,
    observation,
    with_planes,
)

pytestmark = pytest.mark.parametrize("protocol", PROTOCOLS)
WANTED = r"wrist|image|rgb_left"
CLOSE = 2e-5
"""float32 in the policy's units; LeRobot's are up to 180."""


def test_a_chunk_crosses(protocol: str) -> None:
    policy = EchoPolicy()
    with both_ends(protocol, policy) as remote:
        assert isinstance(remote, Policy)
        remote.warm_up()
        made = observation()
        rows = remote.infer(made).rows
        assert np.abs(rows - expected(made)).max() < CLOSE
        (seen,) = policy.seen
        assert np.abs(seen.arm.position - made.arm.position).max() < CLOSE
        assert seen.instruction == (made.instruction if protocol != "act" else "")
        for camera, frame in made.frames.items():
            assert (seen.frames[camera].color == frame.color).all()
        counts = remote.statistics()
        assert (counts["connects"], counts["requests"], counts["replies"]) == (1, 1, 1)
    assert policy.closed


def test_a_chunk_crosses_over_ipv6(protocol: str) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    with both_ends(protocol, EchoPolicy(), {"host": "::1"}, host="::1") as remote:
        made = observation()
        assert np.abs(remote.infer(made).rows - expected(made)).max() < CLOSE


def test_many_chunks_on_one_connection_and_resets(protocol: str) -> None:
    policy = EchoPolicy()
    with both_ends(protocol, policy) as remote:
        remote.warm_up()
        before = policy.resets
        for step in range(20):
            made = observation(step, seed=step)
            assert np.abs(remote.infer(made).rows - expected(made)).max() < CLOSE
        remote.reset()
        assert policy.resets == before + 1
        assert remote.statistics()["connects"] == 1
        assert remote.statistics().get("late", 0) == 0


def test_an_error_of_the_policy_is_one_line(protocol: str) -> None:
    keys = OPTIONS[protocol]().keys
    keys = keys.model_copy(update={"instruction": keys.instruction or "task"})  # ACT has none by default
    timeout_s = 0.5 if protocol == "lerobot" else 30
    serve = {"observation_wait_s": 0.05, "keys": keys}
    with both_ends(protocol, EchoPolicy(), serve, request_timeout_s=timeout_s, keys=keys) as remote:
        for instruction in ("refuse", "raise", "exit"):
            with pytest.raises(PolicyError) as caught:
                remote.infer(observation(instruction=instruction))
            assert "\n" not in str(caught.value)
        made = observation(step=99)
        assert np.abs(remote.infer(made).rows - expected(made)).max() < CLOSE


def test_depth_and_masks_cross_where_they_are_mapped(protocol: str) -> None:
    keys = OPTIONS[protocol]().keys
    keys = keys.model_copy(update={"depths": {"head": "head_depth"}, "masks": {"head": "head_mask"}})
    policy = EchoPolicy()
    with both_ends(protocol, policy, {"keys": keys}, keys=keys) as remote:
        made = with_planes(observation())
        remote.infer(made)
    (seen,) = policy.seen
    assert (seen.frames["head"].depth == made.frames["head"].depth).all()
    assert (seen.masks["head"].mask == made.masks["head"].mask).all()


def test_frames_are_resized_and_swapped_before_they_are_sent(protocol: str) -> None:
    keys: KeyMap = OPTIONS[protocol]().keys
    rule = ImageRule(width=32, height=24, order="bgr")
    keys = keys.model_copy(update={"image": rule})
    policy = EchoPolicy()
    with both_ends(protocol, policy, {"keys": keys}, keys=keys) as remote:
        made = observation()
        remote.infer(made)
    (seen,) = policy.seen
    assert seen.frames["head"].color.shape == (24, 32, 3)
    assert (seen.frames["wrist"].color == made.frames["wrist"].color).all()


def test_jpeg_is_used_only_if_both_ends_take_it(protocol: str) -> None:
    made = observation()
    flat = {
        name: dataclasses.replace(frame, color=np.full_like(frame.color, 90))
        for name, frame in made.frames.items()
    }
    made = dataclasses.replace(made, frames=flat)
    for takes in (True, False):
        policy = EchoPolicy()
        with both_ends(protocol, policy, {"jpeg": takes}, jpeg_quality=90) as remote:
            remote.infer(made)
        color = policy.seen[0].frames["head"].color.astype(int)
        assert color.shape == (48, 64, 3)
        assert abs(color - 90).max() <= (2 if takes else 0)


def test_step_and_prefix_reach_our_own_server(protocol: str) -> None:
    policy = EchoPolicy()
    policy.spec = dataclasses.replace(policy.spec, takes_prefix=True)
    committed = np.linspace(0.0, 0.5, 18).reshape(3, 6)
    with both_ends(protocol, policy) as remote:
        remote.infer(observation(step=41, committed=committed, frozen_steps=2))
        assert remote.spec.takes_prefix
    (seen,) = policy.seen
    assert seen.step == 41
    assert np.abs(seen.committed - committed).max() < CLOSE
    assert seen.frozen_steps == 2


def test_how_the_attempt_stands_crosses(protocol: str) -> None:
    class Says(EchoPolicy):
        status, why, rows = PolicyStatus.RUNNING, "", 100

        def infer(self, observation: Observation) -> PolicyAnswer:
            return PolicyAnswer(super().infer(observation).rows[: self.rows], self.status, self.why)

    policy = Says()
    policy.spec = dataclasses.replace(policy.spec, tells_end=True)
    with both_ends(protocol, policy) as remote:
        assert not remote.spec.tells_end  # not known before the server has said so
        assert remote.infer(observation(1)).status is PolicyStatus.RUNNING
        assert remote.spec.tells_end
        policy.status = PolicyStatus.DONE
        assert remote.infer(observation(2)).status is PolicyStatus.DONE
        policy.status, policy.why, policy.rows = PolicyStatus.FAILED, "closed on nothing", 0
        made = observation(3)
        answer = remote.infer(made)
        assert (answer.status, answer.why) == (PolicyStatus.FAILED, "closed on nothing")
        assert np.abs(answer.rows - made.arm.position).max() < CLOSE  # no rows: where the arm is
        assert answer.rows.shape == (1, 6)


def test_one_that_does_not_tell_when_it_is_done_may_fail(protocol: str) -> None:
    class Fails(EchoPolicy):
        def infer(self, observation: Observation) -> PolicyAnswer:
            rows = np.zeros((0, len(observation.arm.position)))
            return PolicyAnswer(rows, PolicyStatus.FAILED, "not seen for 3.1 s")

    with both_ends(protocol, Fails()) as remote:
        answer = remote.infer(observation(1))
        assert (answer.status, answer.why) == (PolicyStatus.FAILED, "not seen for 3.1 s")
        assert not remote.spec.tells_end  # whether it is done is still to be looked at


def test_one_that_is_not_ready_yet_has_no_action_for_this_view_and_is_asked_again(protocol: str) -> None:
    class Measures(EchoPolicy):
        asked = 0

        def infer(self, observation: Observation) -> PolicyAnswer:
            self.asked += 1
            if self.asked < 3:
                raise NotReadyError("the camera is being measured")
            return super().infer(observation)

    with both_ends(protocol, Measures()) as remote:
        for _ in range(2):
            with pytest.raises(NoAnswerError, match="the camera is being measured"):
                remote.infer(observation(1))
        assert len(remote.infer(observation(1)).rows)


def test_what_a_policy_says_and_its_latent_cross(protocol: str) -> None:
    class Thinks(EchoPolicy):
        def infer(self, observation: Observation) -> PolicyAnswer:
            rows, latent = super().infer(observation).rows, np.array([0.5, -2.0, 1e-3], np.float32)
            return PolicyAnswer(rows, reasoning="open the jaws…", latent=latent)

    with both_ends(protocol, Thinks()) as remote:
        assert remote.spec.latent == 0  # not known before the server has said so
        answer = remote.infer(observation(1))
        assert answer.reasoning == "open the jaws…"
        if protocol == "lerobot":  # in whose answer there is room for a short text alone
            assert answer.latent is None
        else:
            assert answer.latent is not None
            assert answer.latent.tolist() == np.array([0.5, -2.0, 1e-3], np.float32).tolist()
            assert remote.spec.latent == 3


def test_a_policy_that_does_not_tell_says_nothing(protocol: str) -> None:
    with both_ends(protocol, EchoPolicy()) as remote:
        assert remote.infer(observation(1)).status is PolicyStatus.RUNNING
        assert not remote.spec.tells_end


def test_another_number_of_joints_is_said_before_anything_is_sent(protocol: str) -> None:
    with both_ends(protocol, EchoPolicy()) as remote:
        made = observation()
        arm = dataclasses.replace(made.arm, position=np.zeros(5))
        with pytest.raises(PolicyError, match="observation of 5 joints; configured are 6"):
            remote.infer(dataclasses.replace(made, arm=arm))


def test_a_request_without_a_key_is_refused_by_name(protocol: str) -> None:
    keys = OPTIONS[protocol]().keys.model_copy(update={"cameras": {"head": "elsewhere"}})
    with both_ends(protocol, EchoPolicy(), keys=keys) as remote, pytest.raises(PolicyError, match=WANTED):
        remote.infer(observation())


def test_a_key_for_every_number_suits_every_protocol(protocol: str) -> None:
    state = {f"{name}.pos": (name,) for name in NAMES} | {"jaw.vel": ("gripper.velocity",)}
    state |= {f"force.{i}": (f"force.{i}",) for i in range(3)}
    keys = KeyMap(cameras={"head": "head"}, state=state, action={"action": ()}, instruction="task")
    units = UnitMap(convention="lerobot_percent")
    policy = EchoPolicy()
    with both_ends(protocol, policy, {"keys": keys, "units": units}, keys=keys, units=units) as remote:
        made = observation(force_n=np.array([0.5, -1.0, 2.0]))
        made.arm.velocity[:] = np.arange(6.0)
        remote.infer(made)
        (seen,) = policy.seen
        assert np.abs(seen.arm.position - made.arm.position).max() < CLOSE
        assert np.abs(seen.arm.velocity - [0, 0, 0, 0, 0, 5.0]).max() < CLOSE
        assert seen.force_n is not None
        assert np.abs(seen.force_n - [0.5, -1.0, 2.0]).max() < CLOSE


def test_a_state_of_another_length_is_refused(protocol: str) -> None:
    state = {f"{name}.pos": (name,) for name in NAMES}
    keys = KeyMap(cameras={"head": "head"}, state=state, action={"action": ()})
    fewer = keys.model_copy(update={"state": dict(list(state.items())[:-1])})
    with (
        both_ends(protocol, EchoPolicy(), {"keys": keys}, keys=fewer) as remote,
        pytest.raises(PolicyError, match=r"gripper\.pos|6 numbers are wanted"),
    ):
        remote.infer(observation())


def test_frames_large_enough_to_be_lent_leave_no_thread(protocol: str) -> None:
    """The fixture around every test looks for it: pyzmq has one for what it has lent to libzmq."""
    large = np.full((480, 640, 3), 7, np.uint8)
    policy = EchoPolicy()
    with both_ends(protocol, policy) as remote:
        made = observation()
        remote.infer(dataclasses.replace(made, frames={n: Frame(n, 5, large) for n in made.frames}))
    assert (policy.seen[0].frames["head"].color == large).all()
