"""GR00T's and ACT's message flows, byte for byte, from exchanges kept as data."""

from __future__ import annotations

import base64
import dataclasses
import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
import zmq

from dexrun.config.serve_options import ServeOptions
from runtime.messages import Frame, Observation, PolicyAnswer
from runtime.units import UnitMap
from tests.remote.rep_server import RepServer
from tests.remote.support import EchoPolicy, connected, observation, serving

DATA = Path(__file__).parent / "data"
STATE = np.array([0.125, -1.5, 1.25, 0.5, -0.25, 0.5])
UNITS = UnitMap(convention="rad")
"""What the exchanges were made in."""
GREETINGS = {"ping", "get_modality_config", "reset"}
"""Whose answers say a little more than the recorded ones, at a place where the peers do not look."""


class Recorded(EchoPolicy):
    """Answers as the recording does."""

    def infer(self, observation: Observation) -> PolicyAnswer:
        rows = observation.arm.position[None] + (np.arange(self.spec.chunk_steps) / 8)[:, None]
        return PolicyAnswer(rows)


def exchange(name: str) -> dict[str, tuple[bytes, bytes]]:
    rows = json.loads((DATA / f"{name}.json").read_text())["exchange"]
    return {r["name"]: (base64.b64decode(r["request"]), base64.b64decode(r["reply"])) for r in rows}


def recorded_observation() -> Observation:
    ramp = np.arange(24 * 32 * 3).reshape(24, 32, 3)
    made = observation(instruction="pick the red cube")
    images = {"head": (ramp % 251).astype(np.uint8), "wrist": (ramp % 241).astype(np.uint8)}
    frames = {name: Frame(name, 1, image) for name, image in images.items()}
    return dataclasses.replace(made, arm=dataclasses.replace(made.arm, position=STATE), frames=frames)


def without_ours(name: str, message: bytes) -> Any:
    """A greeting's answer as the peer reads it, which takes no notice of what else is there."""
    value = msgpack.unpackb(message) if name == "groot" else pickle.loads(message)
    if "video" in value:
        return {k: (v["__ModalityConfig_class__"], v["as_json"]) for k, v in value.items()}
    return {k: v for k, v in value.items() if k != "dexrun"}


def ask(port: int, message: bytes) -> bytes:
    """As the reference client does: a plain REQ socket."""
    with zmq.Context() as context, context.socket(zmq.REQ) as socket:
        socket.linger = 0
        socket.rcvtimeo = 20_000
        socket.connect(f"tcp://127.0.0.1:{port}")
        socket.send(message)
        return socket.recv()


class ReferenceServer(RepServer):
    """Gives the recorded reply to a recorded request and an error to others."""

    def __init__(self, rows: dict[str, tuple[bytes, bytes]], error: bytes) -> None:
        replies = dict(rows.values())
        self.asked: list[bytes] = []

        def answer(message: bytes) -> bytes:
            self.asked.append(message)
            return replies.get(message, error)

        super().__init__(answer)


@pytest.mark.parametrize(("protocol", "name", "skip"), [("gr00t", "groot", {"token"}), ("act", "act", set())])
def test_our_server_writes_the_recorded_replies(protocol: Any, name: str, skip: set[str]) -> None:
    with serving(Recorded(steps=4), ServeOptions(protocol=protocol, units=UNITS)) as server:
        for title, (request, reply) in exchange(name).items():
            if title in skip:
                continue
            ours = ask(server.port, request)
            if title in GREETINGS:
                assert without_ours(name, ours) == without_ours(name, reply), title
            else:
                assert ours == reply, title


def test_our_server_refuses_a_wrong_token_as_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    variable = "DEXRUN_TEST_KEY"
    monkeypatch.setenv(variable, "right")
    request, reply = exchange("groot")["token"]
    with serving(Recorded(), ServeOptions(protocol="gr00t", token_env=variable)) as server:
        assert ask(server.port, request) == reply


@pytest.fixture(params=["gr00t", "act"])
def reference(request: pytest.FixtureRequest) -> Iterator[tuple[str, ReferenceServer]]:
    name = {"gr00t": "groot", "act": "act"}[request.param]
    rows = exchange(name)
    errors = {
        "groot": rows.get("unknown", (b"", b""))[1],
        "act": pickle.dumps({"status": "ERROR", "message": "'qpos'"}),
    }
    server = ReferenceServer(rows, errors[name])
    yield request.param, server
    server.close()


def test_our_client_writes_the_recorded_requests(reference: tuple[str, ReferenceServer]) -> None:
    protocol, server = reference
    with connected(protocol, server.port, units=UNITS) as remote:
        remote.warm_up()
        rows = remote.infer(recorded_observation()).rows
        remote.reset()
    rows_of = exchange({"gr00t": "groot", "act": "act"}[protocol])
    order = {
        "gr00t": ["ping", "get_modality_config", "get_action", "reset"],
        "act": ["reset", "step", "reset"],
    }
    assert server.asked == [rows_of[title][0] for title in order[protocol]]
    steps = {"gr00t": 4, "act": 1}[protocol]
    assert np.abs(rows - (STATE[None] + (np.arange(steps) / 8)[:, None])).max() < 1e-6
    assert not remote.spec.takes_prefix
