"""From a leader's motion to the follower's goal on its bus, beside LeRobot's own loop.

``python -m bench.teleop`` prints one JSON line. Real time; the emulated buses and cameras are a process of
their own (`bench.teleop_hardware`). In each round first dexrun runs, once at every rate, then LeRobot's
`teleop_loop`, once at every rate of frames, each as a process of its own. ``latency_ms``: for every
millisecond of the leader's motion, how long it took until a goal was written that knows of it: p50, p99, and
the standard deviation as jitter. ``age_ms``: how old the leader's position was in a goal that was written.
``machine_s``: processor seconds that the whole machine spent meanwhile. Without ``.venv-lerobot`` (made by
``tests/remote/interop/make_envs.sh lerobot``), dexrun alone.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from bench.ring import machine
from bench.teleop_hardware import MIDDLE, REACH, SPEED
from runtime.clock import NS_PER_S
from runtime.messages import Floats

ROOT = Path(__file__).parent.parent
SETTLE_S = 3.0
"""After the first goal: the follower comes to its leader."""
AT_A_TURN_S = 0.25
"""So near to where the motion turns a position tells two times: such goals are left out."""
LEROBOT = ROOT / ".venv-lerobot" / "bin" / "python"


class Hardware:
    """The emulated devices."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        told = json.loads(self._line())
        self.folder, self.cameras, self.began_ns = told["folder"], told["cameras"], told["began_ns"]

    def _line(self) -> str:
        assert self._process.stdout is not None  # noqa: S101 - it is piped
        return self._process.stdout.readline()

    def noted(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """``[N, 2]``: when a goal was written, and which, since this was asked last."""
        assert self._process.stdin is not None  # noqa: S101 - it is piped
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return np.array(json.loads(self._line()), dtype=np.int64).reshape(-1, 2)


@contextmanager
def hardware() -> Iterator[Hardware]:
    """It runs meanwhile."""
    command = [sys.executable, "-m", "bench.teleop_hardware"]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield Hardware(process)
        finally:
            assert process.stdin is not None  # noqa: S101 - it is piped
            process.stdin.close()


def known_at(written_s: Floats, goals: Floats) -> tuple[Floats, Floats, Floats]:
    """Of goals written so long after the motion began: when, since when their place was true, and the leg."""
    leg = 2 * REACH / SPEED
    out = (goals - (MIDDLE - REACH)) / SPEED
    number = np.floor(written_s / leg)
    since = number * leg + np.where(number % 2 == 0, out, leg - out)
    inside = (written_s - number * leg > AT_A_TURN_S) & (written_s > since)
    return written_s[inside], since[inside], number[inside]


def figures(noted: np.ndarray[Any, np.dtype[np.int64]], began_ns: int) -> tuple[Floats, Floats]:
    """Latencies of every millisecond, and ages at the writes, both in milliseconds."""
    written_s = (noted[:, 0] - began_ns) / NS_PER_S
    settled = written_s > written_s[0] + SETTLE_S
    written, since, leg = known_at(written_s[settled], noted[settled, 1].astype(np.float64))
    latencies = []
    pairs = zip(since[:-1], since[1:], written[1:], leg[:-1], leg[1:], strict=True)
    for before, after, until, one, other in pairs:
        if before < after and one == other:  # between two legs lies a turn
            latencies.append(until - np.arange(before, after, 1e-3))
    return np.concatenate(latencies) * 1e3, (written - since) * 1e3


def ours(devices: Hardware, seconds: float, rate_hz: int, trust_s: float, scratch: Path) -> list[str]:
    """The command of a run of dexrun; `trust_s` is its follower's ``trust_torque_s``."""
    arms = "".join(
        f'[{table}]\ndriver = "feetech"\nport = "{devices.folder}/{wire}"\n{more}\n'
        f'calibration = "{devices.folder}/{wire}.json"\npacket_timeout_s = 1.0\n'
        for table, wire, more in (
            ("arm", "follower", f"trust_torque_s = {trust_s}"),
            ("leader", "leader", f'role = "leader"\nstate_rate_hz = {max(100, rate_hz)}'),
        )
    )
    cameras = "".join(
        f'[cameras.camera{number}]\ndriver = "opencv"\nsource = "{url}"\nwidth = 640\nheight = 480\n'
        for number, url in enumerate(devices.cameras)
    )
    file = scratch / f"{rate_hz}.toml"
    file.write_text(
        f'mode = "teleop"\nruns = "{scratch}/runs"\n{arms}{cameras}[control]\nrate_hz = {rate_hz}\n'
        f'[teleop]\nduration_s = {seconds}\n[recording]\nteleop = false\n[terminal]\nstyle = "none"\n'
    )
    return [sys.executable, "-m", "dexrun", "--config", str(file)]


def theirs(devices: Hardware, seconds: float, fps: int) -> list[str]:
    """The command of LeRobot's loop."""
    script = str(ROOT / "tests" / "remote" / "interop" / "lerobot_teleop_peer.py")
    return [str(LEROBOT), script, devices.folder, str(seconds), str(fps), *devices.cameras]


def busy_s() -> float:
    """Processor seconds of the whole machine so far."""
    numbers = [int(text) for text in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    idle = numbers[3] + numbers[4]
    return (sum(numbers[:8]) - idle) / os.sysconf("SC_CLK_TCK")


def played(devices: Hardware, command: Sequence[str]) -> tuple[Floats, Floats, float]:
    """Run it; latencies, ages, and the processor seconds that the machine spent."""
    devices.noted()
    before = busy_s()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command[:4])}: {done.stderr[-2000:]}")
    latency, age = figures(devices.noted(), devices.began_ns)
    return latency, age, busy_s() - before


def summarised(latency: Floats, age: Floats) -> dict[str, Any]:
    """For the JSON line."""

    def at(values: Floats, share: float) -> float:
        return round(float(np.percentile(values, share)), 2)

    return {
        "latency_ms": {
            "p50": at(latency, 50),
            "p99": at(latency, 99),
            "jitter": round(float(latency.std()), 2),
        },
        "age_ms": {"p50": at(age, 50), "p99": at(age, 99)},
        "goals": len(age),
    }


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=12.0, help="of each run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rates", type=int, nargs="*", default=[30, 100, 200], help="of dexrun's loop, Hz")
    parser.add_argument("--fps", type=int, nargs="*", default=[60, 30], help="of LeRobot's loop")
    parser.add_argument("--trust", type=float, default=0.0, help="the follower's trust_torque_s")
    arguments = parser.parse_args()
    fps = arguments.fps if LEROBOT.exists() else []
    ways = [("dexrun", rate) for rate in arguments.rates] + [("lerobot", each) for each in fps]
    found: dict[tuple[str, int], list[tuple[Floats, Floats, float]]] = {way: [] for way in ways}
    with tempfile.TemporaryDirectory() as name, hardware() as devices:
        for _ in range(arguments.rounds):
            for who, rate in ways:
                command = (
                    ours(devices, arguments.seconds, rate, arguments.trust, Path(name))
                    if who == "dexrun"
                    else theirs(devices, arguments.seconds, rate)
                )
                found[who, rate].append(played(devices, command))
    result: dict[str, Any] = {"bench": "teleop", "machine": machine(), "load": os.getloadavg()[0]}
    for (who, rate), runs in found.items():
        latency, age = (np.concatenate([run[part] for run in runs]) for part in (0, 1))
        of = summarised(np.asarray(latency), np.asarray(age))
        of["machine_s"] = round(sum(run[2] for run in runs), 1)
        result.setdefault(who, {})[str(rate)] = of
    print(json.dumps(result))


if __name__ == "__main__":
    main()
