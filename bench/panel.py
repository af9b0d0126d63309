"""What a panel costs a run: ``python -m bench.panel [--seconds 10] [--rounds 6] [--clients 5]``; one line.

A control loop with its ``[realtime]`` defaults, an arm that goes where it is told, two cameras of 640x480 at
30 Hz (one with depth) made of nothing, the tap and the command reader as in a run; the panel's server and its
clients are processes of their own. Each client takes every picture of all streams as fast as the server gives
them, over a real WebSocket, and says that it has drawn it.

In turn, so that the machine's load is the same: nobody there (server and clients are stopped by a signal) and
everybody there. Figures of the loop are over all rounds, of all ticks and (``there``) of those at which the
machine itself was not away (`bench.witness`); ``p99_ratio`` is of these. ``glass_ms`` is from a picture's
acquisition stamp to the client's receipt on loopback; CPU: processor seconds a second. At last the server is
stopped in the middle of everything (``hung``), then killed (``killed``).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import numpy as np

from bench.loop import CLOCK, WaveSource
from bench.panel_robot import RATE_HZ, facts, made_up_robot
from bench.ring import machine
from bench.witness import LATE_NS, Witness, witness
from dexrun.panel.beside import PanelSide
from dexrun.panel.link import PublishedRun
from dexrun.panel.tap import RunMoment, Tap
from runtime.clock import NS_PER_S
from runtime.latest import Latest
from runtime.realtime import RealtimeOptions, realtime
from runtime.ring import RingReader

SETTLE_S = 4.0
"""So long after the last look the tap still copies pictures."""


class Beside:
    """The panel's server and its clients: processes that can stand still, go on, and be killed."""

    def __init__(self, runs: Path, clients: int) -> None:
        command = [sys.executable, "-m", "dexrun.panel.server", "--runs", str(runs), "--port", "0"]
        self.server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self.server.stdout is not None  # noqa: S101
        line = self.server.stdout.readline()
        address = line.split("http://")[1].split("/")[0]
        client = [sys.executable, "-m", "bench.panel_client", f"ws://{address}/ws"]
        self.clients = [subprocess.Popen(client, stdout=subprocess.PIPE, text=True) for _ in range(clients)]

    def send(self, number: int) -> None:
        """A signal to all of them."""
        for each in (*self.clients, self.server):
            with contextlib.suppress(ProcessLookupError):
                each.send_signal(number)

    def cpu_s(self) -> tuple[float, float]:
        """Of the server, and of all clients."""
        return cpu_s(self.server.pid), sum(cpu_s(each.pid) for each in self.clients)

    def results(self) -> list[dict[str, Any]]:
        """What the clients saw; they have ended then."""
        for each in self.clients:
            each.send_signal(signal.SIGCONT)
            each.terminate()
        return [json.loads(each.communicate()[0]) for each in self.clients]


def cpu_s(pid: int) -> float:
    """Processor seconds of a process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@dataclass
class Punctuality:
    """Period errors of some windows, nanoseconds; `there` those at which the machine was there."""

    every: list[int] = field(default_factory=list)
    there: list[int] = field(default_factory=list)
    missed: int = 0
    cpu_s: float = 0.0
    wall_s: float = 0.0

    def report(self) -> dict[str, Any]:
        """Microseconds; ticks; processor seconds of the run's own process a second."""
        sides = {"all": self.every, "there": self.there}
        return {
            **{name: _quantiles(errors) for name, errors in sides.items()},
            "ticks": len(self.every),
            "missed": self.missed,
            "run_cpu": round(self.cpu_s / self.wall_s, 3),
        }


def _quantiles(errors_ns: list[int]) -> dict[str, float]:
    at = np.quantile(np.asarray(errors_ns or [0]) / 1e3, (0.5, 0.99, 1.0)).round(1).tolist()
    return dict(zip(("p50_us", "p99_us", "max_us"), at, strict=True))


