"""How long an observation and its chunk take over each protocol, beside the reference's encoding.

``python -m bench.wire`` prints one JSON line per protocol: round trips on loopback of two 480x640x3 frames,
the joints and a text, answered with 50x6 float32 by a policy that does nothing. In the same run, block by
block in turn: our two ends, the reference's encoding transcribed plainly (`bench.wire_reference`), and a bare
socket that moves as many bytes. Every server and every client is a process of its own, with the settings
that it comes with: what ours does to the C library's memory is no help to the reference. ``--load 64
--seconds 60`` lets so many clients ask one server instead, with and without batching.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np

from bench.wire_setup import CHUNK, STEPS, Ask, arrays, observation, our_client, our_server

PROTOCOLS = ("gr00t", "lerobot", "openpi", "act")


@contextmanager
def server(*arguments: str) -> Iterator[int]:
    """A server in a process of its own; gives its port."""
    command = [sys.executable, "-m", "bench.wire", "--serve", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None  # noqa: S101 - a pipe was asked for
        line = process.stdout.readline()
        if not line.strip().isdigit():
            raise SystemExit(f"server {' '.join(arguments)} did not start")
        yield int(line)
    finally:
        process.terminate()
        process.wait(20)


def times_us(ask: Ask, count: int) -> list[float]:
    """Duration of each of `count` round trips."""
    out = []
    for _ in range(count):
        start = time.perf_counter_ns()
        ask()
        out.append((time.perf_counter_ns() - start) / 1e3)
    return out


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """In milliseconds."""
    p50, p99 = np.percentile(values, [50, 99])
    return {"p50": round(float(p50) / 1e3, 3), "p99": round(float(p99) / 1e3, 3)}


def our_ask(protocol: str, port: int, stack: ExitStack) -> Ask:
    """One `infer` of our client, each with a step of its own."""
    remote = our_client(protocol, port)
    stack.callback(remote.close)
    base, steps = observation(0), iter(range(1, 1 << 30))

    def ask() -> None:
        rows = remote.infer(dataclasses.replace(base, step=next(steps))).rows
        if rows.shape != (STEPS, 6):
            raise SystemExit(f"{protocol}: a chunk of shape {rows.shape}")

    return ask


def coding_us(protocol: str) -> float:
    """Median of encoding and decoding one request and one reply, all at our two ends."""
    code = _CODING[protocol]()
    return float(np.percentile(times_us(code, 200), 50))


def _groot() -> Ask:
    from policies.remote.groot import codec

    front, wrist, state = arrays()
    video = {"front": front[None, None], "wrist": wrist[None, None]}
    seen = {"video": video, "state": {"single_arm": state[None, None]}, "language": {"task": [["pick it"]]}}

    def code() -> None:
        codec.decode(b"".join(codec.request("get_action", {"observation": seen, "options": None})))
        codec.reply(b"".join(codec.encode([{"single_arm": CHUNK[None]}, {}])))

    return code


def _openpi() -> Ask:
    from policies.remote.openpi import codec

    front, wrist, state = arrays()

    def code() -> None:
        codec.decode(b"".join(codec.encode({"image": front, "wrist": wrist, "state": state, "prompt": "x"})))
        codec.decode(b"".join(codec.encode({"actions": CHUNK})))

    return code


def _act() -> Ask:
    from policies.remote.act_zmq import codec

    front, wrist, state = arrays()

    def code() -> None:
        codec.decode(b"".join(codec.encode({"qpos": state, "images": {"main": front, "left": wrist}})))
        codec.decode(b"".join(codec.encode({"status": "OK", "action": CHUNK})))

    return code


def _lerobot() -> Ask:
    from policies.remote.lerobot import codec

    front, wrist, state = arrays()
    values: dict[str, Any] = {f"{i}.pos": float(v) for i, v in enumerate(state)}
    values |= {"front": front, "wrist": wrist, "task": "pick it"}

    def code() -> None:
        seen = codec.TimedObservation(1.0, 1, values, must_go=True)
        codec.decode_observation(b"".join(codec.encode_observation(seen)))
        codec.decode_actions(b"".join(codec.encode_actions(CHUNK.astype(float), 1.0, 1, 1 / 30)))

    return code


_CODING: dict[str, Callable[[], Ask]] = {
    "gr00t": _groot,
    "openpi": _openpi,
    "act": _act,
    "lerobot": _lerobot,
}


Block = Callable[[int], list[float]]
"""Makes so many round trips and gives their durations."""


@contextmanager
def client(kind: str, protocol: str, port: int) -> Iterator[Block]:
    """A client in a process of its own."""
    command = [sys.executable, "-m", "bench.wire", "--client", kind, protocol, str(port)]
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, text=True, **pipes)
    asked, answers = process.stdin, process.stdout
    assert asked is not None  # noqa: S101 - pipes were asked for
    assert answers is not None  # noqa: S101

    def block(count: int) -> list[float]:
        asked.write(f"{count}\n")
        asked.flush()
        line = answers.readline()
        if not line:
            raise SystemExit(f"client {kind} {protocol} ended")
        return list(json.loads(line))

    try:
        yield block
    finally:
        asked.close()
        process.wait(20)
        answers.close()


def _client(kind: str, protocol: str, port: int) -> None:
    """Answer each line, a count, with the durations of so many round trips."""
    from bench.wire_reference import CLIENTS

    with ExitStack() as stack:
        ask = our_ask(protocol, port, stack) if kind == "ours" else CLIENTS[protocol](port)
        for line in sys.stdin:
            print(json.dumps(times_us(ask, int(line))), flush=True)


def measure(protocol: str, blocks: int, count: int) -> dict[str, Any]:
    """Round trips of the three, in turn, after one block each that does not count."""
    with ExitStack() as stack:
        asked: dict[str, Block] = {}
        for name, kind, spoken in (
            ("ours", "ours", protocol),
            ("reference", "reference", protocol),
            ("bare", "reference", "bare"),
        ):
            port = stack.enter_context(server(kind, spoken))
            asked[name] = stack.enter_context(client(kind, spoken, port))
        taken: dict[str, list[float]] = {name: [] for name in asked}
        for turn in range(blocks + 1):
            for name, block in asked.items():
                durations = block(count)
                taken[name] += durations if turn else []
        coding = coding_us(protocol)
    result = {name: percentiles(values) for name, values in taken.items()}
    over = {name: result[name]["p50"] - result["bare"]["p50"] for name in ("ours", "reference")}
    return {
        "bench": "wire",
        "protocol": protocol,
        "round_trip_ms": result,
        "overhead_ms": {name: round(value, 3) for name, value in over.items()},
        "overhead_ratio": round(over["ours"] / over["reference"], 3),
        "serialisation_share": round(coding / 1e3 / result["ours"]["p50"], 3),
        "round_trips": blocks * count,
    }


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--protocol", choices=PROTOCOLS, action="append", help="default: all four")
    parser.add_argument("--blocks", type=int, default=10, help="turns of each of the three")
    parser.add_argument("--count", type=int, default=40, help="round trips in one turn")
    parser.add_argument("--load", type=int, metavar="CLIENTS", help="clients that ask one server at once")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long they do")
    parser.add_argument("--serve", nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("--ask", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--client", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        _serve(*options.serve)
    elif options.client:
        kind, spoken, port = options.client
        _client(kind, spoken, int(port))
    elif options.ask:
        from bench.wire_load import ask_many

        ask_many(options.ask[0], *map(float, options.ask[1:]))
    else:
        for protocol in options.protocol or PROTOCOLS:
            if options.load:
                from bench.wire_load import load

                result = load(protocol, options.load, options.seconds)
            else:
                result = measure(protocol, options.blocks, options.count)
            print(json.dumps(result), flush=True)


def _serve(kind: str, protocol: str, policy: str = "noop", batch: str = "1", delay_s: str = "0") -> None:
    if kind == "ours":
        our_server(protocol, policy, int(batch), float(delay_s))
    else:
        from bench.wire_reference import SERVERS

        SERVERS[protocol]()


if __name__ == "__main__":
    main()
