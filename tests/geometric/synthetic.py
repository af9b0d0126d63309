"""A camera straight above a table with one box on it, without a renderer; and an arm that obeys."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from policies.geometric.policy import GeometricPolicy
from runtime.interfaces import PolicyError
from runtime.messages import ArmState, CameraInfo, Floats, Frame, Intrinsics, Observation, TrackedMask

HEIGHT_M = 0.62
WIDTH, ROWS, FOCAL = 400, 300, 500.0
POSE = np.array(
    [[0.0, -1.0, 0.0, 0.2], [-1.0, 0.0, 0.0, 0.0], [0.0, 0.0, -1.0, HEIGHT_M], [0.0, 0.0, 0.0, 1.0]]
)
INFO = CameraInfo(
    "head",
    Intrinsics(WIDTH, ROWS, FOCAL, FOCAL, (WIDTH - 1) / 2, (ROWS - 1) / 2),
    depth_scale_m=0.0005,
    base_from_camera=POSE,
)
LOOK = np.array([1.57, -3.05, 2.7, 1.2, 0.0, 0.15])


@dataclass
class Box:
    x: float = 0.22
    y: float = -0.03
    yaw: float = 0.3
    long: float = 0.036
    short: float = 0.024
    height: float = 0.03
    round: bool = False


def view(box: Box) -> tuple[np.ndarray, np.ndarray]:
    """Depth and mask: rays meet the box's top, else the table."""
    columns, rows = np.meshgrid(np.arange(WIDTH), np.arange(ROWS))
    distance = HEIGHT_M - box.height
    u = (columns - INFO.intrinsics.cx) / FOCAL * distance
    v = (rows - INFO.intrinsics.cy) / FOCAL * distance
    x, y = POSE[0, 3] - v - box.x, POSE[1, 3] - u - box.y
    along = math.cos(box.yaw) * x + math.sin(box.yaw) * y
    across = -math.sin(box.yaw) * x + math.cos(box.yaw) * y
    if box.round:
        inside = np.hypot(x, y) < box.long / 2
    else:
        inside = (np.abs(along) < box.long / 2) & (np.abs(across) < box.short / 2)
    scale = INFO.depth_scale_m or 1.0
    depth = np.where(inside, distance, HEIGHT_M) / scale
    return depth.round().astype(np.uint16), inside.astype(np.uint8)


def observation(box: Box, position: Floats = LOOK, step: int = 0, **changes: object) -> Observation:
    depth, mask = view(box)
    stamp = 1_000_000_000 + step * 33_333_333
    color = np.zeros((*depth.shape, 3), np.uint8)
    values: dict[str, object] = {
        "step": step,
        "epoch": 0,
        "stamp_ns": stamp,
        "arm": ArmState(stamp, position.copy(), np.zeros(6), np.zeros(6)),
        "frames": {"head": Frame("head", stamp, color, depth)},
        "masks": {"head": TrackedMask("head", stamp, mask, 1.0)},
        "committed": np.zeros((0, 6)),
    }
    values.update(changes)
    return Observation(**values)  # type: ignore[arg-type]


class Puppet:
    """An arm that is where it was asked to be a tick ago, with a jaw that may be held up."""

    def __init__(
        self, policy: GeometricPolicy, box: Box, blocked_at: float | None, lost: float = 0.0
    ) -> None:
        self.policy, self.box, self.blocked_at, self.lost = policy, box, blocked_at, lost
        self.position = LOOK.copy()
        self.velocity = np.zeros(6)
        self.sent = [LOOK.copy()]
        self.horizon: list[Floats] = []
        self.arriving: tuple[int, int, Floats] | None = None
        self.length = 1
        self.tick = 0
        self.consumed = 0
        self.random = np.random.default_rng(1)
        self.phases: list[str] = []
        self.force: Floats | None = None

    def ask(self) -> None:
        committed = np.array(self.horizon) if self.horizon else np.zeros((0, 6))
        seen = observation(
            self.box,
            self.position,
            self.tick,
            committed=committed,
            frozen_steps=min(3, len(committed)),
            force_n=self.force,
        )
        seen.arm.velocity[:] = self.velocity
        try:
            rows = self.policy.infer(seen).rows
        except PolicyError:
            rows = np.zeros((0, 6))
        if self.random.random() < self.lost:
            rows = rows[:0]
        if not self.phases or self.phases[-1] != self.policy.phase:
            self.phases.append(self.policy.phase)
        self.arriving = (self.tick + 3, self.consumed, rows)

    def run(self, ticks: int = 500) -> str:
        for _ in range(ticks):
            if self.policy.phase in ("done", "failed"):
                break
            self.step()
        return self.policy.phase

    def step(self) -> None:
        if self.arriving is not None and self.tick >= self.arriving[0]:
            left = self.arriving[2][self.consumed - self.arriving[1] :]
            self.arriving = None
            if len(left):
                self.horizon, self.length = list(left), len(left)
        if self.arriving is None and len(self.horizon) <= 0.5 * self.length:
            self.ask()
        self.consumed += bool(self.horizon)
        target = self.horizon.pop(0) if self.horizon else self.sent[-1]
        self.sent.append(target)
        before = self.position
        self.position = self.sent[-2].copy()
        if self.blocked_at is not None:
            self.position[5] = max(self.position[5], self.blocked_at)
        self.velocity = (self.position - before) * 30.0
        self.tick += 1
