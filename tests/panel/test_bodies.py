"""The arm in three dimensions is the one that the run is configured for, where its joints say."""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np
import pytest

from dexrun.config.load import dump, load
from dexrun.panel.server.bodies import LookedAtModel, model_of
from drivers.arms import describe

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def arm(tmp_path_factory: pytest.TempPathFactory) -> LookedAtModel:
    file = tmp_path_factory.mktemp("run") / "config.json"
    file.write_text(dump(load(["--config", str(ROOT / "config.toml")])))
    return model_of(file)


def test_bodies_are_described_and_placed_in_one_order(arm: LookedAtModel) -> None:
    home = np.array(describe("so100").home)
    poses = arm.poses(home)
    assert poses is not None
    assert [each["name"] for each in arm.described] == list(arm.names)
    assert len(poses) == len(arm.names)
    turned = arm.poses(home + np.array([0.5, 0, 0, 0, 0, 0]))
    assert turned is not None
    moved = [name for name, before, after in zip(arm.names, poses, turned, strict=True) if before != after]
    assert moved == [name for name in arm.names if name != "base"]
    opened = arm.poses(home + np.array([0, 0, 0, 0, 0, 0.3]))
    assert opened is not None
    assert [n for n, a, b in zip(arm.names, poses, opened, strict=True) if a != b] == ["moving_jaw"]


def test_a_mesh_is_triangles_of_its_own_points(arm: LookedAtModel) -> None:
    geoms = [geom for body in arm.described for geom in body["geoms"]]
    mesh = next(geom for geom in geoms if geom["shape"] == "mesh")
    points = np.frombuffer(base64.b64decode(mesh["vertices"]), "<f4").reshape(-1, 3)
    faces = np.frombuffer(base64.b64decode(mesh["faces"]), "<u4").reshape(-1, 3)
    assert faces.max() == len(points) - 1
    assert np.ptp(points, axis=0).max() < 0.3  # metres
    assert len(mesh["position"]) == 3
    assert len(mesh["quaternion"]) == len(mesh["rgba"]) == 4


def test_what_is_unknown_has_no_pose(arm: LookedAtModel) -> None:
    assert arm.poses(np.array([0.0, np.nan, 0, 0, 0, 0])) is None
    assert arm.poses(np.zeros(4)) is None
