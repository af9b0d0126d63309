"""Small arms for tests that need one with grippers elsewhere, or more than one."""

from typing import Any

import mujoco
import numpy as np

from runtime.arm_model import ArmModel, ModelParts
from runtime.table_model import standing

CRANE = """
<mujoco model="crane"><compiler angle="radian"/><worldbody><body name="column" pos="0 0 0.2">
<joint name="pan" axis="0 0 1" range="-2 2" limited="true"/>
<geom type="capsule" fromto="0 0 0 0 0 0.05" size="0.02"/>
<body name="boom"><joint name="lift" axis="0 -1 0" range="-1 1" limited="true"/>
<geom type="capsule" fromto="0.06 0 0 0.25 0 0" size="0.015"/>
<site name="grasp" pos="0.28 0 0"/>
<body name="finger" pos="0.27 0 0"><joint name="jaw" axis="0 0 1" range="-0.5 1.5" limited="true"/>
<geom type="capsule" fromto="0 0 0 0.02 0 0" size="0.005"/></body></body></body></worldbody></mujoco>
"""
"""Two joints and a jaw: the boom turns about the column and tilts; the grasp point is 0.28 m along it."""

CRANE_PARTS = ModelParts(("pan", "lift", "jaw"), {"": "grasp"}, (2,))
TWO_PARTS = ModelParts(
    tuple(f"{arm}.{joint}" for arm in ("left", "right") for joint in CRANE_PARTS.names),
    {"left": "left.grasp", "right": "right.grasp"},
    (2, 5),
)


def crane_spec() -> Any:
    return mujoco.MjSpec.from_string(CRANE)


def crane(parts: ModelParts = CRANE_PARTS) -> ArmModel:
    return ArmModel(crane_spec(), parts)


def two_cranes(apart_m: float = 0.4) -> ArmModel:
    """Face to face: the left one at the origin looks along x, the right one looks back at it."""
    opposite = np.diag([-1.0, -1.0, 1.0, 1.0])
    opposite[0, 3] = apart_m
    spec = standing({"left": (crane_spec(), np.eye(4)), "right": (crane_spec(), opposite)})
    return ArmModel(spec, TWO_PARTS)
