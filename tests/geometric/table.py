"""The simulated table in this process, the policy on top of it, and nothing in between but ticks.

What the policy is shown is what a real one would have: rendered colour and depth, a mask found by colour,
encoder positions, force. The objects' true poses are used to score the outcome only.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from drivers.arms import describe
from drivers.world.config import WorldConfig
from drivers.world.layout import COLORS, ObjectSpec
from drivers.world.physics import Tabletop
from drivers.world.render import Renderer, base_from_camera, camera_infos
from policies.geometric.policy import GeometricPolicy
from runtime.arm_model import ArmModel
from runtime.interfaces import PolicyError
from runtime.limits import SafetyOptions
from runtime.messages import ArmState, CameraInfo, Clip, Frame, Observation, TrackedMask
from runtime.safety import SafetyStage

DT_NS = 33_333_333
GRIPPER_LIMIT = 0.5


class Table:
    """One scene, an arm at 30 Hz behind the safety stage, and a head camera."""

    def __init__(self, config: WorldConfig, objects: Sequence[ObjectSpec], arm: ArmModel) -> None:
        self.arm = arm
        self.world = Tabletop(config, objects, describe())
        self.renderer = Renderer(self.world.model, config)
        pose = base_from_camera(self.world.data, "head")
        self.info: CameraInfo = camera_infos(config, pose)["head"]
        self.stage = SafetyStage(SafetyOptions(), arm)
        self._shape = (config.head.height, config.head.width)
        self.tick = 0
        self.now_ns = 0
        for servo in self.world.bank.ids:
            self.world.bank.set_torque(servo, True)
        self.world.bank.set_torque_limit(6, round(1000 * GRIPPER_LIMIT))
        self.previous = self.position()
        self.clips: dict[str, int] = {}
        self.stopped: str | None = None

    def close(self) -> None:
        self.renderer.close()

    def position(self) -> np.ndarray:
        return self.arm.from_native(self.world.bank.joints_rad())

    def state(self) -> ArmState:
        bank = self.world.bank
        velocity = bank._velocity.copy()
        closed, opened = describe().grippers["gripper"]
        velocity[-1] /= opened - closed
        return ArmState(self.now_ns, self.position(), velocity, bank._effort.copy())

    def frame(self) -> Frame:
        color = np.empty((*self._shape, 3), np.uint8)
        depth = np.empty(self._shape, np.uint16)
        self.renderer.head(self.world.data, color, depth)
        return Frame("head", self.now_ns, color, depth)

    def step(self, requested: np.ndarray) -> None:
        state = self.state()
        force = self.world.fingertip_force_n()
        result = self.stage.apply(requested, state.position, self.previous, force, state.load, DT_NS / 1e9)
        for clip in Clip:
            if clip & result.clips:
                self.clips[clip.name or ""] = self.clips.get(clip.name or "", 0) + 1
        self.stopped = self.stopped or result.stop_reason
        self.previous = result.target
        goal = self.arm.to_native(result.target)
        # Past the encoder's resolution on purpose: the servos' rounding is the bus driver's matter.
        self.world.bank._goal[:] = goal
        self.tick += 1
        self.now_ns += DT_NS
        self.world.advance(self.now_ns)

    def follow(self, rows: np.ndarray) -> None:
        for row in rows:
            self.step(row)


def color_mask(frame: Frame, color: str) -> np.ndarray:
    """The largest patch of an image that has a colour's hue."""
    image = cv2.cvtColor(frame.color, cv2.COLOR_RGB2HSV).astype(int)
    paint = np.uint8([[[round(255 * c) for c in COLORS[color]]]])
    hue = int(cv2.cvtColor(paint, cv2.COLOR_RGB2HSV)[0, 0, 0])
    away = np.abs((image[..., 0] - hue + 90) % 180 - 90)
    mask = ((away < 6) & (image[..., 1] > 110) & (image[..., 2] > 30)).astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask)
    if count < 2:
        return mask
    return (labels == 1 + int(np.argmax(stats[1:, 4]))).astype(np.uint8)


class Episode:
    """Runs the policy on a table with a horizon, a request threshold and inference latency.

    Like the control loop's, the horizon counts the rows that were executed: a starved tick is none.
    """

    def __init__(
        self, table: Table, policy: GeometricPolicy, color: str, latency: int = 3, lost: float = 0.0
    ) -> None:
        self.table, self.policy, self.color = table, policy, color
        self.horizon: list[np.ndarray] = []
        self.arriving: tuple[int, int, np.ndarray] | None = None
        self.length = 1
        self.consumed = 0
        self.errors: list[str] = []
        self.phases: list[str] = []
        self.seams: list[float] = []
        self.latency = latency
        self.lost = lost
        self.random = np.random.default_rng(0)

    def observe(self) -> Observation:
        table = self.table
        frame = table.frame()
        mask = TrackedMask("head", frame.stamp_ns, color_mask(frame, self.color), 1.0)
        committed = np.array(self.horizon) if self.horizon else np.zeros((0, 6))
        force = table.world.fingertip_force_n()
        return Observation(
            self.consumed,
            0,
            table.now_ns,
            table.state(),
            {"head": frame},
            {"head": mask},
            force,
            committed=committed,
            frozen_steps=min(self.latency, len(committed)),
        )

    def ask(self) -> None:
        try:
            rows = self.policy.infer(self.observe()).rows
        except PolicyError as error:
            self.errors.append(str(error))
            rows = np.zeros((0, 6))
        if not self.phases or self.phases[-1] != self.policy.phase:
            self.phases.append(self.policy.phase)
        if self.random.random() < self.lost:
            rows = rows[:0]
        self.arriving = (self.table.tick + self.latency, self.consumed, rows)

    def collect(self) -> None:
        if self.arriving is None or self.table.tick < self.arriving[0]:
            return
        _, asked, rows = self.arriving
        self.arriving = None
        left = rows[self.consumed - asked :]
        if len(left):
            if self.horizon:
                self.seams.append(float(np.abs(left[0] - self.horizon[0]).max()))
            self.horizon = list(left)
            self.length = len(left)

    def run(self, ticks: int = 600) -> str:
        for _ in range(ticks):
            if self.policy.phase in ("done", "failed"):
                break
            self.collect()
            if self.arriving is None and len(self.horizon) <= 0.5 * self.length:
                self.ask()
            self.consumed += bool(self.horizon)
            self.table.step(self.horizon.pop(0) if self.horizon else self.table.previous)
        return self.policy.phase
