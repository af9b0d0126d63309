"""The campaign of faults: its own eyes first, then fifty runs and some kills of it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.campaign import Player, campaign, counts
from bench.campaign_invariants import (
    POSTED,
    Episode,
    lost_samples,
    unsafe_motions,
    wrong_ending,
    wrong_targets,
)
from bench.campaign_kills import killed_plan, main_lines, next_plan
from bench.campaign_plan import MODES, draw, faults
from dexrun.config.load import load
from drivers.world.faults import Fault
from tests.recording.rig import Rig, record

SAFETY = {
    "joints": {"pan": {"max_velocity_rad_s": 1.5}},
    "range_margin_rad": 0.01,
    "max_velocity_rad_s": 2.5,
    "max_velocity_gripper_s": 2.5,
    "max_acceleration_rad_s2": 20.0,
    "max_acceleration_gripper_s2": 60.0,
    "max_step_s": 0.1,
    "stall_motion_rad": 0.01,
}
ROBOT = {"joint_names": ["pan", "lift", "jaw"], "ranges_rad": [[-1, 1], [-2, 0], [0, 1]]}
ROBOT |= {"units": ["rad", "rad", "0..1"], "control_rate_hz": 30.0, "state_rate_hz": 30.0}
ROBOT |= {"cameras": {"head": {"fps": 30}}}
REST = (0.0, -1.0, 0.5)
PERIOD_NS = 33_333_333


class Told(Episode):
    """An episode that was never recorded: its ticks' targets, and which of them were posted."""

    def __init__(self, *targets: tuple[float, ...], clips: int = 0, here: tuple[float, ...] = REST) -> None:
        self.metadata = {"config": {"json": json.dumps({"safety": SAFETY})}}
        self.metadata["robot"] = {key: json.dumps(value) for key, value in ROBOT.items()}
        self.ticks: list[dict[str, Any]] = [
            {
                "tick": number,
                "stamp_ns": number * PERIOD_NS,
                "flags": POSTED,
                "clips": clips,
                "clipped": list(target),
                "held": [math.nan] * len(target),
                "position": list(here),
            }
            for number, target in enumerate(targets)
        ]


def moving(*speeds: float, joint: int = 1, **more: Any) -> Told:
    """One joint at these speeds, tick after tick, from rest; the measured arm is nowhere near."""
    places = np.cumsum([0.0, *speeds]) * PERIOD_NS / 1e9
    targets = [tuple(place + REST[i] if i == joint else REST[i] for i in range(3)) for place in places]
    return Told(*targets, here=(9.0, 9.0, 9.0), **more)


def kinds(found: list[str]) -> list[str]:
    return [line.split(":")[0] for line in found]


@pytest.mark.parametrize("speeds", [(0.0, 0.6, 1.2, 1.8, 2.4, 1.8, 1.2, 0.6, 0.0), (0.0, -0.66, -1.3)])
def test_a_good_move_is_none_of_its_business(speeds: tuple[float, ...]) -> None:
    assert wrong_targets(moving(*speeds)) == []


def test_a_joint_whose_servo_did_not_get_its_goal_is_judged_from_the_one_that_it_has() -> None:
    told = moving(0.6, 1.2, -1.4)
    assert kinds(wrong_targets(told)) == ["acceleration"]
    told.ticks[3]["held"][1] = told.ticks[1]["clipped"][1]
    assert wrong_targets(told) == []
    told.ticks[3]["held"][1] += 0.5
    assert kinds(wrong_targets(told)) == ["velocity"]


def test_it_sees_what_is_too_fast() -> None:
    assert kinds(wrong_targets(moving(0.0, 0.6, 1.2, 1.8, 2.4, 2.6))) == ["velocity"]
    assert kinds(wrong_targets(moving(0.0, 0.6, 1.2, 1.6, joint=0))) == ["velocity"], "a joint's own limit"
    assert kinds(wrong_targets(moving(0.0, 0.8))) == ["acceleration"]
    assert kinds(wrong_targets(moving(0.0, 0.6, 1.2, 0.0))) == ["acceleration"]


def test_it_goes_by_stamps_where_a_tick_was_late() -> None:
    late = moving(0.0, 0.6, 1.2, 1.8, 2.4, 2.4)
    late.ticks[4]["stamp_ns"] += PERIOD_NS // 12
    assert wrong_targets(late) == [], "as good as on time"
    late.ticks[4]["stamp_ns"] += PERIOD_NS // 2
    assert set(kinds(wrong_targets(late))) == {"velocity", "acceleration"}


