"""Tables of parts: the configuration that an arm, a camera, a policy... brings, and how it is built.

A part is one class: its table. The entry point refers to it (`runtime.plugins`), its fields are the keys of
its table in the configuration, its methods answer what the application has to know of it, and `build` makes
the driver or policy. Its module is imported whenever the part is configured, so what is heavy is imported in
`build`.

Where a table of the configuration is annotated with one of the bases here (`CameraTable`), the key `driver`
or `type` says which installed part's table it is (`runtime.part_table`).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from runtime.blends import SplicingOptions
from runtime.body_options import ArmOptions, StandingArmOptions
from runtime.geometry_options import Extrinsics
from runtime.interfaces import PerceptionError, PolicyError
from runtime.joints import JointLayout
from runtime.multi_tracker import SeparateTrackers
from runtime.packages import missing, need
from runtime.part_context import ArmContext, CameraNeed, DeviceContext, PolicyContext
from runtime.part_table import PartTable, checked
from runtime.plugins import Part

if TYPE_CHECKING:
    from runtime.interfaces import (
        ArmDriver,
        CameraDriver,
        Detector,
        ForceDriver,
        LeaderDriver,
        MultiTracker,
        Policy,
        Segmenter,
        Tracker,
    )
    from runtime.joints import JointLayout


class DeviceTable(PartTable):
    """A device.

    Attributes:
        driver: which part it is.
    """

    driver: str

    def addresses(self) -> Mapping[str, str]:
        """Where the device is: by key of this table whatever is given, first what counts first."""
        return {}

    @property
    def address(self) -> str:
        """The address that counts; empty if there is none."""
        return next(iter(self.addresses().values()), "")

    def own_files(self) -> Mapping[str, Path]:
        """By key of this table, the files that are of this very device and of no other: its calibration."""
        return {}

    @property
    def simulated(self) -> bool:
        """Whether it is itself a simulation: it takes all its time from the clock, which may be stepped."""
        return False

    def check_real(self) -> None:
        """Whether all is given that the device itself needs, and the simulated one does not.

        Raises:
            ValueError: what is missing, its key first.
        """

    def check_joints(self, joints: JointLayout) -> None:
        """Whether what an arm's table names, such as its calibration file, fits an arm with these joints.

        Raises:
            ValueError: what does not, its key first.
        """

    def longest_start_s(self) -> float:
        """The longest from opening to the first data, seconds; 0: ``devices.first_data_s`` counts alone."""
        return 0.0

    def longest_call(self) -> tuple[str, float]:
        """The longest that one call of the driver lasts, in seconds, after the keys that say so."""
        return "", 0.0


class ArmTable(DeviceTable, StandingArmOptions):
    """An arm that obeys targets.

    Attributes:
        state_rate_hz: how often its joints are read.
    """

    part_kind = "arm"

    state_rate_hz: float = Field(default=100.0, gt=0, le=1000)

    def known_calibration(self, joints: JointLayout) -> Mapping[str, Any]:
        """How the arm is calibrated, as far as the table says it: `ArmDriver.calibration` without the arm.

        Raises:
            ValueError: the file that the table names cannot be used; one line.
        """
        del joints
        return {}

    @abstractmethod
    def build(self, context: ArmContext) -> ArmDriver:
        """The driver; nothing is opened yet.

        Raises:
            DeviceError: it cannot be made with this table.
        """


class LeaderTable(DeviceTable, ArmOptions):
    """An arm that a person moves; without a model of its own it is the follower's."""

    part_kind = "leader"
    jogged: ClassVar[bool] = False
    """Whether it is no arm but a `runtime.interfaces.JoggedLeader`, which begins where the follower is."""

    @abstractmethod
    def build(self, context: ArmContext) -> LeaderDriver:
        """The driver; nothing is opened yet.

        Raises:
            DeviceError: it cannot be made with this table.
        """


