"""The one configuration model: every room's options, composed. `dexrun.config.load` is the only way in.

Precedence: command line over environment over file over default. Whatever is wrong is said in one line
per mistake: which key, which value, where it came from, and what would be accepted.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from dexrun.config.addresses import WORLD_ADDRESS, in_world
from dexrun.config.mode_options import GraspOptions, TeleopOptions, TerminalOptions
from dexrun.config.recording_options import RecordingOptions
from dexrun.config.serve_options import ServeOptions
from dexrun.export.options import ExportOptions
from drivers.feetech.config import FeetechConfig
from drivers.force.config import ForceConfig
from drivers.opencv_camera.config import OpenCvConfig
from drivers.realsense.config import RealSenseConfig
from drivers.world.config import WorldConfig
from planner.config import PlannerConfig
from planner.perception.config import PerceptionConfig
from policies.act.config import ActConfig
from policies.dexgrasp.config import DexGraspConfig
from policies.geometric.config import GeometricConfig
from policies.remote.config import ActRemoteOptions, GrootOptions, LerobotOptions, OpenpiOptions
from runtime.control import ControlOptions
from runtime.device import DeviceOptions
from runtime.faults import FaultOptions
from runtime.limits import SafetyOptions
from runtime.realtime import RealtimeOptions

CameraConfig = Annotated[RealSenseConfig | OpenCvConfig, Field(discriminator="driver")]
PolicyConfig = Annotated[
    GeometricConfig
    | DexGraspConfig
    | ActConfig
    | GrootOptions
    | LerobotOptions
    | OpenpiOptions
    | ActRemoteOptions,
    Field(discriminator="type"),
]


class RealtimeTable(RealtimeOptions):
    """``[realtime]``: the process's options, and which clock everything follows.

    Attributes:
        clock: ``real``; or ``stepped``, simulated time that moves only when nobody has anything left to
            do: repeatable, and as fast as it computes. For the simulated tabletop only: no device that the
            mode opens may have another address.
    """

    clock: Literal["real", "stepped"] = "real"


class _Tables(PydanticBaseSettingsSource):
    """Nested tables that were merged beforehand (see `load`)."""

    def __init__(self, settings: type[BaseSettings], tables: Mapping[str, Any]) -> None:
        super().__init__(settings)
        self._tables = dict(tables)

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        del field
        return self._tables.get(field_name), field_name, False

    def __call__(self) -> dict[str, Any]:
        return self._tables


class Settings(BaseSettings):
    """The whole configuration, frozen.

    Attributes:
        mode: ``grasp`` works on its own; ``teleop`` follows a leader arm.
        runs: folder in which every run leaves its own.
        control: the control loop.
        safety: limits that every target passes.
        faults: what each fault asks for.
        realtime: clock, scheduling, memory.
        arm: the follower. leader: the arm that a person moves, for teleop.
        cameras: by name; the name is the camera's everywhere else.
        force: the force sensor, if any.
        world: the simulated tabletop; started when any address begins with ``world:``.
        planner, perception, policy, grasp: the autonomous mode; `policy` also says how chunks are spliced.
            teleop: the other one.
    """

    model_config = SettingsConfigDict(frozen=True, extra="forbid", env_prefix="DEXRUN_")

    mode: Literal["grasp", "teleop"] = "grasp"
    runs: Path = Path("runs")
    arm: FeetechConfig
    leader: FeetechConfig | None = None
    cameras: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")], CameraConfig] = {}
    force: ForceConfig | None = None
    world: WorldConfig = WorldConfig()
    control: ControlOptions = ControlOptions()
    safety: SafetyOptions = SafetyOptions()
    devices: DeviceOptions = DeviceOptions()
    faults: FaultOptions = FaultOptions()
    realtime: RealtimeTable = RealtimeTable()
    planner: PlannerConfig = PlannerConfig()
    perception: PerceptionConfig = PerceptionConfig()
    policy: PolicyConfig = GeometricConfig()
    grasp: GraspOptions = GraspOptions()
    teleop: TeleopOptions = TeleopOptions()
    recording: RecordingOptions = RecordingOptions()
    terminal: TerminalOptions = TerminalOptions()
    export: ExportOptions = ExportOptions()
    serve: ServeOptions = ServeOptions()

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: Any, *_: Any, **__: Any
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (_Tables(settings_cls, init_settings.init_kwargs),)

    @model_validator(mode="after")
    def _cameras_exist(self) -> Settings:
        wanted = {"grasp.head": self.grasp.head, "grasp.wrist": self.grasp.wrist}
        for key, name in wanted.items():
            if self.mode == "grasp" and name and name not in self.cameras:
                known = ", ".join(sorted(self.cameras)) or "none"
                raise ValueError(f"{key} = {name!r} is not a camera; [cameras] has: {known}")
        return self

    @model_validator(mode="after")
    def _cameras_let_go_in_time(self) -> Settings:
        limit_s = self.devices.join_timeout_s
        for name, camera in self.cameras.items():
            if isinstance(camera, OpenCvConfig) and camera.open_timeout_s + camera.timeout_s >= limit_s:
                raise ValueError(
                    f"cameras.{name}: open_timeout_s + timeout_s ({camera.open_timeout_s:g} + "
                    f"{camera.timeout_s:g}) must be less than devices.join_timeout_s ({limit_s:g}), "
                    "the longest that the end of a run waits for a camera"
                )
        return self

    @model_validator(mode="after")
    def _modes_have_what_they_need(self) -> Settings:
        if self.mode == "teleop" and self.leader is None:
            raise ValueError("mode = 'teleop' needs a [leader] table")
        if self.simulated and not self.world.enabled:
            raise ValueError(f"world.enabled is false, but an address begins with {WORLD_ADDRESS!r}")
        return self

    @model_validator(mode="after")
    def _files_exist(self) -> Settings:
        for name, arm in {"arm": self.arm, "leader": self.leader}.items():
            file = None if arm is None else arm.calibration
            if file is not None and not file.is_file():
                raise ValueError(f"{name}.calibration = {str(file)!r}: no such file")
        return self

    @property
    def simulated(self) -> bool:
        """Whether any device that the mode opens is the simulated tabletop's."""
        return any(map(in_world, self.addresses().values()))

    def arms(self) -> dict[str, FeetechConfig]:
        """The arms that the mode opens, by the name of their table."""
        leader = self.leader if self.mode == "teleop" else None
        return {"arm": self.arm} | ({} if leader is None else {"leader": leader})

    def serial_devices(self) -> dict[str, FeetechConfig | ForceConfig]:
        """What the mode opens on serial ports, by the name of its table."""
        force = {} if self.force is None else {"force": self.force}
        return {**self.arms(), **force}

    def addresses(self) -> dict[str, str]:
        """Where the devices that the mode opens are, by the key that says so."""
        found = {}
        for name, device in self.serial_devices().items():
            key = "serial_number" if device.serial_number else "port"
            found[f"{name}.{key}"] = str(getattr(device, key))
        for name, camera in self.cameras.items():
            key = "serial" if camera.driver == "realsense" else "source"
            found[f"cameras.{name}.{key}"] = str(getattr(camera, key))
        return found

    def real_addresses(self) -> dict[str, str]:
        """Those of `addresses` that are not the simulated tabletop's."""
        return {key: address for key, address in self.addresses().items() if not in_world(address)}
