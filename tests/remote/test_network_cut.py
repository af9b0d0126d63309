"""A real network between robot and server that is cut and comes back: a namespace and its link."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from dexrun.exit_codes import OK
from tests.dexrun.rig import AS_SERVED, Stage, perform
from tests.remote.example import CLIENTS, EXAMPLE, served

CUT_S = 2.2
"""Longer than a chunk, so that the horizon runs dry; shorter than what ends an attempt."""
STILL_TICKS = 20


class Network:
    """A namespace that is reached over one link.

    Raises:
        OSError: it is not permitted here; one line.
    """

    def __init__(self) -> None:
        if shutil.which("ip") is None:
            raise OSError("there is no 'ip' (iproute2)")
        number = os.getpid() % 65536
        self.name = f"dexrun-{number}"
        near, self._far = f"dxa{number}", f"dxb{number}"
        subnet = f"198.18.{number % 256}"  # set aside for tests between networks (RFC 2544)
        self.address = f"{subnet}.2"
        self._ip("netns", "add", self.name)
        try:
            self._ip("link", "add", near, "type", "veth", "peer", "name", self._far, "netns", self.name)
            self._ip("address", "add", f"{subnet}.1/30", "dev", near)
            self._ip("-n", self.name, "address", "add", f"{self.address}/30", "dev", self._far)
            self._ip("link", "set", near, "up")
            self._ip("-n", self.name, "link", "set", "lo", "up")
            self.join()
        except OSError:
            self.close()
            raise

    def _ip(self, *words: str) -> None:
        done = subprocess.run(["ip", *words], capture_output=True, text=True, timeout=30, check=False)
        if done.returncode:
            raise OSError(f"ip {' '.join(words)}: {done.stderr.strip()}")

    @property
    def within(self) -> list[str]:
        """What goes before a command that is to run there."""
        return ["ip", "netns", "exec", self.name]

    def cut(self) -> None:
        """From now on every packet is lost, and nobody is told."""
        self._ip("-n", self.name, "link", "set", self._far, "down")

    def join(self) -> None:
        """Packets arrive again."""
        self._ip("-n", self.name, "link", "set", self._far, "up")

    def close(self) -> None:
        """The interfaces go with the namespace."""
        self._ip("netns", "delete", self.name)


@pytest.fixture
def network() -> Iterator[Network]:
    try:
        made = Network()
    except OSError as error:
        pytest.skip(f"no network namespace here: {error}")
    yield made
    made.close()


@pytest.mark.slow
@pytest.mark.parametrize("protocol", CLIENTS)
def test_the_arm_holds_while_the_network_is_cut_and_goes_on_after(
    protocol: str, network: Network, tmp_path: Path
) -> None:
    async def cuts(stage: Stage) -> None:
        await stage.until(lambda: stage.step.startswith("grasp") and len(stage.up.control.horizon) > 0)
        network.cut()
        await stage.rest(CUT_S)
        last = stage.targets()[-STILL_TICKS:]
        assert np.ptp(last, axis=0).max() == 0.0
        network.join()

    with served(protocol, network.within, "--host", network.address, "--insecure") as port:
        stage = perform(
            tmp_path,
            cuts,
            config=str(EXAMPLE),
            **AS_SERVED,
            policy__type=CLIENTS[protocol],
            policy__host=network.address,
            policy__port=str(port),
            policy__request_timeout_s="3",  # in real time; simulated time stands still meanwhile
            policy__connect_timeout_s="3",
            policy__backoff_max_s="0.3",
        )
    assert stage.code == OK, stage.summary["stop_reason"]
    assert stage.summary["judge"]["success"]
    # a new connection is a new client, whose policy may not see the object below the arm: then it tries again
    assert stage.summary["attempts"][-1]["completed"]
    assert len(stage.summary["attempts"]) <= 2
    assert stage.summary["starved_ticks"] >= STILL_TICKS
    policy = stage.summary["policy"]
    counts = policy["remote"]
    assert counts["timeout"] + counts.get("lost", 0) > 0
    assert counts["connects"] == 1
    assert counts["reconnects"] >= 1
    assert policy["failures"] == {"policy_error": counts["requests"] - counts["replies"]}
