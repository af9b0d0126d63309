"""Tables of parts: the configuration that an arm, a camera, a policy... brings, and how it is built.

A part is one class: its table. The entry point refers to it (`runtime.plugins`), its fields are the keys of
its table in the configuration, its methods answer what the application has to know of it, and `build` makes
the driver or policy. Its module is imported whenever the part is configured, so what is heavy is imported in
`build`.

Where a table of the configuration is annotated with one of the bases here (`CameraTable`), the key `driver`
or `type` says which installed part's table it is.
"""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, cast

from pydantic import Field, GetCoreSchemaHandler, SerializationInfo
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from runtime import plugins
from runtime.blends import SplicingOptions
from runtime.geometry_options import Extrinsics
from runtime.joints import JointLayout
from runtime.messages import CameraInfo
from runtime.options import Options
from runtime.packages import need

if TYPE_CHECKING:
    from collections.abc import Callable

    from runtime.arm_model import ArmModel
    from runtime.clock import Clock
    from runtime.interfaces import (
        ArmDriver,
        CameraDriver,
        ForceDriver,
        LeaderDriver,
        Policy,
        Segmenter,
        Tracker,
    )


# --- what a part is built with


@dataclass(frozen=True, slots=True)
class DeviceContext:
    """What a driver is made with besides its table.

    Attributes:
        name: the device's name in the configuration.
        clock: the only one that it waits on and stamps with.
        lent: what the simulated tabletop lends where the address is its own: to an arm its calibration by
            joint, to a colour camera its `runtime.messages.Intrinsics`, to a RealSense its librealsense
            context. ``None`` otherwise.
    """

    name: str
    clock: Clock
    lent: Any = None


@dataclass(frozen=True, slots=True)
class ArmContext(DeviceContext):
    """For an arm or a leader.

    Attributes:
        joints: its joints, in the order of every ``[D]``, with the ranges that the robot's model gives them.
    """

    joints: JointLayout = field(kw_only=True)


@dataclass(frozen=True, slots=True)
class PolicyContext:
    """What a policy is made with besides its table.

    Attributes:
        joints: the robot's, in the order of every ``[D]``.
        arm_model: makes a model of the robot's body, the policy's own.
        cameras: by name, what is constant about the robot's cameras.
        clock: for policies that wait, for a server's answer for example.
    """

    joints: JointLayout
    arm_model: Callable[[], ArmModel]
    cameras: Mapping[str, CameraInfo]
    clock: Clock


@dataclass(frozen=True, slots=True)
class CameraNeed:
    """A camera that a policy looks through.

    Attributes:
        key: the key of the policy's table that names it. camera: the name there.
        depth: whether its depth is needed. mask: whether the tracked object's mask in it is.
        calibration: whether `PolicyContext.cameras` must have it when the policy is made.
    """

    key: str
    camera: str
    depth: bool = False
    mask: bool = False
    calibration: bool = False


# --- choosing a table by name


class PartTable(Options):
    """What all parts' tables have in common.

    Attributes:
        part_kind: a key of `runtime.plugins.GROUPS`; given by the bases below, whose subclasses are tables.
        part_key: the key whose value is the part's name.
        part_default: the part that a table without that key is of; empty if the key is required.
    """

    part_kind: ClassVar[str]
    part_key: ClassVar[str] = "driver"
    part_default: ClassVar[str] = ""

    def by_joint(self) -> Mapping[str, Iterable[str]]:
        """The joints that keys of this table name: ``{"zero_rad": self.zero_rad}``."""
        return {}

    @classmethod
    def is_choice(cls) -> bool:
        """Whether this is one of the bases, which stand for every installed table of their kind."""
        return "part_kind" in vars(cls)

    @classmethod
    def of(cls, name: str) -> type[Self]:
        """The table of the installed part `name` of this kind.

        Raises:
            runtime.plugins.PartError: there is none, or it cannot be used.
        """
        return cast("type[Self]", table_of(plugins.installed().part(cls.part_kind, name)))

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        if not cls.is_choice():
            return handler(source)
        dump = core_schema.plain_serializer_function_ser_schema(_dumped, info_arg=True)
        return core_schema.no_info_plain_validator_function(cls._chosen, serialization=dump)

    @classmethod
    def _chosen(cls, given: object) -> PartTable:
        if isinstance(given, cls):
            return given
        key = cls.part_key
        if not isinstance(given, Mapping):
            raise PydanticCustomError("part_table", "Input should be a table")
        registry = plugins.installed()
        name = given.get(key, cls.part_default)
        known = registry.names(cls.part_kind)
        if not known and registry.stale:
            raise PydanticCustomError("part_broken", "{why}", {"why": plugins.STALE})
        if not name:
            raise PydanticCustomError("part_required", "{key} is required", {"key": key, "known": known})
        if name not in known:
            details = {"key": key, "name": name, "known": known, "all": ", ".join(known)}
            message = "{key} '{name}' is unknown; installed are {all}"
            raise PydanticCustomError("part_unknown", message, details)
        try:
            table = cls.of(name)
        except plugins.PartError as error:
            details = {"key": key, "name": name, "why": f"cannot be used: {error}"}
            raise PydanticCustomError("part_broken", "{why}", details) from None
        return table.model_validate({**given, key: name})


