"""The policy of ``examples/`` on the simulated tabletop, as docs/tutorial.md has it: an episode, twice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.dexrun.rig import arguments
from tests.examples.conftest import Dexrun

pytestmark = pytest.mark.slow


def test_what_was_shown_once_is_done_again(dexrun: Dexrun, tmp_path: Path) -> None:
    done = dexrun(*arguments(tmp_path / "shown", mode="teleop", recording__episodes="1"))
    assert done.returncode == 0, done.stderr
    words = ("--format", "act-hdf5", "--to", str(tmp_path / "act"))
    done = dexrun("export", str(tmp_path / "shown" / "latest"), *words)
    assert done.returncode == 0, done.stderr
    policy = {"policy__type": "nearest_pose", "policy__episode": str(tmp_path / "act" / "episode_0.hdf5")}
    given = arguments(
        tmp_path / "runs", **policy, grasp__check_height_m="0.3"
    )  # it places the cube itself, too
    done = dexrun(*given)
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "runs" / "latest" / "summary.json").read_text())
    assert summary["judge"]["objects_in_tray"] == 1
    assert summary["policy"]["failures"] == {}
