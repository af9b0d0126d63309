"""A tracker on another machine: in a network of its own, joined to this one by a cable alone."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dexrun.annotation.pipeline import Pipeline
from dexrun.annotation.processes import WorkerOptions
from runtime.clock import RealClock
from tests.annotation.drawn import drawn, run_of
from tests.annotation.test_pipeline import OPTIONS, Killer, bytes_of, expected

IP = "/usr/sbin/ip"


@dataclass(frozen=True)
class Hosts:
    """Addresses of this machine and the other one, the other's name, and this end of the cable."""

    here: str
    there: str
    name: str
    cable: str


def ip(*words: str) -> None:
    subprocess.run([IP, *words], check=True, capture_output=True, text=True)


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    """Two hosts; the test is skipped, and says why, where nobody may make them."""
    number = os.getpid() % (1 << 14)
    prefix, last = f"10.213.{number >> 6}", number % 64 * 4
    made = Hosts(f"{prefix}.{last + 1}", f"{prefix}.{last + 2}", f"dexrun-{number}", f"dx{number}a")
    other = f"dx{number}b"
    if not os.access(IP, os.X_OK):
        pytest.skip(f"{IP} is not there: apt-get install iproute2")
    try:
        ip("netns", "add", made.name)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"a network namespace cannot be made here, for root alone may: {error.stderr.strip()}")
    try:
        ip("link", "add", made.cable, "type", "veth", "peer", "name", other, "netns", made.name)
        ip("address", "add", f"{made.here}/30", "dev", made.cable)
        ip("-n", made.name, "address", "add", f"{made.there}/30", "dev", other)
        ip("link", "set", made.cable, "up")
        ip("-n", made.name, "link", "set", other, "up")
        yield made
    finally:
        ip("netns", "delete", made.name)  # and the cable with it


class Unplugging(Killer):
    """Kills the tracker in the middle of a stretch, and pulls the cable for a moment in its successor's."""

    def __init__(self, hosts: Hosts) -> None:
        super().__init__("tracker 1")
        self._cable = hosts.cable
        self.pulled = 0

    def __call__(self, word: str, about: Mapping[str, Any]) -> None:
        super().__call__(word, about)
        if word in ("at", "frames") and self.lost and not self.pulled:
            ip("link", "set", self._cable, "down")
            ip("link", "set", self._cable, "up")
            self.pulled += 1


@pytest.mark.slow
def test_a_tracker_on_another_machine_gives_every_mask_once(tmp_path: Path, hosts: Hosts) -> None:
    recording = run_of(tmp_path / "run", drawn(seconds=4.0)) / "episodes/episode_000000.mcap"
    want = expected(recording)
    here = dict.fromkeys(("reader", "namer", "writer"), hosts.here)
    python = f"{IP} netns exec {hosts.name} {sys.executable}"
    how = WorkerOptions(pythons={"tracker": python}, hosts={**here, "tracker": hosts.there})
    killer = Unplugging(hosts)
    outcome = Pipeline([recording], OPTIONS, how, RealClock(), killer).run()
    assert [job.state for job in outcome.jobs] == ["done"]
    assert killer.lost == ["tracker 1"]
    assert killer.pulled == 1
    got = bytes_of(recording)
    assert got["frame"] == np.arange(121, dtype=np.int64).tobytes()
    assert got == want
    assert killer.frames == 121