async def window(robot: Any, machine_late: Witness, seconds: float, into: Punctuality) -> None:
    """How punctual the loop is for so long."""
    cursor, period_ns = robot.records.reader(), NS_PER_S / RATE_HZ
    missed, own_s = robot.statistics.missed, sum(os.times()[:2])
    await CLOCK.sleep_until_ns(CLOCK.now_ns() + NS_PER_S // 2)
    known = records_of(cursor)
    origin_ns = round(min(stamp - tick * period_ns for tick, stamp in known.items()))
    first = max(known) + 3
    count = round(seconds * RATE_HZ)
    machine_late.begin(origin_ns, period_ns, first, count)
    await CLOCK.sleep_until_ns(round(origin_ns + (first + count) * period_ns))
    late = await CLOCK.run_blocking(machine_late.end)
    starts = records_of(cursor)
    away = {tick for tick, by_ns in late.items() if by_ns > LATE_NS}
    for tick in range(first + 1, first + count):
        if tick in starts and tick - 1 in starts:
            error = abs(starts[tick] - starts[tick - 1] - round(period_ns))
            into.every.append(error)
            if away.isdisjoint((tick - 1, tick)):
                into.there.append(error)
    into.missed += robot.statistics.missed - missed
    into.cpu_s += sum(os.times()[:2]) - own_s
    into.wall_s += seconds + 0.5


def records_of(cursor: RingReader) -> dict[int, int]:
    """When each tick began, of those since the last call."""
    found = {}
    while (record := cursor.next()) is not None:
        found[int(record["tick"])] = record.stamp_ns
    return found


async def rest(seconds: float) -> None:
    """Let it go on."""
    await CLOCK.sleep_until_ns(CLOCK.now_ns() + round(seconds * NS_PER_S))


@contextlib.asynccontextmanager
async def running(robot: Any, runs: Path) -> AsyncIterator[None]:
    """The loop ticks, follows something, is shared and listens to its panel."""
    (folder := runs / "bench").mkdir()
    threads = [
        CLOCK.spawn(str(number), each.run)
        for number, each in enumerate([*robot.arms.values(), *robot.cameras.values()])
    ]
    run, said = PublishedRun(folder, facts(robot)), Latest[RunMoment]()
    tap = Tap(robot, run, said, RATE_HZ)
    tap.start()
    side = PanelSide(robot, run, said, tap.nudge)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(robot.control.run)
        tasks.start_soon(side.run)
        robot.control.follow(WaveSource())
        with realtime(RealtimeOptions()):
            yield
        tasks.cancel_scope.cancel()
    for each in (*robot.arms.values(), *robot.cameras.values()):
        each.ending = True
    with anyio.CancelScope(shield=True):
        await tap.stop()
        for thread in threads:
            await thread.join()
    run.close()


async def measured(args: argparse.Namespace, runs: Path, machine_late: Witness) -> dict[str, Any]:
    """Everything, in turn."""
    robot = made_up_robot()
    found = {name: Punctuality() for name in ("without", "with", "hung", "killed")}

    async def seen(name: str, seconds: float = args.seconds) -> None:
        await window(robot, machine_late, seconds, found[name])

    used = np.zeros(2)
    async with running(robot, runs):
        beside = await CLOCK.run_blocking(lambda: Beside(runs, args.clients))
        await rest(SETTLE_S)  # they get to know each other
        for _ in range(args.rounds):
            beside.send(signal.SIGSTOP)
            await rest(SETTLE_S)
            await seen("without")
            beside.send(signal.SIGCONT)
            await rest(2.0)
            before = beside.cpu_s()
            await seen("with")
            used += np.subtract(beside.cpu_s(), before)
        beside.server.send_signal(signal.SIGSTOP)
        await seen("hung", 2 * args.seconds)
        beside.server.send_signal(signal.SIGCONT)
        await rest(2.0)
        beside.server.kill()
        await seen("killed", 2 * args.seconds)
        clients = await CLOCK.run_blocking(beside.results)
        await CLOCK.run_blocking(beside.server.wait)
    wall_s = found["with"].wall_s
    there = {name: each.report() for name, each in found.items()}
    return {
        **there,
        "p99_ratio": round(there["with"]["there"]["p99_us"] / there["without"]["there"]["p99_us"], 3),
        "glass_ms": glass(clients),
        "server_cpu": round(used[0] / wall_s, 3),
        "client_cpu": round(used[1] / wall_s / args.clients, 3),
    }


def glass(clients: list[dict[str, Any]]) -> dict[str, float]:
    """From acquisition to receipt, of all clients and streams."""
    latencies = np.concatenate([np.asarray(each["ms"]) for each in clients])
    p50, p99 = np.quantile(latencies, (0.5, 0.99)).round(1).tolist()
    return {"p50": p50, "p99": p99, "pictures": len(latencies)}


def main() -> None:
    """Measure, and say it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--clients", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dexrun-bench-") as runs, witness() as machine_late:
        said = CLOCK.run(measured, args, Path(runs), machine_late)
    print(json.dumps({"bench": "panel", "clients": args.clients, "machine": machine(), **said}))


if __name__ == "__main__":
    main()
