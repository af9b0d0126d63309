"""Options of the geometric policy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

from pydantic import Field

from runtime.part_context import CameraNeed
from runtime.parts import PolicyTable


class GeometricOptions(PolicyTable):
    """The ``[policy]`` table with ``type = "geometric"``.

    Attributes:
        camera: the RGB-D camera whose mask and depth are used; it must be calibrated to the arm.
        nudged: whether where the camera stands is found by the table and by the arm at rest that it sees, as
            an attempt begins; where no more than 2 mm are off, it is where it was calibrated.
        chunk_steps: rows of a chunk at most; less where the next step depends on what will be seen.
        rate_hz: rows per second that it plans; what is counted in steps here was chosen for 30.
        lead_steps: rows of the committed horizon that a new plan leaves alone at least, so that it is
            still ahead of the arm when it arrives.
        table_height_m: of the table in the base frame.
        min_height_m: points lower than this above the table are the table's.
        max_height_m: points higher than this above the table are not an object's (the arm's own).
        min_points: fewer points than this are no object.
        mask_erosion_px: border of the mask left out, where depth mixes object and background.
        max_mask_age_s: a mask may be older than the frame it is used with by so much.
        min_confidence: masks tracked with less are not used.
        look_rad: the joints (without the gripper) at which the arm hides nothing of the table; empty: the
            arm's own home pose.
        max_hidden_share: share of an object's outline that may lie behind something nearer; if it is more,
            the arm moves towards `look_rad` until it is less.
        approach_height_m: how far above the grasp the gripper stops and looks again.
        lift_height_m: height of the grasp point above the table at which a grasp is done.
        table_margin_m: distance kept between fingers and table, however far the jaws are closed; more than
            `safety.table_clearance_m`.
        finger_gap_m: how far beside the object the fixed finger goes down.
        opening_margin_m: how much wider than that the jaw opens on the other side.
        max_width_m: wider objects are not grasped.
        max_tilt_rad: how far from straight down the gripper may point.
        max_yaw_error_rad: how far the jaws may be turned from the object's sides.
        velocity_rad_s, acceleration_rad_s2: of the joints in free motion.
        careful_scale: fraction of them near the object: descending and lifting.
        gripper_velocity_s: how fast the jaw closes, in full travels a second.
        squeeze: how far beyond the object's surface the jaw's target goes, as a fraction of its travel.
        contact_lag: the jaw is held up by something where it stays behind its target by this fraction.
        contact_force_n: a force that tells the same.
        touch_force_n: a force on the way down that means the fingers stand on something.
        careful_chunk_steps: rows of a chunk once the fingers are near the object, so that what they feel
            is soon answered; more where inference is so slow that these would be over before they arrive.
        settle_s: pause before the jaws close, for the arm to come to rest.
        replan_shift_m, replan_turn_rad: an estimate that moved by more than this makes a new plan.
        obstacle_height_m: lower things than this are not avoided by the fingers.
    """

    one_arm: ClassVar[bool] = True

    type: Literal["geometric"] = "geometric"
    camera: str = "head"
    nudged: bool = True
    chunk_steps: int = Field(default=40, ge=4, le=400)
    rate_hz: float = Field(default=30.0, gt=0, le=1000)
    lead_steps: int = Field(default=4, ge=0, le=100)
    table_height_m: float = 0.0
    min_height_m: float = Field(default=0.005, gt=0)
    max_height_m: float = Field(default=0.09, gt=0)
    min_points: int = Field(default=40, ge=8)
    mask_erosion_px: int = Field(default=1, ge=0, le=10)
    max_mask_age_s: float = Field(default=1.0, gt=0)
    min_confidence: float = Field(default=0.2, ge=0, le=1)
    look_rad: tuple[float, ...] = ()
    max_hidden_share: float = Field(default=0.1, ge=0, le=1)
    approach_height_m: float = Field(default=0.055, gt=0)
    lift_height_m: float = Field(default=0.1, gt=0)
    table_margin_m: float = Field(default=0.005, ge=0)
    finger_gap_m: float = Field(default=0.006, ge=0)
    opening_margin_m: float = Field(default=0.014, ge=0)
    max_width_m: float = Field(default=0.045, gt=0)
    max_tilt_rad: float = Field(default=0.4, ge=0)
    max_yaw_error_rad: float = Field(default=0.15, ge=0)
    velocity_rad_s: float = Field(default=1.8, gt=0)
    acceleration_rad_s2: float = Field(default=8.0, gt=0)
    careful_scale: float = Field(default=0.5, gt=0, le=1)
    gripper_velocity_s: float = Field(default=0.5, gt=0)
    squeeze: float = Field(default=0.06, gt=0, le=0.5)
    contact_lag: float = Field(default=0.02, gt=0)
    contact_force_n: float = Field(default=2.0, gt=0)
    touch_force_n: float = Field(default=8.0, gt=0)
    careful_chunk_steps: int = Field(default=14, ge=4, le=400)
    settle_s: float = Field(default=0.2, ge=0)
    replan_shift_m: float = Field(default=0.0025, gt=0)
    replan_turn_rad: float = Field(default=0.08, gt=0)
    obstacle_height_m: float = Field(default=0.012, gt=0)

    def needs_cameras(self) -> Sequence[CameraNeed]:
        return [CameraNeed("camera", self.camera, depth=True, mask=True, calibration=True)]

    def poses(self) -> Mapping[str, Sequence[float]]:
        return {"look_rad": self.look_rad} if self.look_rad else {}
