"""What the table looks like changes with ``[world.look]`` alone, and nothing else changes with it."""

from __future__ import annotations

import numpy as np
import pytest

from drivers.arms import describe
from drivers.world.config import LookOptions, WorldConfig
from drivers.world.layout import COLORS, draw_objects
from drivers.world.look import TABLE_RGB, look_of
from drivers.world.physics import Tabletop
from drivers.world.render import base_from_camera
from drivers.world.scene import build_scene, calibrated_pose

VARIED = LookOptions(vary=1.0)


def config(seed: int, look: LookOptions = VARIED) -> WorldConfig:
    return WorldConfig(seed=seed, look=look)


def test_without_the_table_everything_looks_as_ever() -> None:
    look = look_of(WorldConfig(seed=9))
    assert (look.table, look.light, look.patches, look.moved) == (TABLE_RGB, 1.0, (), False)
    assert look.colors == COLORS


def test_looks_are_of_the_seed_and_within_their_bounds() -> None:
    looks = [look_of(config(seed)) for seed in range(60)]
    assert len({look.table for look in looks}) == 60
    shifts = np.array([np.linalg.norm(look.shift_m["head"]) for look in looks])
    turns = np.array([np.linalg.norm(look.turn_rad["head"]) for look in looks])
    assert shifts.max() <= 0.01 + 1e-9
    assert shifts.max() > 0.006
    assert np.degrees(turns.max()) <= 2.01
    assert {len(look.patches) for look in looks} == {0, 1, 2, 3, 4, 5}
    again = look_of(config(7))
    assert again.table == looks[7].table
    assert np.array_equal(again.shift_m["head"], looks[7].shift_m["head"])


def test_objects_lie_where_they_would_and_are_a_little_larger_or_smaller() -> None:
    usual, varied = draw_objects(WorldConfig(seed=5)), draw_objects(config(5))
    assert [(o.name, o.x_m, o.y_m, o.yaw_rad) for o in usual] == [
        (o.name, o.x_m, o.y_m, o.yaw_rad) for o in varied
    ]
    ratios = [b.size_m[0] / a.size_m[0] for a, b in zip(usual[:-1], varied[:-1], strict=True)]
    assert 0.915 < min(ratios) < max(ratios) < 1.085
    assert len(set(ratios)) > 1


def test_a_moved_camera_is_not_where_its_calibration_has_it() -> None:
    moved = LookOptions(camera_shift_m=(0.01, 0.0, 0.0), camera_turn_rad=(0.0, 0.0, 0.0))
    placed = WorldConfig(look=moved)
    table = Tabletop(placed, draw_objects(placed), describe())
    true, told = base_from_camera(table.data, "head"), calibrated_pose(placed.head)
    assert np.allclose(true[:3, :3], told[:3, :3], atol=1e-9)
    assert np.allclose(np.linalg.inv(told) @ true, _shifted(0.01), atol=1e-9)
    usual = Tabletop(WorldConfig(), draw_objects(WorldConfig()), describe())
    assert np.allclose(base_from_camera(usual.data, "head"), told, atol=1e-9)


def _shifted(x_m: float) -> np.ndarray:
    pose = np.eye(4)
    pose[0, 3] = x_m
    return pose


def test_distractors_are_touched_by_nothing() -> None:
    placed = config(3, LookOptions(distractors=4))
    model = build_scene(placed, draw_objects(placed), describe()).spec.compile()
    ids = [i for i in range(model.ngeom) if model.geom(i).name.startswith("patch_")]
    assert len(ids) == 4
    assert not (model.geom_contype[ids] | model.geom_conaffinity[ids]).any()


@pytest.mark.parametrize("key", ["light", "vary", "distractors"])
def test_what_no_table_can_look_like_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match=key):
        LookOptions.model_validate({key: -1})
