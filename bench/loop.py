"""The real control loop under three loads, beside the usual ways to pace one. One JSON line.

``python -m bench.loop [--rate 30] [--seconds 60] [--baseline-seconds 12] [--rounds 3]``

Loads: ``idle`` (the arm's bus alone); ``inference`` (torch on the inference thread, and bus, force, camera
and planner traffic); ``gil_hog`` (the bus, and a thread of pure Python that never waits). Everything is
taken in turn: in each round, under each load, first the control loop (with the ``[realtime]`` defaults) and
then each other way of pacing (with the system's and the interpreter's defaults). Beside the loop, threads of
a higher priority note when the machine itself was late (`bench.witness`): ``machine`` is the floor of the
same ticks, and the period error is given for all ticks and for those at which the machine was there. Chunks
have 30 rows a second at any rate of the loop.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import anyio
import numpy as np

from bench.loop_paces import Machine, Pace, asyncio_sleep, bare_spin, sleep_per_tick
from bench.ring import machine
from bench.witness import Witness, steal_s, witness
from drivers.arms import describe as describe_arm
from drivers.feetech.calibration import JointCalibration, JointMap
from drivers.feetech.driver import FeetechArm
from drivers.feetech.options import FeetechOptions
from drivers.force.config import ForceConfig
from drivers.force.driver import SerialForce
from drivers.opencv_camera.config import OpenCvConfig
from drivers.opencv_camera.driver import OpenCvCamera
from runtime.beat import Beat
from runtime.clock import NS_PER_S, RealClock
from runtime.control import ControlLoop
from runtime.control_options import LoopOptions
from runtime.device import DeviceThread
from runtime.inputs import Watch
from runtime.interfaces import PolicySpec
from runtime.lag import LagMonitor
from runtime.latest import Latest
from runtime.limits import SafetyOptions
from runtime.messages import ActionChunk, ArmState, Decision, Floats, Frame, Observation, PolicyAnswer
from runtime.realtime import RealtimeOptions, realtime
from runtime.ring import Ring
from runtime.safety import SafetyStage
from runtime.statistics import RunStatistics
from runtime.tick import tick_layout
from runtime.worker import ChunkRequest, InferenceWorker

LOADS = ("idle", "inference", "gil_hog")
CHUNK = 30
ROWS_HZ = 30.0
_TO_FIND_THE_PHASE = 5
"""Ticks after which the earliest one tells when all of them are due."""
CLOCK = RealClock()


def wave(step: int, rows: int) -> Floats:
    """``[rows, 6]`` of a slow, small motion around the middle of the ranges, from `step` on."""
    phase = 2 * np.pi * 0.1 * (step + np.arange(rows)) / ROWS_HZ
    reach = np.array([0.2, 0.1, 0.1, 0.15, 0.3, 0.2])
    middle = np.array([0.0, -1.57, 1.57, 0.4, 0.0, 0.5])
    return np.asarray(middle + np.sin(phase)[:, None] * reach)


class WaveSource:
    """A chunk source without a policy behind it."""

    def __init__(self) -> None:
        self._chunk: ActionChunk | None = None

    def request(self, step: int, epoch: int, committed: Floats, frozen_steps: int) -> bool:
        del committed, frozen_steps
        self._chunk = ActionChunk(wave(step, CHUNK), step, epoch, rate_hz=ROWS_HZ)
        return True

    def poll(self) -> ActionChunk | None:
        chunk, self._chunk = self._chunk, None
        return chunk


class TorchPolicy:
    """A convolutional network of a few hundred MFLOP, on one torch thread: busy for most of the time."""

    spec = PolicySpec("bench", CHUNK, joints=6, cameras=("head",), rate_hz=ROWS_HZ)

    def __init__(self) -> None:
        self._net: Any = None

    def warm_up(self) -> None:
        import torch

        torch.set_num_threads(1)
        torch.manual_seed(0)
        layers: list[Any] = []
        for wide, narrow in ((3, 32), (32, 64), (64, 128), (128, 128)):
            layers += [torch.nn.Conv2d(wide, narrow, 5, 2, 2), torch.nn.ReLU()]
        self._net = torch.nn.Sequential(*layers, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())

    def infer(self, observation: Observation) -> PolicyAnswer:
        import torch

        with torch.inference_mode():
            image = torch.from_numpy(observation.frames["head"].color).permute(2, 0, 1)[None].float() / 255
            for _ in range(3):
                features = self._net(image)
        nudge = float(features.mean()) * 1e-6
        return PolicyAnswer(wave(observation.step, CHUNK) + nudge)

    def statistics(self) -> dict[str, int]:
        """Nothing is counted."""
        return {}

    def reset(self) -> None:
        """Nothing is remembered."""

    def close(self) -> None:
        """Nothing is held."""


class Cell:
    """The devices, for the length of the benchmark; the camera and the force sensor come and go."""

    def __init__(self, clock: RealClock, addresses: dict[str, str]) -> None:
        names = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
        self.clock = clock
        self.model = describe_arm().model()
        calibration = {
            name: JointCalibration(id=i + 1, homing_offset=0, range_min=500, range_max=3596)
            for i, name in enumerate(names)
        }
        ranges = {n: (float(r[0]), float(r[1])) for n, r in zip(names, self.model.ranges, strict=True)}
        joints = JointMap.build(calibration, ranges)
        self.beat: Latest[Beat] = Latest()
        self.arm = FeetechArm("arm", FeetechOptions(port=addresses["arm"]), joints, clock, beat=self.beat)
        self.force = SerialForce("force", ForceConfig(port=addresses["force"]), clock)
        self.camera = OpenCvCamera("head", OpenCvConfig(source=addresses["camera"]), clock)
        self.faults: list[str] = []

    def report(self, error: Exception) -> Decision:
        self.faults.append(str(error))
        return Decision.HOLD

    @contextlib.asynccontextmanager
    async def device(self, driver: Any) -> AsyncIterator[None]:
        thread = DeviceThread(driver, self.clock, self.report, realtime=RealtimeOptions())
        await thread.start()
        try:
            yield
        finally:
            await thread.stop()

    def observe(self, request: ChunkRequest) -> Observation:
        state, frame = self.arm.states.newest(), self.camera.frames.newest()
        if state is None or frame is None:
            raise RuntimeError("no state or frame yet")
        arm = ArmState(state.stamp_ns, state["position"], state["velocity"], state["load"])
        frames = {"head": Frame("head", frame.stamp_ns, frame["color"])}
        return Observation(request.step, request.epoch, request.stamp_ns, arm, frames)


@contextlib.asynccontextmanager
async def planner_traffic(cell: Cell) -> AsyncIterator[None]:
    """Four times a second: JPEG encoding off the loop, a request of that size over loopback HTTP."""
    import cv2
    import httpx

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                size = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
                await reader.readexactly(size)
                body = json.dumps({"choices": [{"message": {"content": "x" * 2000}}]}).encode()
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
                await writer.drain()
        writer.close()

    def question() -> bytes:
        frame = cell.camera.frames.newest()
        jpeg = b"" if frame is None else cv2.imencode(".jpg", frame["color"])[1].tobytes()
        return json.dumps({"image": base64.b64encode(jpeg).decode()}).encode()

    async def ask(client: httpx.AsyncClient, url: str) -> None:
        due = cell.clock.now_ns()
        while True:
            due += NS_PER_S // 4
            content = await cell.clock.run_blocking(question)
            with contextlib.suppress(httpx.HTTPError):  # a starved machine may be late; the loop is judged
                (await client.post(url, content=content)).json()
            await cell.clock.sleep_until_ns(due)

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with httpx.AsyncClient() as client, anyio.create_task_group() as tasks:
        tasks.start_soon(ask, client, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
        try:
            yield
        finally:
            tasks.cancel_scope.cancel()
    server.close()


@contextlib.contextmanager
def gil_hog() -> Iterator[None]:
    stopping = False

    def main() -> None:
        count = 0
        while not stopping:
            count += 1

    thread = threading.Thread(target=main)
    thread.start()
    try:
        yield
    finally:
        stopping = True
        thread.join()


@contextlib.asynccontextmanager
async def under(load: str, cell: Cell) -> AsyncIterator[Any]:
    """Everything that goes on under `load`; gives the chunk source."""
    async with contextlib.AsyncExitStack() as stack:
        if load == "gil_hog":
            stack.enter_context(gil_hog())
        if load != "inference":
            yield WaveSource()
            return
        await stack.enter_async_context(cell.device(cell.force))
        await stack.enter_async_context(cell.device(cell.camera))
        await stack.enter_async_context(planner_traffic(cell))
        worker = InferenceWorker(TorchPolicy(), cell.observe, cell.clock)
        worker.start()
        try:
            await worker.ready()
            yield worker.attempt()
        finally:
            worker.stop()
            await worker.join()


async def control(
    cell: Cell,
    load: str,
    source: Any,
    rate_hz: float,
    seconds: float,
    statistics: RunStatistics,
    machine_late: Witness,
) -> tuple[dict[int, int], dict[int, int]]:
    """Run the control loop for `seconds`; returns the start of every tick by its number, and by how much the
    machine was late at it.
    """
    sensors = load == "inference"
    # With the devices comes an inference thread that never rests: it is asked for a chunk at every tick.
    options = LoopOptions(rate_hz=rate_hz, request_below=1.0) if sensors else LoopOptions(rate_hz=rate_hz)
    period_ns = 1e9 / rate_hz
    records = Ring(tick_layout(6, 3 if sensors else 0), 64)
    watches = (
        (Watch("force", cell.force.samples, 0.5), Watch("head", cell.camera.frames, 0.5)) if sensors else ()
    )
    loop = ControlLoop(
        cell.clock,
        options,
        cell.arm,
        SafetyStage(SafetyOptions(), cell.model),
        statistics,
        force=cell.force.samples if sensors else None,
        watches=watches,
        records=records,
        beat=cell.beat,
        grippers=cell.model.grippers,
    )
    starts: dict[int, int] = {}
    ticks, watched = round(seconds * rate_hz), False
    cursor = records.reader()
    loop.follow(source)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(loop.run)
        while len(starts) < ticks:
            await loop.ticked()
            while (record := cursor.next()) is not None:
                starts[int(record["tick"])] = record.stamp_ns
            if not watched and len(starts) >= _TO_FIND_THE_PHASE:
                origin_ns = round(min(start - tick * period_ns for tick, start in starts.items()))
                machine_late.begin(origin_ns, period_ns, max(starts) + 1, ticks - len(starts))
                watched = True
        loop.close()
    if loop.state == "stopped":
        raise RuntimeError(f"the control loop stopped: {loop.reason}")
    return starts, await cell.clock.run_blocking(machine_late.end)


async def measure(cell: Cell, args: argparse.Namespace, machine_late: Witness) -> dict[str, Any]:
    statistics = {load: RunStatistics() for load in LOADS}
    paces: dict[str, dict[str, Pace]] = {load: {} for load in LOADS}
    machines = {load: Machine(1.0 / args.rate) for load in LOADS}
    few = max(2, round(args.baseline_seconds / args.rounds * args.rate))
    for _ in range(args.rounds):
        for load in LOADS:
            async with under(load, cell) as source, anyio.create_task_group() as tasks:
                tasks.start_soon(LagMonitor(cell.clock, statistics[load].loop_lag).run)
                before_s = steal_s()
                with realtime(RealtimeOptions()) as applied:
                    seconds = args.seconds / args.rounds
                    starts, late = await control(
                        cell, load, source, args.rate, seconds, statistics[load], machine_late
                    )
                machines[load].stolen_s += steal_s() - before_s
                machines[load].add(starts, late)
                paces[load].setdefault("control_loop", Pace(1.0 / args.rate)).add(starts)
                tasks.cancel_scope.cancel()
            async with under(load, cell):
                await others(paces[load], few, 1.0 / args.rate)
    return {
        "realtime": {"applied": applied.applied, "refused": applied.refused},
        "loads": {load: describe(paces[load], statistics[load], machines[load]) for load in LOADS},
    }


async def others(paces: dict[str, Pace], count: int, period_s: float) -> None:
    ways: dict[str, Callable[[int, float], list[int]]] = {
        "sleep_per_tick": sleep_per_tick,
        "bare_spin": bare_spin,
    }
    for name, way in ways.items():
        paces.setdefault(name, Pace(period_s)).add(dict(enumerate(way(count, period_s))))
    starts = await asyncio_sleep(count, period_s)
    paces.setdefault("asyncio_sleep", Pace(period_s)).add(dict(enumerate(starts)))


def describe(paces: dict[str, Pace], statistics: RunStatistics, machine_late: Machine) -> dict[str, Any]:
    summary = statistics.summary()
    keys = (
        "ticks",
        "missed_ticks",
        "starved_ticks",
        "held_ticks",
        "wakeup_error_us",
        "work_us",
        "loop_lag_us",
    )
    report: dict[str, Any] = {name: pace.report() for name, pace in paces.items()}
    report["control_loop"].update({key: summary[key] for key in keys})
    report["control_loop"]["policy"] = summary["policy"]
    report["machine"] = machine_late.report()
    return report


def verdict(loads: dict[str, Any]) -> dict[str, bool]:
    """Against the limits that this project set itself."""
    loop = {load: loads[load]["control_loop"] for load in LOADS}
    there = {load: loads[load]["machine"] for load in LOADS}
    limits = {"idle": 0.3, "inference": 0.3, "gil_hog": 1.0}
    at_others = "period_error_ms_at_other_ticks"
    return {
        **{f"p99_{load}": loop[load]["period_error_ms"]["p99"] <= limits[load] for load in LOADS},
        **{f"p99_{load}_machine_there": there[load][at_others]["p99"] <= limits[load] for load in LOADS},
        "no_missed_ticks": all(loop[load]["missed_ticks"] == 0 for load in LOADS),
        "no_missed_ticks_machine_there": all(
            there[load]["missed_ticks_at_other_ticks"] == 0 for load in LOADS
        ),
        "work_p99": all(loop[load]["work_us"]["p99"] <= 2000 for load in LOADS),
    }


async def bench(args: argparse.Namespace) -> None:
    clock = CLOCK
    command = [sys.executable, "-m", "bench.loop_hardware"]
    hardware = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: ASYNC220 - once, before anything runs
    try:
        line = hardware.stdout.readline() if hardware.stdout is not None else ""
        if not line:
            raise RuntimeError("the emulated hardware did not start")
        addresses = json.loads(line)
        cell = Cell(clock, addresses)
        with witness() as machine_late:
            async with cell.device(cell.arm):
                measured = await measure(cell, args, machine_late)
        report = {"bench": "loop", "machine": machine(), "rate_hz": args.rate, "seconds": args.seconds}
        report.update(measured, passed=verdict(measured["loads"]), device_faults=cell.faults)
        print(json.dumps(report))
    finally:
        hardware.communicate(timeout=10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=30.0, help="ticks per second")
    parser.add_argument("--seconds", type=float, default=60.0, help="of the control loop, under each load")
    parser.add_argument("--baseline-seconds", type=float, default=12.0, help="of each other way, likewise")
    parser.add_argument("--rounds", type=int, default=3)
    CLOCK.run(bench, parser.parse_args())


if __name__ == "__main__":
    main()
