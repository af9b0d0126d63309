"""``dexrun data check``: what may be wrong is found, and nothing is found where nothing is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

from dexrun.curation.checks import Finding, check, look
from dexrun.curation.command import main
from policies.data.dataset import ACTION, IMAGES, STATE, Feature
from policies.data.opened import OpenDataset
from policies.data.opening import open_dataset
from tests.export.synthetic import Made, write_run

RATE = 10.0
ROWS = 60


class MadeUp:
    """An episode of smooth motion, its action one row ahead, its picture brighter where the arm is."""

    def __init__(self, number: int, length: int = ROWS) -> None:
        self.number, self.length, self.name = number, length, f"made/{number}"
        self.task, self.label = "", ""
        self.lost: dict[str, str] = {}
        t = np.arange(length + 1)[:, None] / RATE
        path = np.concatenate([np.sin(0.7 * t + number), np.cos(0.5 * t)], axis=1)
        self.state, self.action = path[:-1].copy(), path[1:].copy()
        self.pictures = np.zeros((length, 24, 24, 3), np.uint8)
        self.pictures[:] = (120 + 40 * self.state[:, :1, None, None]).astype(np.uint8)

    def numbered(self, number: int) -> MadeUp:
        return self

    def read(self, feature: str, rows: Any) -> Any:
        return {STATE: self.state, ACTION: self.action, f"{IMAGES}top": self.pictures}[feature][rows]


def dataset(unit: str = "rad", **changes: Any) -> OpenDataset:
    """Six episodes, of which the fourth is changed."""
    episodes = [MadeUp(number) for number in range(6)]
    if "length" in changes:
        episodes[3] = MadeUp(3, changes.pop("length"))
    for name, change in changes.items():
        change(getattr(episodes[3], name))
    features = {
        STATE: Feature((2,), "float64", unit),
        ACTION: Feature((2,), "float64", unit),
        f"{IMAGES}top": Feature((24, 24, 3), "uint8", "rgb"),
    }
    return OpenDataset(Path("made"), "made", RATE, features, episodes)


def found(of: OpenDataset) -> dict[str, dict[int, str]]:
    return {each.check: dict(each.episodes) for each in check(of, look(of)) if each.episodes}


def test_nothing_is_found_where_nothing_is() -> None:
    assert found(dataset()) == {}


def shake(state: Any) -> None:
    state[20:40] += np.where(np.arange(20) % 2, 0.08, -0.08)[:, None]


def stand(state: Any) -> None:
    state[30:] = state[30]


@pytest.mark.parametrize(
    ("name", "changes", "told"),
    [
        ("jerk", {"state": shake}, "times the usual"),
        (
            "stillness",
            {"state": stand, "action": lambda a: a.__setitem__(slice(29, None), a[29])},
            "s from 3.0",
        ),
        ("length", {"length": 300}, "30.0 s, usual are 6.0 s"),
        ("camera dark", {"pictures": lambda p: p.__setitem__(slice(10, None), 3)}, "top 80% of the pictures"),
        ("camera frozen", {"pictures": lambda p: p.__setitem__(slice(10, None), 90)}, "top the same over"),
        ("leader-follower deviation", {"action": lambda a: a.__iadd__([0.0, 0.9])}, "joint 1 is"),
        (
            "action not followed",
            {"action": lambda a: a.__setitem__((slice(None), 0), -a[:, 0])},
            "joint 0 is",
        ),
        ("not finite", {"state": lambda s: s.__setitem__((7, 1), np.nan)}, "1 rows of state, the first is 7"),
        (
            "dropped frames",
            {"lost": lambda lost: lost.update(head="nothing for 0.40 s at 2.00 s")},
            "head nothing",
        ),
        (
            "units",
            {"state": lambda s: s.__imul__(57.3), "action": lambda a: a.__imul__(57.3)},
            "which rad do not",
        ),
    ],
)
def test_what_is_wrong_is_named(name: str, changes: Any, told: str) -> None:
    got = found(dataset(**changes))
    assert set(got.get(name, {})) == {3}, got
    assert told in got[name][3]


def test_a_gripper_that_holds_something_follows_nothing() -> None:
    """It is sent shut, and stays where the object stops it."""
    changes = {"action": lambda a: a.__iadd__([0.0, 0.9])}
    assert found(dataset(**changes)) != {}
    of = dataset(**changes)
    of.about = {"grippers": [1]}
    assert found(of) == {}


def test_an_episode_that_cannot_be_read_is_named() -> None:
    from policies.data.dataset import DatasetError

    made = dataset()
    with mock.patch.object(made.episodes[2], "read", side_effect=DatasetError("made/2: cut off")):
        assert found(made) == {"unreadable": {2: "made/2: cut off"}}


def test_statistics_that_do_not_belong(run: Any, exported: Any) -> None:
    """Those of radians beside rows in degrees."""
    folder, _ = run(Made(seconds=0.5))
    target, _ = exported(folder, "lerobot-v3")
    of = open_dataset(target)
    assert found(of) == {}
    stats = json.loads((target / "meta/stats.json").read_text())
    stats[STATE] = {key: (np.radians(value)).tolist() for key, value in stats[STATE].items()}
    (target / "meta/stats.json").write_text(json.dumps(stats))
    (told,) = found(open_dataset(target))["statistics"].values()
    assert "observation.state[" in told
    assert "they do not belong to these rows" in told


def test_the_command_tells_lines_and_writes_a_page(tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / "run"
    write_run(
        path, Made(seconds=0.5), Made(seconds=0.5, picture=lambda rng, size, row: np.zeros((*size, 3), "u1"))
    )
    assert main(["check", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "unreadable: nothing found"
    assert (
        "camera dark: 1 of 2 episodes: episode 1: head 100% of the pictures, wrist 100% of the pictures"
        in lines
    )
    page = (tmp_path / "run-check.html").read_text()
    assert page.count("<svg") == 5
    assert page.count("data:image/jpeg;base64,") == 4
    assert "http" not in page
    assert main(["check", str(path), "--json", "--strict", "--report", str(tmp_path / "other.html")]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["camera dark"][0]["episode"] == 1
    assert told["report"] == str(tmp_path / "other.html")


def test_a_line_of_a_finding() -> None:
    assert Finding("jerk", {}).line(["a"]) == "jerk: nothing found"
    assert Finding("jerk", {1: "bad"}).line(["a", "b"]) == "jerk: 1 of 2 episodes: b: bad"
    assert Finding("units", {-1: "odd"}).line(["a"]) == "units: odd"
