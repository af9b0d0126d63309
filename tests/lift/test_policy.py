"""The policy on made-up views, with weights that nobody trained: what it remembers, and how it ends."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from dexrun.config.load import load  # noqa: E402
from drivers.arms.choice import describe  # noqa: E402
from policies.checkpoint import CheckpointError  # noqa: E402
from policies.lift.config import LiftConfig  # noqa: E402
from policies.lift.load import load_lift, random_lift, save_lift  # noqa: E402
from policies.lift.options import SHIPPED, WEIGHTS, LiftShape, weights_file  # noqa: E402
from policies.lift.policy import LiftPolicy, _chosen  # noqa: E402
from policies.lift.shaping import eased  # noqa: E402
from runtime.arm_model import ArmModel  # noqa: E402
from runtime.interfaces import NoAnswerError, Policy, PolicyError  # noqa: E402
from runtime.joints import JointLayout, Permitted  # noqa: E402
from runtime.messages import ArmState, PolicyStatus, TrackedMask  # noqa: E402
from tests.dexrun.rig import ROOT  # noqa: E402
from tests.geometric.synthetic import INFO, LOOK, Box, observation  # noqa: E402

SHAPE = LiftShape(width=32, blocks=1, hypotheses=3, chunk=8)
RANGES = np.array([[-3.2, 3.2]] * 5 + [[0.0, 1.0]])
JOINTS = JointLayout(tuple("abcdef"), RANGES, (5,))
HIDDEN = {"masks": {"head": TrackedMask("head", 1_000_000_000, np.zeros((300, 400), np.uint8), 0.0)}}


def made(**changes: object) -> LiftPolicy:
    config = LiftConfig.model_validate({"checkpoint": "", "shape": SHAPE, "done_above": 0.999, **changes})
    policy = LiftPolicy(config, JOINTS, lambda: INFO, no_model)
    policy.warm_up()
    return policy


def no_model() -> ArmModel:
    raise AssertionError("nothing is permitted: no model is needed")


def closed(opening: float) -> dict[str, object]:
    position = np.array([*LOOK[:5], opening])
    return {"arm": ArmState(1_000_000_000, position, np.zeros(6), np.zeros(6))}


def test_it_gives_a_chunk_and_fits_the_protocol():
    policy = made()
    assert isinstance(policy, Policy)
    answer = policy.infer(observation(Box(), force_n=np.array([0.1, 0.2, 0.0])))
    assert answer.rows.shape == (SHAPE.chunk, 6)
    assert answer.status is PolicyStatus.RUNNING
    assert policy.spec.rate_hz == 15.0


def test_nothing_beyond_what_the_safety_stage_lets_through_is_asked_for():
    ends = np.array([1e-3] * 5 + [1.0])
    ranges, any_speed = np.column_stack([-ends * [1, 1, 1, 1, 1, 0], ends]), np.full(6, 1e3)
    narrow = JOINTS.within(Permitted(ranges, any_speed, any_speed))
    config = LiftConfig.model_validate({"checkpoint": "", "shape": SHAPE})
    policy = LiftPolicy(config, narrow, lambda: INFO, describe().model)
    rows = policy.infer(observation(Box())).rows
    assert np.abs(rows[:, :5]).max() == 1e-3


@pytest.mark.parametrize("limit", [25.0, np.inf])
def test_fingers_that_came_down_on_something_end_the_attempt(limit: float):
    any_speed = np.full(6, 1e3)
    config = LiftConfig.model_validate({"checkpoint": "", "shape": SHAPE, "done_above": 0.999})
    joints = JOINTS.within(Permitted(RANGES, any_speed, any_speed, force_n=limit))
    policy = LiftPolicy(config, joints, lambda: INFO, describe().model)
    assert policy.infer(observation(Box(), force_n=np.array([0.0, 12.0, 0.0]))).status is PolicyStatus.RUNNING
    answer = policy.infer(observation(Box(), force_n=np.array([0.0, -26.0, 0.0])))
    if np.isfinite(limit):
        assert (len(answer.rows), answer.status) == (0, PolicyStatus.FAILED)
        assert answer.why == "the fingers press on something with 26 N"
    else:
        assert answer.status is PolicyStatus.RUNNING


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_rows_that_are_no_numbers_move_nothing(value: float):
    policy = made()
    with torch.no_grad():
        policy._model.target_mean[0, 5] = value
    with pytest.raises(PolicyError, match="not all finite"):
        policy.infer(observation(Box()))


def test_the_object_is_remembered_while_the_arm_hides_it_and_forgotten_with_the_attempt():
    policy = made()
    with pytest.raises(NoAnswerError, match="too little of the object"):
        policy.infer(observation(Box(), **HIDDEN))
    policy.infer(observation(Box()))
    assert len(policy.infer(observation(Box(), **HIDDEN)).rows) == SHAPE.chunk
    policy.reset()
    with pytest.raises(NoAnswerError):
        policy.infer(observation(Box(), **HIDDEN))


def test_of_likely_ways_the_one_that_goes_on_with_what_is_committed_is_taken():
    ways = np.array([np.full((4, 2), value) for value in (0.0, 1.0, 2.0)])
    likely, none = np.array([0.6, 0.37, 0.03]), np.zeros((0, 2))
    assert _chosen(ways, likely, none, 0)[0, 0] == 0.0
    assert _chosen(ways, likely, np.full((2, 2), 0.9), 0)[0, 0] == 1.0
    assert _chosen(ways, likely, np.full((2, 2), 2.0), 0)[0, 0] == 1.0  # the third is too unlikely
    # what came to nothing before is not begun the same way again
    assert [_chosen(ways, likely, none, setbacks)[0, 0] for setbacks in (1, 2, 3)] == [1.0, 2.0, 0.0]
    assert _chosen(ways, likely, np.full((2, 2), 2.0), 2)[0, 0] == 2.0


def test_a_chunk_goes_on_from_what_is_committed_and_is_smooth():
    rows = np.array([[1.0], [1.0], [1.0], [3.0], [1.0], [1.0]])
    committed = np.zeros((4, 1))
    out = eased(rows, committed, kept=0, over=2)[:, 0]
    assert out == pytest.approx([1 / 3, 2 / 3, 1.5, 2.0, 1.5, 1.0])
    # what is executed before the chunk is there stays as it is, and the way over begins behind it
    assert eased(rows, committed, kept=2, over=2)[:, 0] == pytest.approx([0.0, 0.0, 0.5, 4 / 3, 1.5, 1.0])
    assert eased(rows, np.zeros((0, 1)), kept=2, over=2)[0, 0] == 1.0


def test_jaws_that_close_on_nothing_end_the_attempt():
    policy = made()
    assert policy.infer(observation(Box(), **closed(0.01))).status is PolicyStatus.RUNNING
    answer = policy.infer(observation(Box(), **closed(0.01)))
    assert (answer.status, answer.why) == (PolicyStatus.FAILED, "the jaws closed to 0.01 on nothing")
    assert answer.rows.shape == (0, 6)


ENDS = [(0.0, PolicyStatus.FAILED), (0.9, PolicyStatus.DONE)]
"""The network, which nobody trained, asks for some opening between the two."""


@pytest.mark.parametrize(("opening", "status"), ENDS)
def test_an_attempt_without_an_end_fails_unless_the_jaws_hold_something(opening: float, status: PolicyStatus):
    policy = made(attempt_s=2.0, miss_opening=0.0)
    policy.infer(observation(Box(), **closed(opening)))
    answer = policy.infer(observation(Box(), step=62, **closed(opening)))
    assert answer.status is status
    assert status is PolicyStatus.DONE or "policy.attempt_s" in answer.why


@pytest.mark.parametrize(("opening", "status"), ENDS)
def test_an_arm_that_does_not_get_on_ends_the_attempt(opening: float, status: PolicyStatus):
    policy = made(stuck_s=1.0, miss_opening=0.0, attempt_s=60.0)
    for step in (0, 30):
        assert policy.infer(observation(Box(), step=step, **closed(opening))).status is PolicyStatus.RUNNING
    answer = policy.infer(observation(Box(), step=31, **closed(opening)))
    assert answer.status is status
    assert answer.why == (
        "" if status is PolicyStatus.DONE else "the arm has not moved for 1 s (policy.stuck_s)"
    )


def test_the_network_says_when_it_is_done():
    assert made(done_above=1e-6).infer(observation(Box())).status is PolicyStatus.DONE


BAD = {
    "no frame": ({"frames": {}}, "no frame with depth of camera 'head'"),
    "no mask": ({"masks": {}}, "no mask of camera 'head'"),
    "NaN": (
        {"arm": ArmState(1, np.full(6, np.nan), np.zeros(6), np.zeros(6))},
        "not 6 finite numbers",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_used_is_said_in_one_line(name: str):
    changes, message = BAD[name]
    with pytest.raises(PolicyError, match=message):
        made().infer(observation(Box(), **changes))


def test_weights_say_their_own_shape_and_come_back_as_they_were(tmp_path: Path):
    model = random_lift(SHAPE, seed=3)
    model.fit(torch.randn(20, 23), torch.randn(20, 8, 6))
    save_lift(model, tmp_path / "model.safetensors")
    again = load_lift(tmp_path / "model.safetensors")
    assert again.shape == SHAPE
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    policy = made(checkpoint=str(tmp_path))  # a folder is as good as the file in it
    assert policy.spec.chunk_steps == 8


def test_another_shape_than_the_weights_own_is_refused(tmp_path: Path):
    path = tmp_path / "model.safetensors"
    save_lift(random_lift(SHAPE, 0), path)
    with pytest.raises(CheckpointError, match=r"policy\.shape: .*leave it out"):
        made(checkpoint=str(path), shape=SHAPE.model_copy(update={"width": 64}))
    made(checkpoint=str(path), shape=SHAPE)


def test_other_weights_and_other_arms_are_refused(tmp_path: Path):
    from policies.checkpoint import write_safetensors

    path = tmp_path / "act.safetensors"
    write_safetensors(path, {"query_embed.weight": torch.zeros(2, 2)}, {})
    with pytest.raises(CheckpointError, match="not the weights of a lift policy"):
        made(checkpoint=str(path))
    seven = JointLayout(tuple("abcdefg"), np.array([[-1.0, 1.0]] * 6 + [[0.0, 1.0]]), (6,))
    with pytest.raises(CheckpointError, match="this one has 7, gripper"):
        LiftPolicy(LiftConfig(checkpoint="", shape=SHAPE), seven, lambda: INFO, no_model)


def test_the_policy_that_ships_is_a_checkpoints_folder_like_any_other() -> None:
    """`dexrun collect --dagger` and `--policy.checkpoint` take a folder."""
    folder = weights_file(SHIPPED).parent
    found = load(["--config", str(ROOT / "config.toml"), "--policy.checkpoint", str(folder)], {}).policy
    assert isinstance(found, LiftConfig)
    assert Path(found.checkpoint) == folder / WEIGHTS
    assert found.model_dump(exclude={"checkpoint"}) == LiftConfig().model_dump(exclude={"checkpoint"})
