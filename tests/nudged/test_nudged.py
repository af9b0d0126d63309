"""A camera that was nudged is found by the arm that it sees: on rendered pictures of the simulated table."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
from loguru import logger

from dexrun.gym.defaults import default_settings, lighter
from dexrun.gym.engine import TableEngine
from dexrun.gym.eyes import Shot
from drivers.world.scene import HEAD_CAMERA, object_body
from policies.geometric.config import GeometricConfig
from policies.geometric.watch import ObjectMemory
from policies.lift.config import LiftConfig
from policies.lift.memory import ObjectInSight
from policies.nudged.arm import ArmInSight
from policies.nudged.camera import standing
from policies.nudged.level import levelled
from policies.nudged.view import DepthView
from runtime.geometry import project, rays
from runtime.inference import NotReadyError
from runtime.messages import ArmState, CameraInfo, Floats, Frame, Observation, TrackedMask

SETTINGS = lighter(default_settings())
PICTURES = {"head": Shot("head", 320, 240, depth=True)}
PIXELS = np.array([[x, y] for x in (100, 160, 220) for y in (40, 80, 110)])
"""Of the table, where objects lie."""


@pytest.fixture(scope="module")
def engine() -> Iterator[TableEngine]:
    made = TableEngine(SETTINGS, PICTURES)
    yield made
    made.close()


def seen(engine: TableEngine, shift_m: list[float], turn_rad: list[float]) -> tuple[DepthView, ArmState]:
    """The arm at home, seen by a camera that is moved in its own axes."""
    look = SETTINGS.world.look.model_copy(
        update={"camera_shift_m": tuple(shift_m), "camera_turn_rad": tuple(turn_rad)}
    )
    engine.load(SETTINGS.world.model_copy(update={"look": look}))
    for _ in range(10):
        engine.tick()
    assert engine.eyes is not None
    depth = engine.eyes.frame("head").depth
    assert depth is not None
    position = np.array(engine.records.newest()["position"])
    view = DepthView(depth, np.zeros(depth.shape, np.uint8), engine.infos["head"])
    return view, ArmState(0, position, np.zeros(6), np.zeros(6))


def placed(in_sight: ArmInSight, view: DepthView, info: CameraInfo, arm: ArmState) -> CameraInfo:
    """Asked until it has measured, as the runtime does."""
    for _ in range(30):
        with suppress(NotReadyError):
            return in_sight.placed(view, info, arm)
    raise AssertionError("it is never ready")


def truth(engine: TableEngine, info: CameraInfo) -> CameraInfo:
    """Where the camera is."""
    camera = engine.table.model.camera(HEAD_CAMERA).id
    pose = np.eye(4)
    pose[:3, :3] = engine.table.data.cam_xmat[camera].reshape(3, 3) @ np.diag([1.0, -1.0, -1.0])
    pose[:3, 3] = engine.table.data.cam_xpos[camera]
    return replace(info, base_from_camera=pose)


def off_m(info: CameraInfo, true: CameraInfo) -> float:
    """How far from where they are `info` has points of the table, on average."""
    found, real = (_on_the_table(each) for each in (info, true))
    return float(np.linalg.norm(found - real, axis=1).mean())


def _on_the_table(info: CameraInfo) -> Floats:
    pose = info.base_from_camera
    assert pose is not None
    sides = rays(info.intrinsics, PIXELS)
    towards = np.column_stack([sides, np.ones(len(sides))]) @ pose[:3, :3].T
    return np.asarray(pose[:3, 3] - towards * (pose[2, 3] / towards[:, 2])[:, None])


@pytest.mark.parametrize(
    ("shift_m", "turn_rad"),
    [
        ([0.01, 0.0, 0.0], [0.0, 0.0, 0.0]),
        ([0.0, -0.01, 0.0], [0.0, 0.0, 0.0]),
        ([0.0, 0.0, 0.0], [0.0, 0.0, 0.035]),
        ([-0.006, -0.006, 0.004], [0.02, 0.02, -0.02]),
        ([0.006, 0.007, -0.003], [-0.015, 0.02, 0.02]),
    ],
)
def test_a_camera_that_was_moved_along_the_table_is_found_by_the_arm(
    engine: TableEngine, shift_m: list[float], turn_rad: list[float]
) -> None:
    view, arm = seen(engine, shift_m, turn_rad)
    level, true = levelled(view, 0.0), truth(engine, view.info)
    in_sight = ArmInSight(engine.model.copy())
    found = placed(in_sight, view, level, arm)
    assert off_m(level, true) > 0.0055
    assert off_m(found, true) < 0.0015
    again = in_sight.placed(view, level, arm)  # at once, from then on
    assert again.base_from_camera == pytest.approx(found.base_from_camera, abs=1e-3)


def test_a_camera_that_is_where_it_was_calibrated_stays_there(engine: TableEngine) -> None:
    view, arm = seen(engine, [0.0] * 3, [0.0] * 3)
    level = levelled(view, 0.0)
    assert ArmInSight(engine.model.copy()).placed(view, level, arm) is level
    assert off_m(level, truth(engine, view.info)) < 0.001


def test_an_arm_that_moves_tells_nothing_and_what_it_told_before_holds(engine: TableEngine) -> None:
    view, arm = seen(engine, [0.01, 0.0, 0.0], [0.0] * 3)
    in_sight, level = ArmInSight(engine.model.copy()), levelled(view, 0.0)
    moves = replace(arm, velocity=np.array([0.0, 0.3, 0.0, 0.0, 0.0, 0.0]))
    assert in_sight.placed(view, level, moves) is level
    lost = replace(arm, velocity=np.full(6, np.nan))
    assert in_sight.placed(view, level, lost) is level
    found = placed(in_sight, view, level, arm)
    assert np.array_equal(in_sight.placed(view, level, moves).base_from_camera, found.base_from_camera)


def test_an_arm_that_is_out_of_the_picture_or_not_as_its_model_tells_nothing(engine: TableEngine) -> None:
    view, arm = seen(engine, [0.01, 0.0, 0.0], [0.0] * 3)
    level = levelled(view, 0.0)
    elsewhere = replace(arm, position=arm.position + np.array([1.2, 0.6, -0.6, 0.0, 0.0, 0.0]))
    assert ArmInSight(engine.model.copy()).placed(view, level, elsewhere) is level
    blind = DepthView(np.zeros_like(view.depth), view.mask, view.info)
    assert ArmInSight(engine.model.copy()).placed(blind, level, arm) is level
    away = np.array(level.base_from_camera)
    away[0, 3] += 2.0
    beside = replace(level, base_from_camera=away)
    assert ArmInSight(engine.model.copy()).placed(view, beside, arm) is beside


def test_it_begins_anew_where_the_arm_or_the_camera_is_another(engine: TableEngine) -> None:
    in_sight = ArmInSight(engine.model.copy())
    for shift_m, turn_rad in (([0.01, 0.0, 0.0], [0.0] * 3), ([-0.01, 0.005, 0.0], [0.0, 0.0, 0.03])):
        view, arm = seen(engine, shift_m, turn_rad)
        assert off_m(placed(in_sight, view, levelled(view, 0.0), arm), truth(engine, view.info)) < 0.0015
    half = replace(arm, position=arm.position - np.array([0.4, 0.0, 0.0, 0.0, 0.0, 0.0]))
    engine.stand(half.position)
    for _ in range(10):
        engine.tick()
    assert engine.eyes is not None
    depth = engine.eyes.frame("head").depth
    assert depth is not None
    view = replace(view, depth=depth)
    turned = replace(half, position=np.array(engine.records.newest()["position"]))
    found = placed(in_sight, view, levelled(view, 0.0), turned)
    assert off_m(found, truth(engine, view.info)) < 0.002


def test_rays_that_were_on_their_way_to_an_arm_that_has_moved_on_count_for_nothing(
    engine: TableEngine,
) -> None:
    view, arm = seen(engine, [0.01, 0.0, 0.0], [0.0] * 3)
    in_sight = ArmInSight(engine.model.copy())
    with pytest.raises(NotReadyError):
        in_sight.placed(view, levelled(view, 0.0), arm)
    engine.stand(arm.position - np.array([0.4, 0.0, 0.0, 0.0, 0.0, 0.0]))
    for _ in range(10):
        engine.tick()
    assert engine.eyes is not None
    depth = engine.eyes.frame("head").depth
    assert depth is not None
    there = replace(arm, position=np.array(engine.records.newest()["position"]))
    view = replace(view, depth=depth)
    found = placed(in_sight, view, levelled(view, 0.0), there)
    assert off_m(found, truth(engine, view.info)) < 0.002
    assert in_sight._expected is not None
    assert np.abs(in_sight._expected.q - there.position).max() < 0.01


def test_what_it_found_is_said_once(engine: TableEngine) -> None:
    view, arm = seen(engine, [0.01, 0.0, 0.0], [0.0] * 3)
    lines: list[str] = []
    sink = logger.add(lines.append, format="{message}")
    try:
        in_sight, level = ArmInSight(engine.model.copy()), levelled(view, 0.0)
        for _ in range(3):
            placed(in_sight, view, level, arm)
    finally:
        logger.remove(sink)
    (line,) = lines
    assert line.startswith("camera head: by the arm that it sees it stands ")
    assert "cameras.head.extrinsics" in line


def test_an_object_is_remembered_by_the_camera_as_it_was_placed(engine: TableEngine) -> None:
    view, _ = seen(engine, [0.0] * 3, [0.0] * 3)
    mask = view.mask.copy()
    mask[60:75, 150:170] = 1
    options = LiftConfig(checkpoint="", min_height_m=1e-4)
    lifted = DepthView(np.where(mask > 0, view.depth - 60, view.depth).astype(np.uint16), mask, view.info)
    asked: list[CameraInfo] = []

    def aside(shown: DepthView, info: CameraInfo) -> CameraInfo:
        asked.append(info)
        made = np.array(info.base_from_camera)
        made[0, 3] += 0.01
        return replace(info, base_from_camera=made)

    plain, placed = ObjectInSight(options).take(lifted), ObjectInSight(options)
    first, again = placed.take(lifted, aside), placed.take(lifted, aside)
    assert plain is not None
    assert first is not None
    assert again is not None
    assert len(asked) == 1
    assert first.whole.middle - plain.whole.middle == pytest.approx([0.01, 0.0, 0.0], abs=1e-3)
    assert again.now.info is first.now.info


def test_a_camera_stands_where_it_was_calibrated_or_where_it_is(engine: TableEngine) -> None:
    view, arm = seen(engine, [0.0] * 3, [0.0] * 3)
    assert standing(view, 0.0, ArmInSight(engine.model.copy()), arm) is view.info
    for shift_m, turn_rad in (([0.004, 0.0, 0.0], [0.0] * 3), ([0.0] * 3, [0.02, 0.01, 0.0])):
        view, arm = seen(engine, shift_m, turn_rad)
        in_sight = ArmInSight(engine.model.copy())
        for _ in range(30):
            with suppress(NotReadyError):
                found = standing(view, 0.0, in_sight, arm)
                break
        assert off_m(view.info, truth(engine, view.info)) > 0.0035
        assert off_m(found, truth(engine, view.info)) < 0.0015


@pytest.mark.parametrize("nudged", [True, False])
def test_geometric_looks_through_the_camera_as_it_stands(engine: TableEngine, nudged: bool) -> None:
    view, arm = seen(engine, [0.01, 0.0, 0.0], [0.0, 0.0, 0.03])
    body = engine.table.model.body(object_body(0)).id
    there = engine.table.data.xpos[body].copy()
    true = truth(engine, view.info)
    pose = true.base_from_camera
    assert pose is not None
    at = project(((there - pose[:3, 3]) @ pose[:3, :3])[None], true.intrinsics)[0]
    rows, columns = np.mgrid[: view.depth.shape[0], : view.depth.shape[1]]
    mask = (np.hypot(columns - at[0], rows - at[1]) < 12).astype(np.uint8)
    color = np.zeros((*mask.shape, 3), np.uint8)
    shown = Observation(
        step=0,
        epoch=0,
        stamp_ns=0,
        arm=arm,
        frames={"head": Frame("head", 0, color, view.depth)},
        masks={"head": TrackedMask("head", 0, mask, 1.0)},
    )
    memory = ObjectMemory(GeometricConfig(nudged=nudged), engine.model.copy(), view.info)
    for _ in range(30):
        with suppress(NotReadyError):
            memory.look(shown)
            break
    assert memory.estimate is not None
    off = float(np.linalg.norm(memory.estimate.center - there[:2]))
    assert off < 0.002 if nudged else off > 0.008
