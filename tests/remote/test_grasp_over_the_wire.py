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
