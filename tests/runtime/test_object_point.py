"""Where a masked object is in space, on made-up depth: a table, a box on it, holes, noise and leaks."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.geometry import look_at, rays
from runtime.messages import CameraInfo, DepthImage, Floats, Intrinsics, Mask
from runtime.object_point import (
    DepthNoise,
    ObjectPoint,
    base_points,
    inner_mask,
    main_part,
    object_point,
)

LENS = Intrinsics(160, 120, 150.0, 150.0, 79.5, 59.5)
SCALE_M = 0.0001
TABLE_M = 0.01
SIDES_M = np.array([0.04, 0.03, 0.05])
"""Of the box: x, y, height."""


def above(x: float, y: float) -> CameraInfo:
    """A camera half a metre over the table, in front of the arm, looking at the middle of it."""
    return CameraInfo("head", LENS, SCALE_M, look_at((x, y, 0.55), (0.22, 0.0, 0.0), up=(1.0, 0.0, 0.0)))


@dataclass(frozen=True)
class Scene:
    info: CameraInfo
    depth: DepthImage
    mask: Mask


def seen(info: CameraInfo, place: tuple[float, float]) -> Scene:
    """Every pixel's nearest surface: the table's plane, or the box that stands on it at `place`."""
    pose = info.base_from_camera
    assert pose is not None
    grid = np.stack(np.meshgrid(np.arange(LENS.width), np.arange(LENS.height)), -1).reshape(-1, 2)
    sight = np.column_stack([rays(LENS, grid), np.ones(len(grid))]) @ pose[:3, :3].T
    low = np.array([place[0] - SIDES_M[0] / 2, place[1] - SIDES_M[1] / 2, TABLE_M])
    high = low + SIDES_M
    with np.errstate(divide="ignore"):
        one, other = (low - pose[:3, 3]) / sight, (high - pose[:3, 3]) / sight
    enter, leave = np.minimum(one, other).max(axis=1), np.maximum(one, other).min(axis=1)
    hit = (enter < leave) & (enter > 0)
    table = (TABLE_M - pose[2, 3]) / sight[:, 2]
    distance = np.where(hit, enter, table).reshape(LENS.height, LENS.width)
    return Scene(
        info,
        np.rint(distance / SCALE_M).astype(np.uint16),
        hit.reshape(distance.shape).astype(np.uint8),
    )


def found(scene: Scene) -> ObjectPoint:
    point = object_point(scene.depth, scene.mask, scene.info)
    assert point is not None
    return point


def base(point: ObjectPoint) -> Floats:
    assert point.base_m is not None
    return point.base_m


PLACES = st.tuples(st.floats(0.16, 0.28), st.floats(-0.08, 0.08))
CAMERAS = st.builds(above, st.floats(0.05, 0.35), st.floats(-0.1, 0.1))


@settings(deadline=None, max_examples=20)
@given(CAMERAS, PLACES)
def test_the_point_is_on_the_box_and_its_top_is_its_height(info: CameraInfo, place: tuple[float, float]):
    point = found(seen(info, place))
    half = SIDES_M[:2] / 2 + 0.002
    assert (np.abs(base(point)[:2] - place) <= half).all()
    assert TABLE_M - 0.001 <= base(point)[2] <= TABLE_M + SIDES_M[2] + 0.001
    assert point.grasp_height_m(TABLE_M) == pytest.approx(SIDES_M[2], abs=0.001)
    assert (np.abs(point.center_m[:2] - place) <= SIDES_M[:2] / 2).all()
    assert point.nearest_m[2] == pytest.approx(TABLE_M + SIDES_M[2], abs=0.003)


@settings(deadline=None, max_examples=20)
@given(PLACES, st.integers(0, 2**16), st.floats(0.0, 0.4), st.floats(0.0, 0.15))
def test_holes_leaks_and_flying_pixels_hardly_move_it(
    place: tuple[float, float], seed: int, holes: float, wild: float
):
    """A share of the pixels has no reading, another any reading, and the mask leaks two pixels (5 mm)."""
    scene = seen(above(0.22, 0.0), place)
    known = found(scene)
    dice = np.random.default_rng(seed)
    depth = scene.depth.copy()
    depth[dice.random(depth.shape) < wild] = dice.integers(1, 65535)
    depth[dice.random(depth.shape) < holes] = 0
    leaky = scene.mask | np.roll(scene.mask, 2, axis=1)
    moved = found(replace(scene, depth=depth, mask=leaky))
    assert np.linalg.norm(base(moved) - base(known)) < 0.012  # of 2,500 draws the farthest came to 0.0088
    assert moved.pixels == leaky.sum()
    assert moved.readings < leaky.sum()


def test_its_uncertainty_is_what_repeated_readings_show():
    """Of 60 pictures with independent noise: the spread of the answers is within what each says of itself."""
    scene, dice = seen(above(0.22, 0.0), (0.22, 0.0)), np.random.default_rng(0)
    noise, answers = DepthNoise(0.0, 0.0), []
    said = np.zeros(3)
    for _ in range(60):
        off = dice.normal(0.0, 0.004 / SCALE_M, scene.depth.shape)
        noisy = np.rint(scene.depth + off).astype(np.uint16)
        point = object_point(noisy, scene.mask, scene.info, noise)
        assert point is not None
        answers.append(point.camera_m)
        said = point.camera_sigma_m
    spread = np.std(answers, axis=0)
    assert (spread <= said).all()
    assert spread[2] >= said[2] / 10


def test_what_all_readings_share_is_not_averaged_out():
    """Along the line of sight, and in the base frame turned with it: straight down it is the height's."""
    scene = seen(above(0.22, 0.0), (0.22, 0.0))
    few, many = DepthNoise(0.0, 0.0), DepthNoise(0.02, 0.0)
    one, other = (object_point(scene.depth, scene.mask, scene.info, noise) for noise in (few, many))
    assert one is not None
    assert other is not None
    assert one.base_sigma_m is not None
    assert other.base_sigma_m is not None
    assert other.base_sigma_m[2] == pytest.approx(np.hypot(one.base_sigma_m[2], 0.02), rel=1e-3)
    assert other.base_sigma_m[0] == pytest.approx(one.base_sigma_m[0], abs=0.002)
    assert DepthNoise().at(0.6) == pytest.approx(0.0019)
    fewer = scene.mask.copy()
    fewer[::2] = 0
    thin = object_point(scene.depth, fewer, scene.info, few)
    assert thin is not None
    assert (thin.camera_sigma_m > one.camera_sigma_m)[:2].all()


