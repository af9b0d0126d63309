"""What the server does beyond answering: batches, metrics, memory of its clients, who may do what."""

from __future__ import annotations

import itertools
import math
import os
import re
import signal
import threading
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import numpy as np
import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st
from websockets.streams import StreamReader

from dexrun.config.serve_options import ServeOptions
from dexrun.serve.server import local_server
from policies.mapping import KeyMap
from policies.remote import jpeg
from policies.remote.act_zmq import codec as act
from policies.remote.groot import codec as groot
from policies.remote.lerobot import codec as lerobot
from policies.remote.lerobot import rpc
from policies.remote.openpi.reader import WholeMessageReader
from policies.remote.serving.metrics import Metrics
from runtime.clock import RealClock
from runtime.messages import Floats, Observation, PolicyAnswer
from runtime.units import UnitMap
from tests.remote.hostile import IMAGE, JOINTS
from tests.remote.support import (
    GUARD_S,
    PROTOCOLS,
    ROBOT,
    BatchedEcho,
    EchoPolicy,
    Running,
    connected,
    expected,
    observation,
    refused,
    serving,
)

every_protocol = pytest.mark.parametrize("protocol", PROTOCOLS)


class Peer:
    """A plain REQ socket, as every client of GR00T's and ACT's has it."""

    def __init__(self, port: int, codec: Any) -> None:
        self._context = zmq.Context()
        self._codec = codec
        self.socket = self._context.socket(zmq.REQ)
        self.socket.linger = 0
        self.socket.rcvtimeo = int(GUARD_S * 1000)
        self.socket.connect(f"tcp://127.0.0.1:{port}")

    def __call__(self, value: Any) -> Any:
        self.socket.send(b"".join(self._codec.encode(value)))
        return self._codec.decode(self.socket.recv())

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()
        self._context.term()


def metrics(server: Running) -> Metrics:
    assert server.server.service is not None
    return server.server.service.metrics


def groot_request(states: Floats, images: Any = None) -> dict[str, Any]:
    batch = len(states)
    image = np.broadcast_to(IMAGE if images is None else images, (batch, 1, *IMAGE.shape))
    observed = {
        "video": {"front": image, "wrist": image},
        "state": {
            "single_arm": states[:, None, :5].astype(np.float32),
            "gripper": states[:, None, 5:].astype(np.float32),
        },
        "language": {"annotation.human.task_description": [[f"do {i}"] for i in range(batch)]},
    }
    return {"endpoint": "get_action", "data": {"observation": observed, "options": None}}


def test_a_batch_of_groots_is_answered_row_by_row() -> None:
    policy = EchoPolicy(steps=4)
    states = np.linspace(-0.5, 0.5, 18).reshape(3, 6)
    options = ServeOptions(protocol="gr00t", units=UnitMap(convention="rad"))
    with serving(policy, options) as server, Peer(server.port, groot) as peer:
        actions, info = peer(groot_request(states))
        both = np.concatenate([actions["single_arm"], actions["gripper"]], axis=2)
    assert info == {}
    assert both.shape == (3, 4, 6)
    assert [o.instruction for o in policy.seen] == ["do 0", "do 1", "do 2"]
    wanted = np.stack([expected(o, 4) for o in policy.seen])
    assert np.abs(both - wanted).max() < 1e-6


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda o: o["video"].pop("front"), "video key 'front' must be in observation"),
        (lambda o: o.pop("state"), "must contain a 'state' key"),
        (lambda o: o["video"].update(front=o["video"]["front"].astype(np.float32)), "uint8"),
        (lambda o: o["video"].update(front=o["video"]["front"][0]), r"\(B, 1, H, W, C\)|batch sizes differ"),
        (lambda o: o["video"].update(front=np.repeat(o["video"]["front"], 2, axis=1)), r"\(B, 1, H, W, C\)"),
        (lambda o: o["video"].update(front=np.repeat(o["video"]["front"], 2, axis=0)), "batch sizes differ"),
        (lambda o: o["state"].update(gripper=o["state"]["gripper"].astype(np.float64)), "must be float32"),
        (lambda o: o["state"].update(gripper=np.zeros((1, 1, 2), np.float32)), "1 numbers are wanted"),
        (lambda o: o["state"].update(gripper=np.full((1, 1, 1), np.nan, np.float32)), "NaN"),
        (lambda o: o["language"].update({"annotation.human.task_description": ["x"]}), "one string"),
    ],
)
def test_groots_observation_is_checked(spoil: Callable[[Any], Any], said: str) -> None:
    request = groot_request(np.zeros((1, 6)))
    spoil(request["data"]["observation"])
    with serving(EchoPolicy(), ServeOptions(protocol="gr00t")) as server, Peer(server.port, groot) as peer:
        answer = peer(request)
        assert re.search(said, answer["error"]), answer["error"]


