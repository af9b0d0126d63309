"""The simulated tabletop and the runtime's control loop in one thread: no wires, no second process.

What decides where the arm goes is the runtime's own: the control loop with its horizon and splicing, the
safety stage, the arm model, the servos' registers. Only the packets between them are left out. A tick comes
as long after the newest picture, and after the newest reading of the joints, as in a stepped run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from dexrun.config.settings import Settings
from dexrun.gym.clock import SetClock
from dexrun.gym.eyes import Eyes, Shot
from dexrun.gym.servos import RegisterArm
from drivers.arms.choice import robot_of_all
from drivers.feetech.options import FeetechOptions
from drivers.world.config import WorldConfig
from drivers.world.layout import draw_objects
from drivers.world.physics import Tabletop
from drivers.world.render import prepare_environment
from runtime.blends import SplicingOptions
from runtime.clock import NS_PER_S
from runtime.control import ControlLoop
from runtime.control_options import LoopOptions
from runtime.joints import JointLayout
from runtime.messages import CameraInfo, Floats
from runtime.ports import Safety
from runtime.ring import Ring
from runtime.safety import SafetyStage
from runtime.statistics import RunStatistics
from runtime.tick import tick_layout
from runtime.units import calibrated

_AFTER_FRAME = 0.95
"""Of a picture's period: so long after one the tick comes, as it happens to in a stepped run."""
_CHANNELS = 3
_SEED_OF_FORCE = 7


class UnfitError(Exception):
    """The configuration is of a robot that does not stand on the simulated table. One line."""


