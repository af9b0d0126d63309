"""Two halves that do what a test tells them, and say what they were given."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from policies.slow_fast.config import SlowFastConfig
from policies.slow_fast.policy import SlowFastPolicy
from policies.slow_fast.thinking import InlineThinker, ThreadThinker
from runtime.clock import NS_PER_S, Clock
from runtime.interfaces import Policy, PolicySpec
from runtime.messages import ArmState, Observation, PolicyAnswer
from runtime.stepped import SteppedClock

JOINTS = 6
STILL = {"type": "still"}


class Slow:
    """Its latent: the observation's stamp in seconds, and how often it was asked."""

    def __init__(self, act: Callable[[Observation], None] = lambda seen: None) -> None:
        self.spec = PolicySpec("thinker", 1, JOINTS, latent=2)
        self.act = act
        self.seen: list[Observation] = []
        self.threads: set[str] = set()
        self.resets = 0
        self.closed = False

    def warm_up(self) -> None:
        self.threads.add(threading.current_thread().name)

    def infer(self, observation: Observation) -> PolicyAnswer:
        self.threads.add(threading.current_thread().name)
        self.seen.append(observation)
        self.act(observation)
        latent = np.array([observation.stamp_ns / NS_PER_S, len(self.seen)], np.float32)
        rows = observation.arm.position[None]
        return PolicyAnswer(rows, reasoning=f"look at {observation.instruction}", latent=latent)

    def reset(self) -> None:
        self.resets += 1

    def statistics(self) -> Mapping[str, int]:
        return {"calls": len(self.seen)}

    def close(self) -> None:
        self.closed = True


class Fast:
    """Row: the thought's latent and its age."""

    def __init__(self, size: int = 2) -> None:
        self.spec = PolicySpec("hands", 1, JOINTS, thought=size)
        self.seen: list[Observation] = []
        self.resets = 0

    def warm_up(self) -> None:
        pass

    def infer(self, observation: Observation) -> PolicyAnswer:
        self.seen.append(observation)
        thought = observation.thought
        assert thought is not None
        row = [*thought.latent[:2], thought.age_s(observation.stamp_ns), 0.0, 0.0, 0.0]
        return PolicyAnswer(np.array([row]))

    def reset(self) -> None:
        self.resets += 1

    def statistics(self) -> Mapping[str, int]:
        return {}

    def close(self) -> None:
        pass


def observation(clock: Clock, instruction: str = "red", **extra: Any) -> Observation:
    now_ns, zeros = clock.now_ns(), np.zeros(JOINTS)
    return Observation(0, 0, now_ns, ArmState(now_ns, zeros, zeros, zeros), instruction=instruction, **extra)


class Halves:
    """A slow and a fast half on a stepped clock, asked by the test's own thread."""

    def __init__(
        self, clock: SteppedClock, slow: Policy, latency_s: float = 1.0, kind: str = "thread", **options: Any
    ) -> None:
        self.clock, self.slow, self.fast = clock, slow, Fast()
        table = SlowFastConfig.model_validate({"slow": STILL, "fast": STILL, **options})
        latency_ns = round(latency_s * NS_PER_S)
        thinker = (
            ThreadThinker(slow, clock, latency_ns)
            if kind == "thread"
            else InlineThinker(slow, clock, latency_ns, waits=kind == "waits")
        )
        self.policy = SlowFastPolicy(self.fast, thinker, table, clock)

    def step(self, seconds: float) -> None:
        while self.clock.run_threads():
            pass
        self.clock.wait_until_ns(self.clock.now_ns() + round(seconds * NS_PER_S))
        while self.clock.run_threads():
            pass

    def ask(self, instruction: str = "red") -> tuple[float, float]:
        """When the thought that was acted on was made, and its age; seconds."""
        answer = self.policy.infer(observation(self.clock, instruction))
        while self.clock.run_threads():
            pass
        self.answer = answer
        return round(float(answer.rows[0, 0]), 3), round(float(answer.rows[0, 2]), 3)


@contextmanager
def halves(slow: Policy | None = None, **options: Any) -> Iterator[Halves]:
    """Warm, at the beginning of an attempt."""
    with SteppedClock() as clock:
        made = Halves(clock, slow or Slow(), **options)
        made.policy.warm_up()
        made.policy.reset()
        try:
            yield made
        finally:
            made.policy.close()
