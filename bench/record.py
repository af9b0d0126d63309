"""The recorder while the control loop runs, and the same loop without it. One JSON line.

``python -m bench.record [--seconds 300] [--rounds 5] [--quality 90] [--lossless] [--folder DIR]``

Two 640x480 colour streams and one depth stream at 30 fps, joints at 100 Hz, force at 200 Hz: pictures that
the simulated tabletop's cameras took, with sensor noise, written into rings by one thread per device, as the
drivers do. In turn: a while without recording, twice as long with, and as long as at first without; as long
with as without in the end, and the same disturbances from elsewhere on the machine for both.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import anyio
import numpy as np
from loguru import logger

from bench.ring import machine
from dexrun.config.recording_options import RecordingOptions
from dexrun.episodes.episodes import Episodes
from drivers.arms import describe
from runtime.clock import NS_PER_S, RealClock
from runtime.control import ControlLoop
from runtime.control_options import LoopOptions
from runtime.limits import SafetyOptions
from runtime.messages import ActionChunk, Floats
from runtime.ports import LoopListener
from runtime.realtime import RealtimeOptions, realtime
from runtime.recording.reader import Recording
from runtime.recording.recorder import Recorder
from runtime.recording.tracks import camera_track, rows_track
from runtime.ring import Mailbox, Ring, capacity_for
from runtime.safety import SafetyStage
from runtime.statistics import Histogram, RunStatistics
from runtime.tick import tick_layout

WIDTH, HEIGHT, FPS, ARM_HZ, FORCE_HZ = 640, 480, 30.0, 100.0, 200.0
PICTURES = 24
REST = np.array([0.0, -1.57, 1.57, 0.4, 0.0, 0.5])
REACH = np.array([0.2, 0.1, 0.1, 0.15, 0.3, 0.2])


# --- pictures


def render(path: Path) -> None:
    """In a process of its own, so that no graphics thread stays: what both cameras see as the arm moves."""
    from drivers.world.config import HeadCameraOptions, WorldConfig, WristCameraOptions
    from drivers.world.layout import draw_objects
    from drivers.world.physics import Tabletop
    from drivers.world.render import Renderer, prepare_environment

    head = HeadCameraOptions(width=WIDTH, height=HEIGHT)
    config = WorldConfig(seed=1, head=head, wrist=WristCameraOptions(width=WIDTH, height=HEIGHT))
    prepare_environment(config.render)
    import mujoco

    table = Tabletop(config, draw_objects(config), describe())
    renderer = Renderer(table.model, config)
    rng = np.random.default_rng(0)
    color = np.empty((PICTURES, HEIGHT, WIDTH, 3), np.uint8)
    wrist, depth = color.copy(), np.empty((PICTURES, HEIGHT, WIDTH), np.uint16)
    for index in range(PICTURES):
        table.data.qpos[:5] = (REST + REACH * np.sin(2 * np.pi * index / PICTURES))[:5]
        mujoco.mj_forward(table.model, table.data)
        renderer.head(table.data, color[index], depth[index])
        wrist[index] = renderer.wrist(table.data)
    for images in (color, wrist):
        noise = rng.normal(0.0, 2.0, images.shape)
        images[:] = np.clip(images + noise, 0, 255).astype(np.uint8)
    renderer.close()
    np.savez(path, color=color, wrist=wrist, depth=depth)


def pictures() -> dict[str, Any]:
    """``color``, ``depth`` and ``wrist``, first axis the picture."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pictures.npz"
        subprocess.run([sys.executable, "-m", "bench.record", "--render", str(path)], check=True)
        with np.load(path) as file:
            return {name: file[name] for name in file.files}


# --- devices


class Feed:
    """A thread that writes one ring at a rate, and counts."""

    def __init__(self, clock: RealClock, rate_hz: float, write: Callable[[int, int], None]) -> None:
        self.count = 0
        self._clock = clock
        self._rate = rate_hz
        self._write = write
        self._stopping = False
        self._thread = threading.Thread(target=self._main, daemon=True)
        self._thread.start()

    def _main(self) -> None:
        start_ns = self._clock.now_ns()
        while not self._stopping:
            self._clock.wait_until_ns(start_ns + round(self.count * NS_PER_S / self._rate))
            self._write(self.count, self._clock.now_ns())
            self.count += 1

    def stop(self) -> None:
        self._stopping = True
        self._thread.join()


class Arm:
    """Arrives at once where it is sent."""

    def __init__(self) -> None:
        layout = dict.fromkeys(("position", "velocity", "load"), ((6,), "<f8"))
        self.states = Ring(layout, capacity_for(ARM_HZ, 1.0))
        self.targets = Mailbox({"position": ((6,), "<f8")})
        self._position = REST.copy()

    def poll(self, count: int, now_ns: int) -> None:
        target = self.targets.take()
        if target is not None:
            self._position = target["position"]
        noise = 1e-3 * np.sin(count * np.arange(1, 7))
        self.states.push(now_ns, position=self._position + noise, velocity=10 * noise, load=noise)