class CameraTable(DeviceTable):
    """A camera.

    Attributes:
        width, height: of its pictures, in pixels; nothing is scaled.
        fps: pictures a second.
        extrinsics: where the camera is relative to the arm's base.
    """

    part_kind = "camera"

    width: int = Field(default=640, gt=0)
    height: int = Field(default=480, gt=0)
    fps: int = Field(default=30, gt=0, le=1000)
    extrinsics: Extrinsics | None = None

    @property
    def depth(self) -> bool:
        """Whether its frames have depth."""
        return False

    @abstractmethod
    def build(self, context: DeviceContext) -> CameraDriver:
        """The driver; nothing is opened yet.

        Raises:
            DeviceError: it cannot be made with this table.
        """


class ForceTable(DeviceTable):
    """A force sensor.

    Attributes:
        channels: number `K` of values in a sample.
        rate_hz: the sensor's own sample rate.
    """

    part_kind = "force"

    channels: int = Field(default=3, ge=1, le=16)
    rate_hz: float = Field(default=200.0, gt=0, le=10_000)

    @abstractmethod
    def build(self, context: DeviceContext) -> ForceDriver:
        """The driver; nothing is opened yet.

        Raises:
            DeviceError: it cannot be made with this table.
        """


class PolicyTable(PartTable, SplicingOptions):
    """A policy: how its chunks are asked for, spliced and played, where it runs, how long it takes.

    Attributes:
        rate_hz: rows per second that its chunks mean, as its training data had them; 0: as many as
            ``control.rate_hz``.
        discrete: joints, by name, that have no value between two rows, or two chunks (a gripper that is open
            or closed).
        type: which part it is.
        worker: ``thread`` runs the policy on the inference thread, ``process`` in a process of its own.
        ready_timeout_s: how long its first answer may take, before anything moves and after its server has
            come back: something may be loaded or compiled for it. Meanwhile the arm holds.
        simulated_latency_s: on a stepped clock, how long an inference takes.
        stop_on_implausible: latch a stop, besides saying so, where nearly every tick of the policy is clipped
            by range or speed: its units may be wrong.
    """

    part_kind = "policy"
    part_key = "type"
    packages: ClassVar[tuple[str, ...]] = ()
    """What the policy imports that is not installed along with it, by the names they are imported by."""
    one_arm: ClassVar[bool] = False
    """Whether it moves one arm: of a robot of several it is made for that one, and the others hold still."""
    extra: ClassVar[str] = ""
    """Which of dexrun's extras brings it."""
    behind_a_server: ClassVar[bool] = False
    """Whether it only asks a server, so that there is nothing to serve."""
    not_served: ClassVar[str] = ""
    """Why it cannot be put behind a server, and what can instead; empty: it can."""
    said_by_checkpoint: ClassVar[tuple[str, ...]] = ()
    """Keys that ``policy.json`` in a checkpoint's folder may give where nobody else does, each about what the
    network was trained on. Empty: it has no ``checkpoint`` that is such a folder."""

    rate_hz: float = Field(default=0.0, ge=0, le=1000)
    discrete: tuple[str, ...] = ()
    type: str
    worker: Literal["thread", "process"] = "thread"
    ready_timeout_s: float = Field(default=300.0, gt=0.0, le=3600.0)
    simulated_latency_s: float = Field(default=0.1, ge=0.0, le=60.0)
    stop_on_implausible: bool = False

    def check_packages(self) -> None:
        """Make sure that `packages` are installed; nothing is imported.

        Raises:
            PolicyError: one is not; one line.
        """
        need(f"policy type {self.type!r}", self.packages, self.extra)

    @abstractmethod
    def build(self, context: PolicyContext) -> Policy:
        """The policy, not warmed up yet.

        Raises:
            PolicyError: it cannot be made for this robot; one line.
        """

    def needs_cameras(self) -> Sequence[CameraNeed]:
        """The cameras that it looks through."""
        return ()

    def other_cameras(self, cameras: Sequence[str]) -> str:
        """How to say which of the robot's `cameras` it looks through, where they are none that it knows: what
        the end of a message is to be; empty: nothing.
        """
        del cameras
        return ""

    def trained_arm(self) -> str:
        """The model of the only arm that its checkpoint can move, as in ``arm.model``; empty: any that fits.

        Raises:
            ValueError: what says it cannot be read; begins with the key.
        """
        return ""

    def poses(self) -> Mapping[str, Sequence[float]]:
        """Keys that hold a pose: the joints without the gripper, radians."""
        return {}

    @property
    def remembers_episode(self) -> bool:
        """Whether an answer depends on what was asked before: then every client needs a policy of its own."""
        return True

    @property
    def untrained(self) -> bool:
        """Whether it runs without trained weights, as a trial in simulation: no real arm follows it."""
        return False

    def as_served(self) -> Mapping[str, Any]:
        """Keys of ``[serve]`` that this table answers for, where it says what a client sends."""
        return {}

    def recipe(self, given: Mapping[str, Any]) -> Any:
        """How it is trained, a `policies.training.recipe.Recipe`; `given` is the training's ``[recipe]``.

        Raises:
            PolicyError: it cannot be trained here; one line.
            pydantic.ValidationError: of `given`.
        """
        del given
        raise PolicyError(f"policy type {self.type!r} cannot be trained here")


