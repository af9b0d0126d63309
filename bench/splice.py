"""What a splice costs: starved ticks, seams, accelerations, error and lag, by blend and inference time.

``python -m bench.splice`` drives the real control loop, horizon and inference worker on a stepped clock, at
30 Hz, chunks of 50, against three policies: a synthetic one (a smooth trajectory plus a bias per chunk), a
drifting one (the worse the further ahead) and a recorded one (chunks from a file). Beside them, in the same
run, a queue that asks again when half empty and blends with LeRobot's weighted average, re-created from its
published rules (`lerobot_queue`).

Prints one JSON line per case and a last line with the claims and whether they hold.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from typing import Any

import anyio
import numpy as np

from bench.lerobot_queue import lerobot_queue
from bench.splice_policies import CHUNK, JOINTS, POLICIES, RATE_HZ, Synthetic, Trace, ideal
from runtime.control import ControlLoop
from runtime.control_options import LoopOptions
from runtime.limits import SafetyOptions
from runtime.messages import ArmState, Clip, Floats, Observation
from runtime.ring import Ring
from runtime.statistics import RunStatistics
from runtime.stepped import SteppedClock
from runtime.worker import ChunkRequest, InferenceWorker

LATENCIES_S = (0.1, 0.2, 0.3, 0.8, 1.0, 1.5)
LONGEST_S = {"recorded": 29.0}
"""Where a policy ends: past it the recording starts over, with a jump that no splice is to blame for."""

LIMIT_RAD_S2 = SafetyOptions().max_acceleration_rad_s2
"""What the safety stage, which takes no part here, would cut; counted in ticks."""

STRETCHED = ("latest+stretch", "rtc+stretch")
BLENDS = ("crossfade", "latest", "average", "weighted_average", "temporal_ensemble", "rtc", *STRETCHED)


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

    def rehearse(self, *values: object) -> None:
        """Nothing to go through."""

    def reset(self) -> None:
        """Nothing to do."""

    def interrupted(self) -> None:
        """Nothing to do."""

    def lasted(self, dt_s: float, passed_s: float) -> None:
        """Nothing to remember."""

    def slowing(self, previous: Floats, dt_s: float) -> Floats:
        """Stands still at once."""
        del dt_s
        return previous

    def limit_speed(self, share: float) -> None:
        """Nothing is limited."""

    def unsent(self, force_n: Floats | None, dt_s: float) -> None:
        """Nothing lasts."""


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
    """The real control loop on a stepped clock; ``"latest+stretch"`` is ``latest`` with ``stretch``."""
    blend, _, stretch = blend.partition("+")
    clock = SteppedClock()
    arm, statistics = PerfectArm(ideal(np.zeros(1))[0] * scale), _SeamLog()
    options = LoopOptions.model_validate(
        {"blend": blend, "stretch": bool(stretch), "rate_hz": RATE_HZ, "follow_blend_s": 0.0,
         "engage_speed_rad_s": 1e9}  # what is measured here is the splice
    )  # fmt: skip
    loop = ControlLoop(clock, options, arm, _NoSafety(), statistics)

    def observe(request: ChunkRequest) -> Observation:
        sample = arm.states.newest()
        assert sample is not None  # noqa: S101 - pushed at the start
        state = ArmState(sample.stamp_ns, sample["position"], sample["velocity"], sample["load"])
        return Observation(
            request.step, request.epoch, request.stamp_ns, state,
            committed=request.committed, frozen_steps=request.frozen_steps,
        )  # fmt: skip

    steps: list[int] = []

    async def main() -> None:
        worker = InferenceWorker(policy, observe, clock, latency_s)
        worker.start()
        await worker.ready()
        loop.follow(worker.attempt())
        async with anyio.create_task_group() as group:
            group.start_soon(loop.run)
            while len(arm.sent) < ticks:
                await loop.ticked()
                steps.append(loop.horizon.step - 1)
            loop.close()
        worker.stop()
        await worker.join()

    clock.run(main)
    chunks = sum(statistics.splices.values())
    seams = [s / float(scale[0]) for s in statistics.seams]
    rows, places = arm.sent[statistics.waiting : ticks], steps[statistics.waiting : ticks]
    return Trace(rows, places, statistics.starved, chunks, seams, max(0, len(rows) - loop.horizon.step))


def figures(trace: Trace, latency_s: float, scale: Floats) -> dict[str, Any]:
    """The case in numbers; seams and accelerations in radians."""
    rows = np.array(trace.rows)[:, :-1] / scale[:-1]
    ticks = len(rows)
    wanted = ideal(np.arange(ticks))[:, :-1]
    unavoidable = max(0.0, (latency_s * RATE_HZ - CHUNK / 2) / (latency_s * RATE_HZ))
    seams = np.array(trace.seams[1:] or [0.0])
    added = _rms(_accelerations(rows)) - _rms(_accelerations(wanted))
    hardest = np.abs(_accelerations(rows)).max(axis=1, initial=0.0)
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
        "max_acceleration_rad_s2": round(float(hardest.max(initial=0.0)), 2),
        "over_the_limit_share": round(float((hardest > LIMIT_RAD_S2).mean()), 4),
        "error_mrad": round(_rms(rows - ideal(np.array(trace.steps))[:, :-1]) * 1e3, 2),
        "lag_s": round((trace.starved if trace.behind is None else trace.behind) / RATE_HZ, 3),
    }


def _accelerations(rows: Floats) -> Floats:
    """From tick to tick, rad/s^2."""
    return np.asarray(np.diff(rows, n=2, axis=0)) * RATE_HZ**2


def _rms(values: Floats) -> float:
    """Root mean square over ticks and joints."""
    return float(np.sqrt((values**2).mean()))


def run_case(
    blend: str, latency_s: float, seconds: float, unit: str = "rad", policy_name: str = "synthetic"
) -> dict[str, Any]:
    """One line of the table; `blend` ``"lerobot"`` is the re-created queue."""
    ticks = round(min(seconds, LONGEST_S.get(policy_name, seconds)) * RATE_HZ)
    scale = np.full(JOINTS, 180 / np.pi if unit == "deg" else 1.0)
    policy = POLICIES[policy_name](scale, blend.startswith("rtc"))
    if blend == "lerobot":
        trace = lerobot_queue(policy, latency_s, ticks, scale)
    else:
        trace = ours(policy, blend, latency_s, ticks, scale)
    case = {"policy": policy_name, "blend": blend, "inference_s": latency_s, "unit": unit}
    return {**case, **figures(trace, latency_s, scale)}


def claims(cases: list[dict[str, Any]], policy_name: str = "synthetic") -> dict[str, Any]:
    """What the table has to show for a policy."""
    mine = [c for c in cases if c["blend"] != "lerobot" and c["policy"] == policy_name]
    fast = [c for c in mine if c["inference_s"] * RATE_HZ <= CHUNK / 2]
    slow = [c for c in mine if c["inference_s"] * RATE_HZ > CHUNK / 2]
    missing = [c["starved"] - c["unavoidable_share"] * c["ticks"] for c in slow]
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
    stretched = [c["starved"] for c in mine if c["blend"] in STRETCHED]
    over = {
        blend: max((c["over_the_limit_share"] for c in fast if c["blend"] == blend), default=None)
        for blend in ("crossfade", "weighted_average")
    }
    return {
        "starved_up_to_half_a_chunk": max((c["starved"] for c in fast), default=0),
        "starved_ticks_per_chunk_over_the_minimum": round(
            max((m / c["chunks"] for m, c in zip(missing, slow, strict=True)), default=0.0), 3
        ),
        "starved_when_stretched": max(stretched, default=0),
        "worst_rtc_seam_over_latest": round(max(ratios, default=0.0), 3),
        "over_the_limit_share_up_to_half_a_chunk": over,
        "starved_in_degrees_as_in_radians": all(a == b for a, b in units) if units else None,
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="simulated time per case")
    parser.add_argument(
        "--diffusion", type=int, default=0, metavar="UPDATES",
        help="also train a small diffusion policy for so many updates (try 1500) and splice its samples",
    )  # fmt: skip
    options = parser.parse_args()
    if options.diffusion:
        from bench.splice_diffusion import DiffusionPolicy, train

        net = train(CHUNK, 0, options.diffusion)
        POLICIES["diffusion"] = lambda scale, prefix: DiffusionPolicy(net, 0, scale, prefix)
    cases = []
    for latency_s in LATENCIES_S:
        for blend in (*BLENDS, "lerobot"):
            plan = [("rad", name) for name in POLICIES]
            plan += [("deg", "synthetic")] if blend in ("latest", "rtc", "lerobot") else []
            for unit, name in plan:
                case = run_case(blend, latency_s, options.seconds, unit, name)
                cases.append(case)
                print(json.dumps(case), flush=True)
    print(json.dumps({"claims": {name: claims(cases, name) for name in POLICIES}}))


if __name__ == "__main__":
    main()
