"""When the machine itself was late: a thread of high priority on each processor, woken before each tick.

A virtual machine is paused by its host, a kernel without preemption finishes what it is at: a loop that
is late then is not late by itself, and nothing in this process could tell. One process per processor, with
nothing to do but to sleep until shortly before the loop's own deadlines and to note how late it woke, can.
It is what ``cyclictest`` does, in step with the loop.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

AHEAD_NS = 150_000
"""Woken that long before a deadline, so as to be gone again when the loop is due."""
LATE_NS = 250_000
"""From here on the machine counts as having been away; otherwise it is late by 0.04 to 0.2 ms."""
_PRIORITY = 80


class Witness:
    """One process per processor. `begin` starts a stretch, `end` collects it."""

    def __init__(self, processes: Sequence[subprocess.Popen[str]]) -> None:
        self._processes = processes

    def begin(self, origin_ns: int, period_ns: float, first: int, count: int) -> None:
        """Watch `count` deadlines from tick `first` on; ``n`` is due at ``origin_ns + n * period_ns``."""
        for process in self._processes:
            assert process.stdin is not None  # noqa: S101
            process.stdin.write(f"{json.dumps([origin_ns, period_ns, first, count])}\n")
            process.stdin.flush()

    def end(self) -> dict[int, int]:
        """Wait for the stretch's end; by tick, how late the later of the processors was, nanoseconds."""
        late: dict[int, int] = {}
        for process in self._processes:
            assert process.stdout is not None  # noqa: S101
            for tick, by_ns in json.loads(process.stdout.readline()):
                late[tick] = max(late.get(tick, 0), by_ns)
        return late


@contextlib.contextmanager
def witness() -> Iterator[Witness]:
    """Processes for every processor that this one may use."""
    with contextlib.ExitStack() as stack:
        processes = []
        for processor in sorted(os.sched_getaffinity(0)):
            command = [sys.executable, "-m", "bench.witness", str(processor)]
            pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
            process = stack.enter_context(subprocess.Popen(command, **pipes))
            stack.callback(process.terminate)
            processes.append(process)
        yield Witness(processes)


def steal_s() -> float:
    """Seconds that the host gave to others while this machine wanted to run, all processors together."""
    with open("/proc/stat") as file:
        return int(file.readline().split()[8]) / os.sysconf("SC_CLK_TCK")


def _watch(origin_ns: int, period_ns: float, first: int, count: int) -> list[tuple[int, int]]:
    late = []
    for tick in range(first, first + count):
        due_ns = origin_ns + round(tick * period_ns) - AHEAD_NS
        wait_ns = due_ns - time.monotonic_ns()
        if wait_ns > 0:
            time.sleep(wait_ns / 1e9)
        late.append((tick, time.monotonic_ns() - due_ns))
    return late


def main() -> None:
    os.sched_setaffinity(0, {int(sys.argv[1])})
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(_PRIORITY))
    gc.disable()
    for line in sys.stdin:
        print(json.dumps(_watch(*json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
