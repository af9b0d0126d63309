"""The table in one process does what the one behind wires does, and comes out the same every time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from dexrun.collecting.scenes import CollectOptions, Collector
from dexrun.gym.defaults import default_settings, lighter
from dexrun.gym.engine import TableEngine
from dexrun.gym.eyes import Shot
from dexrun.gym.sight import Sight, box_of
from drivers.feetech.registers import TICKS_PER_TURN
from drivers.world.config import ObjectOptions, WorldConfig
from drivers.world.layout import draw_objects
from drivers.world.physics import Tabletop
from runtime.messages import Clip
from runtime.object_point import object_point
from runtime.pilot import Pilot
from runtime.recording.reader import Episode
from runtime.tick import TickFlag

SETTINGS = lighter(default_settings())
SMALL = {"head": Shot("head", 160, 120, depth=True), "wrist": Shot("wrist", 64, 48)}


@pytest.fixture(scope="module")
def engine() -> Iterator[TableEngine]:
    made = TableEngine(SETTINGS, SMALL)
    yield made
    made.close()


def world(seed: int = 0, **more: object) -> WorldConfig:
    return SETTINGS.world.model_copy(update={"seed": seed, **more})


def table_of(config: WorldConfig, engine: TableEngine) -> Tabletop:
    table = Tabletop(config, draw_objects(config), engine.robot)
    for servo_id in table.bank.ids:
        table.bank.set_torque(servo_id, True)
    return table


def test_many_steps_at_once_are_the_same_steps(engine: TableEngine) -> None:
    one, other = table_of(world(), engine), table_of(world(), engine)
    for table in (one, other):
        for servo_id in table.bank.ids:
            table.bank.set_goal(servo_id, table.bank.reading(servo_id).position + 60)
    one.advance(200_000_000)
    other.coast(200_000_000)
    other.report()
    assert np.array_equal(one.data.qpos, other.data.qpos)
    assert np.array_equal(one.data.qvel, other.data.qvel)
    assert np.array_equal(one.bank.joints_rad(), other.bank.joints_rad())
    assert one.now_ns == other.now_ns


def test_objects_at_rest_sleep_and_wake_when_they_are_moved(engine: TableEngine) -> None:
    table = table_of(world(), engine)
    table.coast(2_000_000_000)
    assert table.data.ntree_awake == 1, "the arm"
    table.move_object(0, (0.2, 0.1, 0.2))
    table.coast(2_100_000_000)
    assert 0.1 < table.object_pose(0)[0][2] < 0.19, "it falls"
    assert table.data.ntree_awake == 2


def test_all_registers_at_once_are_the_same_registers(engine: TableEngine) -> None:
    bank = table_of(world(), engine).bank
    bank.publish(np.array([0.3, -2.0, 1.1, 0.4, -1.3, 0.6]), np.linspace(-2, 2, 6), np.linspace(-1, 1, 6))
    one_by_one = [bank.reading(servo_id) for servo_id in bank.ids]
    position, velocity, load = bank.readings()
    assert position.tolist() == [each.position for each in one_by_one]
    assert velocity.tolist() == [each.velocity for each in one_by_one]
    assert load.tolist() == [each.load for each in one_by_one]
    bank.set_goals(position + 11)
    together = bank.drive().goal_rad
    for servo_id, each in zip(bank.ids, position.tolist(), strict=True):
        bank.set_goal(servo_id, each + 11)
    assert np.array_equal(bank.drive().goal_rad, together)


def test_a_scene_comes_out_the_same_every_time(engine: TableEngine) -> None:
    ends = []
    for _ in range(2):
        engine.load(world(3))
        for _ in range(40):
            engine.tick()
        sample = engine.force.newest()
        assert sample is not None
        ends.append((engine.table.data.qpos.copy(), sample["force"]))
    assert np.array_equal(ends[0][0], ends[1][0])
    assert np.array_equal(ends[0][1], ends[1][1])


def test_ticks_come_as_long_after_picture_and_reading_as_behind_wires(engine: TableEngine) -> None:
    engine.load(world())
    ages = []
    for _ in range(3):
        engine.tick()
        record = engine.records.newest()
        assert record is not None
        assert engine.eyes is not None
        ages.append(
            (
                round((record.stamp_ns - engine.eyes.stamp_ns) / 1e6, 1),
                round((record.stamp_ns - int(record["state_stamp_ns"])) / 1e6, 1),
                record.stamp_ns - int(record["sent_stamp_ns"]) > 0,
            )
        )
    assert {age[0] for age in ages} == {31.7}
    assert {age[1] for age in ages} == {1.7, 5.0, 8.3}
    assert all(age[2] for age in ages)  # what a tick decides is written at its end


def test_the_servos_obey_targets_rounded_to_their_own_steps(engine: TableEngine) -> None:
    engine.load(world())
    target = engine.home.copy()
    target[1] += 0.2
    engine.arm.aim(target, engine.clock.now_ns())
    sent = engine.arm.sent.newest()
    assert sent is not None
    step = 2 * np.pi / TICKS_PER_TURN
    assert 0 < np.abs(sent["position"] - target)[:5].max() <= step / 2 + 1e-9
    engine.table.coast(engine.table.now_ns + 1_500_000_000)
    engine.table.report()
    assert engine.table.bank.joints_rad()[1] == pytest.approx(target[1], abs=0.05)


def test_the_box_of_an_object_is_around_its_pixels(engine: TableEngine) -> None:
    red = ObjectOptions(shape="cube", color="red", size_m=(0.03, 0.03, 0.03), x_m=0.2, y_m=-0.05)
    engine.load(world(placed=(red,)))
    assert engine.eyes is not None
    frame = engine.eyes.frame("head")
    box = box_of(engine.table, 0, engine.infos["head"])
    assert box is not None
    rows, columns = np.nonzero((frame.color[..., 0] > 40) & (frame.color[..., 1] < frame.color[..., 0] // 3))
    seen = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    assert np.abs(np.subtract(box, seen)).max() <= 1.5
    mask = Sight(SETTINGS.perception).begin(frame, box, 7)
    assert mask.attempt == 7
    assert int(mask.mask.sum()) == pytest.approx(len(rows), rel=0.1)
    assert frame.depth is not None
    point = object_point(frame.depth, mask.mask, engine.infos["head"])
    assert point is not None
    place, _ = engine.table.object_pose(0)
    assert np.linalg.norm(point.center_m[:2] - place[:2]) < 0.006  # a pixel is 3 mm
    assert point.grasp_height_m(0.0) == pytest.approx(0.03, abs=0.0015)


def test_a_picture_is_drawn_only_when_it_is_looked_at(
    engine: TableEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.load(world())
    assert engine.eyes is not None
    drawn: list[str] = []
    draw = engine.eyes._draw
    monkeypatch.setattr(engine.eyes, "_draw", lambda name, at: (drawn.append(name), draw(name, at))[1])
    for _ in range(5):
        engine.tick()
    assert drawn == []
    frame = engine.eyes.frame("wrist")
    assert frame.color.shape == (48, 64, 3)
    assert engine.eyes.frame("wrist") is frame
    assert engine.eyes.frame("head", frame.stamp_ns - 100_000_000).stamp_ns < frame.stamp_ns
    assert drawn == ["wrist", "head"]


@pytest.fixture(scope="module")
def demonstration(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One object, taken with noise; the arm sees little, so that it is quick."""
    folder = tmp_path_factory.mktemp("demonstrations")
    cube = ObjectOptions(shape="cube", color="red", size_m=(0.026, 0.026, 0.026), x_m=0.21, y_m=-0.05)
    placed = SETTINGS.world.model_copy(update={"placed": (cube,)})
    settings = SETTINGS.model_copy(update={"world": placed})
    collector = Collector(settings, CollectOptions(oversample=1))
    (found,) = collector.scene(4, 7, folder)
    assert found.label == "success"
    return folder / "episode_000007.mcap"


