"""Runs a policy in a process of its own, for policies that hold the GIL or whose libraries misbehave.

Observations go through one shared-memory ring and chunks through another; a line of JSON on a pipe says
that one is there, and carries what is not an array. Nothing is pickled. The child (`policies.process_child`)
ends by itself when this process does.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from policies.process_start import start_message
from runtime.inference import NotReadyError
from runtime.interfaces import PolicyError, PolicySpec, policy_error
from runtime.messages import ArmState, Floats, Frame, Observation, PolicyAnswer, PolicyStatus, Thought, Tip
from runtime.part_context import PolicyContext
from runtime.parts import PolicyTable
from runtime.ring import Layout, Ring

ARM_FIELDS = ("position", "velocity", "load")

THOUGHT = ("stamp_ns", "text", "instruction", "attempt", "number")

COMMITTED_ROWS = 256
"""Committed rows that an observation carries at most."""

LINE_LIMIT = 1 << 20


def instants(observation: Observation) -> Iterator[tuple[str, ArmState, Mapping[str, Frame]]]:
    """The present one and the earlier ones, each with what its fields' names begin with in the ring."""
    yield "", observation.arm, observation.frames
    for number, earlier in enumerate(observation.history):
        yield f"{number}/", earlier.arm, earlier.frames


def _as_lists(tip: Tip) -> list[Any]:
    return [tip.point_m.tolist(), tip.sigma_m.tolist(), tip.first_m.tolist(), tip.stamp_ns]


def _thought_as_json(thought: Thought) -> dict[str, Any]:
    return {**{each: getattr(thought, each) for each in THOUGHT}, "latent": thought.latent.tolist()}


def _stamps(frames: Mapping[str, Frame]) -> dict[str, int]:
    return {name: frame.stamp_ns for name, frame in frames.items()}


def layout_of(observation: Observation) -> Layout:
    """The ring that observations with these cameras, masks and force fit into."""
    joints = observation.arm.position.shape
    layout: dict[str, tuple[tuple[int, ...], str]] = {"committed": ((COMMITTED_ROWS, *joints), "<f8")}
    for at, _, frames in instants(observation):
        layout |= {f"{at}{key}": (joints, "<f8") for key in ARM_FIELDS}
        for name, frame in frames.items():
            layout[f"{at}color/{name}"] = (frame.color.shape, "|u1")
            if frame.depth is not None:
                layout[f"{at}depth/{name}"] = (frame.depth.shape, "<u2")
    for name, tracked in observation.masks.items():
        layout[f"mask/{name}"] = (tracked.mask.shape, "|u1")
    if observation.force_n is not None:
        layout["force"] = (observation.force_n.shape, "<f8")
    return layout


def write_observation(ring: Ring, observation: Observation) -> dict[str, Any]:
    """Put the arrays into `ring`; returns the rest."""
    committed = observation.committed[:COMMITTED_ROWS]
    with ring.write(observation.stamp_ns) as slot:
        if committed.size:
            slot["committed"][: len(committed)] = committed
        for at, arm, frames in instants(observation):
            for key in ARM_FIELDS:
                slot[f"{at}{key}"][:] = getattr(arm, key)
            for name, frame in frames.items():
                slot[f"{at}color/{name}"][:] = frame.color
                if frame.depth is not None:
                    slot[f"{at}depth/{name}"][:] = frame.depth
        for name, tracked in observation.masks.items():
            slot[f"mask/{name}"][:] = tracked.mask
        if observation.force_n is not None:
            slot["force"][:] = observation.force_n
    return {
        "step": observation.step,
        "epoch": observation.epoch,
        "stamp_ns": observation.stamp_ns,
        "arm_ns": observation.arm.stamp_ns,
        "frames": _stamps(observation.frames),
        "masks": {name: [t.stamp_ns, t.confidence, t.attempt] for name, t in observation.masks.items()},
        "instruction": observation.instruction,
        "committed": len(committed),
        "frozen_steps": observation.frozen_steps,
        "history": [[s.stamp_ns, s.arm.stamp_ns, _stamps(s.frames)] for s in observation.history],
        "end_effector": {name: pose.tolist() for name, pose in observation.end_effector.items()},
        "tip": None if observation.tip is None else _as_lists(observation.tip),
        "trial": observation.trial,
        "thought": None if observation.thought is None else _thought_as_json(observation.thought),
    }


def _spec_of(answer: Mapping[str, Any]) -> PolicySpec:
    given = dict(answer["spec"])
    for key in ("cameras", "masks", "discrete"):
        given[key] = tuple(given[key])
    return PolicySpec(**given)


