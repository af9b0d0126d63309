"""Where a camera is sideways: measured by the arm that it sees, which stands at a pose that is known.

A table tells a camera's tilt and height (`policies.nudged.level.levelled`); where it is along the table, and
which way it is turned about the vertical, only something can tell that has edges and a known place. The arm
is one: rays to its model say what depth the camera should read, and the move of the points that were read is
looked for that agrees best. Registration of a depth image to a model, as in Newcombe et al., "KinectFusion"
(ISMAR 2011), of three unknowns in place of six, and by search: what is off is no further than a nudge.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from loguru import logger
from numpy.typing import NDArray

from policies.nudged.view import DepthView
from policies.points import deproject
from runtime.arm_model import ArmModel
from runtime.geometry import project, rays
from runtime.inference import NotReadyError
from runtime.messages import ArmState, CameraInfo, Floats

_WORST_M = 0.015
"""A reading further off than this tells no more than that: it is something else, or beyond an edge."""
_FITS_M = 0.004
"""Readings that are further off on average are of no arm at that pose."""
_SURE_M, _SURE_RAD = 0.002, 0.006
"""What is found at first is itself off by so much: a camera that seems no further off is where it was
calibrated."""
_CONFIRMED = 0.6
"""So much of the arm must be where it is expected."""
_STRIDE = 3
"""Every so many pixels, of rows and columns, a ray is sent and a reading taken at first; then at each."""
_COARSE, _AROUND = 8, 2
"""The arm is looked for by every eighth pixel; so many such steps around it are looked at, too."""
_FEWEST = 150
"""Pixels that must show the arm, of those looked at at first."""
_AT_ONCE = 2000
"""Rays sent in one answer: some 50 ms of a slow core."""
_ROUGHLY, _CLOSELY = 200, 1500
"""Readings that are compared on the grid, and from there on."""
_STILL_RAD_S = 0.05
_SAME_RAD = 0.01
_NEWS_M = 0.003
_SEES_ALIKE = 0.015
"""Two cameras no more metres apart, nor turned by more radians, see the same of an arm."""
_REACH_M, _STEP_M = 0.02, 0.005
_TURNS = np.radians([-3.0, -1.5, 0.0, 1.5, 3.0])
_FINE = np.array([0.001, 0.001, np.radians(0.4)])
_ROUNDS = (3.0, 1.5, 1.0)
_STENCIL = np.stack(np.meshgrid(*3 * [[-1.0, 0.0, 1.0]], indexing="ij"), axis=-1).reshape(-1, 3)
_QUADRATIC = np.linalg.pinv(
    np.column_stack(
        [
            np.ones(len(_STENCIL)),
            _STENCIL,
            _STENCIL**2,
            _STENCIL[:, 0] * _STENCIL[:, 1],
            _STENCIL[:, 0] * _STENCIL[:, 2],
            _STENCIL[:, 1] * _STENCIL[:, 2],
        ]
    )
)


@dataclass(frozen=True, slots=True)
class Aside:
    """How far a camera is off along the table: ``move[3]`` is x and y in metres and the turn about the
    vertical through `about` ``[2]``, radians, that bring what it sees to where it is.
    """

    move: Floats
    about: Floats

    def camera(self, info: CameraInfo) -> CameraInfo:
        """`info` where the camera is."""
        pose = info.base_from_camera
        assert pose is not None  # noqa: S101 - it was measured with
        made = pose.copy()
        cos, sin = np.cos(self.move[2]), np.sin(self.move[2])
        made[:2, :3] = np.array([[cos, -sin], [sin, cos]]) @ pose[:2, :3]
        made[:3, 3] = moved(pose[None, :3, 3], self.move[None], self.about)[0, 0]
        return replace(info, base_from_camera=made)


def moved(points: Floats, moves: Floats, about: Floats) -> Floats:
    """``[M, N, 3]``: ``points[N, 3]`` after each of ``moves[M, 3]`` (see `Aside`)."""
    cos, sin = np.cos(moves[:, 2, None]), np.sin(moves[:, 2, None])
    x, y = (points[:, :2] - about).T
    out = np.empty((len(moves), len(points), 3))
    out[..., 0] = cos * x - sin * y + about[0] + moves[:, :1]
    out[..., 1] = sin * x + cos * y + about[1] + moves[:, 1:2]
    out[..., 2] = points[:, 2]
    return out


@dataclass(frozen=True, slots=True)
class _Expected:
    """What `camera` should read of the arm at `q`: ``depth[R, C]`` in metres along its axis, by rays of every
    `stride`-th pixel from `corner` (row, column) on; NaN where a ray meets nothing. ``own[R, C]`` is where
    that is the arm.
    """

    q: Floats
    camera: CameraInfo
    corner: tuple[int, int]
    stride: int
    depth: Floats
    own: NDArray[np.bool_]

    @property
    def box(self) -> tuple[slice, slice]:
        """The pixels that are looked at."""
        step, (row, column), (rows, columns) = self.stride, self.corner, self.depth.shape
        return slice(row, row + rows * step, step), slice(column, column + columns * step, step)

    def misfits(self, points: Floats) -> Floats:
        """``[M]``: how far readings at ``points[M, N, 3]`` of the base frame are off on average, metres."""
        column, row, seen = self._at(points.reshape(-1, 3))
        wide = self.depth.shape[1]
        left, above = column.astype(np.int64), row.astype(np.int64)
        right, below = column - left, row - above
        first, flat, off = above * wide + left, self.depth.ravel(), np.zeros(len(seen))
        for step, share in (
            (0, (1 - below) * (1 - right)),
            (1, (1 - below) * right),
            (wide, below * (1 - right)),
            (wide + 1, below * right),
        ):
            apart = np.abs(flat[first + step] - seen)
            off += share * np.where(apart < _WORST_M, apart, _WORST_M)  # NaN is no less
        return np.asarray(off.reshape(points.shape[:2]).mean(axis=1))

    def confirmed(self, points: Floats) -> float:
        """The share of the arm that readings at ``points[N, 3]``, one for each ray, show to be there."""
        column, row, seen = self._at(points)
        at = np.rint(row).astype(np.int64), np.rint(column).astype(np.int64)
        agree = np.abs(self.depth[at] - seen) < _WORST_M
        return float((agree & self.own[at]).sum() / max(1, self.own.sum()))

    def _at(self, points: Floats) -> tuple[Floats, Floats, Floats]:
        """Column, row (within `depth`) and depth at which the camera sees ``points[N, 3]``."""
        pose = self.camera.base_from_camera
        assert pose is not None  # noqa: S101 - it was seen to before
        seen = (points - pose[:3, 3]) @ pose[:3, :3]
        tall, wide = self.depth.shape
        column, row = ((project(seen, self.camera.intrinsics) - self.corner[::-1]) / self.stride).T
        return np.clip(column, 0, wide - 1.001), np.clip(row, 0, tall - 1.001), seen[:, 2]


@dataclass(frozen=True, slots=True)
class _Sending:
    """Rays that are being sent from `camera` to the arm at `q`, some at each step."""

    q: Floats
    camera: CameraInfo
    parts: Iterator[_Expected | None]


class ArmInSight:
    """Measures where a camera is by the arm at rest that it sees.

    Args:
        arm: its own model.
    """

    def __init__(self, arm: ArmModel) -> None:
        self._arm = arm
        self._expected: _Expected | None = None
        self._sending: _Sending | None = None
        self._aside: Aside | None = None
        self._told = np.zeros(3)

    def placed(self, view: DepthView, info: CameraInfo, state: ArmState) -> CameraInfo:
        """`info`, already levelled, where the camera is.

        As it was measured last, or as it is, where the arm moves, is not in the picture, or does not look
        like its model; as it is where no more is off than can be told.

        Args:
            view: a picture of now, thinned.
            info: its camera, calibrated to the arm.
            state: of the arm, now.

        Raises:
            NotReadyError: it is off, and is being measured; ask again.
            PolicyError: the camera has no depth scale or is not calibrated to the arm.
        """
        if np.abs(state.velocity).max() < _STILL_RAD_S and np.isfinite(state.position).all():
            self._measure(view, info, np.asarray(state.position, np.float64))
        return info if self._aside is None else self._aside.camera(info)

    def _measure(self, view: DepthView, info: CameraInfo, q: Floats) -> None:
        expected = self._known(info, q)
        if expected is None:
            return
        taken = np.zeros(view.depth.shape, bool)
        taken[expected.box] = True
        points = deproject(view.depth, taken & (view.mask == 0), info)
        if len(points) < _FEWEST:
            return
        found = _search(expected, points)
        if found is None:
            return
        if np.linalg.norm(found.move[:2]) < _SURE_M and abs(found.move[2]) < _SURE_RAD:
            self._aside = None
            return
        self._aside = found
        if expected.stride > 1:
            camera = found.camera(info)
            self._sending = _Sending(q, camera, self._sent(camera, q, expected))
            self._known(info, q)
        self._tell(info.name, found.move)

    def _known(self, info: CameraInfo, q: Floats) -> _Expected | None:
        """What the camera should see of the arm at `q`; ``None`` if that is not in the picture."""
        camera = info if self._aside is None else self._aside.camera(info)
        sending, self._sending = self._sending, None
        if sending is not None and _same(sending.q, q) and not _apart(sending.camera, camera):
            if (sent := next(sending.parts)) is None:
                self._sending = sending
                raise NotReadyError(f"where camera {info.name} stands is being measured by the arm it sees")
            self._expected = sent
            return sent
        expected = self._expected
        if expected is not None and _same(expected.q, q):
            seen_by = expected.camera
            if not (_apart(seen_by, info) and _apart(seen_by, camera)):
                return expected
        self._expected = self._look_for(info, q)
        return self._expected

    def _look_for(self, info: CameraInfo, q: Floats) -> _Expected | None:
        """By few rays."""
        pose, inner = info.base_from_camera, info.intrinsics
        if pose is None:
            return None
        every = np.mgrid[0 : inner.height : _COARSE, 0 : inner.width : _COARSE]
        own = self._met(q, info, every)[1]
        if own.sum() * (_COARSE / _STRIDE) ** 2 < _FEWEST:
            return None
        top, left = (max(0, int(each[own].min()) - _AROUND * _COARSE) for each in every)
        bottom, right = (int(each[own].max()) + _AROUND * _COARSE for each in every)
        rows, columns = min(inner.height, bottom), min(inner.width, right)
        met = self._met(q, info, np.mgrid[top:rows:_STRIDE, left:columns:_STRIDE])
        return _Expected(q.copy(), info, (top, left), _STRIDE, *met)

    def _sent(self, camera: CameraInfo, q: Floats, rough: _Expected) -> Iterator[_Expected | None]:
        """By a ray through every pixel of the arm's part of the picture, some at each step; ``None`` until
        all are there.
        """
        rows, columns = (slice(each.start, each.stop) for each in rough.box)
        pixels = np.mgrid[rows, columns]
        pixels = pixels[:, pixels[0][:, 0] < camera.intrinsics.height][
            :, :, pixels[1][0] < camera.intrinsics.width
        ]
        parts = np.array_split(pixels, -(-pixels[0].size // _AT_ONCE), axis=1)
        met: list[tuple[Floats, NDArray[np.bool_]]] = []
        for part in parts:
            if met:
                yield None
            met.append(self._met(q, camera, part))
        depth, own = (np.concatenate(each) for each in zip(*met, strict=True))
        yield _Expected(q.copy(), camera, rough.corner, 1, depth, own)

    def _met(self, q: Floats, camera: CameraInfo, pixels: NDArray[Any]) -> tuple[Floats, NDArray[np.bool_]]:
        """Depth along the axis that ``pixels[2, R, C]`` should have, and whether it is the arm's."""
        pose, (rows, columns) = camera.base_from_camera, pixels
        assert pose is not None  # noqa: S101 - it was seen to before
        sides = rays(camera.intrinsics, np.stack([columns.ravel(), rows.ravel()], axis=1))
        towards = np.column_stack([sides, np.ones(len(sides))]) @ pose[:3, :3].T
        depth, own = self._arm.met(q, pose[:3, 3], towards)
        return depth.reshape(rows.shape), own.reshape(rows.shape)

    def _tell(self, camera: str, move: Floats) -> None:
        if np.linalg.norm(move[:2] - self._told[:2]) < _NEWS_M:
            return
        self._told = move
        logger.info(
            "camera {}: by the arm that it sees it stands {:.0f} mm and {:.1f} degrees off its calibration "
            "(cameras.{}.extrinsics); it is measured with as it stands",
            camera,
            1000 * float(np.linalg.norm(move[:2])),
            abs(float(np.degrees(move[2]))),
            camera,
        )