class TableEngine:
    """One table after the other, and an arm that is driven on it. One thread makes it and uses it.

    Args:
        settings: a whole configuration; of it count the arm, ``[world]``, ``[control]``, ``[safety]``,
            ``[policy]`` (how chunks are spliced), ``[scene]``, ``[grasp]``, ``[perception]``.
        pictures: by camera, what it delivers; by default as configured.

    Attributes:
        table: the physics of the present scene; `load` makes it. eyes: its cameras.
        control: the loop; of a new attempt a new one. arm: its port.
        permitted: what the safety stage lets through.
        watch: called at the end of every tick.

    Raises:
        UnfitError: several arms, or one whose servos are not simulated.
    """

    def __init__(self, settings: Settings, pictures: Mapping[str, Shot] | None = None) -> None:
        prepare_environment(settings.world.render.model_copy(update={"threads": 0}))
        table = next(iter(settings.followers().values()))
        if len(settings.followers()) > 1 or not isinstance(table, FeetechOptions):
            raise UnfitError("in one process there is one arm with Feetech servos; use the stepped clock")
        self.settings = settings
        self.clock = SetClock()
        self.robot = robot_of_all(settings.followers())
        self.model = self.robot.model(boxes=settings.fixed_boxes)
        stage = SafetyStage(settings.safety, self.model.copy())
        self.safety: Safety = stage
        self.permitted = stage.permitted
        self.pictures = dict(configured_pictures(settings) if pictures is None else pictures)
        self.watch: Callable[[], None] = _nobody
        self.splicing: SplicingOptions = settings.policy
        self._servos = table
        self._period_s = 1 / settings.control.rate_hz
        self._tick_s = 0.0
        self.eyes: Eyes | None = None

    # --- a scene

    def load(self, world: WorldConfig) -> None:
        """Set the table of `world` anew, with the arm at home."""
        self.close()
        self.world = self._sized(world)
        self.table = Tabletop(self.world, draw_objects(self.world), self.robot)
        self.eyes = Eyes(self.table, self.world, self.pictures)
        self.arm = RegisterArm(self.table.bank, self._servos, self.model.layout)
        layout = calibrated(self.model.layout, self.arm.calibration)
        self.joints: JointLayout = layout.within(self.permitted)
        self._noise = np.random.default_rng([world.seed, _SEED_OF_FORCE])
        self.force = Ring({"force": ((_CHANNELS,), "<f8"), "saturated": ((_CHANNELS,), "|u1")}, 64)
        self.clock.set(0)
        self._tick = 0
        self.arm.power_on()
        self.stand(self.home)

    def _sized(self, world: WorldConfig) -> WorldConfig:
        """What is drawn into is as large as the largest picture: all of it is wiped for every one."""
        if not self.pictures:
            return world
        sides = ("width", "height")
        size = {side: max(getattr(picture, side) for picture in self.pictures.values()) for side in sides}
        cameras = {wire: getattr(world, wire).model_copy(update=size) for wire in ("head", "wrist")}
        return world.model_copy(update=cameras)

    @property
    def infos(self) -> dict[str, CameraInfo]:
        """What is constant about each camera, in the size that it is drawn in."""
        return {} if self.eyes is None else self.eyes.infos

    def small_info(self, name: str, scale: int) -> CameraInfo:
        """The same of camera `name`, its pictures made `scale` times smaller."""
        info = self.infos[name]
        lens = info.intrinsics
        cx, cy = ((center + 0.5) / scale - 0.5 for center in (lens.cx, lens.cy))
        width, height = lens.width // scale, lens.height // scale
        fx, fy = lens.fx / scale, lens.fy / scale
        small = replace(lens, width=width, height=height, fx=fx, fy=fy, cx=cx, cy=cy)
        return replace(info, intrinsics=small)

    @property
    def home(self) -> Floats:
        """``[D]`` where the arm hides nothing of the table."""
        return np.asarray(self.settings.grasp.home_rad or self.robot.home, dtype=np.float64)

    def stand(self, q: Floats) -> None:
        """Put the arm at `q` ``[D]``, at rest; what it was doing is forgotten."""
        self.table.stand(q)
        self.arm.aim(q, self.clock.now_ns())
        self.renew()

    def renew(self) -> None:
        """A new control loop, where the arm is: nothing is followed, nothing remembered."""
        settings = self.settings
        self.statistics = RunStatistics()
        self.records = Ring(tick_layout(self.model.joints, _CHANNELS), 64)
        self.safety.reset()
        self.control = ControlLoop(
            self.clock,
            LoopOptions.of(settings.control, self.splicing, settings.engage_speed_rad_s),
            self.arm,
            self.safety,
            self.statistics,
            force=self.force,
            records=self.records,
            grippers=self.model.grippers,
            holders=self.model.fingers.joints.tolist(),
        )
        self.tick()

    # --- time

    @property
    def now_s(self) -> float:
        """Since the scene was set."""
        return self.clock.now_ns() / NS_PER_S

    def tick(self) -> None:
        """One period of the control loop."""
        frame_ns = round(self._tick * self._period_s * NS_PER_S)
        now_ns = frame_ns + round(_AFTER_FRAME * self._period_s * NS_PER_S)
        table = self.table
        table.coast(frame_ns)
        if self.eyes is not None:
            self.eyes.expose(frame_ns)
        read_ns = round(now_ns - now_ns % (NS_PER_S / self._servos_rate_hz))
        table.coast(read_ns)
        table.report()
        self.arm.read(read_ns)
        table.coast(now_ns)
        self.clock.set(now_ns)
        self._feel(now_ns)
        self.control.tick(self._tick)
        self.arm.write(now_ns)
        self._tick += 1
        self.watch()

    @property
    def _servos_rate_hz(self) -> float:
        return float(getattr(self._servos, "state_rate_hz", 100.0))

    def _feel(self, now_ns: int) -> None:
        options = self.world.force
        force = self.table.fingertip_force_n() + self._noise.normal(0.0, options.noise_n, _CHANNELS)
        self.force.push(now_ns, force=force, saturated=0)

    def close(self) -> None:
        """Release graphics. Idempotent."""
        if self.eyes is not None:
            self.eyes.close()
            self.eyes = None


def _nobody() -> None:
    """Does not watch."""


def configured_pictures(settings: Settings) -> dict[str, Shot]:
    """The cameras of `settings` that are the table's, as large as configured."""
    found: dict[str, Shot] = {}
    for name, camera in settings.cameras.items():
        wire = camera.address.removeprefix("world:")
        if wire == "head":
            found[name] = Shot("head", camera.width, camera.height, depth=True)
        elif wire == "wrist":
            found[name] = Shot("wrist", camera.width, camera.height)
    return found
