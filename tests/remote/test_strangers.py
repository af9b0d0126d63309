"""What somebody can cost a server who never shows a token, or does not come back."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from typing import Any
from unittest import mock

import msgpack
import numpy as np
import pytest
import zmq
from pydantic import ValidationError

from dexrun.config.serve_options import ServeOptions
from dexrun.serve.engine import LocalEngine
from dexrun.serve.server import local_server
from policies.encoding.limits import Limits, WireError
from policies.encoding.msgpack_views import unpack
from policies.pickles import reader
from policies.pickles.arrays import NUMPY
from policies.remote.client import RemotePolicy
from policies.remote.config import OpenpiOptions
from policies.remote.groot import codec as groot
from policies.remote.serving import zmq_front
from policies.remote.serving.metrics import Metrics
from policies.remote.serving.robot_side import RobotSide
from policies.remote.serving.service import Service
from runtime.addresses import is_loopback
from runtime.clock import RealClock
from runtime.interfaces import PolicyError, PolicySpec
from runtime.messages import Observation, PolicyAnswer
from tests.remote.support import GUARD_S, ROBOT, EchoPolicy, Running, connected, observation, refused, serving


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "[::1]", "localhost", "::ffff:127.0.0.1"])
def test_loopback(host: str) -> None:
    assert is_loopback(host)
    ServeOptions(host=host)


@pytest.mark.parametrize(
    "host",
    ["127.evil.example", "localhost.x", "127.0.0.1.evil.example", "::1.x", "127.1", "::", "0.0.0.0"],  # noqa: S104
)
def test_what_only_looks_like_loopback_needs_a_token(host: str) -> None:
    assert not is_loopback(host)
    with pytest.raises(ValueError, match=r"name a token with token_env, or say insecure|neither a name"):
        ServeOptions(host=host)


def hash_flood(count: int) -> list[int]:
    """Integers that meet in one place of every table, and go on meeting."""
    return [(n * ((1 << 61) - 1)) % (1 << 64) or n << 40 for n in range(count)]


def test_integers_chosen_as_keys_are_refused_at_the_first() -> None:
    keys = hash_flood(15_000)
    body = (
        b"\xde"
        + struct.pack(">H", len(keys))
        + b"".join(b"\xcf" + struct.pack(">Q", k) + b"\xc0" for k in keys)
    )
    with pytest.raises(WireError, match="an integer key beyond 65536"):
        unpack(body)
    assert unpack(msgpack.packb({0: 1, 65_535: 2, "a": 3})) == {0: 1, 65_535: 2, "a": 3}
    pickled = (
        b"\x80\x04}(" + b"".join(b"\x8a\x09" + k.to_bytes(9, "little") + b"N" for k in keys[1:3]) + b"u."
    )
    with pytest.raises(WireError, match="an integer key beyond"):
        reader.load(pickled, NUMPY, Limits())
    with pytest.raises(WireError, match="an integer key beyond"):
        reader.load(b"\x80\x04Nr\x00\x00\x00\x10.", NUMPY, Limits())  # where a value is kept in the memo


STATE = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")


@pytest.mark.parametrize("value", [1e5, -40.0, 86.0, 1e300])
def test_a_joint_that_no_arm_has_reaches_no_policy(value: float) -> None:
    options = ServeOptions(protocol="act")
    side = RobotSide(options.resolved_keys(), options.resolved_units(), ROBOT)
    state = np.zeros(6)
    state[2] = value
    images = {key: np.zeros((4, 5, 3), np.uint8) for key in side.keys.cameras.values()}
    name = next(iter(side.keys.state))
    with pytest.raises(WireError, match=r"elbow_flex|beyond 1e\+06"):
        side.observation({name: state}, images, "")
    with pytest.raises(WireError, match=r"elbow_flex|prefix"):
        side.observation({name: np.zeros(6)}, images, "", prefix=state[None].astype(np.float64), frozen=1)
    side.observation({name: np.zeros(6)}, images, "")


def test_a_policy_that_must_know_where_the_object_is_is_served_to_those_who_say_it() -> None:
    spec = PolicySpec("act", 8, tip=True)
    unasked = ServeOptions(protocol="openpi")

    def asking(*entries: str, **more: object) -> ServeOptions:
        keys = {"state": {"observation/state": [*STATE, *entries]}, **more}
        return ServeOptions.model_validate({"protocol": "openpi", "keys": keys})

    def service(options: ServeOptions) -> Service:
        return Service(options, mock.Mock(), ROBOT, spec, Metrics(), RealClock())

    with pytest.raises(PolicyError, match=r"give tip\.x, tip\.y and tip\.z in serve\.keys\.state"):
        service(unasked)
    with pytest.raises(PolicyError, match=r"no client is asked for tip\.y, tip\.z: "):
        service(asking("tip.x"))
    assert service(asking("tip.x", "tip.y", "tip.z")).side.keys.wants_tip
    for more in ({"instruction_tip": True}, {"tip_camera": "top"}):
        with pytest.raises(ValidationError, match=f"{next(iter(more))} has no effect here: a client says"):
            asking("tip.x", "tip.y", "tip.z", **more)
    client = OpenpiOptions.model_validate({"keys": {"instruction_tip": True, "tip_camera": "top"}})
    ServeOptions.model_validate({"protocol": "openpi", **client.as_served()})


GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
READY = b"\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER"
PART = b"\x03" + struct.pack(">Q", 1 << 18) + bytes(1 << 18)


def unending(port: int) -> socket.socket:
    """A ZeroMQ peer that is at the beginning of a message of many parts."""
    peer = socket.create_connection(("127.0.0.1", port), timeout=GUARD_S)
    peer.sendall(GREETING + b"\x04" + bytes([len(READY)]) + READY + b"\x01\x00")
    return peer


@pytest.mark.parametrize("peers", [1, 12], ids=["one", "several"])
def test_parts_without_end_are_hung_up_on(peers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that sends too much, and several that together do."""
    monkeypatch.setattr(zmq_front, "EVERY_S", 0.005)
    options = ServeOptions(protocol="gr00t", max_message_mib=2)
    with (
        serving(EchoPolicy(), options) as server,
        connected("gr00t", server.port) as good,
        contextlib.ExitStack() as stack,
    ):
        good.infer(observation(1))
        ended, sent = 0, 0
        strangers = [stack.enter_context(unending(server.port)) for _ in range(peers)]
        for _ in range(10_000):
            for each in list(strangers):
                try:
                    each.sendall(PART)
                    sent += len(PART)
                except OSError:
                    strangers.remove(each)
                    ended += 1
            if ended:
                break
            good.infer(observation(2))
        assert ended
        assert sent < 64 << 20
        good.infer(observation(3))
        assert good.statistics()["connects"] == 1


