"""What a run tells its panel of itself, put together on the loop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from dexrun.panel.shared import SharedCamera, SharedFacts
from dexrun.panel.tap import RunMoment
from dexrun.terminal.status import run_status
from runtime.following import Asked, pilot_of
from runtime.messages import CameraInfo
from runtime.ring import Ring

if TYPE_CHECKING:
    from dexrun.modes.mode import Mode
    from dexrun.robot import Robot


def facts_of(robot: Robot) -> SharedFacts:
    """What is constant about the run; its cameras must be open."""
    layout, settings, infos = robot.model.layout, robot.settings, robot.infos()
    return SharedFacts(
        settings.mode,
        settings.control.rate_hz,
        list(layout.names),
        ["0..1" if joint in layout.grippers else "rad" for joint in range(len(layout.names))],
        layout.ranges.tolist(),
        list(layout.grippers),
        settings.force.channels if settings.force is not None else 0,
        robot.clock.stepped,
        {name: _camera(infos[name], camera.frames) for name, camera in robot.cameras.items()},
    )


def _camera(info: CameraInfo, frames: Ring) -> SharedCamera:
    height, width = frames.layout["color"][0][:2]
    lens, pose = info.intrinsics, info.base_from_camera
    return SharedCamera(
        width,
        height,
        "depth" in frames.layout,
        info.depth_scale_m,
        {"fx": lens.fx, "fy": lens.fy, "cx": lens.cx, "cy": lens.cy},
        None if pose is None else pose.tolist(),
    )


class RunTeller:
    """Attributes: mode: once it is open."""

    def __init__(self, robot: Robot) -> None:
        self.mode: Mode | None = None
        self._robot = robot
        self._began_ns = robot.clock.now_ns()
        self._policy = _policy(robot)

    def told(self, state: Mapping[str, Any], more: Mapping[str, Any]) -> RunMoment:
        """Everything now; `state` is what the mode's own controls say of it, `more` goes beside it."""
        robot, control, mode = self._robot, self._robot.control, self.mode
        source, now_ns = control.source, robot.clock.now_ns()
        driving = state.get("driving") or pilot_of(source).name.lower()
        status = {
            **asdict(run_status(robot, mode, self._began_ns)),
            "state": control.state,
            "reason": control.reason,
            "latched": bool(control.latched),
            "driving": "motion" if pilot_of(source).name == "MOTION" else driving,
            "prompt": state.get("prompt", self._prompt()),
            "instruction": state.get("instruction")
            or (source.instruction if isinstance(source, Asked) else ""),
            "plan": state.get("plan", []),
            "attempts": [] if mode is None else mode.attempts(),
            "policy": self._policy,
            "speed": control.speed,
            **more,
        }
        return RunMoment(now_ns, status, control.horizon.pending() if control.state == "running" else None)

    def _prompt(self) -> str:
        settings = self._robot.settings
        return settings.planner.prompt if settings.mode == "grasp" else settings.recording.task


def _policy(robot: Robot) -> dict[str, str] | None:
    if robot.settings.mode == "teleop":
        return None
    kind = str(robot.settings.policy.type)
    return {"type": kind, "name": str(getattr(robot.settings.policy, "name", "") or kind)}
