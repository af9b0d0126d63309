"""The kernel, and the face that plug-ins import: ``from runtime import CameraTable, Frame, Ring``.

What `__all__` lists is kept from one version to the next; the modules below may move. A name is imported
when it is first asked for, so that one does not bring all.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runtime.arm_model import ArmModel, IkResult
    from runtime.clock import NS_PER_S, Clock, RealClock, Signal, Wire
    from runtime.geometry_options import Extrinsics, base_from_camera
    from runtime.ik_options import IkOptions
    from runtime.interfaces import (
        ArmDriver,
        Box,
        CameraDriver,
        Detection,
        Detector,
        Driver,
        ForceDriver,
        LeaderDriver,
        MultiTracker,
        NoAnswerError,
        PerceptionError,
        Point,
        Policy,
        PolicyError,
        PolicySpec,
        Prompt,
        Segmentation,
        Segmenter,
        Tracker,
    )
    from runtime.joints import JointLayout
    from runtime.messages import (
        ArmState,
        CameraInfo,
        ColorImage,
        DepthImage,
        DeviceError,
        FaultKind,
        Floats,
        Frame,
        Intrinsics,
        Mask,
        Observation,
        PolicyAnswer,
        PolicyStatus,
        Thought,
        TrackedMask,
    )
    from runtime.options import Options
    from runtime.part_context import ArmContext, CameraNeed, DeviceContext, PolicyContext
    from runtime.parts import (
        ArmTable,
        CameraTable,
        DetectorTable,
        DeviceTable,
        ForceTable,
        LeaderTable,
        PolicyTable,
        SegmenterTable,
        TrackerTable,
    )
    from runtime.ring import Mailbox, Ring, Sample, capacity_for
    from runtime.stepped import SteppedClock

__all__ = [
    "NS_PER_S",
    "ArmContext",
    "ArmDriver",
    "ArmModel",
    "ArmState",
    "ArmTable",
    "Box",
    "CameraDriver",
    "CameraInfo",
    "CameraNeed",
    "CameraTable",
    "Clock",
    "ColorImage",
    "DepthImage",
    "Detection",
    "Detector",
    "DetectorTable",
    "DeviceContext",
    "DeviceError",
    "DeviceTable",
    "Driver",
    "Extrinsics",
    "FaultKind",
    "Floats",
    "ForceDriver",
    "ForceTable",
    "Frame",
    "IkOptions",
    "IkResult",
    "Intrinsics",
    "JointLayout",
    "LeaderDriver",
    "LeaderTable",
    "Mailbox",
    "Mask",
    "MultiTracker",
    "NoAnswerError",
    "Observation",
    "Options",
    "PerceptionError",
    "Point",
    "Policy",
    "PolicyAnswer",
    "PolicyContext",
    "PolicyError",
    "PolicySpec",
    "PolicyStatus",
    "PolicyTable",
    "Prompt",
    "RealClock",
    "Ring",
    "Sample",
    "Segmentation",
    "Segmenter",
    "SegmenterTable",
    "Signal",
    "SteppedClock",
    "Thought",
    "TrackedMask",
    "Tracker",
    "TrackerTable",
    "Wire",
    "base_from_camera",
    "capacity_for",
]

_MODULES = {
    "NS_PER_S": "clock",
    "ArmContext": "part_context",
    "ArmDriver": "interfaces",
    "ArmModel": "arm_model",
    "ArmState": "messages",
    "ArmTable": "parts",
    "Box": "interfaces",
    "CameraDriver": "interfaces",
    "CameraInfo": "messages",
    "CameraNeed": "part_context",
    "CameraTable": "parts",
    "Clock": "clock",
    "ColorImage": "messages",
    "DepthImage": "messages",
    "Detection": "interfaces",
    "Detector": "interfaces",
    "DetectorTable": "parts",
    "DeviceContext": "part_context",
    "DeviceError": "messages",
    "DeviceTable": "parts",
    "Driver": "interfaces",
    "Extrinsics": "geometry_options",
    "FaultKind": "messages",
    "Floats": "messages",
    "ForceDriver": "interfaces",
    "ForceTable": "parts",
    "Frame": "messages",
    "IkOptions": "ik_options",
    "IkResult": "arm_model",
    "Intrinsics": "messages",
    "JointLayout": "joints",
    "LeaderDriver": "interfaces",
    "LeaderTable": "parts",
    "Mailbox": "ring",
    "Mask": "messages",
    "MultiTracker": "interfaces",
    "NoAnswerError": "interfaces",
    "Observation": "messages",
    "Options": "options",
    "PerceptionError": "interfaces",
    "Point": "interfaces",
    "Policy": "interfaces",
    "PolicyAnswer": "messages",
    "PolicyContext": "part_context",
    "PolicyError": "interfaces",
    "PolicySpec": "interfaces",
    "PolicyStatus": "messages",
    "PolicyTable": "parts",
    "Prompt": "interfaces",
    "RealClock": "clock",
    "Ring": "ring",
    "Sample": "ring",
    "Segmentation": "interfaces",
    "Segmenter": "interfaces",
    "SegmenterTable": "parts",
    "Signal": "clock",
    "SteppedClock": "stepped",
    "Thought": "messages",
    "TrackedMask": "messages",
    "Tracker": "interfaces",
    "TrackerTable": "parts",
    "Wire": "clock",
    "base_from_camera": "geometry_options",
    "capacity_for": "ring",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
