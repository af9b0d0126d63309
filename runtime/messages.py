"""What crosses between rooms. Every message carries its acquisition stamp (`Clock.now_ns`'s domain).

Units everywhere: radians for joints, 0 (closed) to 1 (open) for a gripper, metres, newtons, seconds.
Images are RGB uint8 ``[H, W, 3]``; depth is uint16 ``[H, W]`` in device units, 0 meaning no reading.
`D` is the number of joints of the robot (`runtime.joints.JointLayout` says which of them are grippers).
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from runtime.clock import NS_PER_S
from runtime.masking import masked

Floats = NDArray[np.float64]
ColorImage = NDArray[np.uint8]
DepthImage = NDArray[np.uint16]
Latent = NDArray[np.float32]
"""``[L]``: numbers that one model makes for another. What they mean is between the two."""
Mask = NDArray[np.uint8]
"""``[H, W]``, 1 on the object and 0 elsewhere."""


@dataclass(frozen=True, slots=True)
class Intrinsics:
    """Pinhole camera with Brown-Conrady distortion, in pixels.

    `coefficients` are k1, k2, p1, p2, k3. `model` says where the tangential part applies: at the
    undistorted point (``"brown_conrady"``, as in OpenCV) or at the radially distorted one
    (``"inverse_brown_conrady"``, as librealsense does for the colour cameras of the D400 series).
    """

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    coefficients: tuple[float, float, float, float, float] = (0.0, 0.0, 0.0, 0.0, 0.0)
    model: str = "brown_conrady"


@dataclass(frozen=True, slots=True)
class CameraInfo:
    """What is constant about a camera. `base_from_camera` is 4x4: optical frame (x right, y down, z
    forward) to the arm's base frame; ``None`` where the camera is not calibrated to the arm.
    """

    name: str
    intrinsics: Intrinsics
    depth_scale_m: float | None = None
    base_from_camera: Floats | None = None


@dataclass(frozen=True, slots=True)
class ArmState:
    """One synchronised reading of all joints, shapes ``[D]``; `load` is a fraction of stall torque."""

    stamp_ns: int
    position: Floats
    velocity: Floats
    load: Floats


@dataclass(frozen=True, slots=True)
class Frame:
    """One image of one camera; `depth` is aligned to `color` and taken at the same instant."""

    camera: str
    stamp_ns: int
    color: ColorImage
    depth: DepthImage | None = None


@dataclass(frozen=True, slots=True)
class Tip:
    """The language hint, "the cup is at x, y, z": where the instruction's object was seen last.

    Attributes:
        point_m: ``[3]``, in the arm's base frame, metres (`runtime.object_point`).
        sigma_m: ``[3]``, standard deviations of it; NaN where nobody says.
        first_m: ``[3]``, where it was seen first in this attempt at it.
        stamp_ns: of the frame in which it was seen last.
    """

    point_m: Floats
    sigma_m: Floats
    first_m: Floats
    stamp_ns: int


@dataclass(frozen=True, slots=True)
class TrackedMask:
    """Where the object of `attempt` is in the frame stamped `stamp_ns`.

    `tip` is where it was seen last in space, up to that frame: a tracker leaves it to `runtime.tip`.
    """

    camera: str
    stamp_ns: int
    mask: Mask
    confidence: float
    attempt: int = 0
    tip: Tip | None = None


@dataclass(frozen=True, slots=True)
class Thought:
    """What a slow model made of one observation, for a fast one to act on.

    Its age is an observation's `stamp_ns` less this one's, and an input like the latent itself.

    Attributes:
        latent: ``[L]`` float32. text: its reasoning, in words; may be empty.
        stamp_ns: of the observation that it was made from, not of when it was ready.
        instruction: what was asked for in that observation.
        attempt: which attempt that was, counted by whoever asks the slow model.
        number: 1 for the first of a run, counted on.
    """

    latent: Latent
    stamp_ns: int
    text: str = ""
    instruction: str = ""
    attempt: int = 0
    number: int = 0

    def age_s(self, stamp_ns: int) -> float:
        """Its age in an observation of `stamp_ns`, seconds."""
        return (stamp_ns - self.stamp_ns) / NS_PER_S


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The arm and the cameras at one earlier instant."""

    stamp_ns: int
    arm: ArmState
    frames: Mapping[str, Frame] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Observation:
    """Everything a policy may look at, asked for step `step` (rows executed so far).

    Attributes:
        committed: ``[n, D]`` what the horizon would still execute from `step` on (empty at a cold start).
        frozen_steps: how many of `committed` will have been executed when the chunk arrives, as far as
            consumption so far tells; for ``rtc``.
        history: earlier instants, oldest first, `PolicySpec.history_stride_s` apart and without the present
            one; what lies before the attempt is its first instant again.
        end_effector: by the arm's name, 4x4, the pose of its grasp point in the base frame; empty unless
            `PolicySpec.end_effector` asks for it.
        tip: where the instruction's object was seen last; ``None`` before it was seen, or unless
            `PolicySpec.tip` asks for it.
        thought: what a slow model made of an earlier observation; ``None`` where there is no slow model.
        trial: whether the answer is only to prove that there is one: nothing is asked for, nothing moves.
    """

    step: int
    epoch: int
    stamp_ns: int
    arm: ArmState
    frames: Mapping[str, Frame] = field(default_factory=dict)
    masks: Mapping[str, TrackedMask] = field(default_factory=dict)
    force_n: Floats | None = None
    instruction: str = ""
    committed: Floats = field(default_factory=lambda: np.zeros((0, 0)))
    frozen_steps: int = 0
    history: tuple[Snapshot, ...] = ()
    end_effector: Mapping[str, Floats] = field(default_factory=dict)
    tip: Tip | None = None
    thought: Thought | None = None
    trial: bool = False


