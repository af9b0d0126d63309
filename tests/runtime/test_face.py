"""What ``from runtime import ...`` offers to packages of other people: changed on purpose, or not at all."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import runtime

FACE = """
ArmContext ArmDriver ArmModel ArmState ArmTable Box CameraDriver CameraInfo CameraNeed CameraTable Clock
ColorImage DepthImage DeviceContext DeviceError DeviceTable Driver Extrinsics FaultKind Floats ForceDriver
ForceTable Frame IkOptions IkResult Intrinsics JointLayout LeaderDriver LeaderTable Mailbox Mask NS_PER_S
Detection Detector DetectorTable Point Prompt Segmentation
MultiTracker NoAnswerError
Observation Options PerceptionError Policy PolicyAnswer PolicyContext PolicyError PolicySpec
PolicyStatus
PolicyTable RealClock Ring Sample Segmenter SegmenterTable Signal SteppedClock Thought TrackedMask Tracker
TrackerTable Wire base_from_camera capacity_for
"""


def test_the_exported_names() -> None:
    assert sorted(runtime.__all__) == sorted(FACE.split())
    assert {*runtime.__all__} <= {*dir(runtime)}


def test_every_name_is_there_and_typed() -> None:
    """Type checkers read the imports of the module, the interpreter its table: both have all names."""
    assert {name: type(getattr(runtime, name)) for name in runtime.__all__}
    tree = ast.parse(Path(runtime.__file__).read_text())
    [block] = [node for node in tree.body if isinstance(node, ast.If)]
    seen = [(alias.name, each.module) for each in block.body for alias in each.names]
    assert dict(seen) == {name: f"runtime.{module}" for name, module in runtime._MODULES.items()}
    assert sorted(runtime._MODULES) == sorted(runtime.__all__)


def test_what_is_not_exported_is_said() -> None:
    code = "import runtime\ntry:\n  runtime.Rnig\nexcept AttributeError as error:\n  print(error)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said == "module 'runtime' has no attribute 'Rnig'\n"


def test_importing_the_face_imports_nothing_else() -> None:
    code = "import sys, runtime; print([m for m in sys.modules if m.split('.')[0] in ('numpy', 'runtime')])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out == "['runtime']\n"


def test_all_packages_are_typed() -> None:
    root = Path(runtime.__file__).parents[1]
    for package in ("runtime", "drivers", "policies", "planner", "dexrun"):
        assert (root / package / "py.typed").is_file()
