"""A policy asked on the spot, as a source of chunks: what the inference thread does in a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from dexrun.gym.engine import TableEngine
from dexrun.gym.eyes import LazyPictures
from dexrun.gym.sight import Sight
from runtime.clock import NS_PER_S
from runtime.inference import InferenceFailureError, NotReadyError, checked
from runtime.interfaces import PerceptionError, Policy, PolicyError, PolicySpec
from runtime.messages import ActionChunk, ArmState, Floats, Observation, Snapshot, TrackedMask
from runtime.parts import PolicyTable


@dataclass(frozen=True, slots=True)
class Pace:
    """Rate and latency of a policy's chunks, as its table says.

    Attributes:
        rate_hz: rows per second, where the policy's own spec is not to hold. discrete: the same of joints.
        latency_s: of every answer, in simulated time.
    """

    rate_hz: float = 0.0
    discrete: tuple[int, ...] = ()
    latency_s: float = 0.1

    @classmethod
    def of(cls, table: PolicyTable, joints: tuple[str, ...]) -> Pace:
        """As `table` has it."""
        return cls(
            table.rate_hz, tuple(joints.index(name) for name in table.discrete), table.simulated_latency_s
        )


class InlineAttempt:
    """A `runtime.interfaces.ChunkSource`: one go of `policy` at one instruction.

    Args:
        seen: by camera, the sight that gives the masks the policy asks for.
        reset: whether the policy begins anew.

    Attributes:
        number, instruction: as a run's attempt has them.
        failures: requests that came to nothing, by kind. last_error: the newest of them.
        waits_for: what the newest request that was not ready had to wait for.
        asked: how many requests were made; seconds: how long the policy took for all, in wall time.
    """

    def __init__(
        self,
        engine: TableEngine,
        policy: Policy,
        pace: Pace,
        instruction: str,
        number: int,
        seen: Mapping[str, Sight],
        *,
        reset: bool = True,
    ) -> None:
        self.number = number
        self.instruction = instruction
        self.failures: Counter[str] = Counter()
        self.last_error = ""
        self.waits_for = ""
        self.asked = 0
        self._engine = engine
        self._policy = policy
        self._pace = pace
        self._seen = seen
        self._due_ns = 0
        self._chunk: ActionChunk | None = None
        self._waiting = False
        self._begin_ns = engine.clock.now_ns()
        if reset:
            policy.reset()

    def request(self, step: int, epoch: int, committed: Floats, frozen_steps: int) -> bool:
        """Ask now; the answer is there after the latency."""
        if self._waiting:
            return False
        now_ns = self._engine.clock.now_ns()
        self._waiting, self._due_ns = True, now_ns + round(self._pace.latency_s * NS_PER_S)
        self._chunk = self._asked_for(step, epoch, committed, frozen_steps)
        return True

    def poll(self) -> ActionChunk | None:
        """The answer, once it is due."""
        if not self._waiting or self._engine.clock.now_ns() < self._due_ns:
            return None
        chunk, self._chunk, self._waiting = self._chunk, None, False
        return chunk

    def _asked_for(self, step: int, epoch: int, committed: Floats, frozen_steps: int) -> ActionChunk | None:
        self.asked += 1
        try:
            ask = observing(self._engine, self._policy.spec, self._seen, self._begin_ns)
            observation = ask(step, epoch, committed.copy(), frozen_steps, self.instruction)
            answer = checked(self._policy.infer(observation), len(self._engine.model.names))
        except NotReadyError as error:  # a state, and no failure
            self.waits_for = str(error)
            return None
        except (PolicyError, InferenceFailureError) as error:
            kind = error.kind if isinstance(error, InferenceFailureError) else "policy_error"
            self.failures[kind] += 1
            self.last_error = " ".join(str(error).split())
            return None
        pace, spec = self._pace, self._policy.spec
        return ActionChunk(
            answer.rows,
            step,
            epoch,
            observation.stamp_ns,
            inference_s=pace.latency_s,
            rate_hz=float(pace.rate_hz or spec.rate_hz),
            discrete=tuple(pace.discrete or spec.discrete),
            status=answer.status,
            why=answer.why,
            reasoning=answer.reasoning,
        )


Ask = Callable[[int, int, Floats, int, str], Observation]


def observing(engine: TableEngine, spec: PolicySpec, seen: Mapping[str, Sight], begin_ns: int = 0) -> Ask:
    """What a policy of `spec` may look at now, for step, epoch, committed rows, frozen steps, instruction.

    Pictures and masks are made when they are looked at; `begin_ns` is when the attempt began.
    """
    eyes = engine.eyes
    assert eyes is not None  # noqa: S101 - a scene is loaded
    now_ns, stamp_ns = engine.clock.now_ns(), eyes.stamp_ns
    frames = LazyPictures(spec.cameras, lambda name: eyes.frame(name, stamp_ns))
    state = engine.arm.states.newest()
    assert state is not None  # noqa: S101 - the first tick read it
    arm = ArmState(state.stamp_ns, state["position"], state["velocity"], state["load"])
    force = engine.force.newest()
    masks = _LazyMasks(spec.masks, frames, seen)

    def earlier(back: int) -> Snapshot:
        at_ns = max(now_ns - round(back * spec.history_stride_s * NS_PER_S), begin_ns)
        before = engine.arm.states.before(at_ns)
        then = (
            arm
            if before is None
            else ArmState(before.stamp_ns, before["position"], before["velocity"], before["load"])
        )
        return Snapshot(at_ns, then, LazyPictures(spec.cameras, lambda name: eyes.frame(name, at_ns)))

    def ask(step: int, epoch: int, committed: Floats, frozen_steps: int, instruction: str) -> Observation:
        return Observation(
            step=step,
            epoch=epoch,
            stamp_ns=now_ns,
            arm=arm,
            frames=frames,
            masks=masks,
            force_n=None if force is None else force["force"],
            instruction=instruction,
            committed=committed,
            frozen_steps=frozen_steps,
            history=tuple(earlier(back) for back in range(spec.history_steps - 1, 0, -1)),
            end_effector=engine.model.poses(arm.position) if spec.end_effector else {},
            tip=next((mask.tip for mask in masks.values() if mask.tip), None) if spec.tip else None,
        )

    return ask


class _LazyMasks(Mapping[str, TrackedMask]):
    """By camera, the object's mask in the frame that the policy sees, tracked when it is asked for."""

    def __init__(self, names: tuple[str, ...], frames: LazyPictures, seen: Mapping[str, Sight]) -> None:
        self._names = tuple(name for name in names if name in seen)
        self._frames = frames
        self._seen = seen

    def __getitem__(self, name: str) -> TrackedMask:
        if name not in self._names:
            raise KeyError(name)
        try:
            return self._seen[name].look(self._frames[name])
        except PerceptionError as error:
            raise PolicyError(str(error)) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)
