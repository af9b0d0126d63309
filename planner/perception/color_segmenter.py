"""Segmentation without weights: colour against surroundings, then GrabCut.

A box says where the object is, and its middle what it looks like. A click on the object says what it looks
like, and what is connected to it and of its colour where it is. A click beside it says what is not part of
it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planner.perception.color_click import discs, grown, parted
from planner.perception.color_model import ColorModel, color_bins
from planner.perception.options import ColorSegmenterOptions
from planner.perception.pointing import WholeBox, check_prompt, shown_box, shown_point, whole
from runtime.interfaces import PerceptionError, Point, Prompt, Segmentation
from runtime.messages import ColorImage

Bits = NDArray[np.uint8]
_MARGIN_PX = 3
_MARGIN = 0.2
"""How far beyond its box an object may reach: pixels, and besides a fraction of the box's shorter side."""
_CORE = 0.5
"""Middle part of the box, in each direction, that is taken to be the object."""
_SURE = 0.5


@dataclass(frozen=True)
class _Aim:
    """What a prompt says of a crop of the picture.

    Attributes:
        image: the crop, RGB. inner: the box in it.
        core: 1 where the object surely is. pointed: 1 where it was clicked on.
        allowed: 1 where it may be. outside: 1 where it was said not to be.
    """

    image: ColorImage
    inner: WholeBox
    core: Bits
    pointed: Bits
    allowed: Bits
    outside: Bits


