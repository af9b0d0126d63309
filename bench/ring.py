"""Rings: cost of a camera frame against one ``numpy.copyto``, and a stress run. Prints one JSON line.

``python -m bench.ring [--frames N] [--messages N] [--readers N]``
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import platform
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.ring import Layout, Overwritten, Ring, Sample

FRAME = (480, 640, 3)
SLOTS = 4
BLOCK = 20
SWITCH_S = 1e-5
"""The GIL changes hands this often in the stress run: in the middle of as many steps as possible."""
WORDS = 8
SMALL_SLOTS = 24
"""So few that a fast writer laps readers all the time: what is tested is that they notice."""
SMALL: Layout = {"a": ((WORDS,), "<i8"), "b": ((), "<i8")}


def timed(function: Callable[[], object], into: list[int]) -> None:
    for _ in range(BLOCK):
        start = time.perf_counter_ns()
        function()
        into.append(time.perf_counter_ns() - start)


class LockedRing:
    """The usual design, for comparison: a cross-process lock, one copy in, a freshly allocated copy out."""

    def __init__(self) -> None:
        self._lock = multiprocessing.get_context("spawn").Lock()
        self._slots = np.zeros((SLOTS, *FRAME), np.uint8)
        self._count = 0

    def put(self, frame: NDArray[np.uint8]) -> None:
        with self._lock:
            self._slots[self._count % SLOTS] = frame
            self._count += 1

    def get(self) -> NDArray[np.uint8]:
        with self._lock:
            out: NDArray[np.uint8] = self._slots[(self._count - 1) % SLOTS].copy()
            return out


def frames(count: int) -> dict[str, Any]:
    """Median times in microseconds, taken in turn in blocks in one loop, and their ratios to ``copyto``.

    ``copyto`` has one target, which stays in the cache; ``copyto_rotating`` has as many as the ring.
    """
    rng = np.random.default_rng(0)
    frame = rng.integers(0, 256, FRAME, np.uint8)
    copy, rotating = np.zeros(FRAME, np.uint8), np.zeros((SLOTS, *FRAME), np.uint8)
    private = Ring({"color": (FRAME, "|u1")}, SLOTS)
    shared = Ring.create_shared({"color": (FRAME, "|u1")}, SLOTS)
    locked, turn = LockedRing(), itertools.count()
    into = private.blank()
    times: dict[str, list[int]] = {}

    def fill(ring: Ring) -> None:
        with ring.write(1) as slot:
            np.copyto(slot["color"], frame)

    try:
        for _ in range(count // BLOCK):
            steps: dict[str, Callable[[], object]] = {
                "copyto": lambda: np.copyto(copy, frame),
                "copyto_rotating": lambda: np.copyto(rotating[next(turn) % SLOTS], frame),
                "private_write": lambda: fill(private),
                "private_newest": lambda: private.newest(into),
                "shared_write": lambda: fill(shared),
                "shared_newest": lambda: shared.newest(into),
                "locked_put": lambda: locked.put(frame),
                "locked_get": locked.get,
            }
            for name, step in steps.items():
                timed(step, times.setdefault(name, []))
        if not np.array_equal(into["color"], frame):
            raise AssertionError("the ring returned another frame")
    finally:
        shared.close()
        shared.unlink()
    median = {name: float(np.median(values)) / 1e3 for name, values in times.items()}
    ratios = {name: round(value / median["copyto"], 2) for name, value in median.items() if name != "copyto"}
    return {"median_us": {k: round(v, 1) for k, v in median.items()}, "ratio_to_copyto": ratios}


class Checker:
    """Reads as fast as it can and checks every sample against what its index says it must hold."""

    def __init__(self, ring: Ring, total: int) -> None:
        self._ring = ring
        self._total = total
        self.reads = self.torn = self.stale = self.overwritten = self.retries = 0

    def check(self, sample: Sample) -> None:
        self.reads += 1
        values = sample["a"]
        expected = sample.index * 3 + 1
        whole = values[0] == expected and values[-1] == expected and sample["b"] == expected
        if not whole or sample.stamp_ns != expected or not (values == expected).all():
            self.torn += 1

    def run(self) -> None:
        into, cursor = self._ring.blank(), self._ring.reader()
        last, published = -1, 0
        while published < self._total:
            published = self._ring.published
            if published == last:  # nothing new: let others run
                time.sleep(0)
                continue
            sample = self._ring.newest(into)
            if sample is not None:
                self.check(sample)
                if sample.index < published - 1 or sample.index < last - 1:
                    self.stale += 1
            last = published
            self.behind(published, into)
            sample = cursor.next(into)
            if sample is not None:
                self.check(sample)
            time.sleep(0)  # hand the GIL to the writer wherever it is
        self.overwritten += cursor.lost
        self.retries = self._ring.statistics()["retries"]

    def behind(self, published: int, into: Sample) -> None:
        """Ask for a sample that is about to be overwritten: it is whole, or said to be gone."""
        index = published - self._ring.capacity + 1
        if index < 0:
            return
        try:
            sample = self._ring.read(index, into)
        except Overwritten:
            self.overwritten += 1
            return
        if sample is not None:
            self.check(sample)
            self.stale += sample.index != index

    def report(self) -> dict[str, int]:
        return {
            "reads": self.reads,
            "torn": self.torn,
            "stale": self.stale,
            "overwritten": self.overwritten,
            "retries": self.retries,
        }


def read_in_process(name: str, total: int, reports: Any) -> None:
    ring = Ring.attach(name)
    checker = Checker(ring, total)
    reports.send("ready")
    checker.run()
    reports.send(checker.report())
    ring.close()


def write_messages(ring: Ring, total: int) -> float:
    start = time.perf_counter()
    for index in range(total):
        value = index * 3 + 1
        with ring.write(value) as slot:
            slot["a"].fill(value)
            slot["b"].fill(value)
    return time.perf_counter() - start


def stress(total: int, threads: int, processes: int) -> dict[str, Any]:
    """One writer; readers in threads of its process and in processes of their own; all check everything."""
    shared = processes > 0
    ring = Ring.create_shared(SMALL, SMALL_SLOTS) if shared else Ring(SMALL, SMALL_SLOTS)
    sys.setswitchinterval(SWITCH_S)
    checkers = [Checker(ring, total) for _ in range(threads)]
    workers = [threading.Thread(target=c.run) for c in checkers]
    context = multiprocessing.get_context("spawn")
    pipes = [context.Pipe() for _ in range(processes)]
    children = [context.Process(target=read_in_process, args=(ring.name, total, p[1])) for p in pipes]
    try:
        for child in children:
            child.start()
        for receive, _ in pipes:
            receive.recv()
        for worker in workers:
            worker.start()
        seconds = write_messages(ring, total)
        for worker in workers:
            worker.join()
        reports = [c.report() for c in checkers] + [receive.recv() for receive, _ in pipes]
    finally:
        for child in children:
            child.join(10)
        ring.close()
        ring.unlink()
    total_of = {key: sum(r[key] for r in reports) for key in reports[0]}
    place = {"memory": "shared" if shared else "private", "threads": threads, "processes": processes}
    return {**place, "messages": total, "writer_s": round(seconds, 1), **total_of}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=2000)
    parser.add_argument("--messages", type=int, default=10_000_000, help="in each of the two stress runs")
    parser.add_argument("--readers", type=int, default=2, help="of each kind")
    args = parser.parse_args()
    report: dict[str, Any] = {"bench": "ring", "machine": machine(), "frame": list(FRAME)}
    report.update(frames(args.frames))
    report["stress"] = [
        stress(args.messages, args.readers, 0),
        stress(args.messages, 1, args.readers),
    ]
    print(json.dumps(report))


def machine() -> str:
    """Processor and Python, in one line."""
    model = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo") as text:
            model = next(line.split(":")[1].strip() for line in text if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return f"{model}, {os.cpu_count()} cores, Python {platform.python_version()}"


if __name__ == "__main__":
    main()
