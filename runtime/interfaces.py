"""The Protocols by which rooms know each other. Nothing here imports a device, a model or a server."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from runtime.masking import masked
from runtime.messages import (
    ActionChunk,
    CameraInfo,
    ColorImage,
    Floats,
    Frame,
    Mask,
    Observation,
    PolicyAnswer,
    TrackedMask,
)
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

        Must return within about 0.25 s even if nothing comes, so that the thread can be stopped; and must not
        return over and over without having waited: its thread comes before ordinary ones.

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
class LeaderDriver(Driver, Protocol):
    """An arm that a person moves.

    `states` has fields ``position``, ``velocity``, ``load``, each float64 ``[D]``.
    `calibration` says how its readings become the robot's units, by joint, as JSON has it: every recording
    keeps it, and exports into a trainer's units follow it. Empty if there is nothing to say.
    """

    @property
    def states(self) -> Ring: ...

    @property
    def calibration(self) -> Mapping[str, Any]: ...


@runtime_checkable
class GuidedLeader(LeaderDriver, Protocol):
    """A leader whose motors can bring it somewhere, so that a person takes it over where the follower is.

    `guide` takes field ``position`` float64 ``[D]``: where it is to go and stay, a small way at a time; only
    the newest matters. NaN lets go. Where nothing comes for a second it lets go, too: a person may hold it.
    """

    @property
    def guide(self) -> Mailbox: ...


@runtime_checkable
class DistantDriver(Driver, Protocol):
    """A device on another machine. `link` says how the way to it was so far, as the summary has it."""

    @property
    def link(self) -> Mapping[str, Any]: ...


@runtime_checkable
class JoggedLeader(GuidedLeader, Protocol):
    """A leader without an arm: a point in space that is moved, and the joints that bring the gripper there.

    `jog` takes fields ``twist`` float64 ``[6]``, metres a second along the base frame's axes and radians a
    second about those of the point's heading (forward, left, up), and ``grip``, travels of the gripper a
    second, opening. `hand` takes a hand's pose in a frame whose z is up and whose x is the base frame's:
    ``position`` float64 ``[3]``, metres, and ``quaternion`` ``[4]`` (x, y, z, w), with ``grip``, 0 closed to
    1 open (NaN: as it is), and ``clutch``, 1 while the hand is to be followed: what counts is its motion
    since it was pressed. Each is posted by the loop's thread, and counts for a fraction of a second: silence
    is standing still.
    """

    @property
    def jog(self) -> Mailbox: ...

    @property
    def hand(self) -> Mailbox: ...


@runtime_checkable
class ArmDriver(LeaderDriver, Protocol):
    """A joint-position-controlled arm.

    `targets` takes field ``position`` float64 ``[D]``; only the newest matters.
    `sent` has field ``position``, float64 ``[D]``: each target as it went to the device, stamped when it did,
    NaN for a joint that was left out. A field ``target_ns``, int64 ``[D]``, may say by its stamp which
    target that was. It may have more fields, as the device counts; they are recorded.
    `health` has whatever fields the device reports of itself (temperatures, voltages), each ``[D]``.
    """

    @property
    def targets(self) -> Mailbox: ...

    @property
    def sent(self) -> Ring: ...

    @property
    def health(self) -> Ring: ...


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
    """`samples` has field ``force`` float64 ``[K]`` in newtons, at the sensor's own rate.

    `tared` lists what came of the zeros that were asked for so far: why each was refused, empty if it was
    taken. It only grows.
    """

    @property
    def samples(self) -> Ring: ...

    @property
    def tared(self) -> Sequence[str]: ...

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
        history_steps: instants that it looks at, the present one included.
        history_stride_s: how far they are apart.
        end_effector: whether it wants `Observation.end_effector`.
        tip: whether it wants `Observation.tip`, of the camera in `masks`, which has depth and a pose.
        tells_end: whether its answers say when an attempt is done or has failed.
        thought: how many numbers of the latent in `Observation.thought` it looks at; 0: it takes none.
        latent: size `L` of the latent that its own answers carry, for another policy; 0: none.
    """

    name: str
    chunk_steps: int
    joints: int = 0
    cameras: tuple[str, ...] = ()
    masks: tuple[str, ...] = ()
    takes_prefix: bool = False
    rate_hz: float = 0.0
    discrete: tuple[int, ...] = ()
    tells_end: bool = False
    history_steps: int = 1
    history_stride_s: float = 0.1
    end_effector: bool = False
    tip: bool = False
    thought: int = 0
    latent: int = 0
    notes: Mapping[str, str] = field(default_factory=dict)


@runtime_checkable
class Policy(Protocol):
    """Turns an observation into actions. Called on one thread, never on the loop; nothing of it is read on
    another.

    Attributes:
        spec: may become more exact with `warm_up` and with an answer, where a server says what it can.
    """

    spec: PolicySpec

    def warm_up(self) -> None:
        """Load, compile and run once, so that the first real call is not the slow one.

        Raises:
            PolicyError: what is wrong with the checkpoint or device, in one line.
        """

    def infer(self, observation: Observation) -> PolicyAnswer:
        """Rows ``[T, D]`` in the robot's units, row 0 for ``observation.step``, and how the attempt stands.

        Raises:
            PolicyError: no action can be given for this observation; the horizon runs dry and holds.
        """

    def reset(self) -> None:
        """Forget the episode. Called before the first observation of every attempt.

        Raises:
            PolicyError: it cannot; the attempt does not begin, and it is asked again.
        """

    def statistics(self) -> Mapping[str, int]:
        """Events of its own so far, by kind, for the summary."""
        return {}

    def close(self) -> None:
        """Release device memory, sockets, processes."""