def test_who_brakes_on_a_late_tick_does_so_within_a_period() -> None:
    """Its servo had stopped meanwhile: no target makes up for that."""
    late = moving(0.0, 0.6, 1.2, 1.8, 2.4, 1.8, 1.2)
    for tick in late.ticks[6:]:
        tick["stamp_ns"] += PERIOD_NS * 9 // 10
    for tick in late.ticks[7:]:
        place = 0.8 / 30  # from as slow as it was by the stamps
        tick["clipped"][1] = late.ticks[6]["clipped"][1] + place
    assert wrong_targets(late) == []
    late.ticks[6]["clipped"][1] -= 0.6 / 30
    late.ticks[7]["clipped"][1] -= 0.6 / 30
    assert kinds(wrong_targets(late)) == ["acceleration"], "harder than within a period"
    late = moving(0.0, 0.6, 1.2, 1.8, -0.8)
    for tick in late.ticks[5:]:
        tick["stamp_ns"] += PERIOD_NS * 9 // 10
    assert kinds(wrong_targets(late)) == ["acceleration"], "to turn around is not to brake"


def test_a_joint_that_pushes_and_stands_still_may_push_less_at_once() -> None:
    def pushes(*by: float, clips: int = 128) -> Told:
        return Told(*[(0.0, -1.0 + push, 0.5) for push in by], clips=clips)

    less = (0.1, 0.095, 0.06, 0.058)
    assert kinds(wrong_targets(pushes(*less, clips=0))) == ["acceleration"] * 2
    assert wrong_targets(pushes(*less)) == []
    moved = pushes(*less)
    for number, tick in enumerate(moved.ticks):
        tick["position"][1] -= 0.02 * number
    assert kinds(wrong_targets(moved)) == ["acceleration"], "it does not stand still"
    assert wrong_targets(pushes(0.03, 0.03, 0.0)) == [], "as near as it stands"
    assert kinds(wrong_targets(pushes(0.03, 0.03, -0.025))) == ["acceleration"], "to the other side"
    assert kinds(wrong_targets(pushes(0.06, 0.06, 0.09))) == ["acceleration"], "to push harder"
    assert kinds(wrong_targets(pushes(0.2, 0.2, 0.1))) == ["velocity"]


def test_who_was_drawn_back_goes_on_from_rest() -> None:
    def goes(*by: float) -> list[str]:
        told = Told(*[(0.0, -1.0 + push, 0.5) for push in by], clips=128)
        told.ticks[-1]["clips"] = 0
        return kinds(wrong_targets(told))

    assert goes(0.15, 0.15, 0.1, 0.12) == [], "0.6 rad/s from rest"
    assert goes(0.15, 0.15, 0.1, 0.05) == ["acceleration"], "as fast as it was drawn back"
    assert goes(0.1, 0.1, 0.08, 0.1) == [], "drawn back no harder than any target may be"


def test_a_check_may_stop_a_target_at_once_and_no_more() -> None:
    assert wrong_targets(moving(0.0, 0.6, 1.2, 0.0, clips=32)) == []
    assert kinds(wrong_targets(moving(0.0, 0.6, 1.2, -1.2, clips=32))) == ["acceleration"]
    assert kinds(wrong_targets(moving(0.0, 0.6, 1.2, 2.2, clips=32))) == ["acceleration"]


def test_it_sees_what_is_out_of_range_unless_it_comes_back() -> None:
    out = (0.0, -0.005, 0.5)
    assert kinds(wrong_targets(Told(REST, out, here=out))) == ["range"]
    assert wrong_targets(Told(out, (0.0, -0.006, 0.5), here=out)) == [], "the arm rests there"
    assert kinds(wrong_targets(Told((0.0, float("nan"), 0.5)))) == ["not finite"]


def test_a_target_where_the_arm_is_asks_for_no_motion() -> None:
    """After a gap the arm is somewhere else; what was not posted is no target."""
    fallen = (0.0, -1.4, 0.5)
    told = Told(REST, REST, fallen, fallen, here=fallen)
    told.ticks[1]["flags"] = 0
    assert wrong_targets(told) == []
    assert kinds(wrong_targets(Told(REST, REST, fallen, here=REST))) == ["velocity", "acceleration"]


def read(path: Path) -> Episode:
    episode = Episode(next(path.glob("*.mcap")))
    episode.metadata["robot"] = {key: json.dumps(value) for key, value in ROBOT.items()}
    return episode


def test_it_reads_files_by_itself_and_misses_what_is_missing(tmp_path: Path) -> None:
    record(tmp_path / "whole", "a task")
    whole = read(tmp_path / "whole")
    assert len(whole.numbers["/arm/state"]) == 24
    assert [event["kind"] for event in whole.events] == ["episode_start", "episode_end"]
    whole.numbers["/arm/state"].pop(5)
    assert lost_samples(whole) == ["/arm/state: says 24, holds 23", "/arm/state: 1 gaps in its numbers"]

    async def overrun(rig: Rig) -> None:
        rig.recorder.begin(0, "a task")
        for _ in range(20):
            rig.state()
        await rig.rest(400)
        rig.recorder.end("success")
        await rig.rest(400)

    Rig(tmp_path / "less", slots=8).run(overrun)
    assert any("dropped" in line for line in lost_samples(read(tmp_path / "less")))


