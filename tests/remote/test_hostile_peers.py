"""Hostile peers on real sockets: the others are served, the arm's side gets one line."""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import zmq
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.sync.client import connect
from websockets.sync.server import Server, ServerConnection, serve

from dexrun.config.serve_options import ServeOptions
from policies.remote.groot import codec as groot
from policies.remote.lerobot import rpc
from policies.remote.lerobot import server as lerobot_front
from policies.remote.lerobot.server import LerobotFront
from policies.remote.serving import zmq_front
from policies.remote.serving.hang_up import by_descriptor, by_peer
from policies.remote.serving.zmq_front import ZmqFront
from runtime.interfaces import PolicyError
from tests.remote import hostile
from tests.remote.support import (
    GUARD_S,
    PROTOCOLS,
    BatchedEcho,
    EchoPolicy,
    Running,
    connected,
    expected,
    observation,
    refused,
    serving,
)

CLOSE = 2e-5
MESSAGES = {
    "gr00t": hostile.packs,
    "openpi": hostile.packs,
    "act": hostile.pickles,
    "lerobot": hostile.pickles,
}
METHODS = ("Ready", "SendPolicyInstructions", "SendObservations")
quick = settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


# --- hostile clients


class ZmqClient:
    """A REQ socket for each message: a server that is well answers everything, and hangs up on some."""

    def __init__(self, port: int) -> None:
        self._context = zmq.Context()
        self._port = port
        self.patience_ms = int(GUARD_S * 1000)

    def __call__(self, message: bytes) -> None:
        with self.asking() as peer:
            peer.send(message)
            peer.recv()

    @contextlib.contextmanager
    def asking(self) -> Iterator[Any]:
        with self._context.socket(zmq.REQ) as peer:
            peer.linger = 0
            peer.rcvtimeo = self.patience_ms
            peer.connect(f"tcp://127.0.0.1:{self._port}")
            yield peer

    def close(self) -> None:
        self._context.term()


class OpenpiClient:
    """A websocket for each message: after a bad one it is closed."""

    def __init__(self, port: int) -> None:
        self._url = f"ws://127.0.0.1:{port}"

    def __call__(self, message: bytes) -> None:
        with connect(self._url, compression=None) as peer:
            peer.recv(timeout=GUARD_S)
            with contextlib.suppress(ConnectionClosed):
                peer.send(message)
                peer.recv(timeout=GUARD_S)

    def close(self) -> None:
        pass


class LerobotClient:
    """A channel on which any bytes are a message of any method."""

    def __init__(self, port: int) -> None:
        self._channel = grpc.insecure_channel(f"127.0.0.1:{port}")
        self._calls = [self._channel.unary_unary(f"/{rpc.SERVICE}/{name}") for name in METHODS]

    def __call__(self, message: bytes) -> None:
        wrapped = [message, rpc.data_message([message]), rpc.observation_message(3, [message])]
        for call, body in zip(self._calls, wrapped, strict=True):
            for each in (message, body):
                with contextlib.suppress(grpc.RpcError):
                    call(each, timeout=GUARD_S)

    def close(self) -> None:
        self._channel.close()


HOSTILE: dict[str, Callable[[int], Any]] = {
    "gr00t": ZmqClient,
    "act": ZmqClient,
    "openpi": OpenpiClient,
    "lerobot": LerobotClient,
}


@pytest.fixture(params=PROTOCOLS)
def attacked(request: pytest.FixtureRequest) -> Iterator[tuple[str, Running, Any]]:
    """A server and a hostile client; afterwards a good one must be served as if nothing had been."""
    protocol = request.param
    options = ServeOptions(protocol=protocol, max_message_mib=1, observation_wait_s=0.05)
    with serving(EchoPolicy(), options) as server, connected(protocol, server.port) as good:
        good.infer(observation(1))
        attacker = HOSTILE[protocol](server.port)
        yield protocol, server, attacker
        attacker.close()
        made = observation(2, seed=2)
        assert np.abs(good.infer(made).rows - expected(made)).max() < CLOSE
        assert good.statistics()["connects"] == 1


def refusals(server: Running) -> int:
    service = server.server.service
    assert service is not None
    lines = service.metrics.text().splitlines()
    return sum(
        int(float(line.split()[-1])) for line in lines if line.startswith("dexrun_serve_refusals_total{")
    )


def test_malicious_messages_are_refused_and_counted(attacked: tuple[str, Running, Any]) -> None:
    protocol, server, attacker = attacked
    messages = MESSAGES[protocol]()
    for message in messages.values():
        attacker(message)
    assert refusals(server) >= len(messages)


