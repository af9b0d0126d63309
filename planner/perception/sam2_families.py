"""Which classes of `transformers` a checkpoint of SAM 2's kind is loaded as."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_HALVES = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class Sam2Family:
    """What one kind of checkpoint is loaded as.

    Attributes:
        image, video: classes of `transformers`; `video` is empty where the checkpoint has no memory.
        normalization: mean and standard deviation of the pictures' channels, 0 to 1.
        packages: what it imports besides.
    """

    image: str
    video: str = ""
    normalization: tuple[tuple[float, ...], tuple[float, ...]] = _IMAGENET
    packages: tuple[str, ...] = ()

    @property
    def session(self) -> str:
        """The class that holds a video's memory."""
        return self.video.replace("Model", "InferenceSession")


FAMILIES: Mapping[str, Sam2Family] = {
    "sam2": Sam2Family("Sam2Model"),
    "sam2_video": Sam2Family("Sam2Model", "Sam2VideoModel"),
    "edgetam": Sam2Family("EdgeTamModel", packages=("timm",)),
    "edgetam_video": Sam2Family("EdgeTamModel", "EdgeTamVideoModel", packages=("timm",)),
    "sam3_tracker": Sam2Family("Sam3TrackerModel", normalization=_HALVES),
    "sam3_tracker_video": Sam2Family("Sam3TrackerModel", "Sam3TrackerVideoModel", _HALVES),
    "sam3_video": Sam2Family("Sam3TrackerModel", "Sam3TrackerVideoModel", _HALVES),
}
"""By ``model_type``. The public SAM 2 and 2.1 are ``sam2_video``, SAM 3 is ``sam3_video``."""
