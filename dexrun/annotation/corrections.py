"""A person's corrections: what is wrong in one frame is said there, and followed anew from it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from dexrun.annotation.inside import annotate_inside, write_beside
from dexrun.annotation.looking import survey
from dexrun.annotation.options import AnnotateOptions
from dexrun.annotation.steps import annotated
from dexrun.annotation.stretches import corrected, owners
from policies.data.dataset import DatasetError
from policies.data.recorded import describe, name_of
from runtime.interfaces import Box, PerceptionError
from runtime.recording.annotations import PERSON, Anchor, Annotation, FrameMask
from runtime.recording.reader import Episode, RecordingError

_MOST_POINTS = 100


class CorrectionError(Exception):
    """A correction cannot be carried out. One line."""


@dataclass(frozen=True, slots=True)
class Reviewed:
    """An episode as a person sees it."""

    path: Path
    camera: str
    frames: int
    size: tuple[int, int]
    annotation: Annotation | None

    @classmethod
    def of(cls, path: Path, options: AnnotateOptions) -> Reviewed | None:
        """The episode at `path`; ``None`` if there is nothing to see of it."""
        try:
            ref = describe(path)
            if ref is None:
                return None
            with Episode(path) as episode:
                about = survey(ref, episode, options)
                return cls(path, about.camera, about.frames, about.size, annotated(episode, about.camera))
        except (DatasetError, RecordingError):
            return None

    @property
    def name(self) -> str:
        """Run and episode."""
        return name_of(self.path)

    @property
    def low(self) -> tuple[int, ...]:
        """Frames to look at; all of an episode that is not annotated."""
        return tuple(range(self.frames)) if self.annotation is None else self.annotation.low

    def picture(self, frame: int) -> bytes:
        """A frame with the outline of its mask, as PNG.

        Raises:
            RecordingError: there is no such frame.
        """
        import cv2

        with Episode(self.path) as episode:
            image = np.ascontiguousarray(episode.color(self.camera, frame)[..., ::-1])
            if self.annotation is not None:
                mask = episode.mask(self.camera, frame)
                outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
                cv2.drawContours(image, outlines, -1, (255, 0, 255), 1)
        return bytes(cv2.imencode(".png", image)[1])

    def correction(self, said: Mapping[str, Any], person: str) -> Anchor:
        """What a person says of a frame: ``frame``, ``points`` of x, y, inside, and ``box`` or null.

        Raises:
            CorrectionError: it says nothing of this episode.
        """
        try:
            frame = int(said["frame"])
            points = tuple((float(x), float(y), bool(inside)) for x, y, inside in said.get("points") or ())
            box: Box | None = None
            if said.get("box") is not None:
                x1, y1, x2, y2 = map(float, said["box"])
                box = (x1, y1, x2, y2)
        except (LookupError, TypeError, ValueError, OverflowError):
            raise CorrectionError("expected a frame, points of x, y, inside, and a box or null") from None
        self._check(frame, points, box)
        known = self.annotation
        phrase = known.phrase if known is not None else ""
        return Anchor(frame, phrase, box, points, PERSON, person=person)

    def _check(self, frame: int, points: Sequence[tuple[float, float, bool]], box: Box | None) -> None:
        height, width = self.size
        if not 0 <= frame < self.frames:
            raise CorrectionError(f"there is no frame {frame}; there are {self.frames}")
        if len(points) > _MOST_POINTS:
            raise CorrectionError(f"{len(points)} points; at most {_MOST_POINTS}")
        if box is None and not any(inside for *_, inside in points):
            raise CorrectionError("click on the object, or drag a box around it")
        corners = [(x, y) for x, y, _ in points] + ([] if box is None else [box[:2], box[2:]])
        if not all(math.isfinite(x + y) and 0 <= x <= width and 0 <= y <= height for x, y in corners):
            raise CorrectionError(f"not inside the picture of {width} by {height}")

    def corrected(self, correction: Anchor, options: AnnotateOptions) -> Reviewed:
        """Follow the object from the correction on; what it does not concern stays as it is.

        Raises:
            CorrectionError: there is nothing where it says, or the result cannot be written.
        """
        try:
            ref = describe(self.path)
            assert ref is not None  # noqa: S101 - it was shown
            correction = replace(correction, phrase=correction.phrase or ref.task)
            with Episode(self.path) as episode:
                before = annotated(episode, self.camera)
                anchors: tuple[Anchor, ...] = (correction,)
                known: dict[int, FrameMask] = {}
                if before is not None:
                    anchors = corrected(before.anchors, correction, before.low)
                    known = _standing(episode, before, anchors, self.frames, options)
                found = annotate_inside(ref, episode, options, anchors, known=known)
                write_beside(episode, found)
        except (PerceptionError, DatasetError, RecordingError, OSError) as error:
            raise CorrectionError(str(error)) from None
        return replace(self, annotation=found.about)


def _standing(
    episode: Episode,
    before: Annotation,
    anchors: Sequence[Anchor],
    frames: int,
    options: AnnotateOptions,
) -> dict[int, FrameMask]:
    """The masks that come from the same anchor as before, by the same models."""
    if before.models != options.models():
        return {}
    camera = before.camera
    rows = episode.columns(f"/annotation/{camera}")
    pictures = [bytes(sample["data"]) for sample in episode.samples(f"/mask/{camera}")]
    old, new = owners(before.anchors, frames), owners(anchors, frames)
    out: dict[int, FrameMask] = {}
    for frame in range(min(frames, len(pictures))):
        if _same(before.anchors[old[frame]], anchors[new[frame]]):
            box, point = (
                None if np.isnan(rows[k][frame]).any() else tuple(rows[k][frame].tolist())
                for k in ("box", "point")
            )
            out[frame] = FrameMask(
                frame, pictures[frame], float(rows["confidence"][frame]), new[frame], box, point
            )
    return out


def _same(one: Anchor, other: Anchor) -> bool:
    return replace(one, since=-1, until=-1) == replace(other, since=-1, until=-1)