@pytest.mark.parametrize(
    ("protocol", "message", "why"),
    [
        ("act", hostile.pickles()["os.system"], b"not on the list of allowed classes"),
        ("gr00t", hostile.packs()["object npy"], b"a dtype that is not a boolean's"),
    ],
)
def test_a_hostile_client_is_told_why_and_hung_up_on(protocol: str, message: bytes, why: bytes) -> None:
    with (
        serving(EchoPolicy(), ServeOptions(protocol=protocol)) as server,
        connected(protocol, server.port) as good,
        contextlib.closing(ZmqClient(server.port)) as attacker,
    ):
        good.infer(observation(1))
        with attacker.asking() as peer:
            with peer.get_monitor_socket(zmq.EVENT_DISCONNECTED) as monitor:
                peer.send(message)
                assert why in peer.recv()
                assert monitor.poll(GUARD_S * 1000)
            peer.disable_monitor()
        good.infer(observation(2))
        assert good.statistics()["connects"] == 1
        assert refusals(server) == 1


@pytest.mark.parametrize("at_most", [zmq_front.MAX_TASKS, 3])
def test_a_flood_is_taken_a_few_messages_at_a_time(at_most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two turns of the loop, which replies and others' requests need."""
    taken, most, held = 0, 0, 0
    dispatch = ZmqFront._dispatch
    monkeypatch.setattr(zmq_front, "MAX_TASKS", at_most)

    def turned() -> None:
        nonlocal taken
        taken = 0

    def counted(front: ZmqFront, frames: list[Any]) -> bool:
        nonlocal taken, most, held
        begun = dispatch(front, frames)
        if not taken:
            asyncio.get_running_loop().call_soon(turned)
        taken += 1
        most, held = max(most, taken), max(held, len(front._tasks))
        return begun

    monkeypatch.setattr(ZmqFront, "_dispatch", counted)
    ping, count = b"".join(groot.encode({"endpoint": "ping"})), 16
    with serving(EchoPolicy(), ServeOptions(protocol="gr00t")) as server, zmq.Context() as context:
        with contextlib.ExitStack() as stack:
            peers = [stack.enter_context(context.socket(zmq.DEALER)) for _ in range(8)]

            def fill() -> None:
                """While the loop stands still, each of the peers sends."""
                for peer in peers:
                    peer.linger, peer.rcvtimeo = 0, int(GUARD_S * 1000)
                    peer.connect(f"tcp://127.0.0.1:{server.port}")
                for peer in peers * count:
                    peer.send_multipart([b"", ping])

            server.call(fill)
            for peer in peers * count:
                assert b"Server is running" in peer.recv_multipart()[-1]
        with connected("gr00t", server.port) as good:
            good.infer(observation(1))
    assert most <= 32
    assert held <= at_most


def test_a_hostile_grpc_client_is_told_why_and_hung_up_on() -> None:
    message = rpc.data_message([hostile.pickles()["os.system"]])
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
    with (
        serving(EchoPolicy(), ServeOptions(protocol="lerobot")) as server,
        connected("lerobot", server.port) as good,
        grpc.insecure_channel(f"127.0.0.1:{server.port}", options) as channel,
    ):
        good.infer(observation(1))
        seen: queue.SimpleQueue[grpc.ChannelConnectivity] = queue.SimpleQueue()
        channel.subscribe(seen.put, try_to_connect=True)
        call = channel.unary_unary(f"/{rpc.SERVICE}/SendPolicyInstructions")
        with pytest.raises(grpc.RpcError) as caught:
            call(message, timeout=GUARD_S)
        assert "not on the list of allowed classes" in caught.value.details()
        states = [seen.get(timeout=GUARD_S)]
        while states[-1] is not grpc.ChannelConnectivity.IDLE or len(states) == 1:
            states.append(seen.get(timeout=GUARD_S))
        assert grpc.ChannelConnectivity.READY in states  # it was up, and was ended
        good.infer(observation(2))
        assert good.statistics()["connects"] == 1
        assert refusals(server) == 1


def test_the_connection_of_a_peer_is_found_among_other_sockets() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as peer,
        socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0),
        socket.socket(),
    ):
        accepted, name = server.accept()
        with accepted:
            found = by_peer(f"ipv4:{name[0]}:{name[1]}")
            assert found is not None
            with found:
                assert found.getsockname() == accepted.getsockname()
            assert by_peer("ipv4:127.0.0.1:1") is None
            assert by_peer("unix:/nowhere") is None
        del peer