class ColorSegmenter:
    """Implements `Segmenter`. Stateless; some tens of milliseconds at worst, on a crop."""

    def __init__(self, config: ColorSegmenterOptions) -> None:
        self._config = config

    def segment(self, image: ColorImage, prompt: Prompt) -> Segmentation:
        """See `Segmenter.segment`."""
        check_prompt(prompt, image)
        box, seed = _placed(image, prompt)
        x1, y1, x2, y2 = box
        ring = _margin(box) + max(3, round(self._config.ring * max(x2 - x1, y2 - y1)))
        left, top = max(0, x1 - ring), max(0, y1 - ring)
        cut = np.s_[top : y2 + ring, left : x2 + ring]
        aim = _aimed(image, cut, (x1 - left, y1 - top, x2 - left, y2 - top), prompt, seed)
        found = self._by_color(aim)
        if found is None and self._config.grabcut_iterations > 0:
            found = self._by_grabcut(aim)
        if found is None:
            raise PerceptionError(f"nothing {_where(prompt)} stands out from what surrounds it")
        mask = np.zeros(image.shape[:2], np.uint8)
        mask[cut] = found
        return Segmentation(mask, _score(aim, found))

    def _by_color(self, aim: _Aim) -> Bits | None:
        bins = color_bins(aim.image)
        outside = (1 - aim.allowed) | aim.outside
        found: Bits | None = aim.core
        for _ in range(2):  # the second time from all that the first one found
            if found is None or not outside.any():
                return None
            model = ColorModel.learn(bins, found, outside & (1 - found))
            found = self._accepted((model.probability(bins) > _SURE).astype(np.uint8), aim)
        return found

    def _by_grabcut(self, aim: _Aim) -> Bits | None:
        import cv2

        x1, y1, x2, y2 = aim.inner
        trimap = np.full(aim.image.shape[:2], cv2.GC_BGD, np.uint8)
        trimap[y1:y2, x1:x2] = cv2.GC_PR_FGD
        trimap[aim.pointed > 0] = cv2.GC_FGD
        trimap[aim.outside > 0] = cv2.GC_BGD
        if np.all(trimap != cv2.GC_BGD):
            return None
        models = np.zeros((1, 65)), np.zeros((1, 65))
        cv2.setRNGSeed(0)
        try:
            rounds = self._config.grabcut_iterations
            cv2.grabCut(aim.image, trimap, (0, 0, 1, 1), *models, rounds, cv2.GC_INIT_WITH_MASK)
        except cv2.error:  # too few different pixels for its mixtures
            return None
        sure = (trimap == cv2.GC_FGD) | (trimap == cv2.GC_PR_FGD)
        return self._accepted(sure.astype(np.uint8), aim)

    def _accepted(self, rough: Bits, aim: _Aim) -> Bits | None:
        """The connected part that covers most of the core, and those clicked on; ``None`` if implausible."""
        import cv2

        rough = np.asarray(cv2.morphologyEx(rough & aim.allowed, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8)))
        rough = (rough | aim.pointed) & (1 - aim.outside)
        _, labels = cv2.connectedComponents(rough)
        wanted = np.unique(labels[aim.pointed & rough > 0])
        if not wanted.size:
            votes = np.bincount(labels[aim.core > 0].ravel())
            if votes.size < 2 or votes[1:].max() == 0:
                return None
            wanted = np.array([1 + int(votes[1:].argmax())])
        part = np.isin(labels, wanted).astype(np.uint8)
        outlines, _ = cv2.findContours(part, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(part, outlines, -1, 1, cv2.FILLED)
        if aim.outside.any():
            part = parted(aim.image, part, _seeds(aim, part), aim.outside)
        x1, y1, x2, y2 = aim.inner
        fill = int(part.sum()) / ((x2 - x1) * (y2 - y1))
        return part if fill >= self._config.min_fill else None


def _placed(image: ColorImage, prompt: Prompt) -> tuple[WholeBox, Bits | None]:
    """The prompt's box, or the one around what grows from its points; and what did grow, ``[H, W]``."""
    import cv2

    height, width = image.shape[:2]
    inside = [point for point in prompt.points if point.inside]
    outside = discs(image.shape, [point for point in prompt.points if not point.inside])
    seed = grown(image, inside, outside) if inside else None
    if prompt.box is not None:
        return whole(prompt.box, width, height), seed
    if seed is None:
        raise PerceptionError(f"nothing {_where(prompt)} stands out from what surrounds it")
    x, y, w, h = cv2.boundingRect(seed)
    return (x, y, x + w, y + h), seed


def _aimed(
    image: ColorImage, cut: tuple[slice, slice], inner: WholeBox, prompt: Prompt, seed: Bits | None
) -> _Aim:
    import cv2

    crop = np.ascontiguousarray(image[cut])
    pointed = discs(image.shape, [point for point in prompt.points if point.inside])[cut]
    outside = discs(image.shape, [point for point in prompt.points if not point.inside])[cut]
    x1, y1, x2, y2 = inner
    margin = _margin(inner)
    allowed = np.zeros(crop.shape[:2], np.uint8)
    allowed[max(0, y1 - margin) : y2 + margin, max(0, x1 - margin) : x2 + margin] = 1
    if prompt.box is None and seed is not None and len(prompt.points) > sum(p.inside for p in prompt.points):
        # what grew stopped short of the clicks beside it: of the same colour, the margin would go on
        allowed &= np.asarray(cv2.dilate(seed[cut], np.ones((5, 5), np.uint8)), dtype=np.uint8)
    outside &= 1 - pointed
    core = _core(crop, inner) if not pointed.any() else pointed if seed is None else seed[cut] & allowed
    return _Aim(crop, inner, core & (1 - outside), pointed & allowed, allowed, outside)


def _seeds(aim: _Aim, part: Bits) -> Bits:
    """Where a part to be divided surely is the object: at the clicks, else farthest from what it is not."""
    import cv2

    if aim.pointed.any():
        return aim.pointed & part
    away = np.asarray(cv2.distanceTransform(1 - aim.outside, cv2.DIST_L2, 3))
    seeds: Bits = ((away >= np.quantile(away[part > 0], 0.9)) & (part > 0)).astype(np.uint8)
    return seeds


def _score(aim: _Aim, found: Bits) -> float:
    """The intersection over union to be expected, if every pixel is the object's as likely as its colour is.

    Colours are learnt once more, from the mask and all that surrounds it: an object that differs little from
    what lies around it has a low score, however smooth its mask looks.
    """
    import cv2

    bins = color_bins(aim.image)
    others = 1 - np.asarray(cv2.dilate(found, np.ones((3, 3), np.uint8)), dtype=np.uint8)
    if not others.any():
        return 0.0
    likely = ColorModel.learn(bins, found, others).probability(bins)
    missed = float(likely[(found == 0) & (others > 0) & (aim.allowed > 0)].sum())
    size = float(found.sum())
    return float(likely[found > 0].sum()) / (size + missed)


def _core(image: NDArray[np.uint8], inner: WholeBox) -> Bits:
    """1 in the middle of the box."""
    x1, y1, x2, y2 = inner
    core = np.zeros(image.shape[:2], np.uint8)
    dx, dy = int((x2 - x1) * (1 - _CORE) / 2), int((y2 - y1) * (1 - _CORE) / 2)
    core[y1 + dy : max(y2 - dy, y1 + dy + 1), x1 + dx : max(x2 - dx, x1 + dx + 1)] = 1
    return core


def _margin(inner: WholeBox) -> int:
    x1, y1, x2, y2 = inner
    return _MARGIN_PX + round(_MARGIN * min(x2 - x1, y2 - y1))


def _where(prompt: Prompt) -> str:
    if prompt.box is not None:
        return f"in the box {shown_box(prompt.box)}"
    inside: list[Point] = [point for point in prompt.points if point.inside]
    return " and ".join(f"at {shown_point(point)}" for point in inside)
