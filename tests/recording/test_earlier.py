"""Recordings of the first version: they open, and every target in them is found again."""

from __future__ import annotations

from pathlib import Path

import pytest

from dexrun.__main__ import main

DATA = Path(__file__).parent / "data"


@pytest.mark.parametrize(("name", "ticks"), [("teleop", 510), ("grasp", 828)])
def test_every_target_is_the_same(name: str, ticks: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", "--verify", str(DATA / f"{name}.mcap")]) == 0
    assert capsys.readouterr().out == f"episode 0: {ticks} ticks, every target the same\n"


@pytest.mark.parametrize(("name", "said"), [("teleop", "label success"), ("grasp", "label failure")])
def test_they_open(name: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(DATA / f"{name}.mcap")]) == 0
    assert said in capsys.readouterr().out
