"""Options of the lift policy: what it looks at, the network's shape, and how the runtime uses it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from runtime.blends import BlendName
from runtime.input_file import parse_json, read_small
from runtime.options import Options
from runtime.part_context import CameraNeed
from runtime.parts import PolicyTable

SHIPPED = "shipped"
WEIGHTS, ABOUT = "model.safetensors", "dexrun.json"


def weights_file(checkpoint: str) -> Path:
    """Where the weights of `checkpoint` are: a file, a folder's, or those that are installed along."""
    if checkpoint == SHIPPED:
        return Path(__file__).parent / "weights" / WEIGHTS
    path = Path(checkpoint)
    return path / WEIGHTS if path.is_dir() else path


class LiftShape(Options):
    """The network, and the frame that its numbers are in.

    Attributes:
        joints: of the arm. gripper: which of them is its gripper.
        pan_axis_m: where the axis of the arm's first joint, which turns the arm over the table, meets it.
        pan_sign: 1 where that joint counts to the left seen from above, -1 to the right.
        chunk: rows predicted at once.
        crop: cells on a side of the picture of heights around the object. cell_m: the side of a cell.
        width: channels of the trunk. blocks: its residual blocks.
        hypotheses: chunks made at once, of which one is chosen.
    """

    joints: int = Field(default=6, ge=2, le=64)
    gripper: int = Field(default=5, ge=0, le=63)
    pan_axis_m: tuple[float, float] = (0.0452, 0.0)
    pan_sign: Literal[-1, 1] = -1
    chunk: int = Field(default=20, ge=2, le=200)
    crop: int = Field(default=40, ge=8, le=128)
    cell_m: float = Field(default=0.0025, gt=0, le=0.02)
    width: int = Field(default=256, ge=16, le=2048)
    blocks: int = Field(default=3, ge=1, le=16)
    hypotheses: int = Field(default=6, ge=1, le=64)


class LiftOptions(PolicyTable):
    """``[policy] type = "lift"``.

    Attributes:
        blend: its chunks go on from what is committed by themselves, as those of ``rtc`` do.
        checkpoint: ``model.safetensors``, or a checkpoint folder, or ``"shipped"``: what is installed along;
            empty: random weights.
        camera: the RGB-D camera whose mask and depth are used; it must be calibrated to the arm.
        rate_hz: rows per second of its chunks, as it was trained.
        picture_width: wider pictures are thinned out by a whole number until they are at most so wide.
        level: whether the camera's tilt and height are taken from the table that it sees, so that a camera
            that was nudged is measured with correctly.
        place: whether where the camera is along the table, and how it is turned about the vertical, is taken
            from the arm that it sees at rest as an attempt begins. It takes `level`, and a robot whose limits
            are known: not one behind ``dexrun serve``, nor an environment of other people's.
        table_height_m: of the table in the base frame.
        min_height_m, max_height_m: points of an object are so far above the table.
        min_points: fewer points than this are no object.
        use_force: whether the force sensor is looked at, where there is one.
        done_above: the probability from which on an attempt counts as done.
        miss_opening: jaws that were closed this far have nothing between them.
        attempt_s, stuck_s: after so long without an end, or with an arm that stood still, an attempt does not
            get on: it has failed, or is done if the jaws press on something.
        ease_rows: rows over which a chunk is faded in from what is committed.
        table_margin_m: rows are kept so much farther off the table, and what stands on it, than the safety
            stage wants: what is nearer would be stopped there, with jaws that do not close.
        device: ``cpu``, ``cuda``, ``cuda:1``... threads: torch's on the CPU; 0 leaves them alone.
        seed: of random weights. shape: the network.
    """

    packages: ClassVar[tuple[str, ...]] = ("torch", "safetensors")
    extra: ClassVar[str] = "learned"
    one_arm: ClassVar[bool] = True
    said_by_checkpoint: ClassVar[tuple[str, ...]] = (
        "camera",
        "rate_hz",
        "picture_width",
        "level",
        "table_height_m",
        "use_force",
    )

    type: Literal["lift"] = "lift"
    blend: BlendName = "latest"
    checkpoint: str = "shipped"
    camera: str = "head"
    rate_hz: float = Field(default=15.0, gt=0, le=1000)
    picture_width: int = Field(default=320, ge=32, le=4096)
    level: bool = True
    place: bool = True
    table_height_m: float = 0.0
    min_height_m: float = Field(default=0.005, gt=0)
    max_height_m: float = Field(default=0.09, gt=0)
    min_points: int = Field(default=20, ge=8)
    use_force: bool = True
    done_above: float = Field(default=0.15, gt=0, lt=1)
    miss_opening: float = Field(default=0.02, ge=0, lt=1)
    attempt_s: float = Field(default=10.0, gt=0, le=600)
    stuck_s: float = Field(default=2.0, gt=0, le=600)
    ease_rows: int = Field(default=6, ge=0, le=100)
    table_margin_m: float = Field(default=0.002, ge=0, le=0.05)
    device: str = "cpu"
    threads: int = Field(default=0, ge=0)
    seed: int = 0
    shape: LiftShape = LiftShape()

    def needs_cameras(self) -> Sequence[CameraNeed]:
        return [CameraNeed("camera", self.camera, depth=True, mask=True, calibration=True)]

    def trained_arm(self) -> str:
        """What ``dexrun.json`` beside the weights says: all of its numbers are in the frame of that arm."""
        if self.untrained:
            return ""
        path = weights_file(self.checkpoint).with_name(ABOUT)
        try:
            said = parse_json(read_small(path))
        except FileNotFoundError:
            return ""
        except (OSError, ValueError) as error:
            raise ValueError(f"checkpoint: {path}: cannot be read: {error}") from None
        robot = said.get("robot") if isinstance(said, dict) else None
        model = robot.get("model", "") if isinstance(robot, dict) else ""
        return model if isinstance(model, str) else ""

    @property
    def untrained(self) -> bool:
        return not self.checkpoint
