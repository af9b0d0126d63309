"""The robot that a run works with, as its parts' protocols show it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dexrun.config.settings import Settings
from dexrun.shown import Shown
from dexrun.stopping import PersonsStop
from runtime.arm_model import ArmModel
from runtime.body import RobotDescription
from runtime.clock import Clock
from runtime.control import ControlLoop
from runtime.device import DeviceThread
from runtime.faults import FaultPolicy
from runtime.interfaces import ArmDriver, CameraDriver, DistantDriver, Driver, ForceDriver, LeaderDriver
from runtime.joints import JointLayout, prefixed
from runtime.messages import CameraInfo
from runtime.ports import ArmPort, LeaderPort
from runtime.realtime import Realtime
from runtime.ring import Ring
from runtime.safety import SafetyStage
from runtime.statistics import RunStatistics
from runtime.units import calibrated

if TYPE_CHECKING:
    from drivers.world.client import WorldClient

_COUNTED_ELSEWHERE = ("tares", "silent", "noise", "slow")
"""What drivers count that is no fault, or is reported as one besides."""


@dataclass
class Robot:
    """Everything that a mode works with.

    Attributes:
        arms, leaders: their drivers, by the key of their table (``arm``, or ``arms.left``...).
        arm: what obeys a joint vector: the arm itself, or all of them as one. leader: what is followed.
        threads: one per device that runs, by name.
        model: of the arm, for the loop's own thread; others take a copy.
        description: what the model was made of.
        world: the simulated tabletop, if any device is its.
        shown: what people are shown beside the numbers.
        stopping: a person's stop, its reset, and what comes after.
        realtime: its `collect` is for when the arm rests and follows nothing: a late tick hurts nobody.
    """

    settings: Settings
    clock: Clock
    arms: dict[str, ArmDriver]
    leaders: dict[str, LeaderDriver]
    arm: ArmPort
    leader: LeaderPort | None
    cameras: dict[str, CameraDriver]
    force: ForceDriver | None
    control: ControlLoop
    safety: SafetyStage
    model: ArmModel
    description: RobotDescription
    records: Ring
    statistics: RunStatistics
    faults: FaultPolicy
    world: WorldClient | None = None
    threads: dict[str, DeviceThread] = field(default_factory=dict)
    realtime: Realtime = field(default_factory=Realtime)
    shown: Shown = field(default_factory=Shown)
    stopping: PersonsStop = field(init=False)

    def __post_init__(self) -> None:
        self.stopping = PersonsStop(self.control, self.clock)

    @property
    def drivers(self) -> dict[str, Driver]:
        """Every device, by its name in the configuration."""
        return {name: thread.driver for name, thread in self.threads.items()}

    @property
    def joints(self) -> JointLayout:
        """The joints of this very robot, as its arms are calibrated and its safety stage lets them go."""
        entries = {
            prefixed(key.partition(".")[2], joint): entry
            for key, arm in self.arms.items()
            for joint, entry in arm.calibration.items()
        }
        return calibrated(self.model.layout, entries).within(self.safety.permitted)

    def infos(self) -> dict[str, CameraInfo]:
        """What is constant about each camera, once it is open."""
        return {name: camera.info for name, camera in self.cameras.items()}

    def links(self) -> dict[str, Mapping[str, Any]]:
        """How the way to devices on other machines was."""
        return {name: each.link for name, each in self.drivers.items() if isinstance(each, DistantDriver)}

    def survived(self) -> dict[str, Mapping[str, int]]:
        """Faults that the drivers dealt with by themselves."""
        counted = {name: thread.counts for name, thread in self.threads.items()}
        return {
            name: {kind: times for kind, times in kinds.items() if kind not in _COUNTED_ELSEWHERE}
            for name, kinds in counted.items()
        }
