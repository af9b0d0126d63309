"""A robot, a deterministic policy, and a server on a thread, for tests of both ends."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import anyio
import numpy as np

from dexrun.config.serve_options import ServeOptions
from dexrun.serve.server import PolicyServer, local_server
from policies.remote.client import RemotePolicy
from policies.remote.config import ActRemoteOptions, GrootOptions, LerobotOptions, OpenpiOptions
from runtime.clock import Clock, RealClock
from runtime.interfaces import Policy, PolicyError, PolicySpec
from runtime.joints import JointLayout
from runtime.messages import ArmState, Floats, Frame, Observation, PolicyAnswer, TrackedMask

NAMES = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
RANGES = [[-2.0, 2.0], [-3.3, 0.2], [0.0, 3.1], [-2.5, 1.2], [-3.1, 3.1], [0, 1]]
ROBOT = JointLayout(NAMES, np.array(RANGES), (5,))
STEPS = 50
GUARD_S = 30.0
"""After this a test that hangs fails."""


class EchoPolicy:
    """Row `k` is the observed position plus ``k / 1000``, plus the images' means over 1e5."""

    def __init__(self, steps: int = STEPS, cameras: Sequence[str] = ("head", "wrist")) -> None:
        self.spec = PolicySpec("echo", steps, 6, tuple(cameras))
        self.seen: list[Observation] = []
        self.resets = 0
        self.closed = False

    def warm_up(self) -> None:
        pass

    def infer(self, observation: Observation) -> PolicyAnswer:
        self.seen.append(observation)
        if observation.instruction == "refuse":
            raise PolicyError("told to refuse")
        if observation.instruction == "raise":
            raise ZeroDivisionError("told to raise")
        if observation.instruction == "exit":
            raise SystemExit("told to exit")
        return PolicyAnswer(expected(observation, self.spec.chunk_steps))

    def statistics(self) -> dict[str, int]:
        return {}

    def reset(self) -> None:
        self.resets += 1

    def close(self) -> None:
        self.closed = True


class BatchedEcho(EchoPolicy):
    """Notes how many it is asked at once; waits for `gate` before it answers."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []
        self.gate = threading.Event()
        self.entered = threading.Semaphore(0)

    def infer(self, observation: Observation) -> PolicyAnswer:
        return self.infer_batch([observation])[0]

    def infer_batch(self, observations: Sequence[Observation]) -> list[PolicyAnswer]:
        self.sizes.append(len(observations))
        self.entered.release()
        assert self.gate.wait(GUARD_S)
        return [EchoPolicy.infer(self, o) for o in observations]


def expected(observation: Observation, steps: int = STEPS) -> Floats:
    means = sum(float(f.color.mean()) for f in observation.frames.values()) / 1e5
    return observation.arm.position[None] + np.arange(steps)[:, None] / 1000 + means


def observation(
    step: int = 7, instruction: str = "pick the red cube", seed: int = 0, **extra: Any
) -> Observation:
    random = np.random.default_rng(seed)
    low, high = ROBOT.ranges.T
    position = low + (high - low) * random.uniform(0.3, 0.7, 6)
    frames = {
        "head": Frame("head", 5, random.integers(0, 255, (48, 64, 3), np.uint8)),
        "wrist": Frame("wrist", 6, random.integers(0, 255, (24, 32, 3), np.uint8)),
    }
    arm = ArmState(1_000_000_000 + step, position, np.zeros(6), np.zeros(6))
    return Observation(step, 0, arm.stamp_ns, arm, frames, instruction=instruction, **extra)


def with_planes(made: Observation) -> Observation:
    """The same with depth and mask of the head camera."""
    head = made.frames["head"]
    depth = np.arange(48 * 64, dtype=np.uint16).reshape(48, 64)
    mask = np.zeros((48, 64), np.uint8)
    mask[10:20, 10:30] = 1
    frames = {**made.frames, "head": Frame("head", head.stamp_ns, head.color, depth)}
    return Observation(
        made.step,
        0,
        made.stamp_ns,
        made.arm,
        frames,
        masks={"head": TrackedMask("head", head.stamp_ns, mask, 1.0)},
        instruction=made.instruction,
    )


class Running:
    """A server on a thread of its own."""

    def __init__(self, server: PolicyServer) -> None:
        self.server = server
        self._loop_token: Any = None
        self._ready = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._main, name="server")

    def _main(self) -> None:
        try:
            anyio.run(self._run, backend_options={"use_uvloop": True})
        except BaseException as error:
            self._error = error
        finally:
            self._ready.set()

    async def _run(self) -> None:
        self._loop_token = anyio.lowlevel.current_token()
        await self.server.run(self._ready.set)

    def start(self, guard_s: float = GUARD_S) -> Running:
        self._thread.start()
        assert self._ready.wait(guard_s)
        if self._error is not None:
            self._thread.join(GUARD_S)
            raise self._error
        return self

    @property
    def port(self) -> int:
        return int(self.server.address.rsplit(":", 1)[1].split("/")[0])

    def call(self, function: Callable[[], Any]) -> Any:
        """Call `function` on the server's loop."""
        return anyio.from_thread.run_sync(function, token=self._loop_token)

    def stop(self) -> None:
        if self._thread.is_alive():
            with contextlib.suppress(RuntimeError, anyio.RunFinishedError):
                self.call(self.server.stop)
        self._thread.join(GUARD_S)
        assert not self._thread.is_alive()
        if self._error is not None:
            raise self._error


def refused(server: Running, reason: str) -> float:
    """How many messages the server has refused for this reason."""
    assert server.server.service is not None
    registry = server.server.service.metrics.registry
    return registry.get_sample_value("dexrun_serve_refusals_total", {"reason": reason}) or 0


@contextlib.contextmanager
def serving(policy: Policy, options: ServeOptions) -> Iterator[Running]:
    running = Running(local_server(policy, options, ROBOT)).start()
    try:
        yield running
    finally:
        running.stop()


OPTIONS: dict[str, Any] = {
    "gr00t": GrootOptions,
    "openpi": OpenpiOptions,
    "act": ActRemoteOptions,
    "lerobot": LerobotOptions,
}
PROTOCOLS = tuple(OPTIONS)


def make_client(protocol: str, port: int, clock: Clock | None = None, **options: Any) -> RemotePolicy:
    from policies.remote.make import make_remote

    options = {"backoff_s": 0.0, "request_timeout_s": GUARD_S, **options}
    made = OPTIONS[protocol](port=port, **{"ready_timeout_s": options["request_timeout_s"], **options})
    return make_remote(made, ROBOT, clock if clock is not None else RealClock())


@contextlib.contextmanager
def connected(protocol: str, port: int, clock: Clock | None = None, **options: Any) -> Iterator[RemotePolicy]:
    remote = make_client(protocol, port, clock, **options)
    try:
        yield remote
    finally:
        remote.close()


@contextlib.contextmanager
def both_ends(
    protocol: str, policy: Policy, serve: dict[str, Any] | None = None, **options: Any
) -> Iterator[RemotePolicy]:
    """A client of a server of `policy`."""
    made = ServeOptions(**{"protocol": protocol, **(serve or {})})
    with serving(policy, made) as server, connected(protocol, server.port, **options) as remote:
        yield remote
