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
from dexrun.config.mode_options import (
    GraspOptions,
    LogOptions,
    RolloutOptions,
    TakeOverOptions,
    TeleopOptions,
    TerminalOptions,
)
from dexrun.config.panel_options import PanelOptions
from dexrun.config.recording_options import RecordingOptions
from dexrun.config.scene_options import SceneOptions
from dexrun.config.serve_options import ServeOptions
from dexrun.export.options import ExportOptions
from drivers.world.config import WorldConfig
from planner.config import PlannerConfig
from planner.perception.config import PerceptionConfig
from runtime.control_options import ControlOptions
from runtime.device import DeviceOptions
from runtime.faults import FaultOptions
from runtime.limits import SafetyOptions
from runtime.parts import ArmTable, CameraTable, DeviceTable, ForceTable, LeaderTable, PolicyTable
from runtime.realtime import RealtimeOptions
from runtime.table_model import FixedBox


class RealtimeTable(RealtimeOptions):
    """``[realtime]``: the process's options, and which clock everything follows.

    Attributes:
        clock: ``real``; or ``stepped``, simulated time that moves only when nobody has anything left to
            do: repeatable, and as fast as it computes. For the simulated tabletop only: no device that the
            mode opens may have another address.
    """

    clock: Literal["real", "stepped"] = "real"


Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
"""What a person calls a device."""


_TAKEN = ("arm", "leader", "force", "planner", "policy", "perception")


def arm_key(name: str) -> str:
    """The table of the arm called `name`, ``""`` for the only one; its driver is called so, too."""
    return f"arms.{name}" if name else "arm"


def leader_key(name: str) -> str:
    """The same of a leader."""
    return f"leaders.{name}" if name else "leader"


