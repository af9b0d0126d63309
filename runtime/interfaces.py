"""The Protocols by which rooms know each other. Nothing here imports a device, a model or a server."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from runtime.messages import ActionChunk, CameraInfo, Floats, Observation
from runtime.ring import Mailbox, Ring


@runtime_checkable
class Driver(Protocol):
    """A device that blocks, and therefore owns one thread (`runtime.device.DeviceThread` runs it).

    All three methods are called on that thread only. A reading ends up in the driver's rings.
    """

    name: str

    def open(self) -> None:
        """Connect. Idempotent after `close`, so that a device that went away can come back.

        Raises:
            DeviceError: the device is not there, or is not what was configured.
        """

    def poll(self) -> bool:
        """One cycle: wait (through the clock) for the next sample, publish it.

        Must return within about 0.25 s even if nothing comes, so that the thread can be stopped.

        Returns:
            Whether anything was published. Only that tells a device that was opened again from one that
            works again.

        Raises:
            DeviceError: after the driver's own retries failed.
        """

    def close(self) -> None:
        """Let go of the device, in a state in which nothing moves. Never raises."""

    def statistics(self) -> Mapping[str, int]:
        """Faults survived so far, by kind."""


@runtime_checkable
class ArmDriver(Driver, Protocol):
    """A joint-position-controlled arm.

    `states` has fields ``position``, ``velocity``, ``load``, each float64 ``[D]``.
    `targets` takes field ``position`` float64 ``[D]``; only the newest matters.
    """

    @property
    def states(self) -> Ring: ...

    @property
    def targets(self) -> Mailbox: ...


@runtime_checkable
class CameraDriver(Driver, Protocol):
    """`frames` has fields ``color`` uint8 ``[H, W, 3]`` and, for RGB-D, ``depth`` uint16 ``[H, W]``.

    `info` is final once `open` returned.
    """

    @property
    def frames(self) -> Ring: ...

    @property
    def info(self) -> CameraInfo: ...


@runtime_checkable
class ForceDriver(Driver, Protocol):
    """`samples` has field ``force`` float64 ``[K]`` in newtons, at the sensor's own rate."""

    @property
    def samples(self) -> Ring: ...

    def tare(self, still: Callable[[], bool] = ...) -> None:
        """Take the mean of the coming samples as zero, if `still` holds at each, unless a force acts.

        Callable from any thread; takes effect later. `still` is called on the driver's thread.
        """


@dataclass(frozen=True, slots=True)
class PolicySpec:
    """What a policy needs and gives, in the robot's terms.

    Attributes:
        cameras: names of the cameras whose newest frame it wants.
        masks: names of the cameras whose tracked mask it wants.
        joints: number of joints `D`; 0 if any.
        chunk_steps: rows `T` of a chunk.
        takes_prefix: whether it can be given `Observation.committed` (``rtc``).
        rate_hz: rows per second that its chunks mean; 0: as many as the control loop has ticks.
        discrete: joints that have no value between two of its rows.
    """

    name: str
    chunk_steps: int
    joints: int = 0
    cameras: tuple[str, ...] = ()
    masks: tuple[str, ...] = ()
    takes_prefix: bool = False
    rate_hz: float = 0.0
    discrete: tuple[int, ...] = ()
    notes: Mapping[str, str] = field(default_factory=dict)


@runtime_checkable
class Policy(Protocol):
    """Turns an observation into an action chunk. Called on one thread, never on the loop."""

    spec: PolicySpec

    def warm_up(self) -> None:
        """Load, compile and run once, so that the first real call is not the slow one.

        Raises:
            PolicyError: what is wrong with the checkpoint or device, in one line.
        """

    def infer(self, observation: Observation) -> Floats:
        """Actions ``[T, D]`` in the robot's units; row 0 is for ``observation.step``.

        Raises:
            PolicyError: no action can be given for this observation; the horizon runs dry and holds.
        """

    def reset(self) -> None:
        """Forget the episode."""

    def close(self) -> None:
        """Release device memory, sockets, processes."""


class PolicyError(Exception):
    """A policy cannot answer. The message is one line that says what and why."""


class ChunkSource(Protocol):
    """Where the control loop gets its chunks: the inference worker, or a prepared trajectory."""

    def request(self, step: int, epoch: int, committed: Floats, frozen_steps: int) -> bool:
        """Ask for a chunk for `step`, without waiting; ``False`` if one is still in flight."""

    def poll(self) -> ActionChunk | None:
        """The next finished chunk, if any."""