def test_more_connections_than_clients_make_room_for_one_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zmq_front, "EVERY_S", 0.005)
    options = ServeOptions(protocol="act", max_clients=1)
    with serving(EchoPolicy(), options) as server, contextlib.ExitStack() as stack:
        strangers = [stack.enter_context(unending(server.port)) for _ in range(1 + 32 + 4)]
        for each in strangers[:4]:  # those that were silent for longest
            while each.recv(1000):
                pass
        with connected("act", server.port) as good:
            good.infer(observation(1))
            assert good.statistics()["connects"] == 1


def test_a_policy_is_let_go_with_its_clients_connection() -> None:
    made: list[EchoPolicy] = []

    def fresh() -> EchoPolicy:
        made.append(EchoPolicy())
        return made[-1]

    for protocol in ("gr00t", "lerobot"):
        made.clear()
        options = ServeOptions(protocol=protocol)
        running = Running(local_server(fresh(), options, ROBOT, fresh=fresh)).start()
        try:
            service = running.server.service
            assert service is not None
            for step in range(4):
                with connected(protocol, running.port) as remote:
                    remote.infer(observation(step))
                if protocol == "lerobot":
                    service._swept_ns = 0
            deadline = time.monotonic() + GUARD_S
            while len(made) > 2 and sum(not p.closed for p in made) > 2 and time.monotonic() < deadline:
                time.sleep(0.01)
            assert sum(not policy.closed for policy in made) <= 2
        finally:
            running.stop()