def test_a_demonstration_is_a_recording_like_any_other(demonstration: Path) -> None:
    with Episode(demonstration) as episode:
        assert (episode.label, episode.task, episode.index) == ("success", "pick up the red cube", 7)
        assert episode.cameras == ["head", "wrist"]
        assert episode.config["export"]["action"] == "requested"
        assert episode.config["world"]["seed"] == 4
        assert episode.robot["mode"] == "rollout"
        ticks, pictures = len(episode.times("/ticks")), len(episode.times("/cameras/head/color"))
        assert pictures == -(-ticks // 3)
        assert len(episode.times("/mask/head")) == pictures
        assert episode.color("head", 0).shape == (96, 128, 3)
        assert episode.depth("head", 0).shape == (96, 128)
        assert episode.camera_info("head").intrinsics.width == 128
        assert episode.mask("head", 0).sum() > 9


def test_noise_is_in_what_was_sent_and_not_in_what_was_asked_for(demonstration: Path) -> None:
    with Episode(demonstration) as episode:
        ticks = episode.columns("/ticks")
    driven = ticks["pilot"] == Pilot.PERSON
    assert driven.all()
    off = np.abs(ticks["clipped"] - ticks["requested"])[:, :5].max(axis=1)
    assert off.max() > 0.002
    assert not (ticks["flags"] & (TickFlag.WAITING | TickFlag.STOPPED)).any()
    assert not (ticks["clips"] & (Clip.FORCE | Clip.STALL)).any()


def test_policies_are_told_what_the_safety_stage_lets_through(engine: TableEngine) -> None:
    engine.load(world())
    known, safety = engine.joints.permitted, engine.settings.safety
    assert known is engine.permitted
    assert (engine.joints.usable[:-1, 0] > engine.joints.ranges[:-1, 0]).all()
    assert (known.velocity[:-1] == safety.max_velocity_rad_s).all()
    assert (known.acceleration[:-1] == safety.max_acceleration_rad_s2).all()
    assert known.table_m == safety.table_clearance_m
