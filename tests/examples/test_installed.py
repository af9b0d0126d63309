"""The packages of ``examples/`` are installed by pip alone, and used by command lines alone."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from websockets.sync.client import connect

from policies.remote.openpi import codec
from runtime.clock import NS_PER_S
from runtime.recording.reader import Recording
from tests.examples.conftest import Dexrun

PARTS = """
arm seven_joint dexrun-seven-joint-arm 1.0.0 seven_joint_arm.driver:SevenJointTable
camera synthetic dexrun-synthetic-camera 1.0.0 synthetic_camera:SyntheticTable
leader seven_joint dexrun-seven-joint-arm 1.0.0 seven_joint_arm.driver:SevenJointLeaderTable
policy nearest_pose dexrun-nearest-pose 1.0.0 nearest_pose:NearestPoseTable
"""


def summary(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "runs" / "latest" / "summary.json").read_text())
    return found


@pytest.fixture(scope="module")
def recorded(dexrun: Dexrun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run in which the arm was teleoperated, with an episode exported for the policy."""
    folder = tmp_path_factory.mktemp("recorded")
    shutil.copy(Path(__file__).with_name("robot.toml"), folder / "robot.toml")
    done = dexrun("--config", "robot.toml", cwd=folder)
    assert done.returncode == 0, done.stderr
    done = dexrun("export", "runs/latest", "--format", "act-hdf5", "--to", "act", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def folder(recorded: Path, tmp_path: Path) -> Path:
    """A test's own, with the robot's configuration and the policy's episode."""
    shutil.copy(recorded / "robot.toml", tmp_path)
    shutil.copytree(recorded / "act", tmp_path / "act")
    return tmp_path


def test_plugins_lists_them_with_their_packages(dexrun: Dexrun) -> None:
    done = dexrun("--plugins")
    assert done.returncode == 0, done.stderr
    lines = {" ".join(line.split()) for line in done.stdout.splitlines()}
    assert lines >= {*PARTS.split("\n")} - {""}


def test_the_arm_follows_its_leader_and_the_episode_says_so(recorded: Path) -> None:
    said = summary(recorded)
    assert (said["outcome"], said["device_faults"]) == ("completed", {})
    with Recording(recorded / "runs" / "latest") as recording:
        [episode] = recording.episodes
        leader, sent = episode.array("/leader/state", "position"), episode.array("/arm/sent", "position")
        stamps = [episode.stamps(topic) for topic in ("/leader/state", "/arm/sent")]
    assert sent.shape[1] == 8
    assert np.ptp(sent, axis=0).min() > 0.05
    followed = [np.interp(stamps[1], stamps[0], leader[:, joint]) for joint in range(8)]
    caught_up = stamps[1] > stamps[1][0] + NS_PER_S  # it begins at rest, and the leader does not
    assert np.abs(np.array(followed).T - sent)[caught_up].max() < 0.05


def test_replay_agrees_target_by_target(dexrun: Dexrun, recorded: Path) -> None:
    done = dexrun("replay", "runs/latest", "--verify", cwd=recorded)
    assert done.returncode == 0, done.stderr
    assert "every target the same" in done.stdout


def test_the_episode_becomes_a_data_set(dexrun: Dexrun, recorded: Path, tmp_path: Path) -> None:
    words = ("export", "runs/latest", "--format", "lerobot-v3", "--to", str(tmp_path / "set"))
    done = dexrun(*words, cwd=recorded)
    assert done.returncode == 0, done.stderr
    features = json.loads((tmp_path / "set" / "meta" / "info.json").read_text())["features"]
    assert features["action"]["shape"] == [8]
    assert features["observation.images.head"]["shape"] == [120, 160, 3]


@pytest.mark.parametrize("worker", [pytest.param("thread", marks=pytest.mark.slow), "process"])
def test_the_policy_moves_the_arm_as_it_was_shown(dexrun: Dexrun, folder: Path, worker: str) -> None:
    """The planner names the camera's red square; the policy says itself when its episode is over."""
    done = dexrun("--config", "robot.toml", "--mode", "grasp", "--policy.worker", worker, cwd=folder)
    assert done.returncode == 1, done.stderr  # nothing is there that could be grasped
    said = summary(folder)
    assert (said["outcome"], said["stop_reason"]) == ("incomplete", "time limit of 6 s")
    assert (said["device_faults"], said["policy"]["failures"]) == ({}, {})
    assert said["attempts"][0]["grasped"] is False
    with h5py.File(folder / "act" / "episode_0.hdf5") as file:
        shown = file["action"][:]
    with Recording(folder / "runs" / "latest") as recording:
        sent = recording.episodes[0].array("/arm/sent", "position")
    nearest = np.abs(sent[:, None] - shown[None]).max(axis=2).min(axis=0)
    assert np.median(nearest) < 0.03  # most of what was shown was done again


def test_the_policy_is_served(environment: dict[str, str], folder: Path) -> None:
    words = ("-m", "dexrun", "serve", "--config", "robot.toml", "--protocol", "openpi")
    server = subprocess.Popen(
        (sys.executable, *words), stdout=subprocess.PIPE, text=True, cwd=folder, env=environment
    )
    try:
        assert server.stdout is not None
        line = server.stdout.readline()
        found = re.fullmatch(r"serving nearest_pose as openpi at (ws://\S+)\n", line)
        assert found, line
        with h5py.File(folder / "act" / "episode_0.hdf5") as file:
            states, actions = file["observations/qpos"][:], file["action"][:]
        picture = np.zeros((120, 160, 3), np.uint8)
        images = {"observation/image": picture, "observation/wrist_image": picture}
        with connect(found.group(1)) as client:
            client.recv()  # its metadata
            asked = {"observation/state": states[20].astype(np.float32), "prompt": "on", **images}
            client.send(b"".join(codec.encode(asked)))
            answer = client.recv()
            assert isinstance(answer, bytes), answer
            rows = np.array(codec.decode(answer)["actions"])
        np.testing.assert_allclose(rows, actions[20:50], atol=1e-5)
    finally:
        server.terminate()
        assert server.wait(30) == 0
        server.stdout.close()