def test_flat_keys_as_the_simulation_wrapper_wants_them() -> None:
    nested = groot_request(np.zeros((1, 6)))["data"]["observation"]
    flat = {f"{g}.{k}": v for g in ("video", "state") for k, v in nested[g].items()}
    flat["annotation.human.task_description"] = ["do it"]
    policy = EchoPolicy(steps=3)
    with serving(policy, ServeOptions(protocol="gr00t")) as server:
        with Peer(server.port, groot) as peer:
            actions, _ = peer({"data": {"observation": flat}})  # no endpoint means get_action
        with connected("gr00t", server.port, flat_keys=True) as remote:
            made = observation()
            assert np.abs(remote.infer(made).rows - expected(made, 3)).max() < 1e-6
    assert set(actions) == {"action.single_arm", "action.gripper"}
    assert policy.seen[0].instruction == "do it"


def test_kill_is_off_unless_enabled() -> None:
    for allowed in (False, True):
        options = ServeOptions(protocol="gr00t", allow_kill=allowed)
        with serving(EchoPolicy(), options) as server, Peer(server.port, groot) as peer:
            answer = peer({"endpoint": "kill"})
            assert (answer is None) == allowed
            if not allowed:
                assert "not enabled" in answer["error"]
                assert peer({"endpoint": "ping"})["status"] == "ok"


@every_protocol
def test_requests_that_wait_together_are_inferred_together(protocol: str) -> None:
    policy = BatchedEcho()
    with serving(policy, ServeOptions(protocol=protocol, batch_size=3)) as server:
        clients = [connected(protocol, server.port) for _ in range(6)]
        remotes = [client.__enter__() for client in clients]
        rows: dict[int, Any] = {}

        def ask(index: int) -> None:
            rows[index] = remotes[index].infer(observation(index, seed=index)).rows

        policy.gate.set()
        for remote in remotes:
            remote.warm_up()
        policy.gate.clear()
        threads = [threading.Thread(target=ask, args=(i,)) for i in range(6)]
        threads[0].start()
        assert policy.entered.acquire(timeout=GUARD_S)  # the first is being inferred
        for thread in threads[1:]:
            thread.start()
        service = server.server.service
        assert service is not None
        while server.call(lambda: service._in_flight) < 6:  # the five others are there
            pass
        policy.gate.set()
        for thread in threads:
            thread.join(GUARD_S)
        for client in clients:
            client.__exit__(None, None, None)
    assert policy.sizes == [1, 3, 2]
    for index in range(6):
        made = observation(index, seed=index)
        assert np.abs(rows[index] - expected(made)).max() < 2e-5


def pending(server: Running) -> float | None:
    return metrics(server).registry.get_sample_value("dexrun_serve_pending")


def test_pending_are_the_observations_that_wait_for_inference() -> None:
    policy = BatchedEcho()
    with serving(policy, ServeOptions(protocol="gr00t", batch_size=3)) as server, zmq.Context() as context:
        with context.socket(zmq.DEALER) as peer:
            peer.linger, peer.rcvtimeo = 0, int(GUARD_S * 1000)
            peer.connect(f"tcp://127.0.0.1:{server.port}")
            message = b"".join(groot.encode(groot_request(np.zeros((1, 6)))))
            peer.send_multipart([b"\0", b"", message])
            assert policy.entered.acquire(timeout=GUARD_S)
            assert pending(server) == 0  # it does not wait any more
            for number in (1, 2):
                peer.send_multipart([bytes([number]), b"", message])
            peer.send_multipart([b"\3", b"", b"".join(groot.encode({"endpoint": "reset"}))])
            service = server.server.service
            assert service is not None
            while server.call(lambda: service._in_flight) < 4:
                pass
            assert pending(server) == 2
            policy.gate.set()
            for _ in range(4):
                peer.recv_multipart()
        assert pending(server) == 0


