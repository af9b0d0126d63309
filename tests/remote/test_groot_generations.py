"""GR00T's two ways to write an array: each generation's client and server with ours at the other end."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgpack
import numpy as np
import pytest
import zmq

from dexrun.config.serve_options import ServeOptions
from policies.encoding.limits import WireError
from policies.remote.groot import codec
from runtime.interfaces import PolicyError
from runtime.units import UnitMap
from tests.remote.groot_generations import GENERATIONS, Generation, GenerationServer, config
from tests.remote.support import EchoPolicy, connected, observation, serving

UNITS = UnitMap(convention="rad")
TEXT = "annotation.human.task_description"
MODALITIES = {
    "video": config(["front", "wrist"], [0]),
    "state": config(["single_arm", "gripper"], [0]),
    "action": config(["single_arm", "gripper"], list(range(4))),
    "language": config([TEXT], [0]),
}


@pytest.fixture(params=GENERATIONS)
def server(request: pytest.FixtureRequest) -> Iterator[GenerationServer]:
    made = GenerationServer(request.param, MODALITIES)
    yield made
    made.close()


PLAIN = {
    name: {k: v for k, v in found.items() if k != "ModalityConfig"} for name, found in MODALITIES.items()
}


@pytest.mark.parametrize(
    ("modalities", "check"), [(MODALITIES, True), ({}, True), (PLAIN, True), (None, False)]
)
def test_our_client_gets_a_chunk_of_every_generation_and_asks_it_nothing_unknown(
    server: GenerationServer, modalities: Any, check: bool
) -> None:
    server.modalities = modalities
    made = observation()
    with connected("gr00t", server.port, check_modalities=check, units=UNITS) as remote:
        remote.warm_up()
        for _ in range(2):
            rows = remote.infer(made).rows
            assert np.abs(rows - made.arm.position - (np.arange(4) / 8)[:, None]).max() < 1e-6
        remote.reset()
    # A server that says nothing of itself is asked in one form and then, if it refuses that, in the other.
    refused = server.name == "packed" and modalities is not MODALITIES
    assert len(server.errors) == refused, server.errors
    assert all("must be a numpy array" in error for error in server.errors)


def test_warm_up_finds_the_keys_of_every_generation(server: GenerationServer) -> None:
    server.modalities = {**MODALITIES, "video": config(["front", "wrist", "ego_view"], [0])}
    with connected("gr00t", server.port) as remote, pytest.raises(PolicyError, match="wants video ego_view"):
        remote.warm_up()


def test_warm_up_refuses_what_describes_no_keys(server: GenerationServer) -> None:
    server.modalities = {"video": {"keys": ["front"]}}
    with connected("gr00t", server.port) as remote, pytest.raises(PolicyError, match="'video': a modality"):
        remote.warm_up()


@pytest.mark.parametrize("name", GENERATIONS)
def test_our_server_answers_every_generation_in_its_own_form(name: str) -> None:
    wire, made = Generation(name), observation()
    video = {"front": made.frames["head"].color[None, None], "wrist": made.frames["wrist"].color[None, None]}
    position = made.arm.position.astype(np.float32)[None, None]
    state = {"single_arm": position[..., :5], "gripper": position[..., 5:]}
    seen = {"video": video, "state": state, "language": {TEXT: [[made.instruction]]}}
    with (
        serving(EchoPolicy(steps=4, cameras=()), ServeOptions(protocol="gr00t", units=UNITS)) as server,
        zmq.Context() as context,
        context.socket(zmq.REQ) as socket,
    ):
        socket.linger, socket.rcvtimeo = 0, 20_000
        socket.connect(f"tcp://127.0.0.1:{server.port}")

        def ask(endpoint: str, **data: Any) -> Any:
            socket.send(wire.dump({"endpoint": endpoint, **({"data": data} if data else {})}))
            return wire.load(socket.recv())

        before = ask("get_modality_config")
        actions, info = ask("get_action", observation=seen)  # the newest client's test leaves options out
        raw_after = ask("get_modality_config")
    for found in (before, raw_after):
        assert found["video"] == config(["front", "wrist"], [0])
    assert actions["single_arm"].shape == (1, 4, 5)
    assert actions["gripper"].dtype == np.float32
    assert isinstance(info, dict)


def test_the_forms_are_those_of_the_packages_byte_for_byte() -> None:
    value = {"a": np.arange(6, dtype=">i2").reshape(2, 3), "b": [np.zeros((0, 3), np.float32)], "c": 1.5}
    for wire, name in ((codec.ArrayForm.NPY, "npy"), (codec.ArrayForm.MSGPACK_NUMPY, "packed")):
        message = b"".join(codec.encode(value, wire))
        assert message == Generation(name).dump(value)
        found = codec.read(message)
        assert found.wire is wire
        assert (found.value["a"] == value["a"]).all()
        assert found.value["a"].dtype == np.dtype(">i2")
    scalar = codec.read(Generation("packed").dump({"seconds": np.float32(0.25)}))
    assert scalar.value["seconds"] == 0.25


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ({b"nd": True, b"kind": b"O", b"type": "|O", b"shape": (1,), b"data": b"x"}, "objects or structures"),
        ({b"nd": 1, b"kind": b"O", b"type": "|O", b"shape": (1,), b"data": b"x"}, "objects or structures"),
        ({b"nd": True, b"kind": b"", b"type": "|O", b"shape": [1], b"data": b"x" * 8}, "a dtype that is not"),
        (
            {b"nd": True, b"kind": b"V", b"type": [["a", "<f4"]], b"shape": [1], b"data": b"xxxx"},
            "structures",
        ),
        ({b"nd": True, b"type": "<f4", b"shape": [2], b"data": b"xxxx"}, "in 4 bytes"),
        ({b"nd": True, b"type": "<f4", b"shape": [True], b"data": b"xxxx"}, "shape is not integers"),
        ({b"nd": True, b"type": "<f4", b"shape": [1]}, "without data"),
        ({b"nd": False, b"type": "<f4", b"data": b"xxx"}, "a scalar of dtype float32 in 3 bytes"),
        ({"__ModalityConfig__": True}, "not an object"),
        ({"__ModalityConfig__": True, "as_json": "{"}, "not JSON"),
    ],
)
def test_a_form_that_is_broken_or_dangerous_is_one_line(message: Any, said: str) -> None:
    with pytest.raises(WireError, match=re.escape(said)) as caught:
        codec.read(msgpack.packb(message))
    assert "\n" not in str(caught.value)
