"""Recordings of the first version: they open, and every target in them is found again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dexrun.__main__ import main
from dexrun.data.recorded import recorded_settings
from dexrun.data.verify import verify
from runtime.recording.reader import Recording

DATA = Path(__file__).parent / "data"


@pytest.mark.parametrize(("name", "ticks"), [("teleop", 510), ("grasp", 828)])
def test_every_target_is_the_same(name: str, ticks: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", "--verify", str(DATA / f"{name}.mcap")]) == 0
    assert capsys.readouterr().out == f"episode 0: {ticks} ticks, every target the same\n"


@pytest.mark.parametrize(("name", "said"), [("teleop", "label success"), ("grasp", "label failure")])
def test_they_open(name: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(DATA / f"{name}.mcap")]) == 0
    assert said in capsys.readouterr().out


@pytest.mark.parametrize("table", ["policy", "blend"])
def test_where_nothing_is_said_of_blending_chunks_are_weighed_as_they_were(table: str) -> None:
    (episode,) = Recording(DATA / "grasp.mcap").episodes
    with episode:
        tables = dict(episode.config)
        assert tables["policy"].pop("blend") == "weighted_average"
        if table == "policy":
            del tables["policy"]
        episode.records["config"] = {"json": json.dumps(tables)}
        loop = recorded_settings(episode)
        assert loop.policy.blend == "weighted_average"
        assert verify(episode, loop).same
        assert not verify(episode, recorded_settings(episode, ["--policy.blend", "crossfade"])).same