def _dumped(table: PartTable, info: SerializationInfo) -> dict[str, Any]:
    return table.model_dump(mode=info.mode, exclude_unset=info.exclude_unset)


def table_of(part: plugins.Part) -> type[PartTable]:
    """The part's table, seen to be one of its kind.

    Raises:
        runtime.plugins.PartError: it cannot be imported, or is no such table. The part remembers why.
    """
    table = part.load()
    base = BASES[part.kind]
    if not (isinstance(table, type) and issubclass(table, base)):
        part.error = f"{part.reference} is no subclass of runtime.{base.__name__}"
    elif inspect.isabstract(table):
        part.error = f"{part.reference} does not define {', '.join(sorted(table.__abstractmethods__))}"
    else:
        return table
    raise plugins.PartError(f"{part.origin}: {part.error}")


# --- the kinds


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

    @property
    def simulated(self) -> bool:
        """Whether it is itself a simulation: it takes all its time from the clock, which may be stepped."""
        return False

    def check_real(self) -> None:
        """Whether all is given that the device itself needs, and the simulated one does not.

        Raises:
            ValueError: what is missing, its key first.
        """

    def longest_call(self) -> tuple[str, float]:
        """The longest that one call of the driver lasts, in seconds, after the keys that say so."""
        return "", 0.0


class ArmTable(DeviceTable):
    """An arm that obeys targets.

    Attributes:
        state_rate_hz: how often its joints are read.
    """

    part_kind = "arm"
    part_default = "feetech"

    state_rate_hz: float = Field(default=100.0, gt=0, le=1000)

    @abstractmethod
    def build(self, context: ArmContext) -> ArmDriver:
        """The driver; nothing is opened yet.

        Raises:
            DeviceError: it cannot be made with this table.
        """


class LeaderTable(DeviceTable):
    """An arm that a person moves."""

    part_kind = "leader"
    part_default = "feetech"

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
    part_default = "serial"

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
        discrete: joints, by name, that have no value between two rows (a gripper that is open or closed).
        type: which part it is.
        worker: ``thread`` runs the policy on the inference thread, ``process`` in a process of its own.
        simulated_latency_s: on a stepped clock, how long an inference takes.
    """

    part_kind = "policy"
    part_key = "type"
    packages: ClassVar[tuple[str, ...]] = ()
    """What the policy imports that is not installed along with it, by the names they are imported by."""
    extra: ClassVar[str] = ""
    """Which of dexrun's extras brings it."""
    behind_a_server: ClassVar[bool] = False
    """Whether it only asks a server, so that there is nothing to serve."""

    rate_hz: float = Field(default=0.0, ge=0, le=1000)
    discrete: tuple[str, ...] = ()
    type: str
    worker: Literal["thread", "process"] = "thread"
    simulated_latency_s: float = Field(default=0.1, ge=0.0, le=60.0)

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

    def poses(self) -> Mapping[str, Sequence[float]]:
        """Keys that hold a pose: the joints without the gripper, radians."""
        return {}

    @property
    def remembers_episode(self) -> bool:
        """Whether an answer depends on what was asked before: then every client needs a policy of its own."""
        return True

    def as_served(self) -> Mapping[str, Any]:
        """Keys of ``[serve]`` that this table answers for, where it says what a client sends."""
        return {}


class SegmenterTable(PartTable):
    """What finds the pixels of the object in a box."""

    part_kind = "segmenter"
    part_key = "type"
    part_default = "color"

    type: str

    @abstractmethod
    def build(self) -> Segmenter:
        """The segmenter. May load weights; called off the loop."""


class TrackerTable(PartTable):
    """What follows an object from frame to frame."""

    part_kind = "tracker"
    part_key = "type"
    part_default = "color"

    type: str

    @abstractmethod
    def build(self) -> Tracker:
        """The tracker. May load weights; called off the loop."""


BASES: Mapping[str, type[PartTable]] = {
    "arm": ArmTable,
    "leader": LeaderTable,
    "camera": CameraTable,
    "force": ForceTable,
    "policy": PolicyTable,
    "segmenter": SegmenterTable,
    "tracker": TrackerTable,
}
