"""What a splice costs: starved ticks, seams, added acceleration and lag, by blend and inference time.

``python -m bench.splice`` drives the real control loop, horizon and inference worker on a stepped clock, at
30 Hz, chunks of 50, against two policies: a synthetic one (a smooth trajectory plus a bias per chunk) and a
recorded one (chunks from a file). Beside them, in the same run, a queue that asks again when half empty and
blends with LeRobot's weighted average, re-created from its published rules (`lerobot_queue`).

Prints one JSON line per case and a last line with the claims and whether they hold.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import numpy as np
from numpy.typing import NDArray

from policies.worker import ChunkRequest, InferenceWorker
from runtime.control import ControlLoop, ControlOptions
from runtime.interfaces import PolicySpec
from runtime.messages import ArmState, Clip, Floats, Observation
from runtime.ring import Ring
from runtime.rtc import pad_committed, prefix_weights
from runtime.statistics import RunStatistics
from runtime.stepped import SteppedClock

RATE_HZ = 30.0
CHUNK = 50
JOINTS = 6
LATENCIES_S = (0.1, 0.2, 0.3, 0.8, 1.0, 1.5)
BLENDS = ("latest", "average", "weighted_average", "temporal_ensemble", "rtc")
BIAS_RAD = 0.02
"""Standard deviation of a chunk's constant error, per joint: chunks then differ by 20 to 70 mrad."""


def ideal(steps: NDArray[Any]) -> Floats:
    """The trajectory that the synthetic policy means, ``[n]`` steps to ``[n, 6]`` radians (gripper 0..1)."""
    seconds = np.asarray(steps, float)[:, None] / RATE_HZ
    hertz = np.array([0.05, 0.07, 0.09, 0.06, 0.08, 0.05])
    angles: Floats = 0.4 * np.sin(2 * np.pi * hertz * seconds + np.arange(JOINTS))
    angles[:, -1] = 0.5 + 0.5 * angles[:, -1]
    return angles


def continue_prefix(clean: Floats, committed: Floats, frozen: int, stiffness: float = 100.0) -> Floats:
    """What a policy whose chunks are smooth makes of `clean` when given a committed prefix.

    The least-squares smooth correction `e` of the chunk: near ``committed - clean`` where the weights of
    `runtime.rtc` say so, small in its second difference, and small by itself where nothing is committed.
    """
    horizon = len(clean)
    weights = prefix_weights(horizon, frozen, len(committed)) * 100.0
    difference = pad_committed(committed, horizon) - clean
    second = np.diff(np.eye(horizon), n=2, axis=0)
    normal = np.diag(weights + 0.01) + stiffness * second.T @ second
    return np.asarray(clean + np.linalg.solve(normal, weights[:, None] * difference))


