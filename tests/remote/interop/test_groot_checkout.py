"""NVIDIA's own client and server of GR00T, from a checkout of theirs, against ours.

Their package brings its whole model stack; client and server need pyzmq, msgpack and numpy alone. They run
from ``DEXRUN_GROOT_CHECKOUT=<folder of NVIDIA/Isaac-GR00T>``; several, of several generations, with colons
between.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from dexrun.config.serve_options import ServeOptions
from runtime.interfaces import PolicyError
from runtime.units import UnitMap
from tests.remote.interop.peers import Peer, checkout, needs, needs_checkout
from tests.remote.support import EchoPolicy, connected, observation, serving

PEER = "groot"
VARIABLE = "DEXRUN_TEST_KEY"
CHECKOUT = "DEXRUN_GROOT_CHECKOUT"
UNITS = UnitMap(convention="rad")
pytestmark = [needs(PEER), needs_checkout(CHECKOUT, "gr00t/policy/server_client.py")]


@pytest.fixture(scope="module", params=checkout(CHECKOUT).split(os.pathsep))
def folder(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def run_client(folder: str, port: int, *more: str) -> dict[str, Any]:
    with Peer(PEER, "client", folder, str(port), *more) as peer:
        return dict(json.loads(peer.line("")))


def test_their_client_gets_our_chunks_and_our_errors(folder: str) -> None:
    policy = EchoPolicy(steps=4)
    with serving(policy, ServeOptions(protocol="gr00t", units=UNITS)) as server:
        got = run_client(folder, server.port)
    assert got["ping"] is True
    assert got["modalities"]["video"] == ["front", "wrist"]
    assert got["modalities"]["action"] == ["single_arm", "gripper"]
    assert got["dtype"] == "float32"
    (seen,) = policy.seen
    assert seen.instruction == "pick the red cube"
    assert {name: int(frame.color.max()) for name, frame in seen.frames.items()} == {"head": 7, "wrist": 9}
    state = np.array([0.1, -1.5, 1.2, 0.3, -0.2, 0.4])
    assert np.abs(seen.arm.position - state).max() < 1e-6
    rows = np.concatenate([np.array(got["actions"][key])[0] for key in ("single_arm", "gripper")], axis=1)
    means = (7 + 9) / 1e5
    assert np.abs(rows - (state + np.arange(4)[:, None] / 1000 + means)).max() < 1e-5
    assert "'front' must be in observation" in got["error"]


def test_their_client_shows_its_token(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "s3cret")
    options = ServeOptions(protocol="gr00t", token_env=VARIABLE, units=UNITS)
    with serving(EchoPolicy(steps=4), options) as server:
        assert run_client(folder, server.port, "s3cret")["dtype"] == "float32"
        assert "Unauthorized" in run_client(folder, server.port, "wrong")["error"]


@pytest.fixture
def their_server(folder: str) -> Iterator[tuple[Peer, int]]:
    with Peer(PEER, "server", folder) as peer:
        yield peer, int(peer.line(""))


def test_our_client_reads_their_chunks_and_asks_nothing_unknown(their_server: tuple[Peer, int]) -> None:
    peer, port = their_server
    with connected("gr00t", port, units=UNITS) as remote:
        remote.warm_up()
        for tick in range(3):
            made = observation(tick, seed=tick)
            rows = remote.infer(made).rows
            wanted = made.arm.position.astype(np.float32)[None] + np.arange(4)[:, None]
            assert np.abs(rows - wanted).max() < 1e-6
        remote.reset()
        assert remote.statistics()["connects"] == 1
        assert not remote.spec.takes_prefix
    peer.end_input()
    assert "Error in server" not in peer.errors()


def test_our_client_says_their_error_in_one_line_and_goes_on(their_server: tuple[Peer, int]) -> None:
    _, port = their_server
    with connected("gr00t", port, units=UNITS) as remote:
        with pytest.raises(PolicyError, match="the server answered: told to fail"):
            remote.infer(observation(instruction="fail"))
        remote.infer(observation())


def test_a_missing_and_a_wrong_token_are_said_by_name(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "wrong")
    with Peer(PEER, "server", folder, "s3cret") as peer:
        port = int(peer.line(""))
        for options in ({}, {"token_env": VARIABLE}):
            with connected("gr00t", port, **options) as remote, pytest.raises(PolicyError) as caught:
                remote.warm_up()
            assert "Unauthorized: Invalid API token" in str(caught.value)
        monkeypatch.setenv(VARIABLE, "s3cret")
        with connected("gr00t", port, units=UNITS, token_env=VARIABLE) as remote:
            remote.infer(observation())