class ProcessPolicy:
    """`runtime.interfaces.Policy` whose work is done elsewhere.

    Args:
        table: the policy's; the child finds the installed part that it is of by its name.
        context: what the policy is made with; there it has a real clock of its own.
        timeout_s: a call that takes longer ends the child, and fails.

    Raises:
        PolicyError: the child could not make the policy; its one line.
    """

    def __init__(self, table: PolicyTable, context: PolicyContext, timeout_s: float = 120.0) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="dexrun-policy-")
        start = start_message(table, context, Path(self._folder.name, "body.mjb"))
        self._start = {"do": "make", **start}
        self._timeout_s = timeout_s
        self._child: _Child | None = None
        self._observations: Ring | None = None
        self._chunks: Ring | None = None
        self._warm = False
        self._statistics: Mapping[str, int] = {}
        try:
            self.spec: PolicySpec = self._spawn()
        except BaseException:
            self._folder.cleanup()
            raise

    def _spawn(self) -> PolicySpec:
        self._release()
        self._child = _Child(self._timeout_s)
        try:
            answer = self._child.ask(self._start)
        except PolicyError:
            self._release()
            raise
        self._warm = False
        return _spec_of(answer)

    def warm_up(self) -> None:
        """Warm the child's policy up.

        Raises:
            PolicyError: as there.
        """
        if self._child is None:
            self._spawn()
        self.spec = _spec_of(self._ask({"do": "warm_up"}))
        self._warm = True

    def infer(self, observation: Observation) -> PolicyAnswer:
        """The policy's answer; a child that ended is started anew first.

        Raises:
            PolicyError: the policy's own, or the child ended or took too long.
        """
        if self._child is None:
            self._spawn()
        if not self._warm:
            self.warm_up()
        layout = layout_of(observation)
        if self._observations is None or dict(self._observations.layout) != dict(layout):
            self._renew(layout)
        assert self._observations is not None  # noqa: S101 - made above
        message = write_observation(self._observations, observation)
        answer = self._ask({"do": "infer", "ring": self._observations.name, "observation": message})
        self._statistics, self.spec = answer["statistics"], _spec_of(answer)
        rows = self._take(answer) if answer["ring"] else np.zeros((0, observation.arm.position.size))
        latent = None if answer["latent"] is None else np.array(answer["latent"], np.float32)
        return PolicyAnswer(rows, PolicyStatus(answer["status"]), answer["why"], answer["reasoning"], latent)

    def _take(self, answer: Mapping[str, Any]) -> Floats:
        if self._chunks is None or self._chunks.name != answer["ring"]:
            if self._chunks is not None:
                self._chunks.close()
            self._chunks = Ring.attach(answer["ring"])
        sample = self._chunks.newest()
        assert sample is not None  # noqa: S101 - published before it was announced
        actions: Floats = sample["actions"].copy()
        return actions

    def _renew(self, layout: Layout) -> None:
        if self._observations is not None:
            self._observations.close()
            self._observations.unlink()
        self._observations = Ring.create_shared(layout, 3)

    def reset(self) -> None:
        """Forget the episode, there too."""
        if self._child is not None:
            self._ask({"do": "reset"})

    def statistics(self) -> Mapping[str, int]:
        """The child's policy's own, as of its newest answer."""
        return self._statistics

    def close(self) -> None:
        """End the child and free the rings."""
        self._release()
        self._folder.cleanup()

    def _ask(self, message: Mapping[str, Any]) -> dict[str, Any]:
        assert self._child is not None  # noqa: S101 - callers see to it
        try:
            return self._child.ask(message)
        except ChildGoneError:
            self._release()
            raise

    def _release(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.close()
        if self._chunks is not None:
            self._chunks.close()
        if self._observations is not None:
            self._observations.close()
            self._observations.unlink()
        self._chunks = self._observations = None


class ChildGoneError(PolicyError):
    """The policy's process ended or was ended."""


class _Child:
    """The process and its two pipes."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the child
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "policies.process_child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=environment,
            cwd=Path.cwd(),
        )
        self._pending = b""

    def ask(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Send a line, wait for the answering line."""
        assert self._process.stdin is not None  # noqa: S101 - a pipe was asked for
        try:
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            raise ChildGoneError(self._ended()) from None
        answer: dict[str, Any] = json.loads(self._line())
        if "waits_for" in answer:
            raise NotReadyError(answer["waits_for"])
        if "error" in answer:
            raise policy_error(answer["error"])
        return answer

    def _line(self) -> bytes:
        assert self._process.stdout is not None  # noqa: S101 - a pipe was asked for
        fd = self._process.stdout.fileno()
        while b"\n" not in self._pending:
            if not select.select([fd], [], [], self._timeout_s)[0]:
                self._process.kill()
                raise ChildGoneError(f"the policy's process said nothing for {self._timeout_s:g} s; ended it")
            data = os.read(fd, LINE_LIMIT)
            if not data:
                raise ChildGoneError(self._ended())
            self._pending += data
        line, _, self._pending = self._pending.partition(b"\n")
        return line

    def _ended(self) -> str:
        code = self._process.wait()
        self._log.seek(0)
        lines = self._log.read()[-4000:].decode(errors="replace").strip().splitlines()
        return f"the policy's process ended with code {code}" + (f": {lines[-1].strip()}" if lines else "")

    def close(self) -> None:
        """Ask it to end by closing its input; insist after a while."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        try:
            self._process.wait(timeout=5.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()
