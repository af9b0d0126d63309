"""What stands on the table and does not move counts as the table does."""

from __future__ import annotations

import numpy as np

from drivers.arms import describe
from drivers.world.layout import TRAY_CENTER_M, fixed_boxes
from runtime.arm_model import ArmModel
from runtime.limits import SafetyOptions
from runtime.messages import Clip
from runtime.safety import SafetyStage
from runtime.table_model import FixedBox, standing
from tests.safety.arms import TWO_PARTS, crane_spec

DT = 1 / 30
POST = FixedBox((0.28, 0.0, 0.15), (0.02, 0.3, 0.3), 0.0)


def test_an_arm_stops_before_a_box_and_may_leave_it(home: np.ndarray) -> None:
    model, options = describe().model(boxes=(POST,)), SafetyOptions()
    start = home + np.array([0, -0.6, 0.6, 0, 0, 0])
    assert model.clearances(start)[1] > options.table_clearance_m
    stretched = home + np.array([0, 0.6, -0.9, -0.3, 0, 0])
    assert describe().model().clearances(stretched)[1] > options.table_clearance_m
    assert model.clearances(stretched)[1] < 0
    stage, previous, seen = SafetyStage(options, model), start, Clip.NONE
    for _ in range(100):
        result = stage.apply(stretched, previous, previous, None, None, DT)
        previous, seen = result.target, seen | result.clips
    assert seen & Clip.COLLISION
    assert model.clearances(previous)[1] >= options.table_clearance_m - 1e-9
    for _ in range(100):
        previous = stage.apply(start, previous, previous, None, None, DT).target
    np.testing.assert_allclose(previous, start, atol=1e-6)


def test_the_trays_walls_and_floor_are_kept_off() -> None:
    model = describe().model(boxes=fixed_boxes())
    assert model.clearances(model.home)[1] > 0.01
    plain = describe().model()
    random = np.random.default_rng(0)
    poses = random.uniform(*model.ranges.T, (300, 6))
    assert any(model.clearances(q)[1] < plain.clearances(q)[1] for q in poses)
    assert fixed_boxes()[-1].center_m[:2] == TRAY_CENTER_M


def test_a_model_for_another_thread_or_process_has_them_too(tmp_path) -> None:  # type: ignore[no-untyped-def]
    model = describe().model(boxes=(POST,))
    saved = model.save(tmp_path / "arm.mjb")
    q = model.home + np.array([0, 0.6, -0.9, -0.3, 0, 0])
    for other in (model.copy(), ArmModel.load(tmp_path / "arm.mjb", saved)):
        assert other.clearances(q) == model.clearances(q)


def test_several_arms_keep_off_it_each_by_itself() -> None:
    opposite = np.diag([-1.0, -1.0, 1.0, 1.0])
    opposite[0, 3] = 0.9
    spec = standing({"left": (crane_spec(), np.eye(4)), "right": (crane_spec(), opposite)})
    block = FixedBox((0.2, 0.0, 0.2), (0.1, 0.4, 0.4))
    left, right, _ = ArmModel(spec, TWO_PARTS, boxes=(block,)).gaps(np.zeros(6))[1]
    assert left < 0 < right
