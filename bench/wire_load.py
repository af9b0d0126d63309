"""Many clients on one server: throughput and latency with and without batching, losses, memory."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from bench.wire_setup import STEPS, observation, our_client

PROCESSES = 2
HEIGHT, WIDTH = 120, 160
"""Smaller frames than the round trip's: the server is to be loaded, not the loopback's memory bandwidth."""


def ask_many(protocol: str, port: float, clients: float, seconds: float) -> None:
    """Threads that ask one after the other; prints what they saw as JSON."""
    taken: list[list[float]] = [[] for _ in range(int(clients))]
    wrong = [0] * int(clients)
    end = time.monotonic() + seconds

    def run(index: int) -> None:
        remote = our_client(protocol, int(port))
        base, step = observation(0, HEIGHT, WIDTH), 0
        while time.monotonic() < end:
            step += 1
            start = time.perf_counter_ns()
            try:
                good = remote.infer(dataclasses.replace(base, step=step)).rows.shape == (STEPS, 6)
            except Exception:
                good = False
            wrong[index] += not good
            taken[index].append((time.perf_counter_ns() - start) / 1e6)
        remote.close()

    threads = [threading.Thread(target=run, args=(index,)) for index in range(int(clients))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps({"ms": [round(t, 3) for each in taken for t in each], "wrong": sum(wrong)}), flush=True)


def _resident_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return float("nan")


def _one(protocol: str, clients: int, seconds: float, batch: int, delay_s: float) -> dict[str, Any]:
    serve = [sys.executable, "-m", "bench.wire", "--serve", "ours", protocol, "costly"]
    server = subprocess.Popen(
        [*serve, str(batch), str(delay_s)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        port = int(server.stdout.readline()) if server.stdout else 0
        each = [protocol, str(port), str(clients // PROCESSES), str(seconds)]
        command = [sys.executable, "-m", "bench.wire", "--ask", *each]
        askers = [
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            for _ in range(PROCESSES)
        ]
        time.sleep(0.25 * seconds)
        early = _resident_mib(server.pid)
        time.sleep(0.65 * seconds)
        late = _resident_mib(server.pid)
        found = [json.loads(asker.communicate(timeout=seconds + 120)[0]) for asker in askers]
    finally:
        server.terminate()
        server.wait(30)
    times = [t for part in found for t in part["ms"]]
    p50, p99 = np.percentile(times, [50, 99])
    return {
        "requests_per_s": round(len(times) / seconds, 1),
        "p50_ms": round(float(p50), 2),
        "p99_ms": round(float(p99), 2),
        "requests": len(times),
        "lost": sum(part["wrong"] for part in found),
        "server_rss_mib": {"early": round(early, 1), "late": round(late, 1)},
    }


def load(protocol: str, clients: int, seconds: float) -> dict[str, Any]:
    """`clients` on one server for `seconds`, without batching and with."""
    return {
        "bench": "wire_load",
        "protocol": protocol,
        "clients": clients,
        "seconds": seconds,
        "policy_ms": "8 + 0.5 per observation",
        "alone": _one(protocol, clients, seconds, 1, 0.0),
        "batched": _one(protocol, clients, seconds, 32, 0.002),
    }