def test_a_descriptor_that_is_another_peers_by_now_is_left_alone(tmp_path: Path) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname(), source_address=("127.0.0.2", 0)),
    ):
        accepted, _ = server.accept()
        with accepted:
            assert by_descriptor(accepted.fileno(), "127.0.0.1") is None
            found = by_descriptor(accepted.fileno(), "::ffff:127.0.0.2")
            assert found is not None
            found.close()
            assert by_descriptor(server.fileno(), "127.0.0.2") is None
    with (tmp_path / "file").open("w") as file:
        before = os.listdir("/proc/self/fd")
        assert by_descriptor(file.fileno(), "127.0.0.1") is None
        assert os.listdir("/proc/self/fd") == before  # and the copy is closed
    assert by_descriptor(1 << 20, "127.0.0.1") is None


def internal_refusals(server: Running) -> float:
    """How often something else was raised than what a bad message is to raise."""
    return refused(server, "internal")


def test_bent_messages_do_no_harm(attacked: tuple[str, Running, Any]) -> None:
    protocol, server, attacker = attacked
    valid = hostile.VALID[protocol]()

    @quick
    @given(hostile.bent(valid) | st.binary(max_size=100))
    def bend(message: bytes) -> None:
        attacker(message)

    bend()
    assert internal_refusals(server) == 0


def test_values_of_another_kind_are_answered(attacked: tuple[str, Running, Any]) -> None:
    """Whatever stands in whichever place, it is refused or taken for what it is; nothing breaks."""
    protocol, server, attacker = attacked
    for message in hostile.odd(protocol):
        attacker(message)
    assert internal_refusals(server) == 0


def broken(*_: Any, **__: Any) -> Any:
    raise ZeroDivisionError("told to break")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_breaks_inside_is_answered_and_counted(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        serving(EchoPolicy(), ServeOptions(protocol=protocol)) as server,
        connected(protocol, server.port) as good,
    ):
        good.infer(observation(1))
        service = server.server.service
        assert service is not None
        monkeypatch.setattr(service.side, "observation", broken)
        with pytest.raises(PolicyError, match="internal error of the server"):
            good.infer(observation(2))
        assert refused(server, "internal") == 1
        monkeypatch.undo()
        good.infer(observation(3))