class SeeingTable(PartTable):
    """What detectors, segmenters and trackers have in common.

    Attributes:
        type: which part it is.
    """

    part_key = "type"
    packages: ClassVar[tuple[str, ...]] = ()
    """What it imports that is not installed along with it, by the names they are imported by."""
    extra: ClassVar[str] = ""
    """Which of dexrun's extras brings it."""

    type: str

    def check_packages(self) -> None:
        """Make sure that `packages` are installed; nothing is imported.

        Raises:
            PerceptionError: one is not; one line.
        """
        if why := missing(f"{self.part_kind} type {self.type!r}", self.packages, self.extra):
            raise PerceptionError(why)

    def check_files(self) -> None:
        """Look for the weights that it names; nothing is loaded.

        Raises:
            PerceptionError: they are not there, or of another kind; one line.
        """


class DetectorTable(SeeingTable):
    """What finds the box of an object by words."""

    part_kind = "detector"

    @abstractmethod
    def build(self) -> Detector | None:
        """The detector; ``None`` if the planner marks the object itself. May load weights; called off the
        loop.

        Raises:
            PerceptionError: it cannot be made with this table; one line.
        """


class SegmenterTable(SeeingTable):
    """What finds the pixels of the object in a box, or at a point."""

    part_kind = "segmenter"

    @abstractmethod
    def build(self) -> Segmenter:
        """The segmenter. May load weights; called off the loop.

        Raises:
            PerceptionError: it cannot be made with this table; one line.
        """


class TrackerTable(SeeingTable):
    """What follows an object from frame to frame."""

    part_kind = "tracker"

    @abstractmethod
    def build(self) -> Tracker:
        """The tracker. May load weights; called off the loop.

        Raises:
            PerceptionError: it cannot be made with this table; one line.
        """

    def build_multi(self) -> MultiTracker:
        """What follows several objects together: a tracker for each, unless the part knows better.

        Raises:
            PerceptionError: as `build`.
        """
        return SeparateTrackers(self.build)


BASES: Mapping[str, type[PartTable]] = {
    base.part_kind: base
    for base in (
        ArmTable,
        LeaderTable,
        CameraTable,
        ForceTable,
        PolicyTable,
        DetectorTable,
        SegmenterTable,
        TrackerTable,
    )
}
"""By kind, what its tables derive from."""


def table_of(part: Part) -> type[PartTable]:
    """The part's table.

    Raises:
        runtime.plugins.PartError: it cannot be imported, or is no such table. The part remembers why.
    """
    return checked(part, BASES[part.kind]) if part.kind in BASES else checked(part, PartTable)
