"""openpi-client 0.1.2 against our server, our client against a server of its codec and openpi's own.

The server of openpi itself needs no more than its client does, and runs from a checkout:
``DEXRUN_OPENPI_CHECKOUT=<folder of Physical-Intelligence/openpi>``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import pytest

from dexrun.config.serve_options import ServeOptions
from runtime.interfaces import PolicyError
from tests.remote.interop.peers import Peer, checkout, needs, needs_checkout
from tests.remote.support import EchoPolicy, connected, observation, serving

PEER = "openpi"
VARIABLE = "DEXRUN_TEST_KEY"
CHECKOUT = "DEXRUN_OPENPI_CHECKOUT"
pytestmark = needs(PEER)
OWN = pytest.param(
    ("own_server", CHECKOUT),
    marks=needs_checkout(CHECKOUT, "src/openpi/serving/websocket_policy_server.py"),
    id="own_server",
)


def run_client(port: int, *more: str) -> dict[str, object]:
    with Peer(PEER, "client", str(port), *more) as peer:
        return dict(json.loads(peer.line("")))


def test_its_client_gets_our_chunks_and_our_errors() -> None:
    policy = EchoPolicy(steps=4)
    with serving(policy, ServeOptions(protocol="openpi")) as server:
        got = run_client(server.port)
    assert got["dtype"] == "float32"
    assert got["timing"]
    assert "policy" in got["metadata"]
    for tick, actions in enumerate(got["actions"]):
        seen = policy.seen[tick]
        assert seen.instruction == f"do {tick}"
        means = sum(float(frame.color.mean()) for frame in seen.frames.values()) / 1e5
        first = np.linspace(0.1, 0.6, 6) + tick / 10 + means
        assert np.abs(np.array(actions) - (first + np.arange(4)[:, None] / 1000)).max() < 1e-5
    assert "observation/image" in str(got["error"])


def test_its_client_shows_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "s3cret")
    with serving(EchoPolicy(), ServeOptions(protocol="openpi", token_env=VARIABLE)) as server:
        assert run_client(server.port, "s3cret")["dtype"] == "float32"
        with Peer(PEER, "client", str(server.port), "wrong") as peer:
            assert "401" in peer.errors()


@pytest.fixture(scope="module", params=[pytest.param(("server",), id="server"), OWN])
def port(request: pytest.FixtureRequest) -> Iterator[int]:
    kind, *variable = request.param
    with Peer(PEER, kind, *map(checkout, variable)) as peer:
        yield int(peer.line(""))


def test_our_client_reads_its_chunks(port: int) -> None:
    with connected("openpi", port) as remote:
        remote.warm_up()
        for tick in range(3):
            made = observation(tick, seed=tick)
            rows = remote.infer(made).rows
            images = sum(float(frame.color.mean()) for frame in made.frames.values())
            wanted = made.arm.position.astype(np.float32)[None] + np.arange(5)[:, None] + images / 1e3
            assert np.abs(rows - wanted).max() < 1e-6
        remote.reset()
        assert remote.statistics()["connects"] == 1
        assert not remote.spec.takes_prefix


def test_our_client_says_its_error_in_one_line_and_goes_on(port: int) -> None:
    with connected("openpi", port) as remote:
        with pytest.raises(PolicyError, match="ValueError: told to fail"):
            remote.infer(observation(instruction="fail"))
        remote.infer(observation())
        assert remote.statistics()["reconnects"] == 1