class Synthetic:
    """The ideal trajectory with a small bias per chunk, from a seed."""

    def __init__(self, seed: int, scale: Floats, takes_prefix: bool) -> None:
        self.spec = PolicySpec("synthetic", CHUNK, JOINTS, takes_prefix=takes_prefix)
        self._rng = np.random.default_rng(seed)
        self._scale = scale

    def chunk(self, step: int, committed: Floats, frozen: int) -> Floats:
        """``[50, 6]`` in the unit that `scale` makes of radians."""
        rows = ideal(step + np.arange(CHUNK)) + self._rng.normal(0, BIAS_RAD, JOINTS)
        if self.spec.takes_prefix and len(committed):
            rows = continue_prefix(rows, committed / self._scale, frozen)
        return np.asarray(rows * self._scale)

    def infer(self, observation: Observation) -> Floats:
        """A chunk for the observation's step."""
        return self.chunk(observation.tick, observation.committed, observation.frozen_steps)

    def warm_up(self) -> None:
        """Nothing to do."""

    def reset(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to do."""


class Recorded(Synthetic):
    """Chunks of a real policy, by the step that they were observed at.

    The file holds ``chunks[N, T, 6]`` and ``ticks[N]``, in order. A request between two of them gets the
    rows of the earlier one from there on; past the end the recording starts over.
    """

    def __init__(self, path: Path, scale: Floats, takes_prefix: bool) -> None:
        super().__init__(0, scale, takes_prefix)
        with np.load(path) as held:
            self._chunks, self._ticks = held["chunks"].astype(float), held["ticks"].astype(int)
        self._length = int(self._ticks[-1]) + 1

    def chunk(self, step: int, committed: Floats, frozen: int) -> Floats:
        """The recorded rows from `step` on, the last one repeated up to 50."""
        place = int(np.searchsorted(self._ticks, step % self._length, side="right")) - 1
        rows = self._chunks[place][step % self._length - self._ticks[place] :][:CHUNK]
        rows = np.concatenate([rows, np.repeat(rows[-1:], CHUNK - len(rows), axis=0)])
        if self.spec.takes_prefix and len(committed):
            rows = continue_prefix(rows, committed / self._scale, frozen)
        return np.asarray(rows * self._scale)


@dataclass
class Trace:
    """What was executed: a row per tick, and what happened at splices."""

    rows: list[Floats] = field(default_factory=list)
    starved: int = 0
    chunks: int = 0
    seams: list[float] = field(default_factory=list)


class _Targets:
    def __init__(self, arm: PerfectArm) -> None:
        self._arm = arm

    def post(self, stamp_ns: int, position: Floats) -> None:
        zeros = np.zeros(JOINTS)
        self._arm.states.push(stamp_ns, position=position, velocity=zeros, load=zeros)
        self._arm.sent.append(position.copy())


class PerfectArm:
    """Is where it was told to be."""

    def __init__(self, start: Floats) -> None:
        layout = dict.fromkeys(("position", "velocity", "load"), ((JOINTS,), "<f8"))
        self.states = Ring(layout, 8)
        self.sent: list[Floats] = []
        self.targets: Any = _Targets(self)
        self.targets.post(0, start)
        self.sent.clear()


@dataclass(frozen=True)
class _Passed:
    target: Floats
    clips: Clip = Clip.NONE
    stop_reason: str | None = None


class _NoSafety:
    """Lets everything pass: what is measured here is the splice."""

    def apply(self, requested: Floats, *rest: object) -> _Passed:
        del rest
        return _Passed(requested.copy())

    def reset(self) -> None:
        """Nothing to do."""


class _SeamLog(RunStatistics):
    """The run's statistics, with every seam kept."""

    def __init__(self) -> None:
        super().__init__()
        self.seams: list[float] = []

    def spliced(self, verdict: str, seam_rad: float | None, inference_s: float) -> None:
        super().spliced(verdict, seam_rad, inference_s)
        if seam_rad is not None:
            self.seams.append(seam_rad)


def ours(policy: Synthetic, blend: str, latency_s: float, ticks: int, scale: Floats) -> Trace:
    """The real control loop on a stepped clock."""
    clock = SteppedClock()
    arm, statistics = PerfectArm(ideal(np.zeros(1))[0] * scale), _SeamLog()
    options = ControlOptions.model_validate({"blend": blend, "rate_hz": RATE_HZ, "follow_blend_s": 0.0})
    loop = ControlLoop(clock, options, arm, _NoSafety(), statistics)

    def observe(request: ChunkRequest) -> Observation:
        sample = arm.states.newest()
        assert sample is not None  # noqa: S101 - pushed at the start
        state = ArmState(sample.stamp_ns, sample["position"], sample["velocity"], sample["load"])
        return Observation(
            request.tick, request.epoch, request.stamp_ns, state,
            committed=request.committed, frozen_steps=request.frozen_steps,
        )  # fmt: skip

    async def main() -> None:
        worker = InferenceWorker(policy, observe, clock, latency_s)
        worker.start()
        await worker.ready()
        loop.follow(worker)
        async with anyio.create_task_group() as group:
            group.start_soon(loop.run)
            while len(arm.sent) < ticks:
                await loop.ticked()
            loop.close()
        worker.stop()
        await worker.join()

    clock.run(main)
    chunks = sum(statistics.splices.values())
    seams = [s / float(scale[0]) for s in statistics.seams]
    rows = arm.sent[statistics.waiting : ticks]
    return Trace(rows, statistics.starved, chunks, seams)


def lerobot_queue(
    policy: Synthetic, latency_s: float, ticks: int, scale: Floats, new_weight: float = 0.7
) -> Trace:
    """LeRobot's asynchronous client and server, re-created from their published rules.

    Client, per tick: execute the first queued action, if any; if the queue is at most half full, send an
    observation numbered by the last executed step, marked ``must_go`` when the queue is empty and a chunk
    came since the last such mark. Server: keeps one observation, the newest; refuses, unless ``must_go``,
    those of a step that it answered before and those whose state moved by less than 1 (L2) since the last
    answered one; one inference at a time. A chunk's row `k` is for step ``observation + k``; rows of
    executed steps are dropped, rows of queued steps averaged, and the queue is replaced.
    """
    delay = math.ceil(latency_s * RATE_HZ - 1e-9)
    trace, client, server = Trace(), _Client(new_weight), _Server(policy, delay, scale)
    for tick in range(10 * ticks):
        for step, rows in server.finished(tick):
            client.receive(step, rows, trace, scale)
        client.act(trace)
        client.observe(server, tick)
        if len(trace.rows) >= ticks:
            break
    return trace


class _Client:
    def __init__(self, new_weight: float) -> None:
        self.queue: dict[int, Floats] = {}
        self.latest = -1
        self._chunk = 0
        self._must_go = True
        self._weight = new_weight
        self._position: Floats | None = None

    def receive(self, step: int, rows: Floats, trace: Trace, scale: Floats) -> None:
        """Replace the queue."""
        merged: dict[int, Floats] = {}
        for place, row in enumerate(rows, step):
            if place <= self.latest:
                continue
            if place in self.queue:
                merged[place] = (1 - self._weight) * self.queue[place] + self._weight * row
            else:
                merged[place] = row
        before = self.queue.get(min(merged, default=-1), self._position)
        if before is not None and merged:
            jump = np.abs(merged[min(merged)] - before)[:-1] / scale[:-1]
            trace.seams.append(float(jump.max()))
        trace.chunks += 1
        self.queue, self._chunk, self._must_go = merged, max(self._chunk, len(rows)), True

    def act(self, trace: Trace) -> None:
        """Execute the first queued action."""
        if self.queue:
            step = min(self.queue)
            self._position = self.queue.pop(step)
            self.latest = step
        elif self._chunk:
            trace.starved += 1
        if self._position is not None:
            trace.rows.append(self._position)

    def observe(self, server: _Server, tick: int) -> None:
        """Send an observation if the queue is at most half full."""
        if len(self.queue) > 0.5 * self._chunk:
            return
        must_go = self._must_go and not self.queue
        position = self._position if self._position is not None else np.zeros(JOINTS)
        server.enqueue(tick, max(self.latest, 0), position, must_go)
        if must_go:
            self._must_go = False


class _Server:
    def __init__(self, policy: Synthetic, delay: int, scale: Floats) -> None:
        self._policy = policy
        self._delay = delay
        self._scale = scale
        self._waiting: tuple[int, Floats] | None = None
        self._running: tuple[int, int, Floats] | None = None
        self._answered: set[int] = set()
        self._last: Floats | None = None

    def enqueue(self, tick: int, step: int, position: Floats, must_go: bool) -> None:
        """Keep the observation, or refuse it."""
        similar = self._last is not None and float(np.linalg.norm(position - self._last)) < 1.0
        if must_go or self._last is None or not (step in self._answered or similar):
            self._waiting = (step, position)
            self._begin(tick)

    def _begin(self, tick: int) -> None:
        if self._running is None and self._waiting is not None:
            step, position = self._waiting
            self._waiting = None
            self._answered.add(step)
            self._last = position
            rows = self._policy.chunk(step, np.zeros((0, JOINTS)), 0)
            self._running = (tick + self._delay, step, rows)

    def finished(self, tick: int) -> list[tuple[int, Floats]]:
        """The chunk that is done at `tick`, if any; the next inference begins at once."""
        if self._running is None or self._running[0] > tick:
            return []
        _, step, rows = self._running
        self._running = None
        self._begin(tick)
        return [(step, rows)]


def figures(trace: Trace, latency_s: float, scale: Floats) -> dict[str, Any]:
    """The case in numbers; seams and accelerations in radians."""
    rows = np.array(trace.rows)[:, :-1] / scale[:-1]
    ticks = len(rows)
    wanted = ideal(np.arange(ticks))[:, :-1]
    unavoidable = max(0.0, (latency_s * RATE_HZ - CHUNK / 2) / (latency_s * RATE_HZ))
    seams = np.array(trace.seams[1:] or [0.0])
    added = _acceleration(rows) - _acceleration(wanted)
    return {
        "ticks": ticks,
        "chunks": trace.chunks,
        "starved": trace.starved,
        "starved_share": round(trace.starved / ticks, 4),
        "unavoidable_share": round(unavoidable, 4),
        "seam_mrad": {
            "p50": round(float(np.median(seams)) * 1e3, 2),
            "p99": round(float(np.quantile(seams, 0.99)) * 1e3, 2),
            "max": round(float(seams.max()) * 1e3, 2),
        },
        "added_acceleration_rad_s2": round(added, 3),
        "lag_s": round(trace.starved / RATE_HZ, 3),
    }


def _acceleration(rows: Floats) -> float:
    """Root mean square over ticks and joints, rad/s^2."""
    return float(np.sqrt((np.diff(rows, n=2, axis=0) ** 2).mean())) * RATE_HZ**2


def _policy(source: Path | None, seed: int, scale: Floats, takes_prefix: bool) -> Synthetic:
    if source is None:
        return Synthetic(seed, scale, takes_prefix)
    return Recorded(source, scale, takes_prefix)


def run_case(
    blend: str, latency_s: float, seconds: float, unit: str = "rad", source: Path | None = None
) -> dict[str, Any]:
    """One line of the table; `blend` ``"lerobot"`` is the re-created queue."""
    ticks = round(seconds * RATE_HZ)
    scale = np.full(JOINTS, 180 / np.pi if unit == "deg" else 1.0)
    policy = _policy(source, 1, scale, blend == "rtc")
    if blend == "lerobot":
        trace = lerobot_queue(policy, latency_s, ticks, scale)
    else:
        trace = ours(policy, blend, latency_s, ticks, scale)
    name = "synthetic" if source is None else "recorded"
    case = {"policy": name, "blend": blend, "inference_s": latency_s, "unit": unit}
    return {**case, **figures(trace, latency_s, scale)}


def claims(cases: list[dict[str, Any]]) -> dict[str, Any]:
    """What the table has to show, and whether it does."""
    mine = [c for c in cases if c["blend"] != "lerobot" and c["policy"] == "synthetic"]
    fast = [c for c in mine if c["inference_s"] * RATE_HZ <= CHUNK / 2]
    slow = [c for c in mine if c["inference_s"] * RATE_HZ > CHUNK / 2]
    over = [c["starved"] - c["unavoidable_share"] * c["ticks"] for c in slow]
    seams = {(c["blend"], c["inference_s"]): c["seam_mrad"] for c in mine if c["unit"] == "rad"}
    ratios = [
        seams["rtc", d][q] / seams["latest", d][q] for d in LATENCIES_S for q in ("p50", "p99")
        if ("rtc", d) in seams and ("latest", d) in seams
    ]  # fmt: skip
    units = [
        (a["starved"], b["starved"])
        for a in mine
        for b in mine
        if a["unit"] == "rad" and b["unit"] == "deg"
        and (a["blend"], a["inference_s"]) == (b["blend"], b["inference_s"])
    ]  # fmt: skip
    return {
        "starved_up_to_half_a_chunk": max((c["starved"] for c in fast), default=0),
        "starved_ticks_per_chunk_over_the_minimum": round(
            max((o / c["chunks"] for o, c in zip(over, slow, strict=True)), default=0.0), 3
        ),
        "worst_rtc_seam_over_latest": round(max(ratios, default=0.0), 3),
        "starved_in_degrees_as_in_radians": all(a == b for a, b in units),
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="simulated time per case")
    parser.add_argument("--recorded", type=Path, default=None, help="chunks of a real policy (.npz)")
    options = parser.parse_args()
    cases = []
    for latency_s in LATENCIES_S:
        for blend in (*BLENDS, "lerobot"):
            plan = [("rad", None)] + ([("deg", None)] if blend in ("latest", "rtc", "lerobot") else [])
            plan += [("rad", options.recorded)] if options.recorded else []
            for unit, source in plan:
                case = run_case(blend, latency_s, options.seconds, unit, source)
                cases.append(case)
                print(json.dumps(case), flush=True)
    print(json.dumps({"claims": claims(cases)}))


if __name__ == "__main__":
    main()