@runtime_checkable
class ServedPolicy(Policy, Protocol):
    """A policy behind a server, which may have to start again.

    Attributes:
        unready: why its next answer may take as long as its first; ``""`` once it has answered since it was
            connected. Read on the policy's thread.
    """

    @property
    def unready(self) -> str: ...

    def interrupt(self) -> None:
        """End the call that runs, and every later one. From any thread."""


class PolicyError(Exception):
    """A policy cannot answer. The message is one line that says what and why, and holds no known secret."""

    def __init__(self, message: str = "") -> None:
        super().__init__(masked(message))


class NoAnswerError(PolicyError):
    """There is no action for what this observation shows, and nothing is wrong with policy or observation.

    Its message says so in its first words, by which it is known again where only text crosses.
    """

    BEGINS = "no action for this view: "

    def __init__(self, why: str) -> None:
        super().__init__(self.BEGINS + why.removeprefix(self.BEGINS))


def policy_error(text: str) -> PolicyError:
    """What another process or machine says of its policy, as the error that it was there."""
    _, known, why = text.partition(NoAnswerError.BEGINS)
    return NoAnswerError(why) if known else PolicyError(text)


class ChunkSource(Protocol):
    """Where the control loop gets its chunks: the inference worker, or a prepared trajectory."""

    def request(self, step: int, epoch: int, committed: Floats, frozen_steps: int) -> bool:
        """Ask for a chunk for `step`, without waiting; ``False`` if one is still in flight."""

    def poll(self) -> ActionChunk | None:
        """The next finished chunk, if any."""


@runtime_checkable
class StartingSource(ChunkSource, Protocol):
    """A source that may have to start again in the middle: it is given the time that its start may take.

    Attributes:
        unready: why it gives nothing yet, or ``""``.
    """

    @property
    def unready(self) -> str: ...


Box = tuple[float, float, float, float]
"""``x1, y1, x2, y2`` in pixels, the far corner exclusive."""


class PerceptionError(Exception):
    """There is no telling what the object is. The message is one line."""


@dataclass(frozen=True, slots=True)
class Point:
    """A click: `x`, `y` in pixels of the picture, on the object (`inside`) or on what is not part of it."""

    x: float
    y: float
    inside: bool = True


@dataclass(frozen=True, slots=True)
class Prompt:
    """Which object is meant: by a box around it, by points on it and beside it, or by both.

    Raises:
        ValueError: there is neither a box nor a point on the object.
    """

    box: Box | None = None
    points: tuple[Point, ...] = ()

    def __post_init__(self) -> None:
        if self.box is None and not any(point.inside for point in self.points):
            raise ValueError("nothing is pointed at: give a box, or a point on the object")


@dataclass(frozen=True, slots=True)
class Segmentation:
    """An object's pixels.

    Attributes:
        mask: ``[H, W]``, 1 on the object; never empty.
        score: how well the mask fits by the segmenter's own estimate, 0 to 1: the intersection over union
            that it expects of its mask and the object.
    """

    mask: Mask
    score: float


@runtime_checkable
class Segmenter(Protocol):
    """From a prompt to the pixels of the object that it means. Called on one thread, and owns none."""

    def segment(self, image: ColorImage, prompt: Prompt) -> Segmentation:
        """The object that `prompt` means in `image`.

        Raises:
            PerceptionError: the prompt is not in the image, or nothing there stands out.
        """


@dataclass(frozen=True, slots=True)
class Detection:
    """One thing that was found in a picture.

    Attributes:
        box: around it, in the picture.
        score: how sure the detector is, 0 to 1.
        phrase: which of the phrases it was found by.
    """

    box: Box
    score: float
    phrase: str


@runtime_checkable
class Detector(Protocol):
    """From phrases to boxes. Called on one thread, and owns none."""

    def detect(self, image: ColorImage, phrases: Sequence[str]) -> Sequence[Detection]:
        """Whatever `phrases` ("red cup") name in `image`, best first; empty if none of it is seen.

        Raises:
            PerceptionError: it cannot answer.
        """


@runtime_checkable
class Tracker(Protocol):
    """Follows one object from frame to frame of one camera. Called on one thread, and owns none."""

    def init(self, frame: Frame, mask: Mask) -> TrackedMask:
        """Begin with the object as `mask` shows it in `frame`.

        Raises:
            PerceptionError: the mask is empty or of another size than the frame.
        """

    def update(self, frame: Frame) -> TrackedMask:
        """Where it is now. Confidence 0 and an empty mask mean that it is not seen.

        Raises:
            PerceptionError: before `init`, or the frame is of another size.
        """


@runtime_checkable
class MultiTracker(Protocol):
    """Follows several objects of one camera, each by a name of its own. Called on one thread, and owns none.

    Frames may come in any direction of time: whoever goes backwards through a recording begins at its end.
    """

    def begin(self) -> None:
        """Forget all objects."""

    def update(self, frame: Frame, prompts: Mapping[str, Prompt | Mask] = ...) -> Mapping[str, TrackedMask]:
        """Where all objects are in `frame`, by name.

        `prompts` says of some where they are, by a mask ``[H, W]`` or what a segmenter takes: a name that is
        new is followed from here on, another is corrected. The newest frame (of the same camera and stamp)
        may be given once more, to correct what was found in it. Confidence 0 and an empty mask mean that an
        object is hidden or lost; it is looked for all the same, and comes back by itself or by a prompt.

        Raises:
            PerceptionError: nothing is followed, the frame is of another size, a prompt is not in it or of a
                kind that this tracker does not take, or it cannot answer.
        """
