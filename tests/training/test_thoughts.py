"""Training on thoughts of random age: an old one does no harm to a policy that is told how old it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dexrun.config.load import load
from policies.act.policy import ActPolicy
from policies.data.dataset import ACTION, IMAGES, STATE, TIP, DatasetError, Feature
from policies.training.thoughts import drawn, instants
from runtime.interfaces import PolicyError
from runtime.messages import Thought
from tests.dexrun.rig import ROOT
from tests.training.rig import TINY, HeldDataset, held, options, trained
from tests.training.test_acting import ROBOT, observation

SPEED = 0.6
"""Of the object: its place a second ago is no place to go to."""
LONGEST_S = 1.0


def conveyor(episodes: int = 12, rows: int = 24) -> HeldDataset:
    """The arm is to be where the object is, which goes on at one speed from wherever it began."""
    dataset = held(episodes=episodes, rows=rows, size=(16, 16))
    random = np.random.default_rng(5)
    dataset.features = {**dataset.features, TIP: Feature((3,), "float32", "m", ("x", "y", "z"))}
    for episode in dataset.episodes:
        along = random.uniform(-1.5, 0.0) + SPEED * np.arange(rows) / dataset.rate_hz
        tip = np.column_stack([along, np.zeros(rows), np.zeros(rows)])
        arrays = episode.arrays
        arrays[TIP] = tip.astype(np.float32)
        arrays[STATE] = np.zeros((rows, 6), np.float32)
        arrays[ACTION] = np.tile(along[:, None], (1, 6)).astype(np.float32)
        arrays[IMAGES + "head"] = np.zeros((rows, 16, 16, 3), np.uint8)
    return dataset


def test_what_is_drawn_is_of_the_instant_that_its_age_says() -> None:
    assert instants(0.5, 10.0) == (-5, -4, -3, -2, -1, 0)
    rows = torch.arange(6.0).expand(400, 6)[..., None]
    pad = torch.zeros(400, 6, dtype=torch.bool)
    pad[200:, :4] = True  # near the beginning of an episode
    torch.manual_seed(0)
    thoughts, age_s = drawn(rows, pad, 10.0, random=True)
    assert torch.allclose(thoughts, 5 - 10 * age_s)
    found = np.round(10 * age_s[:200, 0].numpy()).astype(int)
    assert np.bincount(found).min() > 20  # every age about as often
    assert sorted(set(np.round(age_s[200:, 0].numpy(), 3))) == [0.0, np.float32(0.1)]
    again = [drawn(rows, pad, 10.0, random=False)[1] for _ in range(2)]
    assert torch.equal(*again)
    assert len(set(again[0][:200, 0].tolist())) == 6


def test_the_folder_says_that_it_acts_on_a_thought_and_the_policy_does(tmp_path: Path) -> None:
    recipe = {"thought_age_s": LONGEST_S}
    trained(options(tmp_path, steps=1, switches={"use_language_tip": True}, recipe=recipe), conveyor())
    arguments = ["--config", str(ROOT / "config.toml"), "--policy.checkpoint", str(tmp_path / "last")]
    table: Any = load(arguments, {}).policy
    assert table.keys.state["state"][-4:] == ("thought.age", "thought.0", "thought.1", "thought.2")
    file = tmp_path / "robot.toml"
    halves = '"slow_fast"\nslow = {type = "vlm"}\nfast = {checkpoint = "%s"}'
    text = (ROOT / "config.toml").read_text().replace('"geometric"', halves % (tmp_path / "last"), 1)
    file.write_text(text)
    both: Any = load(["--config", str(file)], {}).policy  # the folder says the rest of the half's table, too
    assert both.fast == table
    policy = ActPolicy(table, ROBOT)
    assert (policy.spec.thought, policy.spec.tip, policy.spec.masks) == (3, False, ())
    policy.warm_up()
    seen = observation(conveyor(), 0, 3)
    latent = np.array([0.25, 0.0, 0.5, 9.0], np.float32)
    thought = Thought(latent, seen.stamp_ns - 500_000_000)
    (state,) = policy._map.state_vectors(replace(seen, thought=thought)).values()
    assert state[-4:].tolist() == [0.5, 0.25, 0.0, 0.5]
    with pytest.raises(PolicyError, match=r"there is no thought; it is for the fast half"):
        policy.infer(seen)
    with pytest.raises(PolicyError, match=r"'thought\.2': the thought has 2 numbers"):
        policy.infer(replace(seen, thought=replace(thought, latent=latent[:2])))


def test_without_knowing_where_the_object_is_there_is_no_thought(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"recipe\.thought_age_s = 1: .* switches\.use_language_tip"):
        trained(options(tmp_path, steps=1, recipe={"thought_age_s": 1.0}), held())


@pytest.mark.slow
def test_an_old_thought_does_no_harm_to_a_policy_trained_on_such(tmp_path: Path) -> None:
    """Measured in radians, of an object that moves by 0.6 rad a second."""
    dataset = conveyor()

    def errors(folder: Path, longest_s: float) -> list[float]:
        given: dict[str, Any] = {
            "steps": 400,
            "save_every": 400,
            "log_every": 400,
            "batch": 32,
            "validation": {"share": 0},
            "switches": {"use_language_tip": True},
            "optimizer": {"lr": 3e-3},
            "schedule": {"name": "cosine", "warmup_steps": 20},
            "recipe": {"dropout": 0.0, "thought_age_s": longest_s},
            "policy": {"type": "act", "shape": {**TINY, "chunk": 2, "hidden": 32, "feedforward": 32}},
        }
        trained(options(folder, **given), dataset)
        arguments = ["--config", str(ROOT / "config.toml"), "--policy.checkpoint", str(folder / "last")]
        table: Any = load(arguments, {}).policy
        policy = ActPolicy(table, ROBOT)
        policy.warm_up()
        found = []
        for back in (0, 5, 10):
            off = []
            for number, episode in enumerate(dataset.episodes):
                row = 15
                seen = observation(dataset, number, row)
                thought = Thought(episode.arrays[TIP][row - back], seen.stamp_ns - back * 100_000_000)
                rows = policy.infer(replace(seen, thought=thought)).rows
                off.append(abs(rows[0, 0] - episode.arrays[ACTION][row, 0]))
            found.append(float(np.mean(off)))
        return found

    with_age = errors(tmp_path / "with", LONGEST_S)
    fresh_only = errors(tmp_path / "without", 0.1)
    assert max(with_age) < 0.1
    assert with_age[2] < 2 * max(with_age[0], 0.03)
    assert fresh_only[2] > 3 * with_age[2]
