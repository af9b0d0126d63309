"""A depth picture, its mask and the camera, in a size that is quick to look at."""

from __future__ import annotations

from dataclasses import dataclass, replace

from runtime.messages import CameraInfo, DepthImage, Mask


@dataclass(frozen=True, slots=True)
class DepthView:
    """Depth in the camera's units, the mask, and the camera that both are of."""

    depth: DepthImage
    mask: Mask
    info: CameraInfo


def thinned(view: DepthView, most: int) -> DepthView:
    """Every second (third...) pixel of pictures that are wider than `most`; the camera's numbers follow."""
    step = -(-view.depth.shape[1] // most)
    if step <= 1:
        return view
    depth, mask = view.depth[::step, ::step], view.mask[::step, ::step]
    inner = view.info.intrinsics
    intrinsics = replace(
        inner,
        width=depth.shape[1],
        height=depth.shape[0],
        fx=inner.fx / step,
        fy=inner.fy / step,
        cx=inner.cx / step,
        cy=inner.cy / step,
    )
    return DepthView(depth, mask, replace(view.info, intrinsics=intrinsics))
