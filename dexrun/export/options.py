"""What can be configured about exports."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from policies.data.sampling import SamplingOptions
from runtime.units import UnitMap


class ExportOptions(SamplingOptions):
    """Table ``[export]``; ``dexrun export`` takes the same keys as options.

    Attributes:
        units: how joints are expressed, instead of the format's own way.
        codec: of colour video. H.264 takes half the work of AV1 at like size and quality.
        crf: quality of colour video, lower is better; 0 takes the codec's usual one.
        depth: how LeRobot data sets hold depth: LeRobot's 12-bit ``video``, lossless 16-bit ``images``,
            ``both`` or ``none``; ``auto`` is ``none``: LeRobot before 0.6 takes depth for a colour camera.
        max_stamp_error_s: episodes with a larger one are left out; 0 leaves none out.
        max_gap_s: episodes in which a sensor that is exported gave nothing for longer are left out, at their
            beginning and end as well; 0 leaves none out.
        labels: only episodes with one of these labels; none named means all but failures.
        tip: the language hint, where the instruction's object was seen (metres, in the arm's base frame): as
            LeRobot's feature ``observation.tip`` (``feature``), after the task as a sentence (``task``),
            ``both`` or ``none``. Rows before the object was seen have its first place.
        missing_mask: what becomes of episodes recorded without tracked masks: ``track`` has the planner mark
            the object that the task names and tracks it; ``zeros`` leaves masks empty; ``refuse`` does not
            export.
        masks: whether LeRobot data sets (v3) hold tracked masks, as lossless ``images`` of 0 and 255 called
            ``observation.images.CAMERA_mask``; a policy takes them for a camera unless told otherwise.
        language: how LeRobot data sets (v3) say an annotation's sub-steps: ``index``, each row's place in a
            list of them (``subtask_index``, as LeRobot 0.4 has it), or ``columns``, its language columns,
            with the objects' boxes, too (newer than 0.4.4, which does not open them).
        vlm_url, vlm_model: whom ``track`` asks; the embedded scene reader if empty, which knows the simulated
            tabletop. The key comes from the environment variable ``DEXRUN_PLANNER_API_KEY``.
        hdf5_compression: of images in HDF5; readers need not know. ``none`` is what ACT has itself.
        equal_length: in HDF5, make every episode as long as the longest by repeating its last row, since
            ACT's own loader wants them equal.
        image_size: edge of UMI's square images, in pixels.
        robot_type: as LeRobot data sets name it; empty: after the recorded arm's model (``so100_follower``).
        jobs: processes; 0 is one for each processor.
    """

    units: UnitMap | None = None
    codec: Literal["h264", "av1"] = "h264"
    crf: int = Field(default=0, ge=0, le=63)
    depth: Literal["auto", "video", "images", "both", "none"] = "auto"
    max_stamp_error_s: float = Field(default=0.0, ge=0)
    max_gap_s: float = Field(default=0.0, ge=0)
    labels: tuple[Literal["success", "failure", "none"], ...] = ()
    tip: Literal["none", "feature", "task", "both"] = "none"
    missing_mask: Literal["track", "zeros", "refuse"] = "track"
    masks: Literal["none", "images"] = "none"
    language: Literal["index", "columns"] = "index"
    vlm_url: str = Field(default="", pattern=r"^(https?://[^\s/]|$)")
    vlm_model: str = ""
    hdf5_compression: Literal["none", "lzf", "gzip"] = "none"
    equal_length: bool = False
    image_size: int = Field(default=224, ge=8)
    robot_type: str = ""
    jobs: int = Field(default=0, ge=0)
