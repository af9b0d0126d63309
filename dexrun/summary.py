"""``summary.json``: the run explains itself. Fields as docs/summary.md lists them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from dexrun.config.settings import Settings
from dexrun.rate_watch import promised_hz
from dexrun.run_record import RunRecord
from runtime.clock import NS_PER_S
from runtime.statistics import RunStatistics

_PROMPTS: Mapping[str, Callable[[Settings], str | None]] = {
    "grasp": lambda settings: settings.planner.prompt,
    "rollout": lambda settings: settings.recording.task,
    "teleop": lambda settings: None,
}
NO_PLANNER = {"calls": 0, "retries": 0, "errors": 0, "latency_s": {"p50": 0.0, "max": 0.0}}


def summarise(settings: Settings, record: RunRecord, duration_ns: int) -> dict[str, Any]:
    """Everything that the run measured about itself."""
    outcome, robot = record.outcome, record.robot
    summary: dict[str, Any] = {
        "mode": settings.mode,
        "prompt": _PROMPTS[settings.mode](settings),
        "outcome": outcome.outcome,
        "stop_reason": outcome.reason,
        "duration_s": round(duration_ns / NS_PER_S, 3),
    }
    statistics = RunStatistics() if robot is None else robot.statistics
    summary.update(statistics.summary())
    promised = promised_hz(settings.device_tables())
    summary["configured_rates_hz"] = {name: rate for name, (_, rate) in promised.items()}
    faults = record.opening_faults if robot is None else robot.faults.log.summary(robot.survived())
    summary["device_faults"] = faults
    if robot is not None and (links := robot.links()):
        summary["links"] = links
    if robot is not None and robot.stopping.log:
        summary["stops"] = robot.stopping.log
    summary["gaps"] = [] if robot is None else [asdict(gap) for gap in robot.faults.log.gaps]
    summary["planner"] = dict(record.planner or NO_PLANNER)
    if (policy := record.policy) is not None:
        measured = summary.setdefault("policy", {})
        measured.update({key: policy[key] for key in ("failures", "last_error")})
        measured["asked_chunks"] = policy["chunks"]
        measured["inference_s"] = policy["inference_s"]
        measured.update({key: policy[key] for key in ("remote", "slow") if key in policy})
    summary["attempts"] = record.attempts or outcome.attempts
    return {**summary, **record.parts()}
