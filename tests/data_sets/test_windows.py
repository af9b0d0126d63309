"""Which rows a training sample has."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from policies.data.dataset import DatasetError, Feature
from policies.data.opened import OpenDataset
from policies.data.windows import Windows, WindowSpec


@dataclass
class Counting:
    """Rows that say their own numbers: a hundred times the episode's, and the row's."""

    number: int
    length: int
    name: str = "made"
    task: str = ""
    label: str = ""
    reads: list[Any] = field(default_factory=list)

    def numbered(self, number: int) -> Counting:
        return Counting(number, self.length)

    def read(self, feature: str, rows: Any) -> Any:
        self.reads.append(feature)
        return (100 * self.number + rows)[:, None]


def dataset(*lengths: int) -> OpenDataset:
    features = {name: Feature((1,), "int64") for name in ("observation.state", "action")}
    episodes = [Counting(number, length, f"episode {number}") for number, length in enumerate(lengths)]
    return OpenDataset(Path("made"), "made", 10.0, features, episodes)


def test_samples_begin_at_every_row_and_pad_at_the_edges() -> None:
    windows = Windows(dataset(3, 4), WindowSpec({"observation.state": (-1, 0), "action": (0, 1, 2)}))
    assert len(windows) == 7
    first, middle, last = windows[0], windows[3], windows[6]
    assert first["observation.state"].ravel().tolist() == [0, 0]
    assert first["observation.state_is_pad"].tolist() == [True, False]
    assert first["action"].ravel().tolist() == [0, 1, 2]
    assert middle["observation.state"].ravel().tolist() == [100, 100]
    assert last["action"].ravel().tolist() == [103, 103, 103]
    assert last["action_is_pad"].tolist() == [False, True, True]
    assert [windows.place(i) for i in range(7)] == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (1, 3)]


def test_samples_that_would_pass_the_end_are_left_out() -> None:
    spec = WindowSpec({"action": (0, 1, 2)}, last=-2)
    windows = Windows(dataset(5, 2, 3), spec)
    assert windows.too_short == ("episode 1",)
    assert [windows.place(i) for i in range(len(windows))] == [(0, 0), (0, 1), (0, 2), (2, 0)]
    assert not any(windows[i]["action_is_pad"].any() for i in range(len(windows)))


def test_samples_may_begin_before_the_episode() -> None:
    windows = Windows(dataset(2), WindowSpec({"action": (0, 1)}, first=-1))
    assert [windows[i]["action"].ravel().tolist() for i in range(3)] == [[0, 0], [0, 1], [1, 1]]
    assert windows[0]["action_is_pad"].tolist() == [True, False]


def test_what_cannot_be_is_said() -> None:
    with pytest.raises(DatasetError, match="a sample needs 4 rows, the longest of 2 episodes has 3"):
        Windows(dataset(3, 2), WindowSpec({"action": (0, 1, 2, 3)}, last=-3))
    with pytest.raises(
        DatasetError, match=r"the data set has no observation\.force; it has observation\.state"
    ):
        Windows(dataset(3), WindowSpec({"observation.force": (0,)}))
    windows = Windows(dataset(3), WindowSpec({"action": (0,)}))
    for outside in (-1, 3):
        with pytest.raises(IndexError):
            windows[outside]
