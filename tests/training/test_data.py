"""Samples, which of them, in which order, and from memory."""

from __future__ import annotations

from itertools import islice
from typing import Any

import numpy as np
import pytest

from policies.data.dataset import ACTION, IMAGES, STATE, DatasetError
from policies.data.windows import Windows, WindowSpec
from policies.training import in_memory
from policies.training.batches import Batches
from policies.training.in_memory import InMemoryDataset
from policies.training.options import PickOptions, ValidationOptions
from policies.training.picking import Picked, pick, spread
from tests.training.rig import held

SPEC = WindowSpec({STATE: (-1, 0), ACTION: (0, 1, 2)})


def picked(labels: str = "", **given: Any) -> Picked:
    dataset = held(episodes=4, rows=6)
    for episode, label in zip(dataset.episodes, labels, strict=False):
        episode.label = {"f": "failure", "s": "success"}[label]
    share = given.pop("share", 0.0)
    return pick(Windows(dataset, SPEC), PickOptions(**given), ValidationOptions(share=share), seed=0)


def test_a_window_repeats_the_ends_and_says_so() -> None:
    dataset = held(episodes=2, rows=5)
    windows = Windows(dataset, SPEC)
    assert len(windows) == 10
    batch = windows.batch([9, 0, 4, 5])
    actions = [each.arrays[ACTION] for each in dataset.episodes]
    np.testing.assert_array_equal(batch[ACTION][0], actions[1][[4, 4, 4]])
    np.testing.assert_array_equal(batch[ACTION][1], actions[0][[0, 1, 2]])
    np.testing.assert_array_equal(batch[f"{ACTION}_is_pad"][:3], [[0, 1, 1], [0, 0, 0], [0, 1, 1]])
    np.testing.assert_array_equal(batch[f"{STATE}_is_pad"], [[0, 0], [1, 0], [0, 0], [1, 0]])
    np.testing.assert_array_equal(batch[STATE][3], dataset.episodes[1].arrays[STATE][[0, 0]])


def test_samples_whose_actions_pass_the_end_may_be_left_out() -> None:
    dataset = held(episodes=2, rows=5)
    dataset.episodes[0].arrays = {k: v[:2] for k, v in dataset.episodes[0].arrays.items()}
    windows = Windows(dataset, WindowSpec(SPEC.rows, first=1, last=-2))
    assert list(zip(windows.numbers.tolist(), windows.rows.tolist(), strict=True)) == [(1, 1), (1, 2)]
    assert windows.too_short == ("episode 0",)
    with pytest.raises(DatasetError, match="a sample needs 6 rows, the longest of 2 episodes has 5"):
        Windows(dataset, WindowSpec(SPEC.rows, last=-5))
    with pytest.raises(DatasetError, match=r"observation\.force"):
        Windows(dataset, WindowSpec({"observation.force": (0,)}))


def test_failures_are_left_out_unless_asked_for() -> None:
    assert (picked("fsfs").episodes, picked("fsfs").failures) == (2, 2)
    assert picked("fsfs", failures=True).episodes == 4
    with pytest.raises(DatasetError, match=r"all 4 episodes are labelled as failures; pick.failures = true"):
        picked("ffff")


def test_rows_are_picked_and_weighed_by_who_drove() -> None:
    assert picked(driven_by="person").train.tolist() == [3, 4, 5, 9, 10, 11, 15, 16, 17, 21, 22, 23]
    assert picked(driven_by="policy").train[:4].tolist() == [0, 1, 2, 6]
    weights = picked(person_weight=3.0).weights
    assert weights is not None
    assert weights[:6].tolist() == [1, 1, 1, 3, 3, 3]
    dataset = held()
    dataset.features = {k: v for k, v in dataset.features.items() if k != "intervention"}
    with pytest.raises(DatasetError, match="does not say who drove"):
        pick(Windows(dataset, SPEC), PickOptions(driven_by="person"), ValidationOptions(), 0)


def test_whole_episodes_are_held_back() -> None:
    made = picked(share=0.1)
    assert (made.episodes, made.held_back_episodes) == (3, 1)
    assert len(np.unique(made.held_back // 6)) == 1
    assert sorted([*made.train, *made.held_back]) == list(range(24))
    assert picked("sfff", share=0.5).held_back_episodes == 0  # there is one: it is trained on
    assert spread(np.arange(100), 5).tolist() == [0, 25, 50, 74, 99]


def test_batches_go_on_where_they_were() -> None:
    samples = np.arange(10, 17)
    whole = list(islice(Batches(samples, None, 3, seed=1), 8))
    assert list(islice(Batches(samples, None, 3, seed=1, start=5), 3)) == whole[5:]
    flat = [number for batch in whole for number in batch]
    assert sorted(flat[:7]) == sorted(flat[7:14]) == samples.tolist()
    assert flat[:7] != flat[7:14]
    shared = [list(islice(Batches(samples, None, 3, seed=1, process=p, processes=2), 4)) for p in (0, 1)]
    assert [batch for pair in zip(*shared, strict=True) for batch in pair] == whole


def test_weights_say_how_often() -> None:
    drawn = list(islice(Batches(np.arange(2), np.array([1.0, 3.0]), 100, seed=0), 100))
    assert np.mean(drawn) == pytest.approx(0.75, abs=0.02)


def test_what_is_in_memory_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = held(episodes=2, rows=5)
    names = (STATE, IMAGES + "head")
    kept = InMemoryDataset(dataset, names)
    expected = dataset.episodes[1].arrays[STATE][[3, 1]].copy()
    dataset.episodes[1].arrays[STATE] = np.zeros((5, 6), np.float32)
    np.testing.assert_array_equal(kept.episodes[1].read(STATE, np.array([3, 1])), expected)
    assert kept.episodes[1].read(ACTION, np.array([0])).shape == (1, 6)
    monkeypatch.setattr(in_memory, "_free_bytes", lambda: 1000)
    with pytest.raises(DatasetError, match=r"cache = true needs 0\.0 GiB of memory, and 0\.0 are free"):
        InMemoryDataset(dataset, names)
