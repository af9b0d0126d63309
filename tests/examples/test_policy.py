"""The policy of ``examples/`` by itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from runtime.arm_model import ArmModel
from runtime.clock import RealClock
from runtime.joints import JointLayout
from runtime.messages import ArmState, Observation, PolicyStatus
from runtime.part_context import PolicyContext

h5py = pytest.importorskip("h5py")

WAY = np.linspace(0.0, 1.0, 21)
PAUSED = np.concatenate([WAY, np.full(50, 1.0), 1.0 + WAY])
"""Longer than what is looked at ahead."""


def no_model() -> ArmModel:
    raise AssertionError("it is not asked for")


@pytest.mark.usefixtures("parts")
def test_a_pause_of_what_was_shown_is_left_again(tmp_path: Path) -> None:
    from nearest_pose import NearestPoseTable  # type: ignore[import-not-found]

    with h5py.File(tmp_path / "episode_0.hdf5", "w") as file:
        file["observations/qpos"] = file["action"] = np.repeat(PAUSED[:, None], 2, axis=1)
    joints = JointLayout(("a", "b"), np.array([[-3.0, 3.0]] * 2))
    context = PolicyContext(joints, no_model, {}, RealClock())
    table = NearestPoseTable(type="nearest_pose", episode=tmp_path / "episode_0.hdf5", chunk_steps=10)
    policy = table.build(context)
    at = np.zeros(2)
    for _ in range(20):
        answer = policy.infer(Observation(0, 0, 0, ArmState(0, at, np.zeros(2), np.zeros(2))))
        if answer.status is PolicyStatus.DONE:
            break
        at = answer.rows[5]
    assert answer.status is PolicyStatus.DONE
