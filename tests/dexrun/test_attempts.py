"""Where one attempt ends and the next begins: nothing of the one before counts, however late it comes."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.attempts import given_up_s
from dexrun import policies
from dexrun.exit_codes import BAD_CONFIGURATION, NOT_DONE, OK
from planner.perception.color_tracker import ColorTracker
from runtime.clock import NS_PER_S, Clock
from runtime.interfaces import PerceptionError, Policy
from runtime.messages import Frame, Observation, PolicyAnswer, PolicyStatus, TrackedMask
from runtime.part_context import PolicyContext
from runtime.parts import PolicyTable
from tests.dexrun.rig import Stage, perform

TWO = (
    '[{shape="cube", color="red", x_m=0.2, y_m=-0.05, yaw_rad=0.3},'
    ' {shape="cube", color="blue", x_m=0.2, y_m=0.06, yaw_rad=0.1}]'
)
HELD_BACK_S = 0.5


class HeldBack:
    """The geometric policy on a thread that gets to run 0.5 s late, whatever it is asked.

    Attributes:
        answers: status and instruction of each.
    """

    def __init__(self, policy: Policy, clock: Clock) -> None:
        self._policy, self._clock = policy, clock
        self.answers: list[tuple[str, str]] = []
        self.gives_up = ""
        """Why it fails in the first attempt."""
        self._failed: int | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._policy, name)

    def _wait(self) -> None:
        self._clock.wait_until_ns(self._clock.now_ns() + round(HELD_BACK_S * NS_PER_S))

    def reset(self) -> None:
        self._wait()
        self._policy.reset()

    def infer(self, observation: Observation) -> PolicyAnswer:
        self._wait()
        answer = self._policy.infer(observation)
        if self.gives_up and observation.masks and self._failed in (None, observation.epoch):
            self._failed = observation.epoch
            answer = PolicyAnswer(answer.rows[:0], PolicyStatus.FAILED, self.gives_up)
        self.answers.append((str(answer.status), observation.instruction))
        self._wait()
        return answer


@pytest.fixture
def held_back(monkeypatch: pytest.MonkeyPatch) -> list[HeldBack]:
    build, made = policies.build_policy, []

    def late(table: PolicyTable, context: PolicyContext) -> Any:
        made.append(HeldBack(build(table, context), context.clock))
        return made[-1]

    monkeypatch.setattr(policies, "build_policy", late)
    return made


def test_the_end_of_an_attempt_is_not_the_next_ones(tmp_path: Path, held_back: list[HeldBack]) -> None:
    """The policy gives the first attempt up, and says so half a second late."""

    async def script(stage: Stage) -> None:
        await stage.until(lambda: bool(held_back))
        held_back[0].gives_up = "it slips"
        await stage.until(lambda: stage.step.startswith("grasp"))
        await stage.until(lambda: "attempt 2" in stage.step and len(stage.up.control.horizon) > 0)
        for _ in range(60):
            await stage.up.control.ticked()
            assert "attempt 2" in stage.step
        os.kill(os.getpid(), signal.SIGINT)

    stage = perform(tmp_path, script)
    first, second = stage.summary["attempts"]
    assert (first["grasped"], second["grasped"]) == (False, False)
    assert stage.summary["policy"]["failures"] == {}
    assert [status for status, _ in held_back[0].answers].count("failed") == 1


@pytest.mark.slow
def test_an_inference_thread_that_is_held_back_makes_no_false_attempt(
    tmp_path: Path, held_back: list[HeldBack]
) -> None:
    """The end of the first attempt was read a tick after the second had begun, which failed at once."""
    stage = perform(tmp_path, world__placed=TWO, grasp__attempt_timeout_s="60")
    summary = stage.summary
    assert stage.code == OK, summary["stop_reason"]
    first, second = summary["attempts"]
    assert [(a["attempt"], a["grasped"], a["completed"]) for a in (first, second)] == [(1, True, True)] * 2
    assert summary["judge"]["objects_in_tray"] == 2
    assert summary["policy"]["failures"] == {}
    assert summary["device_faults"] == {}
    (policy,) = held_back
    ends = [instruction for status, instruction in policy.answers if status == "done"]
    assert ends == [a["instruction"] for a in summary["attempts"]]  # each attempt has one end, its own


@pytest.mark.slow
def test_an_object_that_is_lost_from_sight_ends_its_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tracker that fails: no mask of this attempt comes any more, which is counted as its fault alone."""
    update: Callable[[ColorTracker, Frame], TrackedMask] = ColorTracker.update
    seen: list[int] = []

    def fails_once(self: ColorTracker, frame: Frame) -> TrackedMask:
        seen.append(frame.stamp_ns)
        if len(seen) == 5:
            raise PerceptionError("out of sight")
        return update(self, frame)

    monkeypatch.setattr(ColorTracker, "update", fails_once)
    stage = perform(tmp_path, grasp__time_limit_s="8")  # the second attempt is under way then
    assert (stage.code, stage.summary["stop_reason"]) == (NOT_DONE, "time limit of 8 s")
    assert [a["grasped"] for a in stage.summary["attempts"]][:1] == [False]
    assert len(seen) > 10
    assert stage.summary["policy"]["failures"] == {}
    assert stage.summary["device_faults"] == {"perception": {"error": 1}}


def test_a_policy_slower_than_an_attempt_is_told_so_before_anything_moves(tmp_path: Path) -> None:
    stage = perform(tmp_path, policy__simulated_latency_s="30")
    assert stage.code == BAD_CONFIGURATION
    assert stage.summary["stop_reason"] == (
        "policy geometric: one answer takes 30 s, an attempt may take 25 s (grasp.attempt_timeout_s): "
        "none could succeed"
    )
    assert stage.summary["ticks"] == 0


def test_the_bench_tells_a_false_attempt_by_its_length() -> None:
    lines = [
        "2026-11-27T23:59:59.900+00:00 INFO    dexrun.grasp:109 grasp the cube (attempt 1)",
        "2026-11-28T00:00:00.013+00:00 INFO    dexrun.grasp:109 home (not grasped)",
        "2026-11-28T00:00:09.000+00:00 INFO    dexrun.grasp:109 grasp the cube (attempt 2)",
        "2026-11-28T00:00:19.000+00:00 INFO    dexrun.grasp:109 place the cube",
        "2026-11-28T00:00:29.000+00:00 INFO    dexrun.grasp:109 home (not grasped)",
    ]
    assert given_up_s("\n".join(lines), 2) == [pytest.approx(0.113)]
    with pytest.raises(ValueError, match="0 attempts, the summary of 2"):
        given_up_s("another log", 2)
