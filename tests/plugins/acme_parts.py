"""Parts of somebody else, one of each kind. Of dexrun they import ``runtime`` alone."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import Field

from runtime import (
    NS_PER_S,
    ArmContext,
    ArmTable,
    CameraInfo,
    CameraNeed,
    CameraTable,
    ColorImage,
    Detection,
    DetectorTable,
    DeviceContext,
    ForceTable,
    Frame,
    Intrinsics,
    LeaderTable,
    Mailbox,
    Mask,
    Observation,
    PerceptionError,
    PolicyAnswer,
    PolicyContext,
    PolicySpec,
    PolicyTable,
    Prompt,
    Ring,
    Segmentation,
    SegmenterTable,
    TrackedMask,
    TrackerTable,
    capacity_for,
)


class GreyTable(CameraTable):
    """A camera that sees nothing but grey.

    Attributes:
        level: how light it is, 0 to 255.
    """

    level: int = Field(default=7, ge=0, le=255)

    @property
    def simulated(self) -> bool:
        return True

    def build(self, context: DeviceContext) -> GreyCamera:
        return GreyCamera(self, context)


class _Device:
    """Waits for its next moment."""

    def __init__(self, name: str, context: DeviceContext, rate_hz: float) -> None:
        self.name = name
        self.clock = context.clock
        self._signal = context.clock.signal()
        self._period_ns = round(NS_PER_S / rate_hz)
        self._next_ns = 0

    def open(self) -> None:
        self._next_ns = self.clock.now_ns()

    def due(self) -> bool:
        self._signal.wait(max(1, self._next_ns - self.clock.now_ns()))
        self._next_ns += self._period_ns
        return True

    def close(self) -> None:
        pass

    def statistics(self) -> Mapping[str, int]:
        return {}


class GreyCamera(_Device):
    def __init__(self, table: GreyTable, context: DeviceContext) -> None:
        super().__init__(context.name, context, table.fps)
        shape = (table.height, table.width, 3)
        self.frames = Ring({"color": (shape, "uint8")}, capacity_for(table.fps, 0.5))
        self.info = CameraInfo(context.name, Intrinsics(table.width, table.height, 100, 100, 50, 50))
        self._level = table.level

    def poll(self) -> bool:
        self.due()
        with self.frames.write(self.clock.now_ns()) as slot:
            slot["color"][:] = self._level
        return True


class IdealTable(ArmTable):
    """An arm that is at once where it is told to be."""

    start_rad: dict[str, float] = Field(default_factory=dict)

    @property
    def simulated(self) -> bool:
        return True

    def by_joint(self) -> Mapping[str, Iterable[str]]:
        return {"start_rad": self.start_rad}

    def build(self, context: ArmContext) -> IdealArm:
        return IdealArm(self, context)


class IdealArm(_Device):
    calibration: Mapping[str, Any] = {}

    def __init__(self, table: IdealTable, context: ArmContext) -> None:
        super().__init__(context.name, context, table.state_rate_hz)
        size = (context.joints.joints,)
        self.states = Ring(dict.fromkeys(("position", "velocity", "load"), (size, "<f8")), 128)
        self.targets = Mailbox({"position": (size, "<f8")})
        self.sent = Ring({"position": (size, "<f8")}, 64)
        self.health = Ring({"temperature_c": (size, "<f8")}, 4)
        self._at = np.array([table.start_rad.get(name, 0.1) for name in context.joints.names])

    def poll(self) -> bool:
        self.due()
        if (target := self.targets.take()) is not None:
            self._at = target["position"].copy()
            self.sent.push(self.clock.now_ns(), position=self._at)
        still = np.zeros_like(self._at)
        self.states.push(self.clock.now_ns(), position=self._at, velocity=still, load=still)
        return True


class WavingTable(LeaderTable):
    """A leader that turns to and fro about a pose."""

    about_rad: tuple[float, ...]

    @property
    def simulated(self) -> bool:
        return True

    def build(self, context: ArmContext) -> WavingLeader:
        return WavingLeader(self, context)


class WavingLeader(_Device):
    calibration: Mapping[str, Any] = {}

    def __init__(self, table: WavingTable, context: ArmContext) -> None:
        super().__init__(context.name, context, 50)
        size = (context.joints.joints,)
        self.states = Ring(dict.fromkeys(("position", "velocity", "load"), (size, "<f8")), 64)
        self._about = np.array(table.about_rad)

    def poll(self) -> bool:
        self.due()
        now_ns = self.clock.now_ns()
        at = self._about.copy()
        at[0] += 0.2 * np.sin(2 * now_ns / NS_PER_S)
        self.states.push(now_ns, position=at, velocity=0 * at, load=0 * at)
        return True


class SpringTable(ForceTable):
    """A force sensor that feels 1 N until it is told that this is nothing."""

    @property
    def simulated(self) -> bool:
        return True

    def build(self, context: DeviceContext) -> SpringForce:
        return SpringForce(self, context)


class SpringForce(_Device):
    def __init__(self, table: SpringTable, context: DeviceContext) -> None:
        super().__init__(context.name, context, table.rate_hz)
        self.samples = Ring({"force": ((table.channels,), "<f8")}, capacity_for(table.rate_hz, 1))
        self.tared: tuple[str, ...] = ()
        self._force = np.ones(table.channels)

    def tare(self, still: Callable[[], bool] = lambda: True) -> None:
        self._force = np.zeros_like(self._force)
        self.tared += ("",)

    def poll(self) -> bool:
        self.due()
        self.samples.push(self.clock.now_ns(), force=self._force)
        return True


class WholeBoxTable(SegmenterTable):
    """Takes the whole box for the object."""

    def build(self) -> WholeBox:
        return WholeBox()


class WholeBox:
    def segment(self, image: ColorImage, prompt: Prompt) -> Segmentation:
        if prompt.box is None:
            raise PerceptionError("takes boxes only")
        mask = np.zeros(image.shape[:2], np.uint8)
        x1, y1, x2, y2 = (int(side) for side in prompt.box)
        mask[y1:y2, x1:x2] = 1
        return Segmentation(mask, 0.5)


class MiddleTable(DetectorTable):
    """Takes whatever is in the middle for what it was asked for."""

    def build(self) -> Middle:
        return Middle()


class Middle:
    def detect(self, image: ColorImage, phrases: Sequence[str]) -> Sequence[Detection]:
        height, width = image.shape[:2]
        box = (width / 4, height / 4, width * 3 / 4, height * 3 / 4)
        return [Detection(box, 0.5, phrase) for phrase in phrases]


class PatientTable(TrackerTable):
    """Says that the object stays where it was."""

    def build(self) -> Patient:
        return Patient()


class Patient:
    def init(self, frame: Frame, mask: Mask) -> TrackedMask:
        self._mask = mask
        return self.update(frame)

    def update(self, frame: Frame) -> TrackedMask:
        return TrackedMask(frame.camera, frame.stamp_ns, self._mask, 1.0)


class StayTable(PolicyTable):
    """A policy that stays where it is, with the gripper at a value of one's own."""

    camera: str = "side"
    gripper: float = 0.5
    chunk_steps: int = 6

    def needs_cameras(self) -> Sequence[CameraNeed]:
        return [CameraNeed("camera", self.camera, calibration=True)]

    def build(self, context: PolicyContext) -> StayPolicy:
        return StayPolicy(self, context)


class StayPolicy:
    def __init__(self, table: StayTable, context: PolicyContext) -> None:
        self._table = table
        self._model = context.arm_model()
        notes = {"pid": str(os.getpid()), "fx": str(context.cameras[table.camera].intrinsics.fx)}
        self.spec = PolicySpec("stay", table.chunk_steps, context.joints.joints, (table.camera,), notes=notes)

    def warm_up(self) -> None:
        pass

    def infer(self, observation: Observation) -> PolicyAnswer:
        row = observation.arm.position.copy()
        row[-1] = self._table.gripper
        row[0] = self._model.fk(observation.arm.position)[0, 3]
        return PolicyAnswer(np.tile(row, (self._table.chunk_steps, 1)))

    def reset(self) -> None:
        pass

    def statistics(self) -> dict[str, int]:
        return {}

    def close(self) -> None:
        pass