def test_without_a_pose_it_is_in_the_cameras_frame_alone():
    scene = seen(above(0.22, 0.0), (0.22, 0.0))
    point = found(replace(scene, info=replace(scene.info, base_from_camera=None)))
    assert (point.base_m, point.base_sigma_m, point.top_m, point.grasp_height_m(0.0)) == (None,) * 4
    np.testing.assert_array_equal(point.camera_m, found(scene).camera_m)
    assert point.nearest_m[2] == pytest.approx(0.55 - TABLE_M - SIDES_M[2], abs=0.001)


def test_exactly_where_a_flat_object_is():
    pose = np.eye(4)
    pose[:3, 3] = [0.1, 0.2, 0.3]
    info = CameraInfo("head", Intrinsics(8, 6, 10.0, 10.0, 4.0, 3.0), 0.001, pose)
    mask = np.zeros((6, 8), np.uint8)
    mask[2:5, 3:6] = 1
    depth = np.full((6, 8), 900, np.uint16)
    depth[2:5, 3:6] = 500
    point = object_point(depth, mask, info)
    assert point is not None
    np.testing.assert_allclose(base(point), [0.1, 0.2, 0.8], atol=1e-9)
    assert (point.readings, point.pixels) == (9, 9)
    assert object_point(depth * 0, mask, info) is None
    assert object_point(depth, mask * 0, info) is None
    with pytest.raises(ValueError, match="'head' has no depth scale"):
        object_point(depth, mask, CameraInfo("head", info.intrinsics))
    with pytest.raises(ValueError, match=r"depth \[6, 8\], mask \[3, 8\]; the images of camera 'head' are"):
        object_point(depth, mask[:3], info)
    with pytest.raises(ValueError, match="no pose relative to the arm"):
        base_points(depth, mask > 0, CameraInfo("head", info.intrinsics, 0.001))


def test_the_lens_that_a_d400_has_is_taken_out_too():
    """Points of a distorted picture are where the straight one has them, whichever model the lens has."""
    bent = (0.08, -0.05, 0.002, -0.001, 0.01)
    mask, depth = np.zeros((120, 160), np.uint8), np.full((120, 160), 5000, np.uint16)
    mask[5:20, 130:150] = 1
    pose = np.eye(4)
    made = {
        model: base_points(
            depth,
            mask > 0,
            CameraInfo("head", replace(LENS, coefficients=bent, model=model), SCALE_M, pose),
        )
        for model in ("brown_conrady", "inverse_brown_conrady")
    }
    assert 1e-5 < np.abs(made["brown_conrady"] - made["inverse_brown_conrady"]).max() < 1e-3


def test_a_box_stands_for_the_object_by_its_inner_half():
    mask = inner_mask((10, 20, 30, 40), 120, 160)
    rows, columns = np.nonzero(mask)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (25, 34, 15, 24)
    assert mask.sum() == 100
    scene = seen(above(0.22, 0.0), (0.2, 0.02))
    rows, columns = np.nonzero(scene.mask)
    box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    by_box = object_point(scene.depth, inner_mask(box, *scene.mask.shape), scene.info)
    assert by_box is not None
    assert np.linalg.norm(base(by_box) - base(found(scene))) < 0.006
    assert not inner_mask((-40, -40, -20, -20), 120, 160).any()


def test_the_main_part_is_what_lies_together():
    points = np.zeros((20, 3))
    points[:, 0] = np.linspace(0, 0.02, 20)
    points[-1] = [0.5, 0, 0]
    assert len(main_part(points)) == 19
    points[-1] = [0.01, 0, 0.5]
    assert (len(main_part(points)), len(main_part(points, axes=3))) == (20, 19)
