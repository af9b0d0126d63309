"""What can be configured about the simulated tabletop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, model_validator

from runtime.options import Options

Shape = Literal["cube", "cuboid", "cylinder"]
Color = Literal["red", "green", "blue", "yellow", "orange", "purple"]
Length = Annotated[float, Field(ge=0.005, le=0.2)]
OnTable = Annotated[float, Field(ge=-0.9, le=0.9)]
"""The table is 1.8 m square, with the arm's base in its middle."""


class ObjectOptions(Options):
    """One object placed on purpose; `x_m`, `y_m` in the base frame, on the table."""

    name: str = ""
    shape: Shape = "cube"
    color: Color = "red"
    size_m: tuple[Length, Length, Length] = (0.025, 0.025, 0.025)
    """Width, depth and height; a cylinder's diameter is the first."""
    x_m: OnTable = 0.22
    y_m: OnTable = 0.0
    yaw_rad: float = 0.0

    @property
    def called(self) -> str:
        """Its name, by default as in ``"red cube"``."""
        return self.name or f"{self.color} {self.shape}"


class HeadCameraOptions(Options):
    """The RGB-D camera over the table, as a pinhole.

    Attributes:
        width, height, fps: those of the camera in ``[cameras]`` that is ``world:head`` hold instead.
        position_m, look_at_m: the ``extrinsics`` of that camera hold instead, if it has any.
    """

    width: int = Field(default=640, ge=64, le=1920)
    height: int = Field(default=480, ge=48, le=1080)
    fps: float = Field(default=30.0, gt=0, le=90)
    fovy_deg: float = Field(default=40.0, gt=10, lt=120)
    position_m: tuple[float, float, float] = (0.05, 0.045, 0.62)
    look_at_m: tuple[float, float, float] = (0.165, 0.045, 0.0)
    depth_scale_m: float = Field(default=0.0001, gt=0, le=0.01)
    """Metres per depth unit; 16 bits of it bound the range (6.5 m at 0.0001)."""
    max_depth_m: float = Field(default=2.0, gt=0.1)
    """Beyond it there is no reading (0)."""
    grazing_deg: float = Field(default=80.0, gt=0, le=90)
    """Surfaces seen at a flatter angle than this from their normal give no reading (0)."""
    depth_noise_m: float = Field(default=0.0004, ge=0, le=0.05)
    """Standard deviation of a depth reading at 0.6 m; it grows with the square of the distance."""


class WristCameraOptions(Options):
    """The colour camera on the gripper.

    Attributes:
        width, height, fps: those of the camera in ``[cameras]`` that is ``world:wrist`` hold instead.
    """

    width: int = Field(default=320, ge=64, le=1920)
    height: int = Field(default=240, ge=48, le=1080)
    fps: float = Field(default=30.0, gt=0, le=90)
    fovy_deg: float = Field(default=62.0, gt=10, lt=120)
    jpeg_quality: int = Field(default=90, ge=10, le=100)


CAMERAS: Mapping[str, type[HeadCameraOptions | WristCameraOptions]] = {
    "head": HeadCameraOptions,
    "wrist": WristCameraOptions,
}
"""What can be set about each camera, by what it is called in addresses."""
WIRES: Mapping[str, tuple[str, ...]] = {"realsense": ("head",), "opencv": ("wrist",), "serial": ("force",)}
"""What cameras and sensors are called in addresses, by the driver whose wire they speak."""


def arm_wire(name: str) -> str:
    """What the arm called `name`, ``""`` for the only one, is called in addresses."""
    return name or "follower"


def leader_wire(name: str) -> str:
    """The same of its leader."""
    return f"leader_{name}" if name else "leader"


class ForceOptions(Options):
    """The fingertip force sensor in the jaws."""

    rate_hz: float = Field(default=200.0, gt=0, le=2000)
    noise_n: float = Field(default=0.03, ge=0)
    offset_n: tuple[float, float, float] = (0.42, -0.17, 0.65)
    """What it reads with nothing between the jaws, before taring."""


