"""What goes wrong with a policy: it hangs, whatever the mode is doing; it fails at what it is asked."""

from __future__ import annotations

from collections import Counter

from dexrun.robot import Robot
from runtime.clock import NS_PER_S
from runtime.faults import decide
from runtime.messages import Decision, FaultKind
from runtime.worker import InferenceWorker, PolicyAttempt


class PolicyWatch:
    """Gives the run up once one call has given no action for ``control.stop_after_starved_s``.

    The control loop's own patience ends with every attempt; a call that hangs outlasts them. It counts
    from the call's beginning, or from the policy's last action if that came later.
    """

    def __init__(self, robot: Robot, worker: InferenceWorker) -> None:
        self._robot = robot
        self._worker = worker
        self._limit_s = robot.settings.control.stop_after_starved_s
        self._action_ns = 0

    async def run(self) -> None:
        """Until it hangs, if waiting has a limit at all."""
        control = self._robot.control
        while self._limit_s and not self._hangs():
            await control.ticked()
        if self._limit_s:
            self._robot.faults.log.count("policy", FaultKind.HUNG)
            control.give_up(f"no action for {self._limit_s:g} s")

    def _hangs(self) -> bool:
        now_ns, control = self._robot.clock.now_ns(), self._robot.control
        starting = bool(self._worker.report.unready)  # and has a deadline of its own
        if starting or (isinstance(control.source, PolicyAttempt) and len(control.horizon)):
            self._action_ns = now_ns
        since_ns = self._worker.report.busy_since_ns
        return since_ns is not None and now_ns - max(since_ns, self._action_ns) >= self._limit_s * NS_PER_S


class PolicyFailures:
    """Accounts for what the policy fails at. Meanwhile the horizon runs dry, and the arm holds."""

    def __init__(self, robot: Robot, worker: InferenceWorker) -> None:
        self._robot = robot
        self._worker = worker
        self._attempt: int | None = None
        self._noted: Counter[str] = Counter()

    def note(self, attempt: PolicyAttempt) -> Counter[str]:
        """Count what `attempt` failed at since it was noted last; returns that, by kind.

        Where a rule says so, it stops the run.
        """
        if attempt.number != self._attempt:
            self._attempt, self._noted = attempt.number, Counter()
        failures = Counter(attempt.failures)
        new, self._noted = failures - self._noted, failures
        for kind in new.elements():
            self._robot.faults.log.count("policy", kind)
            if decide(self._robot.settings.faults, "policy", kind) is Decision.STOP:
                self._robot.control.stop(f"policy: {kind}: {self._worker.report.last_error}")
        return new
