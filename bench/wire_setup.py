"""What both ends of the wire benchmark agree on: the robot, the observation, the answer, the policies."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policies.remote.client import RemotePolicy
from runtime.clock import NS_PER_S, RealClock
from runtime.interfaces import PolicySpec
from runtime.joints import JointLayout
from runtime.messages import ArmState, Frame, Observation, PolicyAnswer
from runtime.realtime import keep_freed_memory

Ask = Callable[[], None]
STEPS = 50
JOINTS = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
ROBOT = JointLayout(JOINTS, np.array([[-2.0, 2.0]] * 5 + [[0.0, 1.0]]), (5,))
CHUNK = np.random.default_rng(1).standard_normal((STEPS, 6)).astype(np.float32)
REPLY_BYTES = CHUNK.nbytes


def tell_port(port: int) -> None:
    """First line of a server's output."""
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()


def arrays(height: int = 480, width: int = 640) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Two frames and the joints."""
    random = np.random.default_rng(0)
    frames = random.integers(0, 255, (2, height, width, 3), np.uint8)
    return frames[0].copy(), frames[1].copy(), np.linspace(-1, 1, 6).astype(np.float32)


def observation(step: int, height: int = 480, width: int = 640) -> Observation:
    """The same as an observation of the runtime."""
    front, wrist, state = arrays(height, width)
    arm = ArmState(step, state.astype(np.float64), np.zeros(6), np.zeros(6))
    frames = {"head": Frame("head", step, front), "wrist": Frame("wrist", step, wrist)}
    return Observation(step, 0, step, arm, frames, instruction="pick the red cube")


class NoopPolicy:
    """Answers at once with one chunk."""

    spec = PolicySpec("noop", STEPS, 6, ("head", "wrist"))

    def warm_up(self) -> None:
        """Nothing to do."""

    def infer(self, observation: Observation) -> PolicyAnswer:
        """The same chunk for everything."""
        return PolicyAnswer(CHUNK.astype(np.float64))

    def statistics(self) -> dict[str, int]:
        """Nothing is counted."""
        return {}

    def reset(self) -> None:
        """Nothing to forget."""

    def close(self) -> None:
        """Nothing to release."""


class CostlyPolicy(NoopPolicy):
    """Takes 8 ms a call and 0.5 ms an observation, as a network on an accelerator might; holds no lock."""

    def infer(self, observation: Observation) -> PolicyAnswer:
        """One alone."""
        return self.infer_batch([observation])[0]

    def infer_batch(self, observations: Sequence[Observation]) -> list[PolicyAnswer]:
        """Several for little more than one."""
        threading.Event().wait(0.008 + 0.0005 * len(observations))
        return [PolicyAnswer(CHUNK.astype(np.float64)) for _ in observations]


def our_client(protocol: str, port: int) -> RemotePolicy:
    """Our client for `protocol`, connected, in a process set up as `dexrun` does."""
    from policies.remote import config
    from policies.remote.make import make_remote

    keep_freed_memory()
    options: dict[str, Any] = {
        "gr00t": config.GrootOptions,
        "openpi": config.OpenpiOptions,
        "act": config.ActRemoteOptions,
        "lerobot": config.LerobotOptions,
    }
    remote = make_remote(options[protocol](port=port, request_timeout_s=30.0), ROBOT, RealClock())
    remote.warm_up()
    return remote


def our_server(protocol: str, policy: str, batch_size: int = 1, batch_delay_s: float = 0.0) -> None:
    """Our server for `protocol` until it is told to stop, in a process set up as ``dexrun serve`` does."""
    from dexrun.config.serve_options import ServeOptions
    from dexrun.serve.server import local_server

    keep_freed_memory()
    options = ServeOptions.model_validate(
        {"protocol": protocol, "batch_size": batch_size, "batch_delay_s": batch_delay_s}
    )
    made = {"noop": NoopPolicy, "costly": CostlyPolicy}[policy]()
    server = local_server(made, options, ROBOT)
    RealClock().run(server.run, lambda: tell_port(int(server.address.rsplit(":", 1)[1])), True)


def seconds(ns: float) -> float:
    """Nanoseconds as seconds."""
    return ns / NS_PER_S
