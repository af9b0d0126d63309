"""Policies that a child process makes, for tests."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import numpy as np

from runtime.interfaces import PolicyError, PolicySpec
from runtime.messages import Observation, PolicyAnswer, PolicyStatus
from runtime.part_context import PolicyContext
from runtime.parts import PolicyTable


class ScriptOptions(PolicyTable):
    type: str = "scripted"
    mode: str = "echo"

    def build(self, context: PolicyContext) -> Scripted:
        return Scripted(self, context)


class Scripted:
    """Answers with sums over what it was given, so that a test can tell whether all of it arrived."""

    def __init__(self, config: ScriptOptions, context: PolicyContext) -> None:
        if config.mode == "refuse":
            raise PolicyError("no such\ncheckpoint")
        if config.mode == "noise":
            os.write(1, b"a library prints\n")
        self._mode = config.mode
        self._resets = 0
        self._before: Observation | None = None
        self.spec = PolicySpec(
            "scripted", 0, context.joints.joints, cameras=("head",), discrete=(5,), notes={"a": "b"}
        )

    def warm_up(self) -> None:
        if self._mode == "cold":
            raise RuntimeError("no kernel image")
        self.spec = replace(self.spec, chunk_steps=4)

    def infer(self, observation: Observation) -> PolicyAnswer:
        if observation.instruction == "die":
            os._exit(3)
        if observation.instruction == "hang":
            import threading

            threading.Event().wait()
        if observation.instruction == "fail":
            raise PolicyError("no mask")
        if self._mode == "think":
            return PolicyAnswer(observation.arm.position[None], latent=observation.arm.position)
        before, self._before = self._before, observation
        if observation.instruction == "and before?" and before is not None:
            return PolicyAnswer(before.arm.position[None])
        frame, tracked = observation.frames["head"], observation.masks["head"]
        assert frame.depth is not None
        assert observation.force_n is not None
        row = [
            float(frame.color.sum()), float(frame.depth.sum()), float(tracked.mask.sum()),
            float(observation.force_n.sum()), float(observation.committed.sum()), float(self._resets),
        ]  # fmt: skip
        last = [observation.step, observation.epoch, observation.frozen_steps, os.getpid(), frame.stamp_ns, 0]
        rows = np.array([row, last, observation.arm.position, observation.arm.load])
        if observation.instruction == "look back":
            history = observation.history
            seen = [
                (s.stamp_ns, s.arm.stamp_ns, s.arm.load[0], s.frames["head"].color.sum()) for s in history
            ]
            poses = observation.end_effector
            return PolicyAnswer(np.array([[*each, len(poses), poses["left"][0, 3]] for each in seen]))
        if observation.thought is not None:
            thought = observation.thought
            said = (
                f"{thought.text} {thought.stamp_ns} {thought.instruction} {thought.attempt} {thought.number}"
            )
            return PolicyAnswer(rows, reasoning=said, latent=2 * thought.latent)
        if observation.instruction == "end":
            return PolicyAnswer(rows[:0], PolicyStatus.FAILED, "it slipped")
        return PolicyAnswer(rows)

    def statistics(self) -> dict[str, Any]:
        return {"resets": np.int64(self._resets)}

    def reset(self) -> None:
        self._resets += 1

    def close(self) -> None:
        pass