def test_so_many_policies_and_no_more() -> None:
    made: list[EchoPolicy] = []

    def fresh() -> EchoPolicy:
        made.append(EchoPolicy())
        return made[-1]

    engine = LocalEngine(fresh(), RealClock(), Metrics(), fresh=fresh, max_policies=2)

    async def main() -> None:
        for name in ("a", "b", "a", "c"):
            await engine.infer([observation(1)], name)
        assert list(engine._own) == ["a", "c"]

    engine.start()
    try:
        RealClock().run(main)
    finally:
        engine.stop()
    assert all(policy.closed for policy in made)


class Stuck(EchoPolicy):
    """Does not come back from its second observation."""

    def __init__(self) -> None:
        super().__init__()
        self.entered, self.let_go = threading.Event(), threading.Event()

    def infer(self, observation: Observation) -> PolicyAnswer:
        if self.seen:
            self.entered.set()
            self.let_go.wait()
        return super().infer(observation)


def failing(remote: RemotePolicy) -> None:
    with contextlib.suppress(PolicyError):
        remote.infer(observation(2))


def test_a_server_ends_beside_an_inference_that_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dexrun.serve.engine.STOP_S", 0.1)
    policy = Stuck()
    running = Running(local_server(policy, ServeOptions(protocol="gr00t", drain_s=0.1), ROBOT)).start()
    with connected("gr00t", running.port, request_timeout_s=GUARD_S) as remote:
        remote.infer(observation(1))
        asked = threading.Thread(target=lambda: failing(remote), daemon=True)
        asked.start()
        assert policy.entered.wait(GUARD_S)
        running.stop()
        policy.let_go.set()
    asked.join(GUARD_S)


def test_a_valid_token_is_needed_for_nothing_to_be_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "right-token")
    options = ServeOptions(protocol="gr00t", token_env="TOKEN")  # noqa: S106 - a variable's name
    with serving(EchoPolicy(), options) as server, zmq.Context() as context, context.socket(zmq.REQ) as peer:
        peer.linger, peer.rcvtimeo = 0, int(GUARD_S * 1000)
        peer.connect(f"tcp://127.0.0.1:{server.port}")
        peer.send(b"".join(groot.encode({"endpoint": "ping", "api_token": "wrong"})))
        said: Any = groot.decode(peer.recv())
        assert "Unauthorized" in said["error"]
        assert server.server.service is not None
        assert not server.server.service._clients


def test_a_connection_of_bad_messages_only_is_ended_and_the_rest_is_not_read() -> None:
    options = ServeOptions(protocol="act")
    with (
        serving(EchoPolicy(), options) as server,
        connected("act", server.port) as good,
        zmq.Context() as context,
        context.socket(zmq.DEALER) as peer,
    ):
        good.infer(observation(1))
        peer.linger, peer.rcvtimeo = 0, int(GUARD_S * 1000)
        event = peer.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        peer.connect(f"tcp://127.0.0.1:{server.port}")
        for _ in range(zmq_front.MAX_REFUSED):
            peer.send_multipart([b"", b"\x80\x04N"])
        assert event.poll(GUARD_S * 1000)
        peer.disable_monitor()
        event.close(linger=0)
        good.infer(observation(2))
        assert refused(server, "malformed") == zmq_front.MAX_REFUSED
        assert good.statistics()["connects"] == 1
