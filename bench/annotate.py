"""Frames per second from one process to another: the pipeline's two ways, pickles through a queue, and HTTP.

``python -m bench.annotate [--frames 300] [--width 640] [--height 480]`` prints one JSON line. All ways send
the same pictures, in the same run, to a process that looks at the first byte of each and counts them.
"""

from __future__ import annotations

import argparse
import http.client
import json
import multiprocessing
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import numpy as np

from runtime.clock import NS_PER_S, RealClock
from runtime.frame_channel import FrameMessage, FrameReceiver, FrameRings, RingReceiver, RingSender
from runtime.zmq_channel import ZmqReceiver, ZmqSender

TOKEN = "bench"  # noqa: S105 - of this run
GUARD_NS = 60 * NS_PER_S


def _take(receiver: FrameReceiver, frames: int) -> int:
    total = 0
    for _ in range(frames):
        message = receiver.receive(GUARD_NS)
        assert message is not None  # noqa: S101
        total += int(message.data[0, 0, 0] >= 0)
    return total


def _child(way: str, where: Any, pipe: Any, frames: int, most: int) -> None:
    """The other process."""
    clock = RealClock()
    receiver: FrameReceiver | None = None
    if way == "http":
        _serve_http(pipe, frames)
        return
    if way == "ring":
        receiver = RingReceiver(where, clock)
    elif way == "zeromq":
        receiver = ZmqReceiver("127.0.0.1", most, TOKEN, clock)
    pipe.send("" if receiver is None else receiver.address)
    if receiver is None:
        total = sum(int(where.get()["data"][0, 0, 0] >= 0) for _ in range(frames))
    else:
        total = _take(receiver, frames)
    pipe.send(total)
    if receiver is not None:
        pipe.recv()
        receiver.close()


def _serve_http(pipe: Any, frames: int) -> None:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        taken = 0

        def do_POST(self) -> None:
            data = self.rfile.read(int(self.headers["Content-Length"]))
            shape = tuple(map(int, self.headers["X-Shape"].split(",")))
            Handler.taken += int(np.frombuffer(data, np.uint8).reshape(shape)[0, 0, 0] >= 0)
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        pipe.send(server.server_port)
        server.handle_request()  # one connection, kept open
        pipe.send(Handler.taken)


def measure(way: str, pictures: list[Any], frames: int) -> float:
    """Frames per second that way."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    most, clock = pictures[0].nbytes, RealClock()
    rings = FrameRings(most) if way == "ring" else None
    where: Any = rings.address if rings is not None else context.Queue(8) if way == "pickle_queue" else None
    child = context.Process(target=_child, args=(way, where, theirs, frames, most))
    child.start()
    address = ours.recv()
    send, end = _sender(way, address, where, clock)
    began = time.perf_counter()
    for number in range(frames):
        send(number, pictures[number % len(pictures)])
    end()
    if way == "http":
        send.__self__.close()  # type: ignore[attr-defined]
    total = ours.recv()
    seconds = time.perf_counter() - began
    if way in ("ring", "zeromq"):
        ours.send("done")
    child.join()
    if rings is not None:
        rings.close()
    assert total == frames  # noqa: S101
    return frames / seconds


def _sender(
    way: str, address: Any, where: Any, clock: RealClock
) -> tuple[Callable[[int, Any], Any], Callable[[], Any]]:
    if way == "pickle_queue":
        return (lambda number, data: where.put({"id": number, "data": data})), lambda: None
    if way == "http":
        poster = _Poster(address)
        return poster.post, lambda: None
    sender = RingSender(address, clock) if way == "ring" else ZmqSender(address, TOKEN, clock)
    return (
        lambda number, data: sender.send(FrameMessage({"id": number}, data), GUARD_NS),
        lambda: sender.settle(GUARD_NS),
    )


class _Poster:
    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port)

    def post(self, number: int, data: Any) -> None:
        shape = ",".join(map(str, data.shape))
        self._connection.request("POST", f"/{number}", data.tobytes(), {"X-Shape": shape})
        self._connection.getresponse().read()

    def close(self) -> None:
        self._connection.close()


def main() -> None:
    parser = argparse.ArgumentParser()
    for name, default in (("frames", 300), ("width", 640), ("height", 480)):
        parser.add_argument(f"--{name}", type=int, default=default)
    asked = parser.parse_args()
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (asked.height, asked.width, 3), np.uint8) for _ in range(4)]
    ways = ("ring", "zeromq", "pickle_queue", "http")
    found = {way: round(measure(way, pictures, asked.frames), 1) for way in ways}
    print(json.dumps({"bench": "annotate", **vars(asked), "frames_per_s": found}))


if __name__ == "__main__":
    main()
