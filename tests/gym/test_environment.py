"""The environment is one by Gymnasium's own checker, and is driven like any other."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import dexrun.gym
from dexrun.gym.environment import TabletopEnv


@pytest.fixture(scope="module")
def env() -> Iterator[TabletopEnv]:
    made = gymnasium.make(
        dexrun.gym.ENVIRONMENT, width=128, height=96, depth=True, mask=True, render_mode="rgb_array"
    ).unwrapped
    assert isinstance(made, TabletopEnv)
    yield made
    made.close()


def test_gymnasium_finds_nothing_wrong(env: TabletopEnv) -> None:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        check_env(env, skip_render_check=False)
    unexpected = [str(each.message) for each in said if "symmetric and normalized" not in str(each.message)]
    assert unexpected == []


def test_a_target_is_reached_and_what_is_seen_changes(env: TabletopEnv) -> None:
    seen, about = env.reset(seed=3)
    assert about["objects_total"] == 5
    assert about["scene"] == 3
    assert seen["mask.head"].sum() > 4
    assert 0.4 < np.median(seen["depth.head"]) < 0.8
    target = seen["agent_pos"].copy()
    target[0] -= 0.3
    for _ in range(12):
        now, reward, done, cut, about = env.step(target)
    assert now["agent_pos"][0] == pytest.approx(target[0], abs=0.03)
    assert (reward, done, cut, about["is_success"]) == (0.0, False, False, False)
    assert not np.array_equal(now["pixels"]["head"], seen["pixels"]["head"])


def test_what_is_in_the_tray_is_a_reward_and_all_of_it_the_end(env: TabletopEnv) -> None:
    seen, about = env.reset(options={"scene": 6})
    table, total = env._engine.table, about["objects_total"]
    table.move_object(0, (0.11, 0.188, 0.03))
    *_, reward, done, _, about = env.step(seen["agent_pos"])
    assert (reward, done, about["objects_in_tray"]) == (1.0, False, 1)
    for index in range(1, total):
        table.move_object(index, (0.07 + 0.02 * index, 0.15 + 0.03 * (index % 3), 0.05))
    rewards = 1.0
    for _ in range(8):
        *_, reward, done, _, about = env.step(seen["agent_pos"])
        rewards += reward
    assert rewards == total
    assert done
    assert about["is_success"]


def test_several_stand_side_by_side() -> None:
    envs = gymnasium.make_vec(
        dexrun.gym.ENVIRONMENT, num_envs=2, vectorization_mode="sync", cameras=("wrist",), width=32, height=24
    )
    seen, about = envs.reset(seed=[4, 9])
    assert seen["pixels"]["wrist"].shape == (2, 24, 32, 3)
    assert list(about["scene"]) == [4, 9]
    actions = seen["agent_pos"].astype(np.float32)
    seen, rewards, *_ = envs.step(np.clip(actions, envs.action_space.low, envs.action_space.high))
    assert rewards.tolist() == [0.0, 0.0]
    assert not np.array_equal(seen["pixels"]["wrist"][0], seen["pixels"]["wrist"][1])
    envs.close()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"task": "juggle"}, "accepted are clear, lift"),
        ({"cameras": ("side",)}, "accepted are head, wrist"),
        ({"cameras": ("wrist",), "mask": True}, "not among the cameras"),
    ],
)
def test_what_there_is_not_is_refused(given: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        TabletopEnv(**given)  # type: ignore[arg-type]