def _same(one: Floats, two: Floats) -> bool:
    return bool(np.abs(one - two).max() < _SAME_RAD)


def _apart(one: CameraInfo, two: CameraInfo) -> bool:
    """Whether what `one` should see is no longer what `two` should see."""
    here, there = one.base_from_camera, two.base_from_camera
    if one.intrinsics != two.intrinsics or here is None or there is None:
        return True
    return bool(np.abs(here - there).max() > _SEES_ALIKE)


def _search(expected: _Expected, points: Floats) -> Aside | None:
    """The move after which `points` agree best with what is expected; ``None`` if they do not agree then."""
    about = points[:, :2].mean(axis=0)
    few, many = (points[:: max(1, len(points) // count)] for count in (_ROUGHLY, _CLOSELY))
    along = np.arange(-_REACH_M, _REACH_M + 1e-9, _STEP_M)
    moves = np.stack(np.meshgrid(along, along, _TURNS, indexing="ij"), axis=-1).reshape(-1, 3)
    best = moves[int(expected.misfits(moved(few, moves, about)).argmin())]
    for width in _ROUNDS:
        around = best + width * _FINE * _STENCIL
        best = best + width * _FINE * _downhill(expected.misfits(moved(many, around, about)))
    if np.abs(best[:2]).max() > _REACH_M or abs(best[2]) > _TURNS[-1]:
        return None
    there = moved(points, best[None], about)
    fits = expected.misfits(there)[0] < _FITS_M and expected.confirmed(there[0]) > _CONFIRMED
    return Aside(best, about) if fits else None


def _downhill(values: Floats) -> Floats:
    """``[3]`` steps of the stencil to the least of the quadratic through `values`; where that has none
    nearby, to the least of them.
    """
    fitted = _QUADRATIC @ values
    slope, (xx, yy, tt), (xy, xt, yt) = fitted[1:4], fitted[4:7], fitted[7:10]
    bend = np.array([[2 * xx, xy, xt], [xy, 2 * yy, yt], [xt, yt, 2 * tt]])
    if np.linalg.eigvalsh(bend)[0] > 0 and np.abs(step := -np.linalg.solve(bend, slope)).max() <= 1.5:
        return np.asarray(step)
    return np.asarray(_STENCIL[int(values.argmin())])