class Wave:
    """A chunk source without a policy behind it."""

    def __init__(self) -> None:
        self._chunk: ActionChunk | None = None

    def request(self, step: int, epoch: int, committed: Floats, frozen_steps: int) -> bool:
        del committed, frozen_steps
        phase = 2 * np.pi * 0.1 * (step + np.arange(30)) / 30
        self._chunk = ActionChunk(REST + np.sin(phase)[:, None] * REACH, step, epoch)
        return True

    def poll(self) -> ActionChunk | None:
        chunk, self._chunk = self._chunk, None
        return chunk


class Cell:
    """Rings, the threads that fill them, and the control loop."""

    def __init__(self, clock: RealClock, images: Mapping[str, Any]) -> None:
        self.clock = clock
        pixels, slots = ((HEIGHT, WIDTH, 3), "uint8"), capacity_for(FPS, 0.5)
        self.head = Ring({"color": pixels, "depth": ((HEIGHT, WIDTH), "uint16")}, slots)
        self.wrist = Ring({"color": pixels}, slots)
        self.force = Ring({"force": ((3,), "<f8"), "saturated": ((3,), "|u1")}, capacity_for(FORCE_HZ, 1.0))
        self.arm = Arm()
        self.records = Ring(tick_layout(6, 3), 600)
        self._images = images

    def control(self, statistics: RunStatistics) -> ControlLoop:
        model = describe().model()
        safety = SafetyStage(SafetyOptions(), model)
        options = LoopOptions()
        return ControlLoop(
            self.clock,
            options,
            self.arm,
            safety,
            statistics,
            force=self.force,
            records=self.records,
            grippers=model.grippers,
        )

    def start(self) -> list[Feed]:
        images, clock = self._images, self.clock

        def head(count: int, now_ns: int) -> None:
            with self.head.write(now_ns) as slot:
                np.copyto(slot["color"], images["color"][count % PICTURES])
                np.copyto(slot["depth"], images["depth"][count % PICTURES])

        def wrist(count: int, now_ns: int) -> None:
            with self.wrist.write(now_ns) as slot:
                np.copyto(slot["color"], images["wrist"][count % PICTURES])

        def force(count: int, now_ns: int) -> None:
            self.force.push(now_ns, force=0.1 * np.sin(count * np.arange(1, 4)), saturated=0)

        rates = {FPS: (head, wrist), ARM_HZ: (self.arm.poll,), FORCE_HZ: (force,)}
        return [Feed(clock, rate, write) for rate, writes in rates.items() for write in writes]

    def recorder(self, options: RecordingOptions, folder: Path) -> Recorder:
        tracks = [
            camera_track("head", self.head, options),
            camera_track("wrist", self.wrist, options),
            rows_track("arm", "/arm/state", "dexrun.ArmState", self.arm.states),
            rows_track("force", "/force", "dexrun.Force", self.force),
            rows_track("control", "/ticks", "dexrun.Tick", self.records),
        ]
        return Recorder(self.clock, options, folder, tracks)


# --- measuring


def recorder_cpu_s() -> float:
    """CPU time of the recorder's threads so far, as the system counts it."""
    total = 0.0
    for thread in threading.enumerate():
        if thread.name.startswith("record") and thread.ident is not None:
            total += time.clock_gettime(time.pthread_getcpuclockid(thread.ident))
    return total


class _Nudge:
    """Lets the recorder work while the loop rests, as in a run."""

    def __init__(self, recorder: Recorder) -> None:
        self.ticked = recorder.nudge

    def noted(self, kind: str, values: Mapping[str, Any]) -> None:
        """Not kept here."""


async def loop_for(
    cell: Cell,
    statistics: RunStatistics,
    during: Callable[[], Awaitable[None]],
    listener: LoopListener | None = None,
) -> None:
    """Run the control loop while `during` is awaited."""
    control = cell.control(statistics)
    if listener is not None:
        control.tell(listener)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(control.run)
        await control.ticked()
        control.follow(Wave())
        await during()
        control.close()


class Turns:
    """The loop's figures, a turn at a time."""

    def __init__(self) -> None:
        self.turns: list[RunStatistics] = []

    def next(self) -> RunStatistics:
        self.turns.append(RunStatistics())
        return self.turns[-1]

    @property
    def missed(self) -> int:
        return sum(turn.missed for turn in self.turns)

    def period_error(self) -> Histogram:
        """Of all turns together."""
        total = Histogram()
        for turn in self.turns:
            total.add(turn.period_error)
        return total

    def p99_us(self) -> list[float]:
        return [round(turn.period_error.quantile(0.99) / 1e3, 1) for turn in self.turns]


