"""The reference ends of the four protocols, transcribed plainly: what ours are measured beside.

Each encodes as the original documents it: `numpy.save` inside msgpack (GR00T), ``tobytes`` inside msgpack
(openpi), ``pickle.dumps`` (ACT), ``pickle.dumps`` of dataclasses with a tensor per row (LeRobot). A server
function prints its port and never returns; a client function returns what asks once.
"""

from __future__ import annotations

import io
import pickle
import queue
import socket
from collections.abc import Callable
from concurrent import futures
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.wire_setup import CHUNK, REPLY_BYTES, Ask, arrays, tell_port

LIMIT = 64 * 1024 * 1024
PIECE = 2 * 1024 * 1024


# --- GR00T


def _npy(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        out = io.BytesIO()
        np.save(out, value, allow_pickle=False)
        return {"__ndarray_class__": True, "as_npy": out.getvalue()}
    return value


def _from_npy(value: Any) -> Any:
    if "__ndarray_class__" in value:
        return np.load(io.BytesIO(value["as_npy"]), allow_pickle=False)
    return value


def groot_server() -> None:
    """A REP socket, one request after the other."""
    import msgpack
    import zmq

    rep = zmq.Context().socket(zmq.REP)
    tell_port(rep.bind_to_random_port("tcp://127.0.0.1"))
    action = {"single_arm": CHUNK[None, :, :5], "gripper": CHUNK[None, :, 5:]}
    while True:
        msgpack.unpackb(rep.recv(), object_hook=_from_npy)
        rep.send(msgpack.packb([action, {}], default=_npy))


def groot_client(port: int) -> Ask:
    """A REQ socket."""
    import msgpack
    import zmq

    req = zmq.Context().socket(zmq.REQ)
    req.connect(f"tcp://127.0.0.1:{port}")
    front, wrist, state = arrays()

    def ask() -> None:
        observation = {
            "video": {"front": front[None, None], "wrist": wrist[None, None]},
            "state": {"single_arm": state[None, None, :5], "gripper": state[None, None, 5:]},
            "language": {"annotation.human.task_description": [["pick the red cube"]]},
        }
        data = {"observation": observation, "options": None}
        req.send(msgpack.packb({"endpoint": "get_action", "data": data}, default=_npy))
        msgpack.unpackb(req.recv(), object_hook=_from_npy)

    return ask


# --- openpi


def _raw(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return {
            b"__ndarray__": True,
            b"data": value.tobytes(),
            b"dtype": value.dtype.str,
            b"shape": value.shape,
        }
    return value


def _from_raw(value: Any) -> Any:
    if b"__ndarray__" in value:
        return np.ndarray(
            buffer=value[b"data"], dtype=np.dtype(value[b"dtype"]), shape=tuple(value[b"shape"])
        )
    return value


def openpi_server() -> None:
    """The websockets package's asyncio server."""
    import asyncio

    import msgpack
    from websockets.asyncio.server import serve

    async def answer(peer: Any) -> None:
        await peer.send(msgpack.packb({}))
        async for message in peer:
            msgpack.unpackb(message, object_hook=_from_raw)
            await peer.send(
                msgpack.packb({"actions": CHUNK, "server_timing": {"infer_ms": 0.1}}, default=_raw)
            )

    async def main() -> None:
        async with serve(answer, "127.0.0.1", 0, compression=None, max_size=None) as running:
            tell_port(next(iter(running.sockets)).getsockname()[1])
            await running.serve_forever()

    asyncio.run(main())


def openpi_client(port: int) -> Ask:
    """The websockets package's blocking client."""
    import msgpack
    from websockets.sync.client import connect

    peer = connect(f"ws://127.0.0.1:{port}", compression=None, max_size=None)
    peer.recv()
    front, wrist, state = arrays()

    def ask() -> None:
        observation = {
            "observation/image": front,
            "observation/wrist_image": wrist,
            "observation/state": state,
            "prompt": "pick the red cube",
        }
        peer.send(msgpack.packb(observation, default=_raw))
        msgpack.unpackb(peer.recv(), object_hook=_from_raw)

    return ask


# --- ACT


def act_server() -> None:
    """A REP socket and pickles."""
    import zmq

    rep = zmq.Context().socket(zmq.REP)
    tell_port(rep.bind_to_random_port("tcp://127.0.0.1"))
    while True:
        pickle.loads(rep.recv())  # noqa: S301 - our own bytes, on loopback
        rep.send(pickle.dumps({"status": "OK", "action": CHUNK}))


def act_client(port: int) -> Ask:
    """A REQ socket and pickles."""
    import zmq

    req = zmq.Context().socket(zmq.REQ)
    req.connect(f"tcp://127.0.0.1:{port}")
    main, left, state = arrays()

    def ask() -> None:
        req.send(pickle.dumps({"qpos": state, "images": {"rgb_main": main, "rgb_left": left}}))
        pickle.loads(req.recv())  # noqa: S301 - our own bytes, on loopback

    return ask


# --- LeRobot


@dataclass
class TimedObservation:
    """As LeRobot's."""

    timestamp: float
    timestep: int
    observation: dict[str, Any]
    must_go: bool = False


@dataclass
class TimedAction:
    """As LeRobot's; `action` is a tensor."""

    timestamp: float
    timestep: int
    action: Any


def _pieces(body: bytes) -> Any:
    from policies.remote.lerobot import rpc

    for start in range(0, len(body), PIECE):
        last = start + PIECE >= len(body)
        state = rpc.END if last else rpc.BEGIN if start == 0 else rpc.MIDDLE
        yield rpc.observation_message(state, [body[start : start + PIECE]])


def lerobot_server() -> None:
    """The transport and pickles of its policy server, with its thread pool and its queue of one."""
    import grpc
    import torch

    from policies.remote.lerobot import rpc

    waiting: queue.Queue[TimedObservation] = queue.Queue(maxsize=1)
    chunk = torch.from_numpy(CHUNK.copy())

    def observations(messages: Any, context: Any) -> bytes:
        buffer = io.BytesIO()
        for message in messages:
            buffer.write(rpc.read_observation(message)[1])
        waiting.put(pickle.loads(buffer.getvalue()))  # noqa: S301 - our own bytes, on loopback
        return b""

    def actions(request: bytes, context: Any) -> bytes:
        seen = waiting.get(timeout=2)
        made = [TimedAction(seen.timestamp, seen.timestep + i, row) for i, row in enumerate(list(chunk))]
        return rpc.data_message([pickle.dumps(made)])

    server = grpc.server(futures.ThreadPoolExecutor(max_workers=4))
    handlers = {
        "SendObservations": grpc.stream_unary_rpc_method_handler(observations),
        "GetActions": grpc.unary_unary_rpc_method_handler(actions),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(rpc.SERVICE, handlers),))
    tell_port(server.add_insecure_port("127.0.0.1:0"))
    server.start()
    server.wait_for_termination()


def lerobot_client(port: int) -> Ask:
    """The calls of its robot client, one after the other."""
    import grpc
    import torch

    from policies.remote.lerobot import rpc

    torch.set_num_threads(1)
    limits = [("grpc.max_receive_message_length", 4 << 20), ("grpc.max_send_message_length", 4 << 20)]
    channel = grpc.insecure_channel(f"127.0.0.1:{port}", options=limits)
    send = channel.stream_unary(f"/{rpc.SERVICE}/SendObservations")
    get = channel.unary_unary(f"/{rpc.SERVICE}/GetActions")
    front, wrist, state = arrays()
    names = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")

    def ask() -> None:
        values: dict[str, Any] = {f"{n}.pos": float(v) for n, v in zip(names, state, strict=True)}
        values |= {"front": front, "wrist": wrist, "task": "pick the red cube"}
        send(_pieces(pickle.dumps(TimedObservation(1.0, 1, values, must_go=True))))
        pickle.loads(rpc.read_data(get(b"")))  # noqa: S301 - our own bytes, on loopback

    return ask


# --- the floor


def bare_server() -> None:
    """Reads so many bytes, answers with so many."""
    listening = socket.create_server(("127.0.0.1", 0))
    tell_port(listening.getsockname()[1])
    peer, _ = listening.accept()
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    size = int.from_bytes(_exactly(peer, bytearray(8)), "big")
    buffer, reply = bytearray(size), bytes(REPLY_BYTES)
    while True:
        _exactly(peer, buffer)
        peer.sendall(reply)


def _exactly(peer: socket.socket, buffer: bytearray) -> bytearray:
    view = memoryview(buffer)
    while view:
        count = peer.recv_into(view)
        if not count:
            raise SystemExit
        view = view[count:]
    return buffer


def bare_client(port: int) -> Ask:
    """The same number of bytes as an observation, without meaning."""
    peer = socket.create_connection(("127.0.0.1", port))
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    message = b"".join(a.tobytes() for a in arrays())
    peer.sendall(len(message).to_bytes(8, "big"))
    reply = bytearray(REPLY_BYTES)

    def ask() -> None:
        peer.sendall(message)
        _exactly(peer, reply)

    return ask


SERVERS: dict[str, Callable[[], None]] = {
    "gr00t": groot_server,
    "openpi": openpi_server,
    "act": act_server,
    "lerobot": lerobot_server,
    "bare": bare_server,
}
CLIENTS: dict[str, Callable[[int], Ask]] = {
    "gr00t": groot_client,
    "openpi": openpi_client,
    "act": act_client,
    "lerobot": lerobot_client,
    "bare": bare_client,
}