def test_one_client_may_not_fill_the_queue() -> None:
    policy = BatchedEcho()
    with serving(policy, ServeOptions(protocol="gr00t", max_pending=2)) as server, zmq.Context() as context:
        with context.socket(zmq.DEALER) as flood:
            flood.linger = 0
            flood.rcvtimeo = int(GUARD_S * 1000)
            flood.connect(f"tcp://127.0.0.1:{server.port}")
            message = b"".join(groot.encode(groot_request(np.zeros((1, 6)))))
            for number in range(5):
                flood.send_multipart([bytes([number]), b"", message])
            errors = [groot.decode(flood.recv_multipart()[2])["error"] for _ in range(3)]
            assert all("wait already" in error for error in errors)
            policy.gate.set()
            for _ in range(2):
                assert isinstance(groot.decode(flood.recv_multipart()[2]), list)
        assert refused(server, "busy") == 3


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=GUARD_S) as reply:  # noqa: S310 - our own address
        return str(reply.read().decode())


@every_protocol
def test_metrics_say_what_happened(protocol: str) -> None:
    with serving(EchoPolicy(), ServeOptions(protocol=protocol, metrics_port=0)) as server:
        with connected(protocol, server.port) as remote:
            for step in range(3):
                remote.infer(observation(step))
            text = get(server.server.metrics_address)
        if protocol == "openpi":
            address = f"http://127.0.0.1:{server.port}"
            assert get(f"{address}/healthz") == "OK\n"
            assert "dexrun_serve_batch_size_count 3" in get(f"{address}/metrics")
        assert get(server.server.metrics_address.replace("metrics", "healthz")) == "OK\n"
    endpoint = {"gr00t": "get_action", "openpi": "infer", "act": "step", "lerobot": "GetActions"}[protocol]
    assert f'dexrun_serve_requests_total{{endpoint="{endpoint}"}} 3' in text
    assert "# TYPE dexrun_serve_latency_seconds histogram" in text
    assert "dexrun_serve_inference_seconds_count 3" in text
    assert 'dexrun_serve_batch_size_bucket{le="1.0"} 3' in text
    for line in text.splitlines():
        name = line.split("{")[0].split()[-2 if line.startswith("#") else 0]
        assert line.startswith("# ") or name.startswith("dexrun_serve_")