def _default_policy() -> PolicyTable:
    return PolicyTable.model_validate({"type": "geometric"})


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
        mode: ``grasp`` works on its own; ``teleop`` follows a leader arm; ``rollout`` follows a policy.
        runs: folder in which every run leaves its own.
        control: the control loop; its rate is the mode's own where `teleop.rate_hz` says so.
        safety: limits that every target passes.
        scene: what stands on the table, and is kept off as the table is.
        faults: what each fault asks for.
        realtime: clock, scheduling, memory.
        arm: the follower. leader: the arm that a person moves, for teleop.
        arms, leaders: the same by name, for a robot of several arms; a leader is called as its follower.
        cameras: by name; the name is the camera's everywhere else.
        force: the force sensor, if any.
        world: the simulated tabletop; started when any address begins with ``world:``.
        planner, perception, policy, grasp: the autonomous mode; `policy` also says how chunks are spliced.
            teleop, rollout: the other two.
        terminal, log: what a person sees; what is logged, and in which form.
        panel: what is shared with a page in a browser, and with other viewers.
    """

    model_config = SettingsConfigDict(frozen=True, extra="forbid", env_prefix="DEXRUN_")

    mode: Literal["grasp", "teleop", "rollout"] = "grasp"
    runs: Path = Path("runs")
    arm: ArmTable | None = None
    arms: dict[Name, ArmTable] = {}
    leader: LeaderTable | None = None
    leaders: dict[Name, LeaderTable] = {}
    cameras: dict[Name, CameraTable] = {}
    force: ForceTable | None = None
    world: WorldConfig = WorldConfig()
    control: ControlOptions = ControlOptions()
    safety: SafetyOptions = SafetyOptions()
    scene: SceneOptions = SceneOptions()
    devices: DeviceOptions = DeviceOptions()
    faults: FaultOptions = FaultOptions()
    realtime: RealtimeTable = RealtimeTable()
    planner: PlannerConfig = PlannerConfig()
    perception: PerceptionConfig = PerceptionConfig()
    policy: PolicyTable = Field(default_factory=_default_policy)
    grasp: GraspOptions = GraspOptions()
    teleop: TeleopOptions = TeleopOptions()
    rollout: RolloutOptions = RolloutOptions()
    recording: RecordingOptions = RecordingOptions()
    terminal: TerminalOptions = TerminalOptions()
    log: LogOptions = LogOptions()
    panel: PanelOptions = PanelOptions()
    export: ExportOptions = ExportOptions()
    serve: ServeOptions = ServeOptions()

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: Any, *_: Any, **__: Any
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (_Tables(settings_cls, init_settings.init_kwargs),)

    @model_validator(mode="after")
    def _at_the_modes_rate(self) -> Settings:
        rate_hz = self.teleop.rate_hz
        if self.mode == "teleop" and rate_hz is not None and rate_hz != self.control.rate_hz:
            control = self.control.model_copy(update={"rate_hz": rate_hz})
            vars(self)["control"] = control  # frozen, and not shown to anybody yet
        return self

    @model_validator(mode="after")
    def _one_arm_or_several(self) -> Settings:
        if self.arm is None and not self.arms:
            raise ValueError("arm is required: [arm] for a robot of one arm, [arms.<name>] for several")
        if self.arm is not None and (self.arms or self.leaders):
            key = next(iter([*map(arm_key, self.arms), *map(leader_key, self.leaders)]))
            raise ValueError(f"{key}: there is [arm], too; give that, or [arms.<name>] and [leaders.<name>]")
        if self.arms and self.leader is not None:
            raise ValueError("leader: the leader of one of several arms is [leaders.<name>], called as it is")
        if self.leaders and list(self.leaders) != list(self.arms):
            raise ValueError(
                f"leaders: {', '.join(self.leaders)} are not the arms that follow, {', '.join(self.arms)}; "
                "each arm needs a leader called as it is, in the same order"
            )
        return self

    @model_validator(mode="after")
    def _arms_stand_somewhere(self) -> Settings:
        if self.arm is not None and self.arm.base is not None:
            raise ValueError("arm.base: the base of a single arm is where the common frame begins")
        taken: dict[tuple[float, float, float], str] = {}
        for name, arm in self.arms.items():
            if arm.base is None:
                raise ValueError(
                    f"{arm_key(name)}.base is required: {{ position_m = [x, y, z], yaw_rad = ... }}, where "
                    "the arm stands in the frame that all share"
                )
            if (other := taken.setdefault(arm.base.position_m, name)) != name:
                raise ValueError(f"{arm_key(name)}.base.position_m: {arm_key(other)} stands there already")
        return self

    @model_validator(mode="after")
    def _names_are_of_one_device(self) -> Settings:
        for name in self.cameras:
            if name in _TAKEN:
                raise ValueError(f"cameras.{name}: reports call another part so; give another name")
            of = name.removesuffix("_depth")
            if of != name and of in self.cameras and self.cameras[of].depth:
                raise ValueError(
                    f"cameras.{name}: the depth pictures of cameras.{of} are called so; give another name"
                )
        return self

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
            keys, longest_s = camera.longest_call()
            if longest_s >= limit_s:
                raise ValueError(
                    f"cameras.{name}: {keys} must be less than devices.join_timeout_s ({limit_s:g}), "
                    "the longest that the end of a run waits for a camera"
                )
        return self

    @model_validator(mode="after")
    def _modes_have_what_they_need(self) -> Settings:
        if self._led and not self.leader_tables():
            wanted = "a [leader] table" if self.arm is not None else "a [leaders.<name>] table for each arm"
            who = "mode = 'teleop'" if self.mode == "teleop" else f"{self.mode}.take_over = true"
            raise ValueError(f"{who} needs {wanted}")
        if self.simulated and not self.world.enabled:
            raise ValueError(f"world.enabled is false, but an address begins with {WORLD_ADDRESS!r}")
        return self

    @property
    def _led(self) -> bool:
        """Whether a person moves a leader."""
        return self.mode == "teleop" or self.take_over.take_over

    @property
    def take_over(self) -> TakeOverOptions:
        """How a person takes over in this mode; in teleoperation nothing else drives."""
        taken: dict[str, TakeOverOptions] = {"grasp": self.grasp, "rollout": self.rollout}
        return taken.get(self.mode, TakeOverOptions())

    @property
    def scripted(self) -> bool:
        """Whether the scripted operator is the person: it moves simulated leaders only. Of addresses as they
        are configured: those of a tabletop that was started are its devices' own.
        """
        return self.teleop.scripted and any(in_world(each.address) for each in self.leader_tables().values())

    @property
    def working_arm(self) -> str:
        """Of several arms, the one that a policy for one arm moves; empty if none is named."""
        return self.rollout.arm if self.mode == "rollout" else self.grasp.arm

    @property
    def fixed_boxes(self) -> tuple[FixedBox, ...]:
        """What stands where the arms work and does not move."""
        return self.scene.fixed(simulated=any(in_world(arm.address) for arm in self.followers().values()))

    @property
    def engage_speed_rad_s(self) -> float:
        """Of the mode: how fast the arm is brought to what it follows."""
        return self.teleop.engages(self.control) if self.mode == "teleop" else self.control.engage_speed_rad_s

    def check_perception(self) -> None:
        """Whether all is there that the models need which see, if this run has anything to be seen.

        Raises:
            PerceptionError: packages or weights are not; one line.
        """
        if self.mode == "grasp" or any(need.mask for need in self.policy.needs_cameras()):
            self.perception.check()

    @property
    def simulated(self) -> bool:
        """Whether any device that the mode opens is the simulated tabletop's."""
        return any(map(in_world, self.addresses().values()))

    def followers(self) -> dict[str, ArmTable]:
        """The arms that obey, by name; the only one is called ``""``."""
        return dict(self.arms) if self.arm is None else {"": self.arm}

    def arm_tables(self) -> dict[str, ArmTable]:
        """The arms that obey, by the key of their table."""
        return {arm_key(name): arm for name, arm in self.followers().items()}

    def leader_tables(self) -> dict[str, LeaderTable]:
        """The arms that a person moves, by the key of their table; none in a mode without a person."""
        return self.all_leader_tables() if self._led else {}

    def all_leader_tables(self) -> dict[str, LeaderTable]:
        """The same in every mode."""
        leaders = dict(self.leaders) if self.leader is None else {"": self.leader}
        return {leader_key(name): leader for name, leader in leaders.items()}

    def device_tables(self) -> dict[str, DeviceTable]:
        """What the mode opens, by the key of its table."""
        cameras = {f"cameras.{name}": camera for name, camera in self.cameras.items()}
        force = {} if self.force is None else {"force": self.force}
        return {**self.arm_tables(), **self.leader_tables(), **force, **cameras}

    def addresses(self) -> dict[str, str]:
        """Where the devices that the mode opens are, by the key that says so."""
        found = {}
        for name, device in self.device_tables().items():
            found.update({f"{name}.{key}": address for key, address in list(device.addresses().items())[:1]})
        return found

    def real_addresses(self) -> dict[str, str]:
        """Where those that are not the simulated tabletop's are; a device without an address is one."""
        found = {}
        for name, device in self.device_tables().items():
            key, address = next(iter(device.addresses().items()), ("driver", device.driver))
            if not in_world(address) and not device.simulated:
                found[f"{name}.{key}"] = address
        return found
