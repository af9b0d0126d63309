"""Pictures agree with the geometry: depth, calibration, colours, holes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from drivers.arms.so100 import mesh_folder
from drivers.world.config import HeadCameraOptions, RenderOptions, WorldConfig
from drivers.world.meshes import read_triangles, simplify
from drivers.world.physics import Tabletop
from drivers.world.render import DepthSensor, Renderer, base_from_camera, pinhole, prepare_environment
from drivers.world.scene import object_body
from drivers.world.snapshot import save
from tests.world.rig import ROBOT, one_object, present, small, tabletop

prepare_environment(RenderOptions())


class Eye:
    def __init__(self, config: WorldConfig) -> None:
        self.config = config
        self.table: Tabletop = tabletop(config)
        self.renderer = Renderer(self.table.model, config)

    def look(self) -> tuple[np.ndarray, np.ndarray]:
        head = self.config.head
        color = np.empty((head.height, head.width, 3), np.uint8)
        depth = np.empty((head.height, head.width), np.uint16)
        self.renderer.head(self.table.data, color, depth)
        return color, depth

    def points(self, depth: np.ndarray) -> np.ndarray:
        """Base-frame points ``[H, W, 3]``."""
        head = self.config.head
        k = pinhole(head.width, head.height, head.fovy_deg)
        v, u = np.mgrid[0 : head.height, 0 : head.width]
        z = depth * head.depth_scale_m
        camera = np.stack([(u - k.cx) / k.fx * z, (v - k.cy) / k.fy * z, z], axis=-1)
        pose = base_from_camera(self.table.data, "head")
        return camera @ pose[:3, :3].T + pose[:3, 3]


@pytest.fixture
def eyes() -> Iterator[list[Eye]]:
    opened: list[Eye] = []
    yield opened
    for eye in opened:
        eye.renderer.close()


def test_depth_deprojects_onto_the_table_and_the_object(eyes: list[Eye]) -> None:
    config = one_object(size_m=(0.03, 0.03, 0.03), x_m=0.22, y_m=0.01)
    eyes.append(Eye(config.model_copy(update={"head": HeadCameraOptions(width=320, height=240)})))
    color, depth = eyes[0].look()
    points = eyes[0].points(depth)
    seen = depth > 0
    flat = seen & (points[..., 0] > 0.3)
    assert flat.sum() > 5000
    assert abs(np.median(points[flat][:, 2])) < 5e-4
    assert np.std(points[flat][:, 2]) < 1e-3
    red = seen & (color[..., 0] > 150) & (color[..., 1] < 60) & (points[..., 2] > 0.028)
    top = np.median(points[red], axis=0)
    assert top[2] == pytest.approx(0.03, abs=1e-3)
    assert top[:2] == pytest.approx([0.22, 0.01], abs=2e-3)


def test_every_object_is_in_sight_from_the_start(eyes: list[Eye]) -> None:
    for seed in range(6):
        eyes.append(Eye(WorldConfig(seed=seed)))
        eye = eyes[-1]
        _, depth = eye.look()
        points = eye.points(depth)
        for spec in present(eye.config):
            near = np.hypot(points[..., 0] - spec.x_m, points[..., 1] - spec.y_m) < spec.size_m[0] / 2
            on_top = near & (np.abs(points[..., 2] - spec.size_m[2]) < 0.003)
            assert on_top.sum() > 150, (seed, spec.name)


def test_the_same_scene_gives_the_same_pictures(eyes: list[Eye]) -> None:
    eyes += [Eye(small(seed=4)), Eye(small(seed=4))]
    for _ in range(3):
        first, second = eyes[0].look(), eyes[1].look()
        assert np.array_equal(first[0], second[0])
        assert np.array_equal(first[1], second[1])
    assert not np.array_equal(eyes[0].look()[1], first[1]), "noise differs from frame to frame"
    assert np.array_equal(
        eyes[0].renderer.wrist(eyes[0].table.data), eyes[1].renderer.wrist(eyes[1].table.data)
    )


def test_no_pixel_tells_that_what_stands_is_drawn_once_and_what_is_outside_not_at_all(
    eyes: list[Eye],
) -> None:
    eyes += [Eye(small(seed=4)), Eye(small(seed=4))]
    whole = eyes[1]
    whole.renderer._layers = False
    for view in whole.renderer._views.values():
        view._endless[:] = True
    random = np.random.default_rng(0)
    for _ in range(4):
        q = random.uniform(*ROBOT.layout.ranges.T)
        looks = []
        for eye in eyes:
            eye.table.stand(q)
            looks.append((*eye.look(), eye.renderer.wrist(eye.table.data)))
        for one, other in zip(*looks, strict=True):
            assert np.array_equal(one, other)


def test_shadows_and_multisampling_can_be_switched_on(eyes: list[Eye]) -> None:
    plain = small(seed=2)
    eyes += [Eye(plain), Eye(plain.model_copy(update={"render": RenderOptions(shadows=True, samples=4)}))]
    assert not np.array_equal(eyes[0].look()[0], eyes[1].look()[0])


def test_depth_sensor_scales_and_leaves_holes() -> None:
    options = HeadCameraOptions(width=64, height=48, depth_noise_m=0.0, depth_scale_m=0.001, max_depth_m=2.0)
    sensor = DepthSensor(options, 0.1, 10.0, seed=0)
    metres = np.full((48, 64), 0.5)
    metres[:, 40:] = 0.9  # an edge
    metres[40:] = 3.0  # too far
    buffer = ((10.0 - 0.1 * 10.0 / metres) / 9.9).astype(np.float32)
    out = np.empty((48, 64), np.uint16)
    sensor.read(buffer, out)
    assert (out[:40, :40] == 500).all()
    assert (out[:40, 40] == 0).all()
    assert (out[:40, 41:] == 900).all()
    assert (out[40:] == 0).all()


@given(arrays(np.float32, (12, 3, 3), elements=st.floats(-0.125, 0.125, width=32)), st.floats(0.001, 0.01))
@settings(deadline=None)
def test_simplified_meshes_stay_close(triangles: np.ndarray, cell_m: float) -> None:
    vertices, faces = simplify(triangles, cell_m)
    assert len(vertices) <= 36
    assert faces.shape[1] == 3
    assert len(faces) <= len(triangles)
    for point in triangles.reshape(-1, 3):
        assert np.abs(vertices - point).max(axis=1).min() <= cell_m


def test_a_real_mesh_gets_lighter() -> None:
    triangles = read_triangles(mesh_folder() / "Base.stl")
    _, faces = simplify(triangles, 0.0025)
    assert len(faces) < len(triangles) / 2


def test_what_is_no_stl_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.stl"
    path.write_bytes(b"solid nothing")
    with pytest.raises(ValueError, match="no binary STL"):
        read_triangles(path)


def test_snapshot_writes_a_picture(tmp_path: Path) -> None:
    path = tmp_path / "table.png"
    save(path, small(), ROBOT)
    assert path.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(OSError, match="cannot write"):
        save(tmp_path / "nowhere" / "table.png", small(), ROBOT)


def test_the_truth_says_whose_each_pixel_is(eyes: list[Eye]) -> None:
    """Where the truth sees the object, the picture does: its colour, and nowhere else."""
    config = one_object(size_m=(0.03, 0.03, 0.03), color="red", x_m=0.22, y_m=0.01)
    eyes.append(Eye(config.model_copy(update={"head": HeadCameraOptions(width=320, height=240)})))
    eye = eyes[0]
    before, _ = eye.look()
    owners = eye.renderer.owners(eye.table.data, eye.renderer.view("head", 320, 240))
    ours = owners == eye.table.model.geom(object_body(0)).id
    red = before.astype(int)
    reddish = (red[..., 0] - red[..., 1] > 60) & (red[..., 0] - red[..., 2] > 60)
    assert 100 < ours.sum() < 2000
    assert (ours & reddish).sum() > 0.95 * (ours | reddish).sum()
    after, _ = eye.look()
    assert np.array_equal(before, after)  # looking at the truth leaves no trace
