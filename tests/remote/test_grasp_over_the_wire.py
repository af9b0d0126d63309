"""Grasp mode in simulation with its policy in another process, behind each of the four protocols."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dexrun.outcome import OK
from tests.dexrun.rig import ROOT, perform

EXAMPLE = ROOT / "docs" / "examples" / "remote-policy.toml"
CLIENTS = {"gr00t": "groot", "lerobot": "lerobot", "openpi": "openpi", "act": "act_zmq"}
STOP_S = 60.0


@contextlib.contextmanager
def served(protocol: str) -> Iterator[int]:
    """``dexrun serve`` of the example; the port that it announces."""
    process = subprocess.Popen(
        [sys.executable, "-m", "dexrun", "serve", "--config", str(EXAMPLE), "--protocol", protocol],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        found = re.search(rf"^serving geometric as {protocol} at \w+://127\.0\.0\.1:(\d+)", line)
        assert found, line
        yield int(found.group(1))
        process.send_signal(signal.SIGTERM)
        assert process.wait(STOP_S) == 0
    finally:
        process.kill()
        process.wait(STOP_S)
        process.stdout.close()


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "protocol", ["gr00t", *(pytest.param(p, marks=SLOW) for p in CLIENTS if p != "gr00t")]
)
def test_the_cube_ends_in_the_tray(protocol: str, tmp_path: Path) -> None:
    with served(protocol) as port:
        stage = perform(
            tmp_path,
            config=str(EXAMPLE),
            policy__type=CLIENTS[protocol],
            policy__port=str(port),
            policy__request_timeout_s="60",  # in real time; simulated time stands still meanwhile
        )
    assert stage.code == OK, stage.summary["stop_reason"]
    assert stage.summary["judge"]["success"]
    policy = stage.summary["policy"]
    assert policy["failures"] == {}
    assert policy["remote"]["connects"] == 1
    assert policy["remote"]["requests"] == policy["remote"]["replies"] == policy["asked_chunks"]