def test_bytes_of_no_protocol_and_connections_that_say_nothing(attacked: tuple[str, Running, Any]) -> None:
    _, server, _ = attacked
    for data in (
        b"",
        b"\0" * 64,
        b"\xff" * 4096,
        b"GET / HTTP/1.1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ):
        with socket.create_connection(("127.0.0.1", server.port)) as peer:
            peer.sendall(data)
    with socket.create_connection(("127.0.0.1", server.port)) as silent:
        silent.sendall(b"\xff")
        with connected(attacked[0], server.port) as other:
            made = observation(3)
            assert np.abs(other.infer(made).rows - expected(made)).max() < CLOSE


def test_pieces_that_are_empty_or_too_many_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lerobot_front, "MAX_PIECES", 3)
    with (
        serving(EchoPolicy(), ServeOptions(protocol="lerobot")) as server,
        grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        call = channel.stream_unary(f"/{rpc.SERVICE}/SendObservations")
        for data in (b"", b"x"):
            pieces = [rpc.observation_message(rpc.MIDDLE, [data])] * 5
            with pytest.raises(grpc.RpcError) as caught:
                call(iter(pieces), timeout=GUARD_S)
            assert "an empty piece of an observation, or more than 3" in caught.value.details()


def test_an_observation_whose_pieces_do_not_come_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lerobot_front, "BODY_S", 0.05)
    given_up = threading.Event()

    def pieces() -> Iterator[bytes]:
        yield rpc.observation_message(rpc.BEGIN, [b"x"])
        given_up.wait(GUARD_S)

    with (
        serving(EchoPolicy(), ServeOptions(protocol="lerobot")) as server,
        grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        call = channel.stream_unary(f"/{rpc.SERVICE}/SendObservations")
        with pytest.raises(grpc.RpcError) as caught:
            call(pieces(), timeout=GUARD_S)
        given_up.set()
        assert "took more than 0.05 s" in caught.value.details()


def test_calls_of_one_connection_at_the_same_time_are_bounded() -> None:
    """Beyond that they wait in the client or are refused: their bodies are not held here."""
    options = ServeOptions(protocol="lerobot", max_pending=1, observation_wait_s=0.3)
    with (
        serving(EchoPolicy(), options) as server,
        grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        service = server.server.service
        assert service is not None
        held, most = 0, 0
        wait = LerobotFront._next

        async def counted(front: LerobotFront, memory: Any) -> Any:
            nonlocal held, most
            held += 1
            most = max(most, held)
            try:
                return await wait(front, memory)
            finally:
                held -= 1

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(LerobotFront, "_next", counted)
            call = channel.unary_unary(f"/{rpc.SERVICE}/GetActions")
            calls = [call.future(b"", timeout=GUARD_S) for _ in range(20)]
            for each in calls:
                with contextlib.suppress(grpc.RpcError):
                    assert each.result() == b""
        assert 0 < most <= 1 + lerobot_front.WAITING_CALLS


def test_openpi_does_not_keep_what_it_does_not_answer_yet() -> None:
    """One that floods is held back by its own socket."""
    policy = BatchedEcho()
    flood = b"\x82\xff" + (3 << 20).to_bytes(8, "big") + bytes(4) + bytes(3 << 20)
    with (
        serving(policy, ServeOptions(protocol="openpi", max_message_mib=4)) as server,
        connect(f"ws://127.0.0.1:{server.port}", compression=None) as peer,
    ):
        peer.recv(timeout=GUARD_S)
        peer.send(hostile.VALID["openpi"]())
        assert policy.entered.acquire(timeout=GUARD_S)
        sent = turns = 0
        while turns < 200 and sent < 30 * len(flood):
            try:
                sent += peer.socket.send(memoryview(flood)[sent % len(flood) :], socket.MSG_DONTWAIT)
                turns = 0
            except BlockingIOError:
                server.call(lambda: None)  # one turn of the server's loop, which reads what there is
                turns += 1
        assert sent < 11 * len(flood)
        policy.gate.set()


def test_an_oversized_message_ends_its_own_connection_only(attacked: tuple[str, Running, Any]) -> None:
    protocol, _, attacker = attacked
    large = b"\xc6\x00\x20\x00\x00" + bytes(1 << 21) if protocol in ("gr00t", "openpi") else bytes(1 << 21)
    if isinstance(attacker, ZmqClient):
        attacker.patience_ms = 300  # the connection is dropped: no reply will come
        with pytest.raises(zmq.Again):
            attacker(large)
    else:
        attacker(large)


# --- hostile servers


def zmq_server(replies: list[bytes]) -> Iterator[int]:
    """Gives `replies`, one after the other, to whatever it is asked."""
    context = zmq.Context()
    rep = context.socket(zmq.REP)
    port = rep.bind_to_random_port("tcp://127.0.0.1")
    stop = context.socket(zmq.PAIR)
    stop.bind("inproc://stop")

    def run() -> None:
        heard = context.socket(zmq.PAIR)
        heard.connect("inproc://stop")
        poller = zmq.Poller()
        poller.register(rep, zmq.POLLIN)
        poller.register(heard, zmq.POLLIN)
        while heard not in dict(poller.poll()):
            rep.recv()
            rep.send(replies.pop(0) if replies else b"")
        heard.close()

    thread = threading.Thread(target=run)
    thread.start()
    yield port
    stop.send(b"")
    thread.join()
    rep.close(linger=0)
    stop.close(linger=0)
    context.term()


def openpi_server(replies: list[bytes]) -> Iterator[int]:
    def answer(peer: ServerConnection) -> None:
        with contextlib.suppress(WebSocketException):
            while replies:
                peer.send(replies.pop(0))
                peer.recv()

    server: Server
    with serve(answer, "127.0.0.1", 0, compression=None) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.socket.getsockname()[1]
        server.shutdown()
        thread.join()


def lerobot_server(replies: list[bytes]) -> Iterator[int]:
    from concurrent import futures

    def answer(request: bytes, context: Any) -> bytes:
        return replies.pop(0) if replies else b""

    handler = grpc.unary_unary_rpc_method_handler(answer)
    empty = grpc.unary_unary_rpc_method_handler(lambda request, context: b"")
    handlers = {**dict.fromkeys(METHODS, empty), "GetActions": handler}
    pool = futures.ThreadPoolExecutor(2)
    server = grpc.server(pool)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(rpc.SERVICE, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield port
    server.stop(0).wait()
    pool.shutdown()


SERVERS = {"gr00t": zmq_server, "act": zmq_server, "openpi": openpi_server, "lerobot": lerobot_server}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_server_that_answers_garbage(protocol: str) -> None:
    messages = list(MESSAGES[protocol]().values())
    messages += [b"\0", b"\xff" * 100, b"ERROR", b"\x80\x04}."]
    if protocol == "lerobot":
        messages = [rpc.data_message([m]) for m in messages if m] + [b"\x0a\xff\xff\xff\x7f"]
    count = len(messages)
    server = contextlib.contextmanager(SERVERS[protocol])
    options: dict[str, Any] = {"request_timeout_s": 0.2, "connect_timeout_s": 2.0}
    if protocol == "gr00t":
        options["check_modalities"] = False
    with server(messages) as port, connected(protocol, port, **options) as remote:
        asked = 0
        while messages and asked < 2 * count:
            asked += 1
            with pytest.raises(PolicyError) as caught:
                remote.infer(observation(asked))
            assert "\n" not in str(caught.value)
        assert sum(remote.statistics().values()) >= asked
