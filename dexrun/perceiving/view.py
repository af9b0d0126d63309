"""One picture with what is known of its camera: from files, from a recording, or taken now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dexrun.config.settings import Settings
from dexrun.perceiving.errors import InputError
from dexrun.perceiving.files import read_color, read_depth
from dexrun.simulation.cameras import simulated_cameras
from runtime.geometry_options import base_from_camera
from runtime.messages import CameraInfo, ColorImage, DepthImage, Intrinsics
from runtime.recording.reader import Episode, RecordingError

_CLOSED = Intrinsics(0, 0, 0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True)
class PerceivedView:
    """A picture.

    Attributes:
        name: of what it was read from. color: RGB. depth: in units of ``info.depth_scale_m``.
        info: what is known of the camera; `lacking`: what is not, one line each, and how to say it.

    Raises:
        InputError: the depth, or what the camera is known to take, is of another size.
    """

    name: str
    color: ColorImage
    depth: DepthImage | None
    info: CameraInfo
    lacking: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        size, lens = self.color.shape[:2], self.info.intrinsics
        told = [] if self.depth is None else [("its depth", self.depth.shape)]
        told += [("its camera's lens", (lens.height, lens.width))] if self.measurable else []
        for what, (height, width) in told:
            if (height, width) != size:
                raise InputError(
                    f"{self.name}: the picture is {size[1]}x{size[0]}, and {what} {width}x{height}; "
                    "they must be of one size, pixel on pixel"
                )

    @property
    def measurable(self) -> bool:
        """Whether a point in space can be had of it."""
        return self.depth is not None and self.info.depth_scale_m is not None and self.info.intrinsics.fx > 0


def from_files(
    image: Path,
    depth: Path | None,
    scale_m: float | None,
    intrinsics: Sequence[float] | None,
    known: CameraInfo | None,
) -> PerceivedView:
    """A picture in a file, with its depth in another.

    Args:
        image: PNG or JPEG.
        depth: a PNG of 16 bits, or an array in ``.npy``: counts, or metres.
        scale_m: metres in one count.
        intrinsics: ``fx, fy, cx, cy``, perhaps with ``k1, k2, p1, p2, k3``.
        known: what the configuration says of the camera.

    Raises:
        InputError: a file cannot be used.
    """
    color = read_color(image)
    height, width = color.shape[:2]
    counts, own_scale = (None, None) if depth is None else read_depth(depth, (height, width))
    if own_scale is not None and scale_m is not None:
        raise InputError(f"--depth-scale is for counts; {depth} holds metres, in floating point")
    given = own_scale or scale_m or (known.depth_scale_m if known else None)
    if counts is not None and given is None:
        raise InputError(f"{depth}: counts of what? give --depth-scale, metres in one count (0.001 for mm)")
    name = "image" if known is None else known.name
    lens = _lens(intrinsics, known, width, height)
    pose = None if known is None else known.base_from_camera
    info = CameraInfo(name, lens, given if counts is not None else None, pose)
    return PerceivedView(
        image.name, color, counts, info, lacking_of(info, counts, "--depth", "--intrinsics fx,fy,cx,cy")
    )


def _lens(given: Sequence[float] | None, known: CameraInfo | None, width: int, height: int) -> Intrinsics:
    if given is not None:
        fx, fy, cx, cy = given[:4]
        k1, k2, p1, p2, k3 = given[4:] or (0.0,) * 5
        return Intrinsics(width, height, fx, fy, cx, cy, (k1, k2, p1, p2, k3))
    if known is None or known.intrinsics.fx <= 0:
        return replace(_CLOSED, width=width, height=height)
    lens = known.intrinsics
    if (lens.width, lens.height) != (width, height):
        raise InputError(
            f"the picture is {width}x{height}, and camera {known.name!r} of the configuration takes "
            f"{lens.width}x{lens.height}; give --intrinsics fx,fy,cx,cy of this one"
        )
    return lens


def lacking_of(info: CameraInfo, depth: DepthImage | None, depth_by: str, lens_by: str) -> tuple[str, ...]:
    """What keeps a picture from having points in space, or in the arm's frame; and what would mend it."""
    if depth is None:
        return (f"no depth: no point in space ({depth_by})",)
    if info.intrinsics.fx <= 0:
        return (f"the camera's intrinsics are not known: no point in space ({lens_by})",)
    if info.base_from_camera is None:
        return (
            f"camera {info.name!r} is not calibrated to the arm: nothing in its frame "
            "(--camera, and [cameras.<name>.extrinsics] of the configuration)",
        )
    return ()


def from_episode(path: Path, camera: str, at_s: float) -> PerceivedView:
    """What `camera` showed `at_s` seconds after an episode began; ``""``: the first with depth.

    Raises:
        InputError: there is no such recording, camera or time.
    """
    try:
        with Episode(_episode_file(path)) as episode:
            name = _camera_of(episode, camera)
            stamps = episode.times(f"/cameras/{name}/color")
            if not len(stamps):
                raise InputError(f"{path}: camera {name!r} has no picture in it")
            last_s = (int(stamps[-1]) - episode.start_ns) / 1e9
            if not 0 <= at_s <= last_s + 1.0:
                raise InputError(f"{path}: --at {at_s:g}: it shows something from 0 to {last_s:.2f} s")
            index = int(np.searchsorted(stamps, episode.start_ns + round(at_s * 1e9), side="right")) - 1
            index, info = max(0, index), episode.camera_info(name)
            depth = episode.depth(name, index) if name in episode.depth_cameras else None
            shown_s = (int(stamps[index]) - episode.start_ns) / 1e9
            title = f"{episode.path.name}, camera {name}, picture {index} at {shown_s:.2f} s"
            lacking = lacking_of(info, depth, "a camera with depth", "of the recording")
            return PerceivedView(title, episode.color(name, index), depth, info, lacking)
    except RecordingError as error:
        raise InputError(str(error)) from None


def _episode_file(path: Path) -> Path:
    if path.is_dir():
        found = sorted((path / "episodes").glob("*.mcap")) or sorted(path.glob("*.mcap"))
        if not found:
            raise InputError(f"{path}: no episodes in it; give a run's folder or an .mcap file")
        return found[0]
    return path


def _camera_of(episode: Episode, camera: str) -> str:
    there = episode.cameras
    if camera and camera not in there:
        raise InputError(f"{episode.path}: no camera {camera!r}; it has {', '.join(there) or 'none'}")
    if not there:
        raise InputError(f"{episode.path}: no pictures in it")
    return camera or (episode.depth_cameras or there)[0]


def configured_camera(settings: Settings, name: str) -> CameraInfo:
    """What the configuration says of camera `name` without opening it.

    Raises:
        InputError: there is no such camera.
    """
    if name not in settings.cameras:
        raise InputError(f"--camera {name}: [cameras] has {', '.join(settings.cameras) or 'none'}")
    if name in (simulated := simulated_cameras(settings)):
        return simulated[name]
    extrinsics = settings.cameras[name].extrinsics
    return CameraInfo(name, _CLOSED, None, None if extrinsics is None else base_from_camera(extrinsics))