class RenderOptions(Options):
    """Quality of both cameras' pictures; every step up costs rendering time."""

    shadows: bool = False
    samples: int = Field(default=0, ge=0, le=16)
    """Multisampling; 0 for none."""
    mesh_cell_m: float = Field(default=0.0025, ge=0, le=0.01)
    """The arm's looks are simplified to this detail, which halves the cost of a picture; 0 for full."""
    finger_cell_m: float | None = Field(default=None, ge=0, le=0.01)
    """The same of the fingers, which the wrist camera sees from close by; by default as the rest."""
    threads: int = Field(default=0, ge=0, le=16)
    """Extra threads of the software rasteriser (``LP_NUM_THREADS``); 0 renders on the caller's own, which
    costs the fewest cycles."""


Share = Annotated[float, Field(ge=0, le=1)]


class LookOptions(Options):
    """What the table looks like; nothing here changes what there is to do.

    Attributes:
        vary: how much of everything else is drawn by chance from ``world.seed``: colours of table, tray and
            objects, light, sizes by 8 %, both cameras moved by up to 1 cm (wrist: half) and 2 degrees from
            where their calibration has them, flat distractors. 0 for the usual look.
        table_rgb: of the table. light: of all lamps, as a share of the usual.
        camera_shift_m, camera_turn_rad: by how much the camera over the table is moved and turned, in its own
            axes (right, up, back). distractors: how many flat things lie on the table.
    """

    vary: Share = 0.0
    table_rgb: tuple[Share, Share, Share] | None = None
    light: float | None = Field(default=None, ge=0.2, le=2.0)
    camera_shift_m: tuple[float, float, float] | None = None
    camera_turn_rad: tuple[float, float, float] | None = None
    distractors: int | None = Field(default=None, ge=0, le=20)


class OperatorOptions(Options):
    """The scripted person at the leader arm (teleoperation without hardware)."""

    enabled: bool = False
    speed: float = Field(default=1.0, gt=0.1, le=3.0)
    """How fast it moves, as a multiple of its usual pace."""
    start_s: float = Field(default=1.0, ge=0)
    """How long it waits before its first move."""


class WorldConfig(Options):
    """The simulated tabletop (its own process)."""

    enabled: bool = True
    seed: int = Field(default=0, ge=0)
    objects: int | None = Field(default=None, ge=1, le=8)
    """How many random objects; 3 to 5 by chance if not given."""
    placed: tuple[ObjectOptions, ...] = ()
    """These objects instead of random ones."""
    nice: int = Field(default=5, ge=0, le=19)
    """How far the process steps back from the runtime when the processor is short, in real time."""
    timestep_s: float = Field(default=0.002, gt=0.0002, le=0.005)
    watched: bool = False
    """Whether every step looks for what the arms touch, for who judges a run; it costs a tenth more."""
    start_rad: tuple[float, ...] = ()
    """Where the arm stands at power-up, without grippers; empty: in its model's home pose."""
    start_gripper: float = Field(default=0.15, ge=0, le=1)
    sensing_arm: str = ""
    """Of several arms, the one whose gripper has the wrist camera and the force sensor; empty: the first."""
    head: HeadCameraOptions = HeadCameraOptions()
    wrist: WristCameraOptions = WristCameraOptions()
    force: ForceOptions = ForceOptions()
    render: RenderOptions = RenderOptions()
    operator: OperatorOptions = OperatorOptions()
    look: LookOptions = LookOptions()

    @model_validator(mode="after")
    def _consistent(self) -> WorldConfig:
        if self.head.max_depth_m / self.head.depth_scale_m > 65535:
            raise ValueError(
                f"head.max_depth_m {self.head.max_depth_m} does not fit 16 bits of "
                f"head.depth_scale_m {self.head.depth_scale_m}"
            )
        names = [each.called for each in self.placed]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"placed: two objects are called {name!r}; give each its own name")
        return self