@pytest.mark.parametrize("protocol", ["act", "lerobot"])
def test_only_the_configured_cameras_pictures_are_decoded(
    protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[bytes] = []
    decode = jpeg.decode

    def counted(data: Any) -> Any:
        decoded.append(bytes(data))
        return decode(data)

    monkeypatch.setattr(jpeg, "decode", counted)
    picture, other = jpeg.encode(IMAGE, 90), jpeg.encode(IMAGE, 10)
    with serving(EchoPolicy(), ServeOptions.model_validate({"protocol": protocol})) as server:
        if protocol == "act":
            images = {"rgb_main": picture, "rgb_left": IMAGE, **{f"other{i}": other for i in range(9)}}
            with Peer(server.port, act) as peer:
                assert peer({"qpos": np.zeros(6, np.float32), "images": images})["status"] == "OK"
        else:
            values: dict[str, Any] = {f"{j}.pos": 0.0 for j in JOINTS} | {"front": picture, "wrist": IMAGE}
            timed = lerobot.TimedObservation(1.0, 1, values | {f"other{i}": other for i in range(9)})
            message = rpc.observation_messages(lerobot.encode_observation(timed))[0]
            with LerobotPeer(server.port) as robot:
                robot.call("SendObservations", message)
    assert decoded == [picture]


def test_acts_aggregation_is_each_clients_own() -> None:
    """The original's: all predictions of this step, oldest first, weighted exp(-k i)."""

    class Ramp(EchoPolicy):
        def infer(self, observation: Observation) -> PolicyAnswer:
            return PolicyAnswer(observation.arm.position[None] + np.arange(3)[:, None] / 10)

    k = 0.5
    options = ServeOptions(protocol="act", aggregation=k, keys=KeyMap(state={"qpos": ()}))
    with (
        serving(Ramp(steps=3), options) as server,
        Peer(server.port, act) as one,
        Peer(server.port, act) as two,
    ):
        got: dict[str, list[float]] = {"one": [], "two": []}
        firsts = {"one": [0.0, 0.2, 0.1, 0.5], "two": [0.3, -0.1]}
        for name, peer in (("one", one), ("two", two)):
            assert peer("RESET")["status"] == "OK"
            for first in firsts[name]:
                answer = peer({"qpos": np.full(6, first, np.float32), "images": {}})
                got[name].append(float(answer["action"][0]))
        assert one({"command": "reset_policy"})["status"] == "RESET_OK"
        again = one({"command": "step", "qpos": [0.7] * 6, "images": {}})
    for name, values in firsts.items():
        for t, value in enumerate(got[name]):
            votes = [values[s] + (t - s) / 10 for s in range(max(0, t - 2), t + 1)]
            weights = [math.exp(-k * i) for i in range(len(votes))]
            wanted = sum(w * v for w, v in zip(weights, votes, strict=True)) / sum(weights)
            assert value == pytest.approx(wanted, abs=1e-6)
    assert again["joint_positions"][0] == pytest.approx(0.7, abs=1e-6)


class LerobotPeer:
    """The four calls, by hand."""

    def __init__(self, port: int) -> None:
        self._channel = grpc.insecure_channel(f"127.0.0.1:{port}")

    def call(self, name: str, body: bytes = b"") -> bytes:
        made = self._channel.unary_unary(f"/{rpc.SERVICE}/{name}")
        return bytes(made(body, timeout=GUARD_S))

    def send(self, timestep: int, position: float, must_go: bool = False) -> None:
        values = {f"{j}.pos": position for j in JOINTS} | {"front": IMAGE, "wrist": IMAGE, "task": "x"}
        timed = lerobot.TimedObservation(2.5, timestep, values, must_go=must_go)
        self.call("SendObservations", rpc.observation_messages(lerobot.encode_observation(timed))[0])

    def actions(self) -> list[lerobot.TimedAction]:
        body = rpc.read_data(self.call("GetActions"))
        return list(lerobot.decode_actions(body)) if len(body) else []

    def __enter__(self) -> LerobotPeer:
        self.call("Ready")
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()


def test_lerobots_rules_with_a_scale() -> None:
    options = ServeOptions(protocol="lerobot", observation_wait_s=0.01, similar_fraction=0.01, fps=10)
    with serving(EchoPolicy(steps=5), options) as server, LerobotPeer(server.port) as peer:
        assert peer.actions() == []  # nothing was sent yet
        peer.send(10, 0.0)
        chunk = peer.actions()
        assert [a.timestep for a in chunk] == [10, 11, 12, 13, 14]
        assert [a.timestamp for a in chunk] == pytest.approx([2.5 + i / 10 for i in range(5)])
        for timestep, position, goes in (
            (10, 50.0, False),  # that step was predicted
            (11, 0.9, False),  # of the gripper's 100 percent: less than a hundredth
            (11, 1.1, True),  # more, though no joint moved by more than 0.04 rad
            (12, 1.2, False),
        ):
            peer.send(timestep, position)
            assert bool(peer.actions()) == goes, (timestep, position)
        peer.send(12, 1.2, must_go=True)
        assert peer.actions()
        peer.send(20, 30.0)
        peer.send(21, 60.0)  # the latest wins
        assert peer.actions()[0].timestep == 21
        peer.call("Ready")
        peer.send(21, 60.0)  # a new episode
        assert peer.actions()[0].timestep == 21
        assert refused(server, "filtered") == 3


@pytest.mark.parametrize("module", lerobot.MODULES)
def test_lerobots_actions_are_of_the_module_that_the_client_has(module: str) -> None:
    timed = lerobot.TimedObservation(
        1.0, 1, {f"{j}.pos": 0.0 for j in JOINTS} | {"front": IMAGE, "wrist": IMAGE}
    )
    message = rpc.observation_messages(lerobot.encode_observation(timed, module))[0]
    with serving(EchoPolicy(), ServeOptions(protocol="lerobot")) as server, LerobotPeer(server.port) as peer:
        peer.call("SendObservations", message)
        body = peer.call("GetActions")
    named = {each for each in lerobot.MODULES if each.encode() in body}
    assert named == {module}


def test_lerobots_chunk_is_as_long_as_was_asked_for_and_small() -> None:
    state = {"names": [f"{joint}.pos" for joint in JOINTS]}
    features = {"observation.state": state, "observation.images.front": {}, "observation.images.wrist": {}}
    setup = lerobot.encode_setup(lerobot.PolicySetup("act", "x", features, 20))
    options = ServeOptions(protocol="lerobot")
    with serving(EchoPolicy(steps=50), options) as server, LerobotPeer(server.port) as peer:
        peer.send(1, 0.0)
        body = peer.call("GetActions")
        assert len(body) < 5000  # the original's is 76 kB
        peer.call("SendPolicyInstructions", rpc.data_message(setup))
        peer.send(2, 50.0)
        assert len(peer.actions()) == 20


class Remembers(EchoPolicy):
    """Answers how often it was asked since its reset."""

    numbers = itertools.count()

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0
        self.number = next(self.numbers)

    def infer(self, observation: Observation) -> PolicyAnswer:
        self.asked += 1
        return PolicyAnswer(np.full((2, 6), self.asked / 100))

    def reset(self) -> None:
        self.asked = 0


@every_protocol
def test_a_policy_that_remembers_is_each_clients_own(protocol: str) -> None:
    made: list[Remembers] = []

    def fresh() -> Remembers:
        made.append(Remembers())
        return made[-1]

    running = Running(local_server(fresh(), ServeOptions(protocol=protocol), ROBOT, fresh=fresh)).start()
    try:
        with connected(protocol, running.port) as one, connected(protocol, running.port) as two:
            answers = [
                round(float(remote.infer(observation(step)).rows[0, 0]) * 100)
                for step, remote in enumerate((one, one, two, one, two))
            ]
            assert answers == [1, 2, 1, 3, 2]
            one.reset()
            assert round(float(one.infer(observation(9)).rows[0, 0]) * 100) == 1
            assert round(float(two.infer(observation(9)).rows[0, 0]) * 100) == 3
    finally:
        running.stop()
    assert len(made) == 2
    assert all(policy.closed for policy in made)


@every_protocol
def test_an_episode_that_begins_beside_others_leaves_a_shared_policy_alone(protocol: str) -> None:
    policy = EchoPolicy()
    with serving(policy, ServeOptions(protocol=protocol)) as server, connected(protocol, server.port) as one:
        one.infer(observation(1))
        with connected(protocol, server.port) as two:
            two.infer(observation(1))
            before = policy.resets
            one.reset()
            assert policy.resets == before


def test_openpis_reset_reaches_the_policy_after_another_clients_visit() -> None:
    """Forgotten for being idle, a connection is known again with its next message, and not beside itself."""
    policy = EchoPolicy()
    options = ServeOptions(protocol="openpi", client_idle_s=1e-9)
    with serving(policy, options) as server, connected("openpi", server.port) as one:
        one.infer(observation(1))
        with connected("openpi", server.port) as two:
            two.infer(observation(1))
        before = policy.resets
        one.reset()
        assert policy.resets == before + 1


@pytest.mark.parametrize(("protocol", "codec"), [("gr00t", groot), ("act", act)])
def test_who_shows_no_token_takes_nobodys_place(
    protocol: str, codec: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAMED", "secret")
    options = ServeOptions(protocol=protocol, max_clients=1, token_env="NAMED")  # noqa: S106 - a variable's name
    with (
        serving(EchoPolicy(), options) as server,
        connected(protocol, server.port, token_env="NAMED") as one,  # noqa: S106
    ):
        one.infer(observation(1))
        service = server.server.service
        assert service is not None
        known = dict(service._clients)
        for _ in range(3):
            with Peer(server.port, codec) as stranger:
                assert "oken" in str(stranger({"endpoint": "ping", "command": "step"}))
        one.infer(observation(2))
        assert service._clients == known


def test_a_client_that_waits_makes_no_room() -> None:
    policy = BatchedEcho()
    with (
        serving(policy, ServeOptions(protocol="gr00t", max_clients=1)) as server,
        Peer(server.port, groot) as one,
        Peer(server.port, groot) as two,
    ):
        one.socket.send(b"".join(groot.encode(groot_request(np.zeros((1, 6))))))
        assert policy.entered.acquire(timeout=GUARD_S)
        assert "wait for answers already" in two({"endpoint": "ping"})["error"]
        policy.gate.set()
        assert isinstance(groot.decode(one.socket.recv()), list)
        assert two({"endpoint": "ping"})["status"] == "ok"  # now the first one is only silent


def test_other_machines_need_a_token() -> None:
    for host in ("0.0.0.0", "192.168.1.5", "::"):  # noqa: S104 - refused
        with pytest.raises(ValueError, match="name a token with token_env, or say insecure"):
            ServeOptions(host=host)
        ServeOptions(host=host, insecure=True)
        ServeOptions(host=host, token_env="NAMED")  # noqa: S106 - a variable's name
    for host in ("127.0.0.1", "localhost", "::1"):
        ServeOptions(host=host)


def test_a_taken_port_is_said() -> None:
    for taken in ("gr00t", "lerobot"):
        with serving(EchoPolicy(), ServeOptions.model_validate({"protocol": taken})) as server:
            for protocol in PROTOCOLS:
                options = ServeOptions(protocol=protocol, port=server.port)
                with pytest.raises(OSError, match=r"(?i)address|bind|port"):
                    Running(local_server(EchoPolicy(), options, ROBOT)).start()


def fed(reader: StreamReader, pieces: list[bytes], ended: bool) -> Iterator[bool]:
    """Each step is something more that arrives."""
    for piece in pieces:
        reader.feed_data(piece * 3000)
        yield True
    if ended:
        reader.feed_eof()
        yield True


def what_is_read(
    reader: StreamReader, pieces: list[bytes], sizes: list[int], ended: bool
) -> list[bytes | str]:
    got: list[bytes | str] = []
    arriving = fed(reader, pieces, ended)
    for size in sizes:
        steps = reader.read_exact(size * 3000)
        try:
            while True:
                next(steps)
                if not next(arriving, False):
                    return [*got, "waits"]
        except StopIteration as stop:
            got.append(bytes(stop.value))
        except EOFError as error:
            got.append(str(error))
    return [*got, bytes(reader.buffer)]


@given(
    st.lists(st.binary(max_size=40), min_size=1, max_size=12),
    st.lists(st.integers(0, 60), min_size=1, max_size=12),
    st.booleans(),
)
def test_websocket_messages_are_read_as_the_library_reads_them(
    pieces: list[bytes], sizes: list[int], ended: bool
) -> None:
    """Whatever arrives in whatever pieces; sizes are such that both ways through are taken."""
    ours = what_is_read(WholeMessageReader(), pieces, sizes, ended)
    assert ours == what_is_read(StreamReader(), pieces, sizes, ended)


def test_a_signal_right_after_the_announcement_is_a_clean_stop() -> None:
    def killed(*_: object) -> None:
        pytest.fail("the signal came before the server looked for it")

    before = signal.signal(signal.SIGTERM, killed)
    try:
        policy = EchoPolicy()
        server = local_server(policy, ServeOptions(protocol="gr00t"), ROBOT)
        RealClock().run(server.run, lambda: os.kill(os.getpid(), signal.SIGTERM), True)
        assert policy.closed
    finally:
        signal.signal(signal.SIGTERM, before)
