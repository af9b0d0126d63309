"""Hostile messages at every server, beside an honest client that is timed.

``python -m bench.hostile`` sends 100,000 messages at each server and at the scene reader, without the token
and with it, and prints one JSON line for each of these ten: how long the honest client waited at worst, how
many of its requests failed, and the server's resident memory before, at most, and afterwards. ``--only gr00t
--phase before --messages 5000`` does a piece of it; ``--seed`` makes another one. Honest client, attacker and
server are processes of their own.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bench import hostile_messages
from bench.wire_setup import ROBOT, NoopPolicy, observation, tell_port

SERVERS = ("gr00t", "lerobot", "openpi", "act", "reader")
TOKEN = "the-right-token"  # noqa: S105 - both ends are ours
TOKEN_ENV = "DEXRUN_BENCH_TOKEN"  # noqa: S105 - a name
WINDOW = 64
HONEST_PERIOD_S = 0.02


# --- the server


def serve(name: str) -> None:
    """The server `name` until it is told to stop; prints its port."""
    from runtime.clock import RealClock

    if name == "reader":
        _serve_reader()
        return
    from dexrun.config.serve_options import ServeOptions
    from dexrun.serve.server import local_server

    options = ServeOptions.model_validate({"protocol": name, "token_env": TOKEN_ENV})
    server = local_server(NoopPolicy(), options, ROBOT)
    RealClock().run(server.run, lambda: tell_port(int(server.address.rsplit(":", 1)[1])), True)


def _serve_reader() -> None:
    import asyncio

    from planner.config import SceneReaderConfig
    from planner.scene_reader.server import SceneReader

    async def main() -> None:
        reader = SceneReader(SceneReaderConfig(), TOKEN)
        await reader.start()
        tell_port(int(reader.base_url.split(":")[2].split("/")[0]))
        await asyncio.Event().wait()

    asyncio.run(main())


# --- the honest client


def honest(name: str, port: int) -> None:
    """Ask every 20 ms until standard input ends; prints what the answers took."""
    ask = _ask_reader(port) if name == "reader" else _ask_policy(name, port)
    waits: list[float] = []
    failures: list[str] = []
    ended = threading.Event()

    def until_end() -> None:
        sys.stdin.read()
        ended.set()

    threading.Thread(target=until_end, daemon=True).start()
    ask()
    print("ready", flush=True)
    while not ended.wait(HONEST_PERIOD_S):
        start = time.perf_counter()
        try:
            ask()
        except Exception as error:
            failures.append(str(error)[:200])
        waits.append(time.perf_counter() - start)
    told = {"asked": len(waits), "failed": len(failures), "why": failures[:3]}
    print(json.dumps({**told, "max_wait_s": round(max(waits), 4)}), flush=True)


def _ask_policy(name: str, port: int) -> Callable[[], None]:
    from policies.remote import config
    from policies.remote.make import make_remote
    from runtime.clock import RealClock

    options: dict[str, Any] = {
        "gr00t": config.GrootOptions,
        "openpi": config.OpenpiOptions,
        "act": config.ActRemoteOptions,
        "lerobot": config.LerobotOptions,
    }
    made = options[name](port=port, token_env=TOKEN_ENV, request_timeout_s=30.0)
    remote = make_remote(made, ROBOT, RealClock())
    remote.warm_up()
    steps = iter(range(1, 1 << 40))

    def ask() -> None:
        remote.infer(observation(next(steps), 96, 128))

    return ask


def _ask_reader(port: int) -> Callable[[], None]:
    import base64

    import cv2
    import numpy as np

    picture = cv2.imencode(".jpg", np.full((480, 640, 3), 150, np.uint8))[1].tobytes()
    url = "data:image/jpeg;base64," + base64.b64encode(picture).decode()
    parts = [{"type": "text", "text": "Is it empty?"}, {"type": "image_url", "image_url": {"url": url}}]
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": parts}]}).encode()
    head = f"Authorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\n"

    def ask() -> None:
        answer = _post(port, head, body)
        if b" 200 " not in answer[:20]:
            raise RuntimeError(answer[:200].decode(errors="replace"))

    return ask


# --- the attacker


def _post(port: int, head: str, body: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as peer:
        lines = f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n{head}"
        peer.sendall(f"{lines}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        answer = b""
        while piece := peer.recv(65_536):
            answer += piece
        return answer


def _attack_reader(port: int, count: int, seed: int, token: str) -> None:
    idle: list[socket.socket] = []
    for index, (head, body) in enumerate(hostile_messages.requests(count, seed, token or "wrong")):
        with contextlib.suppress(OSError):
            _post(port, head, body)
        if index % 100 == 0:  # and one that says nothing, or half of something
            with contextlib.suppress(OSError):
                idle.append(socket.create_connection(("127.0.0.1", port), timeout=1))
                idle[-1].sendall(b"POST / HTTP/1.1\r\nHo" if index % 200 else b"")
        while len(idle) > 300:
            idle.pop(0).close()


def _attack_zmq(name: str, port: int, count: int, seed: int, token: str) -> None:
    import zmq

    with zmq.Context() as context:
        peer = context.socket(zmq.DEALER)
        for sent, body in enumerate(hostile_messages.messages(name, count, seed, token)):
            if sent % WINDOW == 0:
                peer.close(linger=0)
                peer = context.socket(zmq.DEALER)
                peer.sndtimeo, peer.rcvtimeo = 1000, 30
                peer.connect(f"tcp://127.0.0.1:{port}")
            with contextlib.suppress(zmq.Again):
                peer.send_multipart([b"", body] if sent % 50 else [body, b"", body, b"", body, body])
                if sent % WINDOW == WINDOW - 1:
                    for _ in range(WINDOW):
                        peer.recv_multipart()
        peer.close(linger=0)


def _attack_openpi(port: int, count: int, seed: int, token: str) -> None:
    from websockets.exceptions import WebSocketException
    from websockets.sync.client import connect

    for body in hostile_messages.messages("openpi", count, seed, token):
        headers = {"Authorization": f"Api-Key {token or 'wrong'}"}
        url = f"ws://127.0.0.1:{port}"
        with (
            contextlib.suppress(WebSocketException, OSError),
            connect(url, additional_headers=headers, compression=None, proxy=None, close_timeout=1) as peer,
        ):
            peer.recv(timeout=5)
            peer.send(body)
            peer.recv(timeout=5)


def _attack_lerobot(port: int, count: int, seed: int, token: str) -> None:
    import grpc

    from policies.remote.lerobot import rpc

    metadata = [("authorization", f"Bearer {token or 'wrong'}")]
    bodies = hostile_messages.messages("lerobot", count, seed, token)
    left = count
    while left > 0:
        with grpc.insecure_channel(f"127.0.0.1:{port}", rpc.channel_options(1 << 25)) as channel:
            send = channel.stream_unary(f"/{rpc.SERVICE}/SendObservations")
            setup = channel.unary_unary(f"/{rpc.SERVICE}/SendPolicyInstructions")
            for index, body in zip(range(min(WINDOW, left)), bodies, strict=False):
                with contextlib.suppress(grpc.RpcError):
                    if index % 4:
                        send(iter([body]), metadata=metadata, timeout=10)
                    else:
                        setup(body, metadata=metadata, timeout=10)
        left -= WINDOW


def attack(name: str, port: int, count: int, seed: int, token: str) -> None:
    """`count` hostile messages at the server `name`."""
    if name == "reader":
        _attack_reader(port, count, seed, token)
    elif name == "openpi":
        _attack_openpi(port, count, seed, token)
    elif name == "lerobot":
        _attack_lerobot(port, count, seed, token)
    else:
        _attack_zmq(name, port, count, seed, token)


# --- all three


@contextlib.contextmanager
def _process(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    environment = {**os.environ, TOKEN_ENV: TOKEN, "LOGURU_LEVEL": "CRITICAL"}
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.hostile", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(20)


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None  # noqa: S101 - a pipe was asked for
    return process.stdout.readline().strip()


def _resident_mib(pid: int, field: str = "VmRSS:") -> float:
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines()
    return next((round(int(line.split()[1]) / 1024, 1) for line in lines if line.startswith(field)), 0.0)


def measured(name: str, phase: str, count: int, seed: int) -> dict[str, Any]:
    """One server under `count` messages."""
    with _process("--serve", name) as server:
        port = _line(server)
        if not port.isdigit():
            raise SystemExit(f"the server {name} did not start")
        with _process("--honest", name, port) as client:
            if _line(client) != "ready":
                raise SystemExit(f"the honest client of {name} is not answered")
            before, start = _resident_mib(server.pid), time.monotonic()
            attack(name, int(port), count, seed, TOKEN if phase == "after" else "")
            took_s = time.monotonic() - start
            assert client.stdin is not None  # noqa: S101 - a pipe was asked for
            client.stdin.close()
            told = json.loads(_line(client))
        memory = {
            "before": before,
            "most": _resident_mib(server.pid, "VmHWM:"),
            "after": _resident_mib(server.pid),
        }
        alive = server.poll() is None
    return {
        "server": name,
        "token": "shown" if phase == "after" else "not shown",
        "messages": count,
        "seconds": round(took_s, 1),
        "honest": told,
        "memory_mib": memory,
        "alive": alive,
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--only", choices=SERVERS)
    parser.add_argument("--phase", choices=("before", "after"))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--serve", choices=SERVERS, help=argparse.SUPPRESS)
    parser.add_argument("--honest", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve(given.serve)
    elif given.honest:
        honest(given.honest[0], int(given.honest[1]))
    else:
        for name in (given.only,) if given.only else SERVERS:
            for phase in (given.phase,) if given.phase else ("before", "after"):
                print(json.dumps(measured(name, phase, given.messages, given.seed)), flush=True)


if __name__ == "__main__":
    main()
