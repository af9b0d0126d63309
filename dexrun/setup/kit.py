"""What a person has, and the configuration that is written for it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from drivers.opencv_camera.v4l2 import CameraMode

_BASES_M = {"left": (0.0, 0.376, 0.0), "right": (0.0, 0.0, 0.0)}
"""Where two arms stand whose distance nobody has measured: that of the simulated ones."""
_HEAD_LOOKS = {
    1: "{ position_m = [0.05, 0.045, 0.62], look_at_m = [0.165, 0.045, 0.0] }",
    2: "{ position_m = [0.05, 0.188, 0.85], look_at_m = [0.165, 0.188, 0.0] }",
}


@dataclass(frozen=True, slots=True)
class ArmChoice:
    """A follower and its leader; an empty port is a simulated one.

    Attributes:
        name: empty for the only one.
        port, calibration: of the follower. leader_port, leader_calibration: of the arm that a person moves.
    """

    name: str = ""
    port: str = ""
    calibration: str = ""
    leader_port: str = ""
    leader_calibration: str = ""


@dataclass(frozen=True, slots=True)
class KitChoice:
    """All of it.

    Attributes:
        model: of the arms. arms: one or two. cameras: source and mode by name.
        task: what is done in the episodes.
    """

    model: str = "so101"
    arms: tuple[ArmChoice, ...] = (ArmChoice(),)
    cameras: Mapping[str, tuple[str, CameraMode]] = field(default_factory=dict)
    task: str = ""

    @property
    def real(self) -> bool:
        """Whether the followers are."""
        return all(arm.port for arm in self.arms)

    @property
    def led(self) -> bool:
        """Whether each follower has a real leader."""
        return all(arm.leader_port for arm in self.arms)

    @property
    def mode(self) -> str:
        """A real arm never follows a simulated leader: nobody would hold it."""
        return "teleop" if self.led or not self.real else "rollout"


def config_text(kit: KitChoice) -> str:
    """The configuration in TOML."""
    return "\n".join(_lines(kit)) + "\n"


def _lines(kit: KitChoice) -> Iterator[str]:
    yield "# Written by dexrun init. docs/configuration.md has every key; --check sums up what this says."
    yield ""
    yield f'mode = "{kit.mode}"'
    yield 'runs = "runs"             # every run leaves a folder here; runs/latest is the newest'
    for arm in kit.arms:
        yield from _arm(kit, arm)
    yield from _cameras(kit)
    yield from _mode(kit)
    yield ""
    yield "[recording]"
    if kit.task:
        yield f"task = {_text(kit.task)}"
    yield "# episodes = 10           # end after so many (--episodes 10)"


def _arm(kit: KitChoice, arm: ArmChoice) -> Iterator[str]:
    yield ""
    yield f"[arms.{arm.name}]" if arm.name else "[arm]"
    yield 'driver = "feetech"'
    yield f'model = "{kit.model}"'
    yield from _bus(arm.port, arm.calibration, arm.name or "follower")
    if arm.name:
        place = ", ".join(map(str, _BASES_M[arm.name]))
        yield "# Measure where it stands: the arms are kept off each other by it."
        yield f"base = {{ position_m = [{place}], yaw_rad = 0.0 }}"
    if kit.mode == "rollout":
        return
    yield ""
    yield f"[leaders.{arm.name}]" if arm.name else "[leader]"
    yield 'driver = "feetech"'
    yield f'model = "{kit.model}"'
    yield from _bus(arm.leader_port, arm.leader_calibration, f"leader_{arm.name}" if arm.name else "leader")


def _bus(port: str, calibration: str, simulated: str) -> Iterator[str]:
    if port:
        yield f"port = {_text(port)}"
        yield f"calibration = {_text(calibration)}"
    else:
        yield f'port = "world:{simulated}"   # simulated'
        yield "packet_timeout_s = 0.1    # on a busy machine the simulated servos may answer late"


def _cameras(kit: KitChoice) -> Iterator[str]:
    for name, (source, mode) in kit.cameras.items():
        yield ""
        yield f"[cameras.{name}]"
        yield 'driver = "opencv"'
        yield f"source = {_text(source)}"
        yield from _size(mode)
        if "://" not in source:
            yield f'fourcc = "{mode.fourcc}"'
    if kit.real or kit.led or kit.cameras:
        return
    yield ""
    yield "[cameras.head]            # simulated"
    yield 'driver = "realsense"'
    yield 'serial = "world:head"'
    yield from _size(CameraMode("", 640, 480, 30))
    yield f"extrinsics = {_HEAD_LOOKS[len(kit.arms)]}"
    if len(kit.arms) == 1:
        yield ""
        yield "[cameras.wrist]           # simulated"
        yield 'driver = "opencv"'
        yield 'source = "world:wrist"'
        yield from _size(CameraMode("", 320, 240, 30))


def _size(mode: CameraMode) -> Iterator[str]:
    yield f"width = {mode.width}"
    yield f"height = {mode.height}"
    yield f"fps = {mode.fps}"


def _mode(kit: KitChoice) -> Iterator[str]:
    if kit.mode == "rollout":
        yield ""
        yield "[policy]                  # docs/policies.md; this one holds the arm where it is"
        yield 'type = "still"'
    elif kit.real:
        yield ""
        yield "[teleop]"
        yield "rate_hz = 100            # the follower is nearer to its leader than at control.rate_hz, 30"
    elif not kit.led:
        yield ""
        yield "[teleop]"
        yield "scripted = true           # at a simulated leader a scripted operator picks and places"
    if len(kit.arms) == 2 and not kit.real:
        yield ""
        yield "[world]                   # the simulated table: an object within each arm's reach"
        yield "placed = ["
        yield '    { shape = "cube", color = "blue", x_m = 0.2, y_m = 0.43 },'
        yield '    { shape = "cube", color = "red", x_m = 0.2, y_m = -0.05 },'
        yield "]"


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)
