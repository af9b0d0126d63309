"""How long a bus transaction takes: ``python -m bench.bus`` prints one JSON line.

The emulated servos run in a process of their own, on a pseudo-terminal, so there is no line to wait for:
what is measured is the software on both ends. Three ways of asking six servos for eight bytes each are
interleaved: `FeetechBus.sync_read`; the SDK's own `GroupSyncRead` on the SDK's own port handler; and the
bare exchange of as many bytes with a process that answers without looking (the floor). The same for
writing six goals.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import subprocess
import sys
import tempfile
import threading
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import scservo_sdk as scs

from drivers.feetech import registers as reg
from drivers.feetech.emulator import FeetechEmulator
from drivers.feetech.options import FeetechOptions
from drivers.feetech.servo import SimpleServoBank
from drivers.feetech.setup import connect
from runtime.clock import RealClock

IDS = range(1, 7)
START, SIZE = reg.PRESENT_POSITION.address, 8
READ_REQUEST, READ_REPLY = 8 + len(IDS), (6 + SIZE) * len(IDS)
WRITE_REQUEST = 8 + 3 * len(IDS)


Way = Callable[[], bool]
"""One transaction; whether it succeeded."""


def serve(folder: Path) -> None:
    """Two emulated arms and an echo, until standard input ends."""
    clock = RealClock()
    arms = [
        FeetechEmulator(SimpleServoBank(clock, dict.fromkeys(IDS, 2048)), folder / name)
        for name in ("ours", "sdk")
    ]
    master, slave = os.openpty()
    tty.setraw(slave)
    os.symlink(os.ttyname(slave), folder / "echo")
    threading.Thread(target=_echo, args=(master,), daemon=True).start()
    print("ready", flush=True)
    sys.stdin.read()
    for arm in arms:
        arm.close()


def _echo(master: int) -> None:
    reply = bytes(READ_REPLY)
    waiting = 0
    while True:
        waiting += len(os.read(master, 4096))
        while waiting >= READ_REQUEST:
            waiting -= READ_REQUEST
            os.write(master, reply)


@contextmanager
def served() -> Iterator[Path]:
    """The folder with the three ports."""
    with tempfile.TemporaryDirectory() as name:
        command = [sys.executable, "-m", "bench.bus", "--serve", name]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
            if server.stdout is None or server.stdout.readline() != b"ready\n":
                raise RuntimeError("the emulators did not start")
            yield Path(name)
            server.communicate()


def ours(folder: Path) -> tuple[Way, Way]:
    """Reading and writing as the driver does."""
    config = FeetechOptions(port=str(folder / "ours"))
    bus = connect("arm", config, {i: str(i) for i in IDS}, RealClock())

    def write() -> bool:
        bus.sync_write(reg.GOAL_POSITION, dict.fromkeys(IDS, 2048))
        return True

    return lambda: len(bus.sync_read(IDS, START, SIZE)) == len(IDS), write


def sdk(folder: Path) -> tuple[Way, Way]:
    """Reading and writing as the SDK's examples do."""
    port, packets = scs.PortHandler(str(folder / "sdk")), scs.PacketHandler(0)
    port.openPort()
    reader = scs.GroupSyncRead(port, packets, START, SIZE)
    writer = scs.GroupSyncWrite(port, packets, reg.GOAL_POSITION.address, 2)
    for servo_id in IDS:
        reader.addParam(servo_id)
        writer.addParam(servo_id, [0, 8])

    return (
        lambda: bool(reader.txRxPacket() == scs.COMM_SUCCESS),
        lambda: bool(writer.txPacket() == scs.COMM_SUCCESS),
    )


def floor(folder: Path) -> Way:
    """As many bytes each way, and nothing else."""
    descriptor = os.open(folder / "echo", os.O_RDWR | os.O_NOCTTY)
    request = bytes(READ_REQUEST)

    def read() -> bool:
        os.write(descriptor, request)
        left = READ_REPLY
        while left:
            select.select([descriptor], [], [])
            left -= len(os.read(descriptor, left))
        return True

    return read


def measure(ways: dict[str, Way], rounds: int) -> dict[str, dict[str, float]]:
    """Microseconds each way takes, interleaved, and the processor time that it burns meanwhile."""
    wall = {name: np.empty(rounds) for name in ways}
    cpu = dict.fromkeys(ways, 0.0)
    failed = dict.fromkeys(ways, 0)
    for i in range(-50, rounds):
        for name, way in ways.items():
            before_cpu, before = time.process_time(), time.perf_counter()
            worked = way()
            if i >= 0:
                failed[name] += not worked
                wall[name][i] = time.perf_counter() - before
                cpu[name] += time.process_time() - before_cpu
    return {
        name: {
            "p50_us": round(float(np.percentile(taken, 50)) * 1e6, 1),
            "p99_us": round(float(np.percentile(taken, 99)) * 1e6, 1),
            "cpu_us": round(cpu[name] / rounds * 1e6, 1),
            "failed": failed[name],
        }
        for name, taken in wall.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3000)
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve is not None:
        serve(options.serve)
        return
    with served() as folder:
        our_read, our_write = ours(folder)
        sdk_read, sdk_write = sdk(folder)
        floor_read = floor(folder)
        reads = measure({"dexrun": our_read, "sdk": sdk_read, "floor": floor_read}, options.rounds)
        writes = measure({"dexrun": our_write, "sdk_unanswered": sdk_write}, options.rounds)
    result = {
        "bench": "bus",
        "servos": len(IDS),
        "bytes_per_servo": SIZE,
        "rounds": options.rounds,
        "sync_read": reads,
        "sync_write": writes,
        "line_us_at_1_mbaud": {
            "sync_read": 10 * (READ_REQUEST + READ_REPLY),
            "sync_write": 10 * WRITE_REQUEST,
        },
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
