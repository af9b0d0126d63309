"""What can be set about any arm's body: which model it is, and what that model's file does not say."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field, model_validator

from runtime.messages import Floats
from runtime.options import Options

GRASP_SITE = "grasp"
_Triple = tuple[float, float, float]


class BodyOptions(Options):
    """Table ``[arm.body]``: what a model file does not say. Known models need none of it.

    Attributes:
        joints: the joints' names in order, from the base to the gripper; empty: all that turn or slide
            within a range, in the file's order.
        grippers: by joint, the model's own positions where it is closed and where it is open; empty: the
            joint called ``gripper``, if there is one, from the lower end of its range to the upper.
        hand: by joint of a hand, its angles where the hand is closed around something and where it is open.
            They are joints like any other, in radians; the modes close, open and hold with them. A thumb
            that stays has the same angle twice.
        site: the site at the grasp point, where the file has one: its z axis is the approach direction (out
            of the gripper), and its y axis the direction in which the jaw opens.
        grasp_body: instead of a site, the body that the grasp point is fixed to.
        grasp_m: where the grasp point is in that body's frame.
        approach, opening: both directions in that body's frame.
        touch: pairs of bodies that may touch, such as ``[["base", "link2"]]``. Those next to each other may
            anyway, and those that overlap in every pose.
        home_rad: a value for each joint (gripper 0 to 1) at which the arm hides nothing of the table; empty:
            the file's key frame ``home``, or zero, or the middle of the ranges.
        meshes: folder that ``package://`` paths of a URDF are looked up in; empty: the folders above it.
    """

    joints: tuple[str, ...] = ()
    grippers: dict[str, tuple[float, float]] = Field(default_factory=dict)
    hand: dict[str, tuple[float, float]] = Field(default_factory=dict)
    site: str = GRASP_SITE
    grasp_body: str = ""
    grasp_m: _Triple = (0.0, 0.0, 0.0)
    approach: _Triple = (0.0, 0.0, 1.0)
    opening: _Triple = (0.0, 1.0, 0.0)
    touch: tuple[Annotated[tuple[str, ...], Field(min_length=2, max_length=2)], ...] = ()
    home_rad: tuple[float, ...] = ()
    meshes: Path | None = None

    @model_validator(mode="after")
    def _one_grasp_point(self) -> BodyOptions:
        fields = type(self).model_fields
        if self.grasp_body and self.site != GRASP_SITE:
            raise ValueError("site and grasp_body both say where the grasp point is; give one of them")
        for key in ("grasp_m", "approach", "opening"):
            if not self.grasp_body and getattr(self, key) != fields[key].default:
                raise ValueError(f"{key} is in the frame of a grasp_body, which is not given")
        return self


class BaseOptions(Options):
    """Where the base of one of several arms stands, in the frame that they share: on the table, z up.

    Attributes:
        position_m: of the base's own origin, metres.
        yaw_rad: which way it looks, counter-clockwise from above; 0 is along the common x axis.
    """

    position_m: _Triple = (0.0, 0.0, 0.0)
    yaw_rad: float = 0.0

    def pose(self) -> Floats:
        """4x4, from the base's frame to the common one."""
        pose = np.eye(4)
        sine, cosine = math.sin(self.yaw_rad), math.cos(self.yaw_rad)
        pose[:2, :2] = [[cosine, -sine], [sine, cosine]]
        pose[:3, 3] = self.position_m
        return pose


class ArmOptions(Options):
    """What every arm's table begins with.

    Attributes:
        model: what the arm is: a known one's name, or an MJCF (``.xml``) or URDF (``.urdf``) file;
            ``PACKAGE:FILE`` is one inside an installed package.
        body: for a file, what it does not say.
    """

    model: str = ""
    body: BodyOptions = BodyOptions()


class StandingArmOptions(ArmOptions):
    """An arm that obeys, and where it stands.

    Attributes:
        base: for one of several arms (``[arms.<name>]``), which need it; a single arm's base is the origin.
    """

    base: BaseOptions | None = None
