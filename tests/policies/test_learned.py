"""The learned policies inside the runtime's interface, with tiny random networks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from dexrun.policies import policy_context
from drivers.arms import describe
from drivers.arms.so100 import JOINT_NAMES, JOINT_RANGES_RAD
from policies.act.config import ActConfig
from policies.act.options import ActShape
from policies.act.policy import ActPolicy
from policies.dexgrasp.config import DexGraspConfig
from policies.dexgrasp.controller import ControllerInput
from policies.dexgrasp.load import random_controller
from policies.dexgrasp.options import UMI_SHAPE, ControllerShape
from policies.dexgrasp.policy import DexGraspPolicy
from policies.mapping import KeyMap
from runtime.clock import RealClock
from runtime.interfaces import Policy, PolicyError
from runtime.joints import JointLayout
from runtime.messages import ArmState, Frame, Observation, TrackedMask
from runtime.units import UnitMap

TINY = ControllerShape(
    head="tiny14", wrist="tiny14", image_size=28, position_grid=2, state_size=6, action_size=6, horizon=8,
    layers=2, heads=2, mask_layers=1, mask_heads=2,
)  # fmt: skip
TINY_ACT = ActShape(
    state_size=6, action_size=6, chunk=5, hidden=16, feedforward=16, heads=2, encoder_layers=1, latent=4,
    base_width=4,
)  # fmt: skip
SYMMETRIC = UnitMap(convention="symmetric")
ROBOT = JointLayout(JOINT_NAMES, np.array(JOINT_RANGES_RAD), (5,))


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def observe(seed: int = 0, **changes: Any) -> Observation:
    rng = np.random.default_rng(seed)
    low, high = ROBOT.ranges.T
    position = low + (high - low) * rng.random(6)
    position[5] = rng.random()
    zeros = np.zeros(6)
    frames = {
        name: Frame(name, 1, rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)) for name in ("head", "wrist")
    }
    masks = {"head": TrackedMask("head", 1, (rng.random((48, 64)) > 0.5).astype(np.uint8), 1.0)}
    given: dict[str, Any] = {"frames": frames, "masks": masks, **changes}
    return Observation(4, 0, 1, ArmState(1, position, zeros, zeros), **given)


def dexgrasp(**changes: Any) -> DexGraspPolicy:
    config = DexGraspConfig.model_validate({"shape": TINY, "units": SYMMETRIC, "seed": 3, **changes})
    made = DexGraspPolicy(config, ROBOT)
    made.warm_up()
    return made


def act(**changes: Any) -> ActPolicy:
    given = {"shape": TINY_ACT, "units": SYMMETRIC, "image_width": 64, "image_height": 64, **changes}
    made = ActPolicy(ActConfig.model_validate(given), ROBOT)
    made.warm_up()
    return made


def test_dexgrasp_answers_in_the_robots_units() -> None:
    policy: Policy = dexgrasp()
    assert policy.spec.cameras == ("head", "wrist")
    assert policy.spec.masks == ("head",)
    assert policy.spec.takes_prefix
    chunk = policy.infer(observe()).rows
    assert chunk.shape == (8, 6)
    low, high = ROBOT.ranges.T
    # sampling is clipped to -1..1, which is the joints' range in these units
    assert (chunk >= np.append(low[:5], 0) - 1e-6).all()
    assert (chunk <= np.append(high[:5], 1) + 1e-6).all()
    policy.close()


def test_dexgrasp_repeats_with_its_seed_and_looks_at_everything() -> None:
    first, again = dexgrasp(), dexgrasp()
    np.testing.assert_array_equal(first.infer(observe()).rows, again.infer(observe()).rows)
    base = dexgrasp().infer(observe()).rows
    frames = dict(observe().frames)
    dark = {**frames, "wrist": Frame("wrist", 1, np.zeros((48, 64, 3), np.uint8))}
    no_mask = {"head": TrackedMask("head", 1, np.zeros((48, 64), np.uint8), 1.0)}
    for changed in (observe(frames=dark), observe(masks=no_mask)):
        assert np.abs(dexgrasp().infer(changed).rows - base).max() > 1e-6


def test_the_committed_prefix_is_kept_and_fades() -> None:
    policy = dexgrasp()
    committed = np.repeat(observe().arm.position[None], 6, axis=0)
    bound = dexgrasp().infer(observe(committed=committed, frozen_steps=3)).rows
    free = policy.infer(observe()).rows
    np.testing.assert_allclose(bound[:3], committed[:3], atol=1e-5)
    assert np.abs(bound[3] - committed[3]).mean() < np.abs(free[3] - committed[3]).mean()
    ignoring = dexgrasp(rtc="none").infer(observe(committed=committed, frozen_steps=3)).rows
    np.testing.assert_allclose(ignoring, free, atol=1e-6)


def test_guidance_pulls_towards_the_prefix() -> None:
    committed = np.repeat(observe().arm.position[None], 6, axis=0)
    guided = dexgrasp(rtc="guidance").infer(observe(committed=committed, frozen_steps=4)).rows
    free = dexgrasp(rtc="none").infer(observe()).rows
    assert np.isfinite(guided).all()
    assert np.abs(guided[:4] - committed[:4]).mean() < np.abs(free[:4] - committed[:4]).mean()


def test_bfloat16_stays_near_float32() -> None:
    exact, half = dexgrasp().infer(observe()).rows, dexgrasp(precision="bfloat16").infer(observe()).rows
    assert np.abs(exact - half).mean() < 0.1


def test_cameras_with_equal_backbones_are_encoded_in_one_pass() -> None:
    controller = random_controller(TINY, 0).eval()
    encoder = controller.obs_encoder
    assert not encoder.share_backbones()
    encoder.dino_wrist.load_state_dict(encoder.dino_head.state_dict())
    made = ControllerInput(torch.rand(1, 1, 4, 28, 28), torch.rand(1, 1, 3, 28, 28), torch.zeros(1, 1, 6))
    with torch.no_grad():
        apart = controller.encode(made)
        assert encoder.share_backbones()
        torch.testing.assert_close(controller.encode(made), apart, rtol=0, atol=1e-5)


def test_umi_variant_one_camera_two_steps() -> None:
    shape = UMI_SHAPE.model_copy(
        update={"wrist": "tiny14", "image_size": 28, "position_grid": 2, "layers": 1, "heads": 2}
    )
    keys = KeyMap(
        state={"pose": (*JOINT_NAMES, "zero", "zero", "zero")},
        action={"a": (*JOINT_NAMES, "skip", "skip", "skip")},
    )
    policy = dexgrasp(shape=shape, keys=keys, wrist_camera="head")
    assert policy.spec.cameras == ("head",)
    assert policy.spec.masks == ()
    alone = policy.infer(observe(1, masks={})).rows
    assert alone.shape == (16, 6)
    # the second answer sees the first observation, too, until a reset
    after = policy.infer(observe(2)).rows
    policy.reset()
    np.testing.assert_array_equal(alone.shape, after.shape)
    assert shape.condition_tokens == 2 * 4 + 2


def test_training_lowers_the_loss() -> None:
    controller = random_controller(TINY, 0).train()
    made = ControllerInput(torch.rand(4, 1, 4, 28, 28), torch.rand(4, 1, 3, 28, 28), torch.rand(4, 1, 6))
    actions = torch.rand(4, 8, 6) * 2 - 1
    parameters = [p for p in controller.parameters() if p.requires_grad]
    assert not any(p.requires_grad for p in controller.obs_encoder.dino_head.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=3e-3)
    losses = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for _ in range(40):
            loss = controller.compute_loss(made, actions)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])


def test_act_answers_in_the_robots_units_and_looks_at_its_cameras() -> None:
    policy: Policy = act(cameras=("head", "wrist"))
    assert policy.spec.cameras == ("head", "wrist")
    chunk = policy.infer(observe()).rows
    assert chunk.shape == (5, 6)
    np.testing.assert_array_equal(policy.infer(observe()).rows, chunk)
    frames = {**observe().frames, "wrist": Frame("wrist", 1, np.zeros((48, 64, 3), np.uint8))}
    assert np.abs(policy.infer(observe(frames=frames)).rows - chunk).max() > 1e-6
    policy.close()


@pytest.mark.parametrize(
    ("make", "changes", "says"),
    [
        (dexgrasp, {"device": "cuda:77"}, r"policy.device 'cuda:77': torch sees \d+ CUDA devices here"),
        (dexgrasp, {"device": "warp"}, "policy.device 'warp': unknown; use cpu, cuda"),
        (act, {"device": "mps"}, "policy.device 'mps': not supported"),
        (act, {"precision": "float16"}, "'float16' is too slow on a CPU"),
        (dexgrasp, {"checkpoint": "nowhere.ckpt"}, "nowhere.ckpt: no such file"),
        (act, {"checkpoint": "nowhere.ckpt"}, "nowhere.ckpt: no such file"),
        (dexgrasp, {"shape": ControllerShape(**{**TINY.model_dump(), "state_size": 13, "action_size": 13})},
         "takes a state of 13 and gives actions of 13; policy.keys make 6 and 6 of the robot's 6 joints"),
        (act, {"shape": ActShape(**{**TINY_ACT.model_dump(), "state_size": 14, "action_size": 14})},
         "takes a state of 14 and gives actions of 14"),
        (act, {"cameras": ()}, "policy.cameras is empty"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_line_before_anything_moves(make: Any, changes: Any, says: str) -> None:
    with pytest.raises(PolicyError, match=says) as caught:
        make(**changes)
    assert "\n" not in str(caught.value)


def test_an_observation_that_lacks_something_is_one_line() -> None:
    policy, other = dexgrasp(), act()
    with pytest.raises(PolicyError, match="no mask of the object in camera 'head'"):
        policy.infer(observe(masks={}))
    with pytest.raises(PolicyError, match="no frame of camera 'head'"):
        policy.infer(observe(frames={}))
    with pytest.raises(PolicyError, match="act: no frame of camera 'head'"):
        other.infer(observe(frames={}))


def test_shapes_that_cannot_be_are_refused_with_the_configuration() -> None:
    with pytest.raises(ValueError, match="at least one backbone"):
        ControllerShape(head=None, wrist=None)
    with pytest.raises(ValueError, match="multiple of 14"):
        ControllerShape(image_size=500)
    with pytest.raises(ValueError, match="larger than train_steps"):
        ControllerShape(inference_steps=51)


@pytest.mark.parametrize("kind", ["variance", "rms"])
@pytest.mark.parametrize("prediction", ["epsilon", "sample"])
def test_projecting_once_changes_nothing(kind: str, prediction: str) -> None:
    shape = ControllerShape.model_validate({**TINY.model_dump(), "norm": kind, "prediction": prediction})
    controller = random_controller(shape, 0).eval()
    made = ControllerInput(torch.rand(2, 1, 4, 28, 28), torch.rand(2, 1, 3, 28, 28), torch.rand(2, 1, 6))
    noise = torch.randn(2, 8, 6, generator=torch.Generator().manual_seed(0))
    once = controller.predict_action(made, noise)
    controller.fast.project_once = False
    torch.testing.assert_close(controller.predict_action(made, noise), once, rtol=0, atol=1e-5)


def test_act_in_a_process_of_its_own_answers_the_same() -> None:
    from policies.process import ProcessPolicy

    config = ActConfig(
        shape=TINY_ACT, units=SYMMETRIC, image_width=64, image_height=64, worker="process", threads=1
    )
    there = ProcessPolicy(config, policy_context(describe().model(), {}, RealClock()))
    there.warm_up()
    np.testing.assert_allclose(there.infer(observe()).rows, act().infer(observe()).rows, atol=1e-6)
    there.close()


@pytest.mark.parametrize("rtc", ["inpaint", "guidance", "none"])
def test_a_batch_of_dexgrasp_is_its_observations_one_by_one(rtc: str) -> None:
    committed = np.repeat(observe(7).arm.position[None], 5, axis=0)
    asked = [
        observe(1),
        observe(2, committed=committed, frozen_steps=2),
        observe(3),
        observe(4, committed=committed[:3], frozen_steps=1),
    ]
    singles, together = dexgrasp(rtc=rtc), dexgrasp(rtc=rtc)
    wanted = [singles.infer(o).rows for o in asked]
    for chunk, expected in zip(together.infer_batch(asked), wanted, strict=True):
        np.testing.assert_allclose(chunk.rows, expected, rtol=0, atol=1e-5)
    assert np.abs(wanted[0] - wanted[2]).max() > 1e-3
    # and the noise goes on as it would have
    np.testing.assert_allclose(together.infer(asked[0]).rows, singles.infer(asked[0]).rows, rtol=0, atol=1e-5)


def test_a_batch_of_act_is_its_observations_one_by_one() -> None:
    policy = act(cameras=("head", "wrist"))
    asked = [observe(seed) for seed in range(4)]
    wanted = [policy.infer(o).rows for o in asked]
    for chunk, expected in zip(policy.infer_batch(asked), wanted, strict=True):
        np.testing.assert_allclose(chunk.rows, expected, rtol=0, atol=1e-5)
    assert np.abs(wanted[0] - wanted[1]).max() > 1e-6


def test_a_network_that_remembers_is_asked_one_by_one() -> None:
    shape = UMI_SHAPE.model_copy(
        update={"wrist": "tiny14", "image_size": 28, "position_grid": 2, "layers": 1, "heads": 2}
    )
    keys = KeyMap(
        state={"pose": (*JOINT_NAMES, "zero", "zero", "zero")},
        action={"a": (*JOINT_NAMES, "skip", "skip", "skip")},
    )
    asked = [observe(seed, masks={}) for seed in (1, 2)]
    singles, together = (dexgrasp(shape=shape, keys=keys, wrist_camera="head") for _ in range(2))
    for chunk, alone in zip(together.infer_batch(asked), map(singles.infer, asked), strict=True):
        np.testing.assert_array_equal(chunk.rows, alone.rows)
