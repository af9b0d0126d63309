"""Hostile messages at every server, beside an honest client that is timed.

``python -m bench.hostile --into FILE`` sends 100,000 messages at each server and at the scene reader, without
the token and with it, in pieces of 10,000, each with a server of its own. It writes a JSON line for each
piece: how long the honest client waited at worst, how many of its requests failed, the server's resident
memory before, at most, and afterwards, and, if the server ended, how, and what it said. Beside it another
honest client asks another server that nobody attacks: what that one waits for (``floor``) is the machine.
Begun again with the same file, it goes on where it was; at its end it prints the sums. ``--only gr00t --phase
before --messages 5000`` does a part of it; ``--seed`` makes another one. Honest clients, attacker and servers
are processes of their own.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
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
PIECE = 10_000
SAID_BYTES = 2000
MOST_WAIT_S = 0.5
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
    middle = sorted(waits)[len(waits) // 2]
    worst = {"max_wait_s": round(max(waits), 4), "median_wait_s": round(middle, 4)}
    print(json.dumps({**told, **worst}), flush=True)


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


# --- all of them


@contextlib.contextmanager
def _process(*arguments: str, said: Any = subprocess.DEVNULL) -> Iterator[subprocess.Popen[str]]:
    """A process of this module; what it writes to standard error goes to `said`."""
    environment = {**os.environ, TOKEN_ENV: TOKEN, "LOGURU_LEVEL": "CRITICAL", "PYTHONFAULTHANDLER": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.hostile", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=said,
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
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return 0.0
    return next((round(int(line.split()[1]) / 1024, 1) for line in lines if line.startswith(field)), 0.0)


@contextlib.contextmanager
def _served(
    name: str, said: Any = subprocess.DEVNULL
) -> Iterator[tuple[subprocess.Popen[str], str, subprocess.Popen[str]]]:
    """A server, its port, and an honest client that has had an answer."""
    with _process("--serve", name, said=said) as server:
        port = _line(server)
        if not port.isdigit():
            raise SystemExit(f"the server {name} did not start")
        with _process("--honest", name, port) as client:
            if _line(client) != "ready":
                raise SystemExit(f"the honest client of {name} is not answered")
            yield server, port, client


def _told(client: subprocess.Popen[str]) -> dict[str, Any]:
    assert client.stdin is not None  # noqa: S101 - a pipe was asked for
    client.stdin.close()
    told: dict[str, Any] = json.loads(_line(client))
    return told


def measured(name: str, phase: str, count: int, seed: int) -> dict[str, Any]:
    """One server under `count` messages, and another under none."""
    with (
        tempfile.TemporaryFile("w+b") as said,
        _served(name) as (_, _, idle),
        _served(name, said) as (server, port, client),
    ):
        before, start = _resident_mib(server.pid), time.monotonic()
        attack(name, int(port), count, seed, TOKEN if phase == "after" else "")
        took_s = time.monotonic() - start
        told, floor = _told(client), _told(idle)
        memory = {
            "before": before,
            "most": _resident_mib(server.pid, "VmHWM:"),
            "after": _resident_mib(server.pid),
        }
        status = server.poll()
        said.seek(0)
        ended = {} if status is None else {"status": status, "said": said.read()[-SAID_BYTES:].decode()}
    return {
        "server": name,
        "token": "shown" if phase == "after" else "not shown",
        "messages": count,
        "seed": seed,
        "seconds": round(took_s, 1),
        "honest": told,
        "floor": floor,
        "memory_mib": memory,
        "alive": status is None,
        **({"ended": ended} if ended else {}),
    }


def _summed(lines: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """For each server and phase what all of its pieces were."""
    for name, token in dict.fromkeys((line["server"], line["token"]) for line in lines):
        these = [line for line in lines if (line["server"], line["token"]) == (name, token)]
        worst = max(line["honest"]["max_wait_s"] for line in these)
        floor = max(line["floor"]["max_wait_s"] for line in these)
        grew = max(line["memory_mib"]["most"] - line["memory_mib"]["before"] for line in these)
        yield {
            "server": name,
            "token": token,
            "messages": sum(line["messages"] for line in these),
            "asked": sum(line["honest"]["asked"] for line in these),
            "failed": sum(line["honest"]["failed"] for line in these),
            "max_wait_s": worst,
            "floor_s": floor,
            "ratio": round(worst / floor, 1),
            "pieces_over_half_a_second": sum(line["honest"]["max_wait_s"] > MOST_WAIT_S for line in these),
            "memory_grew_mib": round(grew, 1),
            "ended": sum(not line["alive"] for line in these),
        }


def _campaign(given: argparse.Namespace) -> None:
    """All pieces that are not in the file yet."""
    done: list[dict[str, Any]] = []
    if given.into is not None and given.into.exists():
        done = [json.loads(line) for line in given.into.read_text(encoding="utf-8").splitlines()]
    seen = {(line["server"], line["token"], line["seed"], line["messages"]) for line in done}
    for name in (given.only,) if given.only else SERVERS:
        for phase in (given.phase,) if given.phase else ("before", "after"):
            for piece, sent in enumerate(range(0, given.messages, PIECE)):
                count, seed = min(PIECE, given.messages - sent), given.seed + piece
                if (name, "shown" if phase == "after" else "not shown", seed, count) in seen:
                    continue
                done.append(measured(name, phase, count, seed))
                print(json.dumps(done[-1]), flush=True)
                if given.into is not None:
                    with given.into.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(done[-1]) + "\n")
    for summed in _summed(done):
        print(json.dumps(summed), flush=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--only", choices=SERVERS)
    parser.add_argument("--phase", choices=("before", "after"))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--into", type=Path, help="a file that each piece is added to, and read from before")
    parser.add_argument("--serve", choices=SERVERS, help=argparse.SUPPRESS)
    parser.add_argument("--honest", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve(given.serve)
    elif given.honest:
        honest(given.honest[0], int(given.honest[1]))
    else:
        _campaign(given)


if __name__ == "__main__":
    main()