class PolicyStatus(enum.StrEnum):
    """How an attempt stands, as the policy sees it."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class PolicyAnswer:
    """What a policy answers: ``rows[T, D]`` in the robot's units, and how the attempt stands.

    Attributes:
        rows: the first is for the observation's `step`. None, ``[0, D]``, only where the attempt has ended.
        why: in one line, for an attempt that failed.
        reasoning: what the policy says of what it does now (a sub-step, in words), if it says anything.
        latent: ``[L]`` float32, of a policy that thinks for another one (`PolicySpec.latent`).
    """

    rows: Floats
    status: PolicyStatus = PolicyStatus.RUNNING
    why: str = ""
    reasoning: str = ""
    latent: Latent | None = None


@dataclass(frozen=True, slots=True)
class ActionChunk:
    """``actions[T, D]`` in the robot's units; row 0 is meant for step `step`.

    `step` is the step of the observation that the chunk answers, `epoch` the epoch it was asked in; `status`
    and `why` say how the attempt stands, `reasoning` what the policy says that it does (`PolicyAnswer`).

    Attributes:
        rate_hz: rows per second; 0: as many as the control loop has ticks.
        discrete: joints that have no value between two rows or two chunks (a gripper that is open or closed,
            a mode).
    """

    actions: Floats
    step: int
    epoch: int
    observed_ns: int = 0
    inference_s: float = 0.0
    rate_hz: float = 0.0
    discrete: tuple[int, ...] = ()
    status: PolicyStatus = PolicyStatus.RUNNING
    why: str = ""
    reasoning: str = ""


MOST_ACTION = 1e6
"""No joint has a value beyond it, in any unit. What is finite and larger overflows in the arithmetic."""


class Clip(enum.IntFlag):
    """Why the safety stage changed a target, in the order in which it checks."""

    NONE = 0
    NOT_FINITE = 1
    RANGE = 2
    RELATIVE = 4
    VELOCITY = 8
    ACCELERATION = 16
    COLLISION = 32
    FORCE = 64
    STALL = 128


class Decision(enum.Enum):
    """What a fault asks of the control loop."""

    RETRY = "retry"
    HOLD = "hold"
    STOP = "stop"


class FaultKind(enum.StrEnum):
    """What can go wrong, one word for each: what is counted, and what a rule of ``[faults]`` may name.

    First of devices, then of a policy, then of the planner, whose HTTP errors are ``http_<status>`` besides.
    """

    NO_REPLY = "no_reply"
    """A servo, or a whole bus, does not answer."""
    BAD_PACKET = "bad_packet"
    """What came is damaged."""
    TORQUE_LOST = "torque_lost"
    """A servo let go by itself."""
    RESTARTED = "restarted"
    """It lost its power for a moment, and with it what was set at the opening."""
    WRONG_MODEL = "wrong_model"
    """Another kind of device answers."""
    WRONG_CALIBRATION = "wrong_calibration"
    """The calibration is missing, or not this device's."""
    TIMEOUT = "timeout"
    """Nothing whole came in time."""
    GONE = "gone"
    """It was there, and is not any more."""
    SILENT = "silent"
    """It is open, and sends nothing."""
    NOISE = "noise"
    """It sends, and nothing that can be read."""
    SLOW = "slow"
    """It delivers, and too seldom."""
    CRASHED = "crashed"
    """The driver itself raised: a defect."""
    NOT_FOUND = "not_found"
    """Nothing is at its address."""
    IN_USE = "in_use"
    """Another program has it."""
    NO_PERMISSION = "no_permission"
    """This user may not open it."""
    CANNOT_OPEN = "cannot_open"
    """It cannot be opened, for another reason."""
    UNSUPPORTED = "unsupported"
    """It cannot do what is configured."""
    NOT_GRANTED = "not_granted"
    """It delivers something else than was asked for."""
    NO_STREAM = "no_stream"
    """It has no such stream."""
    BAD_OPTION = "bad_option"
    """It has no such option, or not that value."""
    BAD_CALIBRATION = "bad_calibration"
    """Its own intrinsics cannot be used."""
    NOT_INSTALLED = "not_installed"
    """A package that its driver needs is missing."""
    REFUSED = "refused"
    """It, or a server, refused what was asked."""
    NO_STATE = "no_state"
    """It has not reported its joints."""
    NOT_WRITABLE = "not_writable"
    """Nothing can be written there."""
    POLICY_ERROR = "policy_error"
    """It said that it cannot answer."""
    RAISED = "raised"
    """It raised something else."""
    NOT_FINITE = "not_finite"
    """NaN, infinity or no numbers."""
    WRONG_SHAPE = "wrong_shape"
    """No rows of the robot's joints."""
    OUT_OF_MEMORY = "out_of_memory"
    """The device's memory is full."""
    OBSERVATION = "observation"
    """What it was to see could not be put together."""
    HUNG = "hung"
    """One call does not return."""
    UNREACHABLE = "unreachable"
    """No connection."""
    REDIRECTED = "redirected"
    """It names another server, which is asked nothing."""
    MALFORMED = "malformed"
    """No usable answer, after all retries."""
    NO_OBJECT = "no_object"
    """The model says that it is not in the picture."""
    CLOSED = "closed"
    """It is not open."""


class DeviceError(Exception):
    """A device failed. Carries what a decision and a report need.

    Attributes:
        device: the device's name in the configuration (``"arm"``, ``"head"``).
        kind: what went wrong, countable.
        where: port, serial number or address, without credentials.
        last_good_ns: stamp of the last good sample, if any.
    """

    def __init__(
        self, device: str, kind: FaultKind, where: str, detail: str, last_good_ns: int | None = None
    ) -> None:
        where, detail = masked(where), masked(detail)
        super().__init__(f"{device} at {where}: {kind}: {detail}")
        self.device = device
        self.kind = kind
        self.where = where
        self.detail = detail
        self.last_good_ns = last_good_ns
