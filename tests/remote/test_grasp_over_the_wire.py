"""Grasp mode in simulation with its policy in another process, behind each of the four protocols."""

from __future__ import annotations

from pathlib import Path

import pytest

from dexrun.exit_codes import OK
from tests.dexrun.rig import AS_SERVED, perform
from tests.remote.example import CLIENTS, EXAMPLE, served

SLOW = pytest.mark.slow


@pytest.mark.parametrize("protocol", [pytest.param(p, marks=SLOW) for p in CLIENTS])
def test_the_cube_ends_in_the_tray(protocol: str, tmp_path: Path) -> None:
    with served(protocol) as port:
        stage = perform(
            tmp_path,
            config=str(EXAMPLE),
            **AS_SERVED,
            policy__type=CLIENTS[protocol],
            policy__port=str(port),
            policy__request_timeout_s="60",  # in real time; simulated time stands still meanwhile
        )
    assert stage.code == OK, stage.summary["stop_reason"]
    assert stage.summary["judge"]["success"]
    policy = stage.summary["policy"]
    assert policy["failures"] == {}
    assert policy["remote"]["connects"] == 1
    # The trial before anything moves shows nothing to grasp, which this policy refuses.
    assert policy["remote"]["requests"] - 1 == policy["remote"]["replies"] == policy["asked_chunks"]


@SLOW
def test_a_server_that_measures_a_nudged_camera_is_asked_until_it_has(tmp_path: Path) -> None:
    with served("openpi") as port:
        stage = perform(
            tmp_path,
            config=str(EXAMPLE),
            **AS_SERVED,
            policy__type=CLIENTS["openpi"],
            policy__port=str(port),
            policy__request_timeout_s="60",
            world__look__camera_shift_m="[0.009, 0.004, 0.0]",
            world__look__camera_turn_rad="[0.01, -0.01, 0.02]",
        )
    assert stage.code == OK, stage.summary["stop_reason"]
    assert stage.summary["judge"]["success"]
    assert [each["grasped"] for each in stage.summary["attempts"]] == [True]
    assert set(stage.summary["policy"]["failures"]) <= {"policy_error"}
