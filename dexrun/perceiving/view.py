"""One picture with what is known of its camera: from files, from a recording, or taken now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from dexrun.config.settings import Settings
from dexrun.perceiving.errors import InputError
from dexrun.simulation.cameras import simulated_cameras
from runtime.geometry_options import base_from_camera
from runtime.messages import CameraInfo, ColorImage, DepthImage, Intrinsics
from runtime.recording.reader import Episode, RecordingError

METRES_AS = 0.0001
"""What metres in floating point are counted in."""
_MOST_BYTES = 1 << 28
_CLOSED = Intrinsics(0, 0, 0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True)
class PerceivedView:
    """A picture.

    Attributes:
        name: of what it was read from. color: RGB. depth: in units of ``info.depth_scale_m``.
        info: what is known of the camera; `lacking`: what is not, one line each, and how to say it.
    """

    name: str
    color: ColorImage
    depth: DepthImage | None
    info: CameraInfo
    lacking: tuple[str, ...] = ()

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
        image: PNG, JPEG or what else OpenCV reads.
        depth: a PNG of 16 bits, or an array in ``.npy``: counts, or metres.
        scale_m: metres in one count.
        intrinsics: ``fx, fy, cx, cy``, perhaps with ``k1, k2, p1, p2, k3``.
        known: what the configuration says of the camera.

    Raises:
        InputError: a file cannot be used.
    """
    color = _color(image)
    height, width = color.shape[:2]
    counts, own_scale = (None, None) if depth is None else _depth(depth, (height, width))
    given = own_scale or scale_m or (known.depth_scale_m if known else None)
    if counts is not None and given is None:
        raise InputError(f"{depth}: counts of what? give --depth-scale, metres in one count (0.001 for mm)")
    name = "image" if known is None else known.name
    lens = _lens(intrinsics, known, width, height)
    pose = None if known is None else known.base_from_camera
    info = CameraInfo(name, lens, given if counts is not None else None, pose)
    return PerceivedView(image.name, color, counts, info, _lacking(info, counts, "--depth", "--intrinsics"))


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


def _lacking(info: CameraInfo, depth: DepthImage | None, *flags: str) -> tuple[str, ...]:
    out = []
    if depth is None:
        out.append(f"no depth: no point in space ({flags[0]})")
    elif info.intrinsics.fx <= 0:
        out.append(f"the camera's intrinsics are not known: no point in space ({flags[1]} fx,fy,cx,cy)")
    elif info.base_from_camera is None:
        out.append(
            f"camera {info.name!r} is not calibrated to the arm: nothing in its frame "
            "(--camera, and [cameras.<name>.extrinsics] of the configuration)"
        )
    return tuple(out)


def _color(path: Path) -> ColorImage:
    import cv2

    image = cv2.imdecode(np.frombuffer(_bytes(path), np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise InputError(f"{path}: no picture that can be read; a PNG or JPEG file is")
    return np.ascontiguousarray(image[..., ::-1], np.uint8)


def _bytes(path: Path) -> bytes:
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise InputError(f"{path}: {path.stat().st_size >> 20} MiB; a picture has at most 256")
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None
    if not data:
        raise InputError(f"{path}: the file is empty")
    return data


def _depth(path: Path, size: tuple[int, int]) -> tuple[DepthImage, float | None]:
    """Counts, and what one is in metres where the file says so by holding metres."""
    found: Any = _array(path) if path.suffix == ".npy" else _png(path)
    if found.ndim == 3 and found.shape[2] == 1:
        found = found[..., 0]
    if found.shape != size:
        given = "x".join(map(str, found.shape[1::-1] + found.shape[2:]))
        raise InputError(f"{path}: {given}; depth must be as large as the picture, {size[1]}x{size[0]}")
    if found.dtype == np.uint16:
        return found, None
    if found.dtype.kind == "f":
        return _counted(path, found), METRES_AS
    raise InputError(
        f"{path}: {found.dtype} is no depth; accepted are uint16 counts, or metres in floating point (.npy)"
    )


def _counted(path: Path, metres: Any) -> DepthImage:
    known = np.nan_to_num(metres, nan=0.0, posinf=0.0, neginf=0.0)
    if known.min() < 0 or not 0 < known.max() < 65535 * METRES_AS:
        raise InputError(
            f"{path}: {known.min():g} to {known.max():g}; metres are between 0 (no reading) and 6.5"
        )
    return np.asarray(np.rint(known / METRES_AS), np.uint16)


def _array(path: Path) -> Any:
    import io

    try:
        return np.load(io.BytesIO(_bytes(path)), allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise InputError(f"{path}: no array that can be read: {error}") from None


def _png(path: Path) -> Any:
    import cv2

    image = cv2.imdecode(np.frombuffer(_bytes(path), np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise InputError(f"{path}: no depth that can be read; a PNG of 16 bits, or .npy is")
    if image.dtype != np.uint16 or image.ndim != 2:
        bits = f"{image.dtype}, {1 if image.ndim == 2 else image.shape[2]} channels"
        raise InputError(
            f"{path}: {bits}; depth is one channel of 16 bits (colour that paints depth is none)"
        )
    return image


def from_episode(path: Path, camera: str, at_s: float) -> PerceivedView:
    """What `camera` showed `at_s` seconds after an episode began; ``""``: the first with depth.

    Raises:
        InputError: there is no such recording, camera or time.
    """
    try:
        with Episode(_episode_file(path)) as episode:
            name = _camera_of(episode, camera)
            stamps = episode.times(f"/cameras/{name}/color")
            index = int(np.searchsorted(stamps, episode.start_ns + round(at_s * 1e9), side="right")) - 1
            last_s = (int(stamps[-1]) - episode.start_ns) / 1e9
            if at_s < 0 or at_s > last_s + 1.0:
                raise InputError(f"{path}: --at {at_s:g}: it shows something from 0 to {last_s:.2f} s")
            index, info = max(0, index), episode.camera_info(name)
            depth = episode.depth(name, index) if name in episode.depth_cameras else None
            shown_s = (int(stamps[index]) - episode.start_ns) / 1e9
            title = f"{episode.path.name}, camera {name}, picture {index} at {shown_s:.2f} s"
            lacking = _lacking(info, depth, "a camera with depth", "")
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