def test_an_edge_without_samples_is_a_loss_unless_the_plan_took_the_device_away(tmp_path: Path) -> None:
    async def late(rig: Rig) -> None:
        rig.recorder.begin(0, "a task")
        await rig.rest(300)
        await rig.play(30)
        rig.recorder.end("success")
        await rig.rest(400)

    Rig(tmp_path).run(late)
    episode = read(tmp_path)
    assert any(line.startswith("/arm/state: begins 0.3") for line in lost_samples(episode))
    episode.metadata["troubled"] = {"devices": "arm head"}
    assert lost_samples(episode) == []


def test_it_sees_hard_contacts_and_fast_joints_of_an_arm_that_has_torque() -> None:
    soft = {"n": 19.0, "at_ns": 1, "between": ["table", "jaw"]}
    hard = {"n": 21.0, "at_ns": 1, "between": ["tray_front", "jaw"]}
    slow, fast = {"peak": 2.9, "at_ns": 1}, {"peak": 3.1, "at_ns": 1}
    config = {"safety": SAFETY}
    seen = {"contacts": {"table": soft}, "speed": {"pan": slow}}
    assert unsafe_motions(config, {"driven": seen, "limp": {"contacts": {"table": hard}}}) == []
    seen = {"contacts": {"table": soft, "tray": hard}, "speed": {"pan": slow, "lift": fast}}
    assert kinds(unsafe_motions(config, {"driven": seen})) == ["contact with tray", "speed"]


@pytest.mark.parametrize(
    ("code", "outcome", "reason", "latched", "right"),
    [
        (0, "completed", "the table is empty", False, True),
        (0, "incomplete", "time limit of 12 s", False, False),
        (1, "incomplete", "time limit of 12 s", False, True),
        (3, "stopped", "arm: no data", True, True),
        (1, "stopped", "arm: no data", True, False),
        (1, "stopped", "interrupted (SIGINT)", False, True),
        (0, "completed", "the table is empty", True, False),
    ],
)
def test_an_exit_code_must_be_what_happened(
    code: int, outcome: str, reason: str, latched: bool, right: bool
) -> None:
    summary = {"outcome": outcome, "stop_reason": reason, "ticks": 9}
    summary["judge"] = {"success": True, "objects_in_tray": 1, "objects_total": 1}
    plan = {"mode": "grasp", "events": [{"device": "arm"}], "options": {}}
    assert (wrong_ending(plan, code, summary, latched) == []) == right


def test_a_run_that_is_over_too_early_without_a_fault_is_seen() -> None:
    summary = {
        "outcome": "completed",
        "stop_reason": "1 episodes are recorded",
        "ticks": 38,
        "duration_s": 2.4,
    }
    plan: dict[str, Any] = {"mode": "rollout", "events": [], "options": {}, "seconds": 18.0}
    assert kinds(wrong_ending(plan, 0, summary, False)) == ["over after 2.4 s without any fault"]
    assert wrong_ending(plan, 0, summary | {"duration_s": 17.6}, False) == []


def test_a_table_that_is_said_to_be_clear_and_is_not_is_a_false_success() -> None:
    summary = {"outcome": "completed", "stop_reason": "the table is empty", "ticks": 9}
    summary["judge"] = {"success": False, "objects_in_tray": 0, "objects_total": 1}
    plan = {"mode": "grasp", "events": [{"device": "force"}], "options": {}}
    assert wrong_ending(plan, 0, summary, False) == ["false success: 0 of 1"]


@pytest.mark.parametrize("seed", range(24))
def test_a_plan_is_its_seed_s_and_the_program_takes_it(seed: int) -> None:
    plan = draw(seed)
    assert plan == draw(seed)
    assert 10 <= plan["seconds"] <= 20
    for event in plan["events"]:
        if event["device"] not in ("process", "end", "server"):
            Fault.model_validate({key: value for key, value in event.items() if key != "at"})
    words = [word for key, value in plan["options"].items() for word in (f"--{key}", value)]
    assert load(["--config", "config.toml", *words], {}).mode == plan["mode"]


def test_a_thousand_plans_do_all_there_is_to_do() -> None:
    plans = [draw(seed) for seed in range(1000)]
    assert {plan["mode"] for plan in plans} == set(MODES)
    done = {name for plan in plans for name in faults(plan)}
    assert len(done) > 60
    assert sum(not faults(plan) for plan in plans) > 40, "some have none"
    assert killed_plan(3) == killed_plan(3)
    assert next_plan()["events"] == []


@pytest.mark.slow
def test_fifty_runs_with_faults_violate_nothing(tmp_path: Path) -> None:
    lines = campaign(range(50), MODES, tmp_path)
    wrong = {line["seed"]: line["violations"] for line in lines if line["violations"]}
    assert wrong == {}, counts(lines)


@pytest.mark.slow
def test_what_a_kill_leaves_is_made_whole_by_the_next_start(tmp_path: Path) -> None:
    player = Player()
    try:
        lines = main_lines(3, player.play, tmp_path)
    finally:
        player.close()
    assert [line["violations"] for line in lines] == [[], [], []]
    assert all(line["killed"] for line in lines)
