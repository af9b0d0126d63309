"""A policy in an environment of Gymnasium's kind, by a mapping."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dexrun.config.sources import ConfigError
from dexrun.evaluation.environments import _made, check_shown, play_episode
from dexrun.evaluation.mapping import EnvironmentMapping, read_mapping
from runtime.inference import NotReadyError
from runtime.interfaces import PolicySpec
from runtime.messages import Observation, PolicyAnswer, PolicyStatus
from runtime.part_context import CameraNeed

MAPPING = EnvironmentMapping(
    joints=("a", "grip"),
    low=(-1.0, 0.0),
    high=(1.0, 1.0),
    grippers=("grip",),
    state="robot.q",
    images={"head": "pixels"},
    scale=(0.01, 1.0),
    offset=(0.1, 0.0),
    steps=20,
    rate_hz=10.0,
    execute_steps=3,
)


class Reaching:
    """Counts in hundredths: solved once the first joint is at 50 or more."""

    class action_space:  # noqa: N801 - Gymnasium's name
        dtype = np.dtype(np.float32)

    def __init__(self) -> None:
        self.q = np.zeros(2)
        self.steps = 0

    def seen(self) -> dict[str, Any]:
        return {"robot": {"q": self.q.copy()}, "pixels": np.zeros((4, 6, 3), np.uint8)}

    def reset(self, seed: int) -> tuple[Any, dict[str, Any]]:
        self.q[:], self.steps = (seed, 0.0), 0
        return self.seen(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert action.dtype == np.float32
        self.q, self.steps = np.asarray(action, float), self.steps + 1
        return self.seen(), 0.0, False, False, {"is_success": self.q[0] >= 50}


class Stepping:
    """Goes on by a tenth of a unit in each row of five."""

    def __init__(self, by: float = 0.1, status: PolicyStatus = PolicyStatus.RUNNING) -> None:
        self.spec = PolicySpec("stepping", 5, joints=2)
        self.by, self.status, self.asked = by, status, []

    def warm_up(self) -> None: ...

    def reset(self) -> None:
        self.asked.clear()

    def infer(self, observation: Observation) -> PolicyAnswer:
        self.asked.append(observation)
        rows = observation.arm.position + self.by * np.arange(1, 6)[:, None] * [1.0, 0.0]
        return PolicyAnswer(rows, self.status, "it slipped")

    def close(self) -> None: ...


def test_an_episode_in_units_of_the_runtime_and_actions_in_the_environments():
    policy = Stepping()
    result = play_episode(Reaching(), policy, MAPPING, "stepping", 20, "reach")
    assert policy.asked[0].arm.position.tolist() == pytest.approx([0.3, 0.0])  # 20 * 0.01 + 0.1
    assert policy.asked[0].frames["head"].color.shape == (4, 6, 3)
    assert policy.asked[0].instruction == "reach"
    assert (result.success, result.objects_in_tray, result.duration_s) == (True, 1, 0.3)


def test_what_never_gets_there_fails_in_its_own_words():
    still = play_episode(Reaching(), Stepping(0.0), MAPPING, "still", 1, "")
    assert (still.success, still.why, still.duration_s) == (False, "no success in 20 steps", 2.0)
    lost = play_episode(Reaching(), Stepping(0.0, PolicyStatus.FAILED), MAPPING, "lost", 1, "")
    assert (lost.success, lost.why) == (False, "it slipped")


@pytest.mark.parametrize("times", [3, 10**6])
def test_a_policy_that_is_not_ready_yet_is_asked_again_and_not_for_ever(times: int):
    class Measures(Stepping):
        def infer(self, observation: Observation) -> PolicyAnswer:
            if len(self.asked) < times:
                self.asked.append(observation)
                raise NotReadyError("the camera is being measured")
            return super().infer(observation)

    result = play_episode(Reaching(), Measures(), MAPPING, "measures", 20, "reach")
    assert result.success == (times == 3)
    assert result.why == ("" if times == 3 else "the policy is not ready: the camera is being measured")


BAD = {
    "path": ({"state": "robot.velocity"}, "no 'robot.velocity'; where 'velocity' was looked for is q"),
    "size": (
        {"joints": ("a",), "low": (0,), "high": (1,), "grippers": (), "scale": (), "offset": ()},
        r"\[2\]",
    ),
    "picture": ({"images": {"head": "robot.q"}}, "float64"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_mapping_that_does_not_fit_is_said_in_one_line(name: str):
    changes, message = BAD[name]
    mapping = EnvironmentMapping.model_validate({**MAPPING.model_dump(), **changes})
    with pytest.raises(ConfigError, match=message):
        play_episode(Reaching(), Stepping(), mapping, "stepping", 1, "")


def test_a_mapping_is_a_file(tmp_path: Path):
    path = tmp_path / "env.toml"
    path.write_text('joints = ["a", "b"]\nlow = [0, 0]\nhigh = [1, 1]\n[images]\nhead = "pixels.top"\n')
    assert read_mapping(path).images == {"head": "pixels.top"}
    path.write_text('joints = ["a"]\nlow = [0, 0]\nhigh = [1]\n')
    with pytest.raises(ConfigError, match="low: 2 values for 1 joints"):
        read_mapping(path)
    with pytest.raises(ConfigError, match="No such file"):
        read_mapping(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("need", "lacks"),
    [
        (CameraNeed("camera", "top"), r"the mapping's images have no 'top'"),
        (CameraNeed("camera", "head", depth=True), r"the mapping's depth have no 'head'"),
        (CameraNeed("camera", "head", mask=True), r"the mapping's masks have no 'head'"),
        (CameraNeed("camera", "head", calibration=True), "not calibrated to an arm"),
    ],
)
def test_what_a_policy_is_not_shown_is_no_failure_of_its_own(need: CameraNeed, lacks: str) -> None:
    """It failed at every scene: 0 of 2, interval 0 to 66 %."""
    check_shown([CameraNeed("camera", "head")], MAPPING)
    with pytest.raises(ConfigError, match=lacks):
        check_shown([need], MAPPING)


def test_joints_may_be_some_of_a_longer_vector(tmp_path: Path) -> None:
    mapping = MAPPING.model_copy(update={"state": "", "entries": (3, 1), "images": {}, "offset": (0.0, 0.0)})
    shown = mapping.observation(np.arange(5.0), 0, "")
    np.testing.assert_allclose(shown.arm.position, [0.03, 1.0])
    file = tmp_path / "mapping.toml"
    file.write_text('joints = ["a"]\nlow = [0]\nhigh = [1]\nentries = [1, 2]\n')
    with pytest.raises(ConfigError, match="entries: give 1 numbers from 0 on"):
        read_mapping(file)


def test_an_environment_is_known_by_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As LeRobot's are: they register when they are imported, and Gymnasium imports none by itself."""
    (tmp_path / "gym_nowhere.py").write_text(
        "import gymnasium\ngymnasium.register('gym_nowhere/Pole-v0', "
        "'gymnasium.envs.classic_control:CartPoleEnv')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    _made("gym_nowhere/Pole-v0", MAPPING).close()
    with pytest.raises(ConfigError, match="gym_elsewhere/Pole-v0: NamespaceNotFound"):
        _made("gym_elsewhere/Pole-v0", MAPPING)
