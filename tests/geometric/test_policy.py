"""The policy on made-up views: what it refuses, and that it gets through its phases whatever is lost."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from policies.geometric.config import GeometricConfig
from policies.geometric.policy import GeometricPolicy
from runtime.arm_model import ArmModel
from runtime.interfaces import Policy, PolicyError
from runtime.messages import ArmState, CameraInfo, Frame, Intrinsics, PolicyStatus, TrackedMask
from tests.geometric.synthetic import INFO, LOOK, Box, Puppet, observation, view

BOX = Box()
STAMP = 1_000_000_000


@pytest.fixture
def policy(arm: ArmModel) -> GeometricPolicy:
    return GeometricPolicy(GeometricConfig(), arm, INFO)


def with_mask(mask: np.ndarray, stamp: int = STAMP, confidence: float = 1.0) -> dict[str, object]:
    return {"masks": {"head": TrackedMask("head", stamp, mask, confidence)}}


def with_arm(position: np.ndarray) -> dict[str, object]:
    return {"arm": ArmState(STAMP, position, np.zeros(6), np.zeros(6))}


DEPTH, MASK = view(BOX)
COLOR = np.zeros((*DEPTH.shape, 3), np.uint8)
BAD = {
    "no frame": ({"frames": {}}, "no frame of camera 'head'"),
    "no mask": ({"masks": {}}, "no mask for camera 'head'"),
    "no depth": ({"frames": {"head": Frame("head", STAMP, COLOR)}}, "has no depth"),
    "empty mask": (with_mask(np.zeros_like(MASK)), "the mask is empty"),
    "other size": (with_mask(np.ones((4, 4), np.uint8)), r"the mask .* \[4, 4\], the depth \[300, 400\]"),
    "old mask": (with_mask(MASK, STAMP - 3_000_000_000), r"3\.0 s older than the frame"),
    "unsure mask": (with_mask(MASK, confidence=0.1), "confidence is 0.10"),
    "holes": (
        {"frames": {"head": Frame("head", STAMP, COLOR, np.zeros_like(DEPTH))}},
        "0 points of the object",
    ),
    "flat": (
        {"frames": {"head": Frame("head", STAMP, COLOR, np.full_like(DEPTH, 1240))}},
        "0 points of the object",
    ),
    "NaN": (with_arm(np.full(6, np.nan)), "the arm's position holds NaN or infinity"),
    "five joints": (with_arm(np.zeros(5)), "the arm has 5 joints; the model has 6"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_in_one_line(policy: GeometricPolicy, name: str):
    changes, message = BAD[name]
    with pytest.raises(PolicyError, match=message) as caught:
        policy.infer(observation(BOX, **changes))
    assert "\n" not in str(caught.value)
    assert policy.infer(observation(BOX)).rows.shape[1] == 6


def test_what_cannot_be_grasped_is_refused(policy: GeometricPolicy):
    with pytest.raises(
        PolicyError,
        match=r"no grasp within reach of the object at \(0\.3|the way down to the object: the arm misses",
    ):
        policy.infer(observation(Box(x=0.36, y=0.1)))
    policy.reset()
    with pytest.raises(PolicyError, match=r"60 mm wide; the jaws take up to 45 mm|6[12] mm wide"):
        policy.infer(observation(Box(long=0.07, short=0.06)))


def test_an_uncalibrated_camera_is_refused(arm: ArmModel):
    bare = CameraInfo("head", Intrinsics(320, 240, 300, 300, 160, 120), depth_scale_m=0.001)
    with pytest.raises(PolicyError, match="camera 'head' has no pose relative to the arm"):
        GeometricPolicy(GeometricConfig(), arm, lambda: bare).infer(observation(BOX))
    no_scale = replace(INFO, depth_scale_m=None)
    with pytest.raises(PolicyError, match="has no depth scale"):
        GeometricPolicy(GeometricConfig(), arm, no_scale).infer(observation(BOX))


def test_it_is_a_policy(policy: GeometricPolicy):
    assert isinstance(policy, Policy)
    policy.warm_up()
    assert policy.spec.cameras == policy.spec.masks == ("head",)
    policy.close()


def test_a_chunk_starts_where_the_arm_is_and_is_smooth(policy: GeometricPolicy):
    rows = policy.infer(observation(BOX)).rows
    assert rows.shape == (policy.config.chunk_steps, 6)
    steps = np.diff(np.vstack([LOOK, rows]), axis=0)
    assert np.abs(steps[0]).max() < 0.02
    assert np.abs(steps[:, :5]).max() <= policy.config.velocity_rad_s / 30 + 1e-9
    assert np.abs(np.diff(steps[:, :5], axis=0)).max() <= policy.config.acceleration_rad_s2 / 900 + 1e-6


def test_what_is_committed_stays(policy: GeometricPolicy):
    first = policy.infer(observation(BOX)).rows
    moved = Box(x=BOX.x + 0.02)
    second = policy.infer(observation(moved, first[4], step=5, committed=first[5:])).rows
    kept = policy.config.lead_steps
    np.testing.assert_allclose(second[:kept], first[5 : 5 + kept])
    assert np.abs(np.diff(second[:12, :5], axis=0)).max() <= policy.config.velocity_rad_s / 30 + 1e-9
    assert np.abs(second[-1] - first[-1]).max() > 0.01
    assert policy.estimate is not None
    assert policy.estimate.center[0] == pytest.approx(moved.x, abs=0.002)


def test_an_unchanged_view_goes_on_with_the_plan(policy: GeometricPolicy):
    first = policy.infer(observation(BOX)).rows
    second = policy.infer(observation(BOX, first[7], step=10, committed=first[10:])).rows
    np.testing.assert_array_equal(second[: len(first) - 10], first[10:])


def test_a_hidden_object_stays_where_it_was_seen(policy: GeometricPolicy):
    first = policy.infer(observation(BOX)).rows
    known = policy.estimate
    half = MASK.copy()
    half[:, : int(np.median(np.nonzero(MASK)[1]))] = 0
    for mask in (half, np.zeros_like(MASK)):
        policy.infer(observation(BOX, step=5, committed=first[5:], **with_mask(mask, STAMP + 5 * 33_333_333)))
        assert policy.estimate is known


def test_an_arm_in_the_way_moves_aside_before_it_looks(policy: GeometricPolicy, arm: ArmModel):
    depth, mask = view(BOX)
    rows, columns = np.nonzero(mask)
    depth[:, : int(np.median(columns))] = 700
    mask[:, : int(np.median(columns))] = 0
    over = np.array([0.0, -1.57, 1.57, 1.57, 0.0, 0.4])
    stamp = STAMP
    frame = {"head": Frame("head", stamp, COLOR, depth)}
    chunk = policy.infer(observation(BOX, over, frames=frame, **with_mask(mask))).rows
    assert policy.estimate is None
    assert np.abs(chunk[-1, :5] - LOOK[:5]).max() < np.abs(over[:5] - LOOK[:5]).max()
    policy.infer(observation(BOX, chunk[-1], step=len(chunk)))
    assert policy.estimate is not None
    assert rows.size


def test_the_same_observations_make_the_same_chunks(arm: ArmModel):
    runs = []
    for _ in range(2):
        puppet = Puppet(GeometricPolicy(GeometricConfig(), arm.copy(), INFO), BOX, 0.15)
        puppet.run()
        runs.append(np.array(puppet.sent))
    np.testing.assert_array_equal(runs[0], runs[1])


@pytest.mark.parametrize("lost", [0.0, 0.3, 0.6])
def test_it_holds_what_stops_the_jaws(policy: GeometricPolicy, lost: float):
    puppet = Puppet(policy, BOX, blocked_at=0.15, lost=lost)
    assert puppet.run(1500) == "done"
    assert "lift" in puppet.phases
    last = policy.infer(observation(BOX, puppet.position, puppet.tick))
    assert (last.status, last.why) == (PolicyStatus.DONE, "")
    steps = np.abs(np.diff(np.array(puppet.sent)[:, :5], axis=0))
    assert steps.max() <= policy.config.velocity_rad_s / 30 + (1e-9 if lost == 0 else 0.1)


@pytest.mark.parametrize("lost", [0.0, 0.3])
def test_jaws_that_close_on_nothing_fail(policy: GeometricPolicy, lost: float):
    puppet = Puppet(policy, BOX, blocked_at=None, lost=lost)
    assert puppet.run(1500) == "failed"
    assert "on nothing" in policy.failure
    last = policy.infer(observation(BOX, puppet.position, puppet.tick))
    assert (last.status, last.why) == (PolicyStatus.FAILED, policy.failure)
    assert last.rows[-1, 5] > 0.2
    policy.reset()
    assert policy.phase == "approach"
    assert policy.failure == ""


def test_an_object_lost_on_the_way_up_is_a_failure(policy: GeometricPolicy):
    puppet = Puppet(policy, BOX, blocked_at=0.15)
    while policy.phase != "lift":
        puppet.step()
    puppet.blocked_at = None
    assert puppet.run() == "failed"
    assert policy.failure == "the object was lost on the way up"


def test_fingers_that_meet_something_come_up_again(policy: GeometricPolicy, arm: ArmModel):
    puppet = Puppet(policy, BOX, blocked_at=0.15)
    while policy.phase != "descend":
        puppet.step()
    puppet.force = np.array([0.0, 0.0, 12.0])
    assert puppet.run() == "failed"
    assert policy.failure == "the fingers met something on the way down"
    low = arm.grasp_height(puppet.position)
    for _ in range(60):
        puppet.step()
    assert arm.grasp_height(puppet.position) > low + 0.02


def test_a_force_sensor_is_believed_over_the_jaws(policy: GeometricPolicy):
    puppet = Puppet(policy, BOX, blocked_at=0.15)
    puppet.force = np.array([0.5, 0.0, 0.0])
    assert puppet.run() == "failed"
