"""A bimanual ACT checkpoint, 14 in and 14 out, on a robot of two arms of seven joints: six and a gripper."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from policies.act.config import ActConfig
from policies.act.load import random_act
from policies.act.options import ActShape
from policies.act.policy import ActPolicy
from policies.checkpoint import CheckpointError
from policies.mapping import KeyMap
from runtime.body import RobotDescription, together
from runtime.body_options import BaseOptions, BodyOptions
from runtime.messages import ArmState, Floats, Frame, Observation
from runtime.model_file import describe_file

JOINTS = ("waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate", "gripper")
SHAPE = ActShape(
    state_size=14, action_size=14, chunk=5, hidden=16, feedforward=16, heads=2, encoder_layers=1, latent=4,
    base_width=4,
)  # fmt: skip
AXES = ("0 0 1", "0 1 0", "0 1 0", "1 0 0", "0 1 0", "1 0 0")


def arm_file(folder: Path) -> Path:
    """An arm of capsules, as MJCF."""
    links = "".join(
        f'<body name="link{number}" pos="{0.0 if number < 2 else 0.12} 0 {0.06 if number < 2 else 0}">'
        f'<joint name="{name}" axis="{axis}" range="-1.8 1.8"/>'
        '<geom type="capsule" fromto="0.03 0 0 0.09 0 0" size="0.02"/>'
        for number, (name, axis) in enumerate(zip(JOINTS, AXES, strict=False))
    )
    fingers = (
        '<site name="grasp" pos="0.16 0 0" euler="0 1.5708 0"/>'
        '<body name="finger" pos="0.13 0.01 0">'
        '<joint name="gripper" type="slide" axis="0 1 0" range="0 0.04"/>'
        '<geom type="capsule" fromto="0 0 0 0.03 0 0" size="0.005"/></body>'
    )
    path = folder / "arm.xml"
    path.write_text(
        '<mujoco><compiler angle="radian"/><worldbody><body name="base">'
        f'<geom type="capsule" fromto="0 0 0.02 0 0 0.04" size="0.03"/>{links}{fingers}{"</body>" * 6}'
        "</body></worldbody></mujoco>"
    )
    return path


@pytest.fixture
def robot(tmp_path: Path) -> RobotDescription:
    arm = describe_file(str(arm_file(tmp_path)), BodyOptions(grippers={"gripper": (0.0, 0.04)}))
    bases = {"left": 0.4, "right": -0.4}
    return together({name: (arm, BaseOptions(position_m=(0.0, y, 0.0)).pose()) for name, y in bases.items()})


def checkpoint(folder: Path) -> Path:
    """Random weights with statistics of their own, as a converted file."""
    model, _ = random_act(SHAPE, 3)
    state = {name: value.detach().clone().contiguous() for name, value in model.state_dict().items()}
    rng = np.random.default_rng(5)
    for name in ("qpos", "action"):
        state[f"stats.{name}_mean"] = torch.from_numpy(rng.uniform(-0.2, 0.2, 14))
        state[f"stats.{name}_std"] = torch.from_numpy(rng.uniform(0.2, 0.4, 14))
    path = folder / "bimanual.safetensors"
    save_file(state, path)
    return path


def policy(folder: Path, robot: RobotDescription, keys: KeyMap | None = None) -> ActPolicy:
    given = {"shape": SHAPE, "image_width": 64, "image_height": 64, "threads": 1, "keys": keys or KeyMap()}
    made = ActPolicy(ActConfig(checkpoint=str(checkpoint(folder)), **given), robot.layout)
    made.warm_up()
    return made


def observation(position: Floats) -> Observation:
    image = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    zeros = np.zeros(14)
    return Observation(0, 0, 1, ArmState(1, position, zeros, zeros), {"head": Frame("head", 1, image)})


def test_the_robot_is_one_vector_of_fourteen(robot: RobotDescription) -> None:
    assert robot.joints == tuple(f"{arm}.{joint}" for arm in ("left", "right") for joint in JOINTS)
    assert robot.layout.grippers == (6, 13)
    model = robot.model()
    assert model.clearance(model.middle()) > 0


def test_a_bimanual_checkpoint_runs_in_the_vectors_order(tmp_path: Path, robot: RobotDescription) -> None:
    made = policy(tmp_path, robot)
    assert (made.spec.joints, made.spec.chunk_steps) == (14, 5)
    position = np.linspace(0.1, 0.9, 14)
    rows = made.infer(observation(position)).rows
    assert rows.shape == (5, 14)
    assert np.isfinite(rows).all()
    moved = position.copy()
    moved[9] += 0.5
    assert np.abs(made.infer(observation(moved)).rows - rows).max() > 1e-6  # the right arm is looked at, too


def test_a_mapping_says_which_entry_is_which_joint(tmp_path: Path, robot: RobotDescription) -> None:
    """As of a checkpoint that was trained right arm first."""
    swapped = (*robot.joints[7:], *robot.joints[:7])
    position = np.linspace(0.1, 0.9, 14)
    straight = policy(tmp_path, robot).infer(observation(position)).rows
    other = policy(tmp_path, robot, KeyMap(state={"qpos": swapped}, action={"action": swapped}))
    rows = other.infer(observation(np.roll(position, 7))).rows
    np.testing.assert_allclose(rows, np.roll(straight, 7, axis=1), atol=1e-6)


def test_a_checkpoint_of_another_size_is_refused_in_one_line(tmp_path: Path, robot: RobotDescription) -> None:
    (alone,) = {id(arm): arm for arm, _ in robot.arms.values()}.values()
    with pytest.raises(CheckpointError, match=r"takes a state of 14 .*; policy\.keys make 7 and 7"):
        policy(tmp_path, alone)
