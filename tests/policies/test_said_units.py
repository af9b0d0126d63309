"""Checkpoints and peers that say, or show, that they are in other units; pictures as trained."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from drivers.arms import describe
from policies.act.config import ActConfig
from policies.act.load import random_act
from policies.act.options import ActShape
from policies.act.policy import ActPolicy
from policies.dexgrasp.config import DexGraspConfig
from policies.dexgrasp.normalizer import LinearNormalizer
from policies.encoding.limits import WireError
from policies.mapping import KeyMap, ObservationMap
from policies.remote.config import GrootOptions
from policies.remote.groot import codec
from policies.remote.groot.client import _check_joints
from policies.remote.serving.robot_side import RobotSide
from runtime.interfaces import PolicyError
from runtime.messages import ArmState, Frame, Observation
from runtime.units import UnitMap

ROBOT = describe().layout
SHAPE = ActShape(
    state_size=6,
    action_size=6,
    chunk=3,
    hidden=16,
    feedforward=16,
    heads=2,
    encoder_layers=1,
    latent=4,
    base_width=4,
)
IN_DEGREES = np.array([5.0, 40.0, -30.0, 86.0, 2.0, 55.0])
IN_RAD = np.array([0.1, -1.4, 1.5, 0.3, 0.0, 0.5])


def checkpoint(folder: Path, mean: np.ndarray, said: object = None) -> str:
    model, _ = random_act(SHAPE, 3)
    state = {name: value.detach().clone().contiguous() for name, value in model.state_dict().items()}
    for name in ("qpos", "action"):
        state[f"stats.{name}_mean"] = torch.from_numpy(mean.copy())
        state[f"stats.{name}_std"] = torch.from_numpy(np.abs(mean) / 5 + 0.01)
    save_file(state, folder / "act.safetensors")
    if said is not None:
        (folder / "dexrun.json").write_text(json.dumps({"units": said}))
    return str(folder / "act.safetensors")


def act(path: str = "", **changes: Any) -> ActPolicy:
    given = {"checkpoint": path, "shape": SHAPE, "image_width": 64, "image_height": 64, **changes}
    return ActPolicy(ActConfig.model_validate(given), ROBOT)


def test_statistics_that_the_arm_cannot_have_are_refused_with_both_readings(tmp_path: Path) -> None:
    path = checkpoint(tmp_path, IN_DEGREES)
    with pytest.raises(
        PolicyError, match=r"statistics of the state: .* as rad is impossible .*; as lerobot_degrees it"
    ):
        act(path)
    act(path, units="lerobot_degrees")
    with pytest.raises(PolicyError, match=r"hardly a motion; as rad it would be one"):
        act(checkpoint(tmp_path, IN_RAD), units="lerobot_degrees")


def test_differences_that_no_joint_can_make_are_refused_with_both_readings(tmp_path: Path) -> None:
    path = checkpoint(tmp_path, IN_RAD)
    joints = [f"{name}.delta" for name in ROBOT.names[:5]] + [ROBOT.names[5]]
    act(path, keys={"action": {"action": joints}})
    state = load_file(path)
    state["stats.action_std"] = torch.tensor([0.1, 12.0, 9.0, 4.0, 1.0, 0.2], dtype=torch.float64)
    save_file(state, path)
    with pytest.raises(
        PolicyError,
        match=r"statistics of the action: shoulder_lift changes by 13.4, which as rad is more than",
    ):
        act(path, keys={"action": {"action": joints}})


def test_a_checkpoint_says_its_units_and_others_are_refused(tmp_path: Path) -> None:
    path = checkpoint(tmp_path, IN_DEGREES, {"convention": "lerobot_degrees"})
    assert act(path)._map.units.to_policy(np.eye(6)).std() > 5
    with pytest.raises(
        PolicyError, match=r"units is lerobot_percent, and .*dexrun.json says that the checkpoint is in"
    ):
        act(path, units="lerobot_percent")
    with pytest.raises(PolicyError, match=r"dexrun.json: units: "):
        act(checkpoint(tmp_path, IN_DEGREES, "furlongs"))


def test_an_act_that_was_trained_on_bgr_gets_bgr() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    arm = ArmState(1, IN_RAD, np.zeros(6), np.zeros(6))
    seen = Observation(0, 0, 1, arm, {"head": Frame("head", 1, picture)})
    swapped = dataclasses.replace(seen, frames={"head": Frame("head", 1, picture[..., ::-1].copy())})
    rows = []
    for order, observation in (("bgr", seen), ("rgb", swapped), ("rgb", seen)):
        policy = act(keys={"image": {"order": order}})
        policy.warm_up()
        rows.append(policy.infer(observation).rows)
    np.testing.assert_array_equal(rows[0], rows[1])
    assert np.abs(rows[0] - rows[2]).max() > 0
    padded = act(keys={"image": {"resize": "pad"}})
    padded.warm_up()
    assert np.abs(padded.infer(seen).rows - rows[2]).max() > 0
    with pytest.raises(ValidationError, match=r"image.width and height have no effect here: image_width"):
        act(keys={"image": {"width": 32}})


def test_resizing_without_a_size_is_refused() -> None:
    with pytest.raises(ValidationError, match="resize of 'image' has no effect without width and height"):
        GrootOptions.model_validate({"keys": {"image": {"resize": "pad"}}})


@pytest.mark.parametrize(
    "key", ["eef_position", "action.delta_arm", "end_effector", "relative_joints", "left_ee"]
)
def test_an_action_that_is_no_joints_target_by_its_name_is_not_taken_for_one(key: str) -> None:
    with pytest.raises(PolicyError, match=f"action '{key}' is by its name of an end effector or relative"):
        ObservationMap(KeyMap(action={key: ROBOT.names}), UnitMap(), ROBOT)
    ObservationMap(KeyMap(action={key: tuple(f"{name}.delta" for name in ROBOT.names)}), UnitMap(), ROBOT)
    ObservationMap(KeyMap(action={"sleeve": ROBOT.names}), UnitMap(), ROBOT)


def test_groots_end_effector_and_delta_actions_are_refused_by_name() -> None:
    plain = {"rep": "RELATIVE", "type": "NON_EEF", "format": "DEFAULT"}
    keys = ["single_arm", "gripper"]
    _check_joints(codec.ModalityConfig([0], keys, action_configs=[plain, plain]), keys)
    for other, said in (
        ({"type": "EEF"}, "of an end effector"),
        ({"rep": "ActionRepresentation.DELTA"}, "DELTA"),
    ):
        config = codec.ModalityConfig([0], keys, action_configs=[{**plain, **other}, plain])
        with pytest.raises(WireError, match=f"action 'single_arm' is .*{said}"):
            _check_joints(config, keys)
        _check_joints(config, ["gripper"])


def test_a_server_refuses_a_state_that_its_arm_cannot_be_in() -> None:
    side = RobotSide(KeyMap(), UnitMap(), ROBOT)
    assert side.observation({"state": IN_RAD}, {}, "").arm.position.tolist() == IN_RAD.tolist()
    with pytest.raises(
        WireError, match=r"state: gripper is 55, which as rad is impossible .*; as lerobot_degrees"
    ):
        side.observation({"state": IN_DEGREES}, {}, "")
    with pytest.raises(WireError, match=r"as rad is impossible .*; no convention makes it possible"):
        side.observation({"state": np.full(6, 1e5)}, {}, "")


def test_the_umi_variant_can_be_said_in_a_file() -> None:
    shape = {"head": "none", "wrist": "vits14", "state_size": 9, "action_size": 10, "observation_steps": 2}
    table = DexGraspConfig.model_validate({"shape": shape})
    assert table.shape.head is None
    assert [need.camera for need in table.needs_cameras()] == ["wrist"]


def test_a_joint_that_hardly_moves_is_not_blown_up() -> None:
    normalizer = LinearNormalizer()
    data = torch.tensor([[-0.9, 0.10, 0.3], [0.9, 0.11, 0.3]])
    normalizer.fit("action", data)
    scale = normalizer.params_dict["action"]["scale"]
    assert scale.tolist() == pytest.approx([2 / 1.8, 2 / (0.05 * 1.8), 1.0])
    middle = normalizer.normalize("action", data)[:, 1]
    assert middle.tolist() == pytest.approx([-0.111, 0.111], abs=1e-3), "about the middle of what it did"
    assert torch.allclose(normalizer.unnormalize("action", normalizer.normalize("action", data)), data)
