"""``python -m bench.panel_client URL``: one page that takes every picture; at SIGTERM, a line of what came.

A picture that had waited while this process or the server stood still is not counted.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from types import FrameType

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from runtime.clock import NS_PER_S, RealClock

STREAMS = ("head.color", "head.depth", "wrist.color")
_PING_NS, _GAP_NS = NS_PER_S // 2, NS_PER_S
_LONGEST_S = 0.25


class _EndedError(Exception):
    """Told to end."""


def _end(number: int, frame: FrameType | None) -> None:
    raise _EndedError


def main(url: str) -> None:
    """Until told to end."""
    clock, latencies, pictures = RealClock(), list[float](), dict.fromkeys(STREAMS, 0)
    pinged_ns = last_ns = counted_from_ns = clock.now_ns()
    signal.signal(signal.SIGTERM, _end)
    try:
        with connect(url, subprotocols=[Subprotocol("dexrun.1")], max_size=None, compression=None) as socket:
            socket.send(json.dumps({"type": "watch", "streams": dict.fromkeys(STREAMS, 60)}))
            while True:
                try:
                    message = socket.recv(timeout=_LONGEST_S)
                except TimeoutError:
                    message = ""
                now_ns = clock.now_ns()
                if now_ns - last_ns > _GAP_NS:
                    counted_from_ns = now_ns + NS_PER_S
                last_ns = now_ns
                if now_ns - pinged_ns > _PING_NS:
                    pinged_ns = now_ns
                    socket.send(json.dumps({"type": "ping", "n": 1}))
                if isinstance(message, bytes):
                    size = int.from_bytes(message[:4], "little")
                    head = json.loads(message[4 : 4 + size])
                    socket.send(json.dumps({"type": "seen", "stream": head["stream"]}))
                    pictures[head["stream"]] += 1
                    if now_ns >= counted_from_ns:
                        latencies.append(round((now_ns - head["stamp_ns"]) / 1e6, 2))
    except (_EndedError, ConnectionClosed, OSError):
        pass
    times = os.times()
    said = {"pictures": pictures, "ms": latencies, "cpu_s": times.user + times.system}
    print(json.dumps(said))


if __name__ == "__main__":
    main(sys.argv[1])