class Session:
    """Episodes of the benchmark, each followed at once by a short one."""

    def __init__(self, clock: RealClock, episodes: Episodes, seconds: float) -> None:
        self._clock = clock
        self._episodes = episodes
        self._seconds = seconds
        self.ready_s: list[float] = []
        self.cpu_s = 0.0

    async def pause(self, seconds: float) -> None:
        """Let time pass."""
        await self._clock.sleep_until_ns(self._clock.now_ns() + round(seconds * NS_PER_S))

    async def record(self) -> None:
        """One episode, and a second of the next."""
        before, episodes = recorder_cpu_s(), self._episodes
        episodes.start("benchmark")
        await self.pause(self._seconds)
        stop_ns = self._clock.now_ns()
        episodes.stop("success")
        episodes.start("the next one")
        self.ready_s.append((self._clock.now_ns() - stop_ns) / NS_PER_S)
        await self.pause(1.0)
        episodes.stop("success")
        await self.pause(1.0)  # what is queued is written, and counted, before the next stretch without
        self.cpu_s += recorder_cpu_s() - before


async def measure(arguments: argparse.Namespace, images: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    clock = RealClock()
    cell = Cell(clock, images)
    options = RecordingOptions(jpeg_quality=arguments.quality, lossless=arguments.lossless)
    feeds = cell.start()
    recorder = cell.recorder(options, folder)
    recorder.start()
    turn_s = arguments.seconds / arguments.rounds
    session = Session(clock, Episodes(recorder, options, now_ns=clock.now_ns), turn_s)
    on, off = Turns(), Turns()
    with realtime(RealtimeOptions()):
        for _ in range(arguments.rounds):
            without, recording = off.next(), on.next()
            await loop_for(cell, without, lambda: session.pause(turn_s / 2))
            await loop_for(cell, recording, session.record, _Nudge(recorder))
            await loop_for(cell, without, lambda: session.pause(turn_s / 2))
        await recorder.close()
    for feed in feeds:
        await clock.run_blocking(feed.stop)
    recorded_s = arguments.seconds + arguments.rounds
    return {
        **figures(folder, turn_s, arguments.seconds),
        "cpu_s_per_s": round(session.cpu_s / recorded_s, 4),
        "stop_to_ready_s": round(max(session.ready_s), 6),
        "ticks": sum(turn.ticks for turn in on.turns),
        "missed_ticks": {"on": on.missed, "off": off.missed},
        "period_error_us_on": on.period_error().summary(1e-3, 1),
        "period_error_us_off": off.period_error().summary(1e-3, 1),
        "period_error_p99_us_by_turn": {"on": on.p99_us(), "off": off.p99_us()},
        "period_error_p99_ratio": round(
            on.period_error().quantile(0.99) / off.period_error().quantile(0.99), 3
        ),
        # One bad second of the machine decides the p99 of all; the median turn does not see it.
        "period_error_p99_ratio_of_median_turns": round(median(on.p99_us()) / median(off.p99_us()), 3),
    }


def figures(folder: Path, turn_s: float, seconds: float) -> dict[str, Any]:
    """What is in the files, counted."""
    with Recording(folder) as recording:
        episodes = recording.episodes
        drops: dict[str, int] = {}
        for episode in episodes:
            for name, count in episode.drops.items():
                drops[name] = drops.get(name, 0) + count
        expected = [
            "/cameras/head/color",
            "/cameras/head/depth",
            "/cameras/wrist/color",
            "/arm/state",
            "/force",
        ]
        gaps = sum(_gaps(episode, topic) for episode in episodes for topic in expected)
        longer = episodes[::2]
        totals: dict[str, int] = {}
        for episode in longer:
            for topic, count in episode.topics.items():
                totals[topic] = totals.get(topic, 0) + count
        size = sum(episode.path.stat().st_size for episode in longer)
        between = [
            float(after.times(expected[0])[0] - before.times(expected[0])[-1]) / 1e9
            for before, after in zip(longer, episodes[1::2], strict=True)
        ]
    return {
        "benchmark": "record",
        "seconds": seconds,
        "episode_s": turn_s,
        "drops": drops,
        "sequence_gaps": gaps,
        "rates_hz": {topic: round(n / seconds, 2) for topic, n in totals.items() if n > 10 * len(longer)},
        "mb_per_s": round(size / seconds / 1e6, 3),
        "frame_gap_between_episodes_s": round(max(between), 4),
    }


def _gaps(episode: Any, topic: str) -> int:
    index = [sample.index for sample in episode.samples(topic)]
    return int((np.diff(index) - 1).sum())


def main() -> None:
    """Measure, and print one line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--rounds", type=int, default=5, help="episodes that the time is divided into")
    parser.add_argument("--quality", type=int, default=90)
    parser.add_argument("--lossless", action="store_true")
    parser.add_argument(
        "--folder", type=Path, help="where to record (default: a temporary folder on this disk)"
    )
    parser.add_argument("--render", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.render:
        render(arguments.render)
        return
    logger.remove()
    images = pictures()
    folder = Path(tempfile.mkdtemp(prefix="bench-record-", dir=arguments.folder))
    try:
        clock = RealClock()
        result = clock.run(measure, arguments, images, folder)
    finally:
        shutil.rmtree(folder)
    print(json.dumps({**result, "machine": machine()}))


if __name__ == "__main__":
    main()
