"""What any segmenter and tracker can do; both are called on one thread and own none."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from runtime.messages import ColorImage, Frame, Mask, TrackedMask

Box = tuple[float, float, float, float]
"""``x1, y1, x2, y2`` in pixels, the far corner exclusive."""


class PerceptionError(Exception):
    """There is no telling what the object is. The message is one line."""


@runtime_checkable
class Segmenter(Protocol):
    """From a box to the pixels of the object in it."""

    def segment(self, image: ColorImage, box: Box) -> Mask:
        """``[H, W]``, 1 on the object.

        Raises:
            PerceptionError: the box is not in the image, or nothing in it stands out.
        """


@runtime_checkable
class Tracker(Protocol):
    """Follows one object from frame to frame of one camera."""

    def init(self, frame: Frame, mask: Mask) -> TrackedMask:
        """Begin with the object as `mask` shows it in `frame`.

        Raises:
            PerceptionError: the mask is empty or of another size than the frame.
        """

    def update(self, frame: Frame) -> TrackedMask:
        """Where it is now. Confidence 0 and an empty mask mean that it is not seen.

        Raises:
            PerceptionError: before `init`, or the frame is of another size.
        """
