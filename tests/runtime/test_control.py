"""The control loop, tick by tick."""

from __future__ import annotations

import itertools
from dataclasses import replace

import anyio
import numpy as np
import pytest

from dexrun.modes.motion_source import MotionSource
from runtime.arms import ArmGroup
from runtime.clock import NS_PER_S
from runtime.inputs import LeaderSource, Watch
from runtime.limits import SafetyOptions
from runtime.messages import ActionChunk, Clip, Decision
from runtime.ring import Mailbox, Ring
from runtime.safety import SafetyStage
from runtime.tick import TickFlag
from tests.runtime.control_rig import MS, STATES, TICK, Chunks, D, Motion, Outcome, Rig, finished
from tests.safety.arms import crane

HELD, WAITING, STARVED, STOPPED, IDLE, POSTED = (
    TickFlag.HOLDING,
    TickFlag.WAITING,
    TickFlag.STARVED,
    TickFlag.STOPPED,
    TickFlag.IDLE,
    TickFlag.POSTED,
)


def ramp(step: int) -> list[float]:
    """Four rows, each the number of its step in thousandths."""
    return [(step + k) / 1000 for k in range(4)]


def test_idle_holds_where_the_arm_is() -> None:
    rig = Rig()

    async def main() -> None:
        await rig.ticks(3)
        assert (rig.loop.state, rig.loop.reason) == ("idle", "")
        np.testing.assert_array_equal(rig.loop.target, np.zeros(D))
        np.testing.assert_array_equal(rig.loop.position, np.zeros(D))

    rig.run(main)
    assert rig.flags() == [IDLE | POSTED] * 4
    assert rig.statistics.starved == rig.statistics.waiting == rig.statistics.held == 0


def test_a_policy_without_delay_is_followed_row_by_row() -> None:
    rig, source = Rig(), Chunks(ramp)

    async def main() -> None:
        rig.loop.follow(source)
        await rig.ticks(12)

    rig.run(main)
    assert rig.requested()[:12] == [0.0] + [n / 1000 for n in range(11)]
    assert rig.flags()[0] == WAITING | POSTED
    assert set(rig.flags()[1:]) == {POSTED}
    # asked first with nothing, and then whenever half of the last chunk is left
    assert [(tick, len(committed)) for tick, _, committed, _ in source.requests][:4] == [
        (0, 0),
        (2, 2),
        (4, 2),
        (6, 2),
    ]
    assert rig.statistics.splices["spliced"] >= 5
    assert rig.statistics.seam.max == 0
    assert rig.statistics.missed == rig.statistics.starved == 0


def test_a_slow_policy_starves_and_goes_on_where_the_arm_waited() -> None:
    rig, source = Rig({"blend": "latest"}), Chunks(ramp, delay=4)

    async def main() -> None:
        rig.loop.follow(source)
        await rig.ticks(30)

    rig.run(main)
    requested = rig.requested()
    steps = [r for r in requested if r]
    assert sorted(set(steps)) == [n / 1000 for n in range(1, len(set(steps)) + 1)]  # none skipped
    assert requested == sorted(requested)
    starved = sum(bool(f & STARVED) for f in rig.flags())
    assert starved == rig.statistics.starved > 3
    assert rig.statistics.waiting == 5
    for before, now, flag in zip(requested, requested[1:], rig.flags()[1:], strict=False):
        if flag & STARVED:
            assert now == before  # holds what was sent last


def test_the_policy_is_told_what_will_be_executed_before_its_answer() -> None:
    rig, source = Rig({"request_below": 1.0}), Chunks(lambda s: [float(s + k) for k in range(20)], delay=3)

    async def main() -> None:
        rig.loop.follow(source)
        await rig.ticks(30)

    rig.run(main)
    tick, _, committed, frozen = source.requests[-1]
    assert frozen == 3
    assert committed == [float(tick + k) for k in range(len(committed))]


def test_records_say_what_happened() -> None:
    rig = Rig(force=Ring({"force": ((2,), "<f8")}, 4))
    assert rig.force is not None
    rig.guard.rule = lambda requested: Outcome(np.minimum(requested, 0.002), Clip.RANGE | Clip.VELOCITY)

    async def main() -> None:
        rig.loop.follow(Chunks(ramp))
        await rig.ticks(2)
        assert rig.force is not None
        rig.force.push(17, force=[1.5, -2.0])
        await rig.ticks(4)

    rig.run(main)
    records = rig.history()
    first, last = records[0], records[5]
    assert np.isnan(first["force"]).all()
    assert first["force_stamp_ns"] == -1
    assert last["requested"] == pytest.approx(0.004)
    assert last["clipped"] == pytest.approx(0.002)
    assert last["sent"] == pytest.approx(0.002)
    assert last["position"] == pytest.approx(0.002)
    assert last["force"].tolist() == [1.5, -2.0]
    assert last["force_stamp_ns"] == 17
    assert (last["tick"], last["step"], last["epoch"]) == (5, 5, 1)
    assert last.stamp_ns == last["sent_stamp_ns"] == 6 * TICK
    assert last["state_stamp_ns"] == 6 * TICK - 5 * MS
    assert Clip(int(last["clips"])) == Clip.RANGE | Clip.VELOCITY
    assert rig.statistics.clips == {"range": 7, "velocity": 7}
    assert rig.guard.calls[-1]["force"].tolist() == [1.5, -2.0]
    assert rig.guard.calls[0]["force"] is None
    assert {c["dt_s"] for c in rig.guard.calls} == {0.01}


def test_what_the_driver_says_it_sent_is_recorded() -> None:
    sent = Ring({"position": ((D,), "<f8")}, 4)
    rig = Rig(sent=sent)

    async def main() -> None:
        await rig.ticks(1)
        sent.push(123, position=0.25)
        await rig.ticks(1)

    rig.run(main)
    first, second = rig.history()[:2]
    assert first["sent_stamp_ns"] == TICK
    assert (second["sent"][0], second["sent_stamp_ns"]) == (0.25, 123)


# --- sources


def test_a_new_source_is_a_new_epoch_and_is_come_to_at_the_engaging_speed() -> None:
    rig = Rig({"follow_blend_s": 0.04, "engage_speed_rad_s": 25.0, "blend": "latest"})
    old, new = Chunks(lambda s: [0.5] * 40), Chunks(lambda s: [1.5] * 40)

    async def main() -> None:
        assert rig.loop.follow(old) == 1
        await rig.ticks(10)
        assert rig.loop.follow(new) == 2
        await rig.ticks(10)

    rig.run(main)
    requested = rig.requested()
    assert requested[:6] == [0.0, 0.0625, 0.1875, 0.375, 0.5, 0.5]
    assert requested[10:18] == [0.5, 0.5625, 0.6875, 0.875, 1.125, 1.375, 1.5, 1.5]
    assert [bool(f & TickFlag.BLENDING) for f in rig.flags()[10:18]] == [False] + 5 * [True] + 2 * [False]


def test_a_chunk_asked_for_before_the_change_is_dropped() -> None:
    rig = Rig()
    source = Chunks(lambda s: [9.0] * 4, delay=3)

    async def main() -> None:
        rig.loop.follow(source)
        await rig.ticks(2)
        rig.loop.follow(source)  # the same source: its chunk in flight is of the old epoch
        await rig.ticks(4)

    rig.run(main)
    assert rig.statistics.splices == {"stale": 1}
    assert set(rig.requested()) == {0.0}


def test_what_the_policy_says_stays_until_it_says_something_else() -> None:
    rig, said, heard = Rig(), {0: "open the jaws", 8: "go down"}, []

    class Speaking(Chunks):
        def poll(self) -> ActionChunk | None:
            chunk = super().poll()
            return chunk and replace(chunk, reasoning=said.get(chunk.step, ""))

    async def main() -> None:
        rig.loop.follow(Speaking(lambda s: [0.0] * 4))
        for _ in range(12):
            await rig.ticks(1)
            heard.append(rig.loop.attempt.reasoning)
        rig.loop.follow(Speaking(lambda s: [0.0] * 4))
        heard.append(rig.loop.attempt.reasoning)

    rig.run(main)
    assert list(dict.fromkeys(heard)) == ["", "open the jaws", "go down"]
    assert heard[-1] == ""


def test_a_prepared_motion_ends_without_starving() -> None:
    rig, ends = Rig(), []

    async def main() -> None:
        rig.loop.follow(Motion([0.1, 0.2, 0.3]))
        assert not rig.loop.exhausted
        assert await finished(rig.loop)
        ends.append(rig.clock.now_ns())
        await rig.ticks(5)
        rig.loop.idle()
        await rig.ticks(2)
        assert rig.loop.state == "idle"

    rig.run(main)
    assert rig.requested() == [0.0, 0.1, 0.2] + [0.3] * 9
    assert rig.statistics.starved == 0
    assert ends == [4 * TICK]


def test_waiting_for_a_motion_ends_with_a_stop() -> None:
    rig = Rig()

    async def main() -> None:
        rig.loop.follow(Motion([0.1] * 50))
        await rig.ticks(3)
        rig.loop.stop("enough")
        assert await finished(rig.loop) is False

    rig.run(main)


@pytest.mark.parametrize("rows", [[np.nan] * 4, [1.0, np.inf], [], np.zeros((4, D + 1)), np.zeros((2, 2, 2))])
def test_a_useless_chunk_changes_nothing_but_the_count(rows: list[float]) -> None:
    rig = Rig({"stop_after_starved_s": 0.2})

    async def main() -> None:
        rig.loop.follow(Chunks(lambda s: rows))
        await rig.ticks(10)
        assert rig.loop.state == "running"
        await rig.ticks(20)
        assert (rig.loop.state, rig.loop.reason) == ("stopped", "no action for 0.2 s")

    rig.run(main)
    assert set(rig.requested()) == {0.0}
    assert "spliced" not in rig.statistics.splices
    summary = rig.statistics.summary()["policy"]
    assert isinstance(summary, dict)
    assert summary["dropped_chunks"] == summary["chunks"] > 3


def test_a_leader_is_followed() -> None:
    leader = Ring(STATES, 8)
    rig = Rig({"follow_blend_s": 0.02, "stop_after_hold_s": 0.05})

    async def main() -> None:
        rig.loop.follow(LeaderSource(leader, 0.02, lambda q: 2 * q))
        await rig.ticks(2)
        assert (rig.loop.state, rig.loop.reason) == ("holding", "leader: no state for 0.02 s")
        for n in range(6):
            leader.push(rig.clock.now_ns() + 9 * MS, position=0.3, velocity=0, load=n)
            await rig.ticks(1)
        assert rig.loop.state == "running"
        await rig.ticks(4)
        assert rig.loop.state == "holding"
        await rig.ticks(10)
        assert rig.loop.state == "stopped"

    rig.run(main)
    assert rig.requested()[2:7] == [0.6] * 5
    assert rig.flags()[6] == TickFlag.LEADER | POSTED
    assert set(rig.requested()[7:]) == {0.6}


# --- holding and stopping


def test_hold_and_resume_keep_the_plan() -> None:
    rig = Rig()

    async def main() -> None:
        rig.loop.follow(Motion([n / 10 for n in range(1, 9)]))
        await rig.ticks(4)
        rig.loop.hold("look")
        await rig.ticks(3)
        assert (rig.loop.state, rig.loop.reason) == ("holding", "look")
        rig.loop.resume()
        await rig.ticks(3)
        assert rig.loop.state == "running"

    rig.run(main)
    assert rig.requested()[:10] == [0.0, 0.1, 0.2, 0.3, 0.3, 0.3, 0.3, 0.4, 0.5, 0.6]
    assert rig.statistics.held == 3
    states = [(t.tick, t.state, t.reason) for t in rig.loop.transitions]
    assert states == [(0, "running", ""), (4, "holding", "look"), (7, "running", "")]


def test_a_stop_is_latched_until_it_is_reset() -> None:
    rig = Rig()

    async def main() -> None:
        rig.loop.follow(Chunks(ramp))
        await rig.ticks(4)
        rig.loop.stop("first")
        rig.loop.stop("second")
        await rig.ticks(2)
        rig.loop.resume()
        rig.loop.follow(Chunks(ramp))
        await rig.ticks(2)
        assert (rig.loop.state, rig.loop.reason) == ("stopped", "first")
        resets = rig.guard.resets
        rig.loop.reset_latch()
        assert rig.guard.resets == resets + 1
        await rig.ticks(2)
        assert rig.loop.state == "idle"
        rig.loop.follow(Chunks(ramp))
        await rig.ticks(3)
        assert rig.loop.state == "running"

    rig.run(main)
    assert set(rig.requested()[4:10]) == {0.002}


@pytest.mark.parametrize("then", ["", "idle", "rest", "follow"])
@pytest.mark.parametrize("state", ["running", "holding", "parking", "idle"])
def test_a_stop_that_brakes_is_latched_in_the_next_tick_and_does_not_come_back(state: str, then: str) -> None:
    """Braked by 4 mm less a tick, as the stage says, until it stands; from whatever it did before, and
    whatever is asked for in the same moment by a mode that does not know yet.
    """
    rig = Rig(options={"park_rad": (9.0, 9.0), "park_speed_rad_s": 1.0})
    left = [0.004, 0.002]

    def slowing(previous: np.ndarray, dt_s: float) -> np.ndarray:
        del dt_s
        return previous + (left.pop(0) if left else 0.0)

    rig.guard.slowing = slowing  # type: ignore[method-assign]

    async def main() -> None:
        rig.loop.follow(Chunks(ramp))
        await rig.ticks(4)
        {"holding": rig.loop.hold, "parking": rig.loop.give_up}.get(state, str)("why")
        if state == "idle":
            rig.loop.idle()
        await rig.ticks(2)
        assert rig.loop.state == state
        rig.loop.stop("the panel", brakes=True)
        {"idle": rig.loop.idle, "rest": rig.loop.rest}.get(then, str)()
        if then == "follow":
            rig.loop.follow(Chunks(ramp))
        await rig.ticks(1)
        assert rig.loop.state == "stopped"
        await rig.ticks(4)

    rig.run(main)
    stood = [TickFlag.STOPPED in flags for flags in rig.flags()].index(True)
    steps = np.diff(rig.requested()[stood - 1 :]).round(9).tolist()
    assert steps[:5] == [0.004, 0.002, 0.0, 0.0, 0.0]


def test_a_limited_speed_gives_parking_its_time() -> None:
    rig = Rig(options={"park_rad": (9.0, 9.0), "park_speed_rad_s": 1.0})

    async def main() -> None:
        await rig.ticks(2)
        rig.loop.limit_speed(0.1)
        rig.loop.give_up("why")
        await rig.ticks(1)
        assert rig.loop._setpoint._parking.left >= 10 * 900

    rig.run(main)
    assert rig.guard.speed == 0.1


def test_the_safety_stage_can_stop_the_run_where_it_says() -> None:
    rig = Rig()

    def rule(requested: np.ndarray) -> Outcome:
        if requested[0] > 0.0025:
            return Outcome(np.full(D, 0.001), Clip.FORCE, "force above 30 N")
        return Outcome(requested.copy())

    rig.guard.rule = rule

    async def main() -> None:
        rig.loop.follow(Chunks(ramp))
        await rig.ticks(8)
        assert (rig.loop.state, rig.loop.reason) == ("stopped", "force above 30 N")
        np.testing.assert_array_equal(rig.loop.target, np.full(D, 0.001))

    rig.run(main)
    assert rig.requested()[:8] == [0.0, 0.0, 0.001, 0.002, 0.003, 0.001, 0.001, 0.001]
    assert rig.statistics.clips == {"force": 1}


@pytest.mark.parametrize("cause", ["stage", "fault", "hold", "none"])
def test_a_stop_that_may_be_reset_may_not_once_something_else_stops_the_arm(cause: str) -> None:
    rig = Rig({"stop_after_hold_s": 0.05})

    async def main() -> None:
        rig.loop.follow(Chunks(ramp))
        await rig.ticks(4)
        rig.loop.stop("stopped by laptop", resettable=True)
        await rig.ticks(2)
        assert (rig.loop.latched, rig.loop.final) == ("stopped by laptop", False)
        if cause == "stage":
            rig.guard.rule = lambda requested: Outcome(requested.copy(), Clip.FORCE, "force above 30 N")
        elif cause != "none":
            rig.fault = (Decision.STOP if cause == "fault" else Decision.HOLD, "head: gone")
        await rig.ticks(8)
        why = {
            "stage": "; force above 30 N",
            "fault": "; head: gone",
            "hold": "; head: gone (held for 0.05 s)",
            "none": "",
        }[cause]
        assert (rig.loop.latched, rig.loop.final) == (f"stopped by laptop{why}", cause != "none")
        assert rig.loop.reason == rig.loop.latched

    rig.run(main)


@pytest.mark.parametrize("decision", list(Decision))
def test_fault_decisions(decision: Decision) -> None:
    rig = Rig()
    state = {Decision.RETRY: "running", Decision.HOLD: "holding", Decision.STOP: "stopped"}[decision]

    async def main() -> None:
        rig.loop.follow(Chunks(ramp))
        await rig.ticks(3)
        rig.fault = (decision, "head: gone")
        await rig.ticks(3)
        assert rig.loop.state == state
        assert rig.loop.reason == ("" if state == "running" else "head: gone")
        rig.fault = None
        await rig.ticks(2)
        assert rig.loop.state == ("stopped" if state == "stopped" else "running")

    rig.run(main)


def test_a_hold_for_a_fault_becomes_a_stop_in_time() -> None:
    rig = Rig({"stop_after_hold_s": 0.1})

    async def main() -> None:
        rig.loop.follow(Chunks(ramp))
        for _ in range(3):  # each too short
            rig.fault = (Decision.HOLD, "wrist: timeout")
            await rig.ticks(9)
            assert rig.loop.state == "holding"
            rig.fault = None
            await rig.ticks(2)
            assert rig.loop.state == "running"
        rig.fault = (Decision.HOLD, "wrist: timeout")
        await rig.ticks(12)
        assert rig.loop.reason == "wrist: timeout (held for 0.1 s)"
        assert rig.loop.state == "stopped"

    rig.run(main)


def test_a_hold_that_was_asked_for_may_last() -> None:
    rig = Rig({"stop_after_hold_s": 0.1})

    async def main() -> None:
        rig.loop.hold()
        await rig.ticks(200)
        assert rig.loop.state == "holding"

    rig.run(main)


def test_without_arm_state_nothing_is_sent_and_then_it_begins_where_the_arm_is() -> None:
    rig = Rig()

    async def main() -> None:
        rig.loop.follow(Motion([0.1, 0.2, 0.3, 0.4, 0.5]))
        await rig.ticks(4)
        rig.alive = False
        await rig.ticks(36)
        assert (rig.loop.state, rig.loop.reason) == ("holding", "arm: no state for 0.025 s")
        gaps = rig.guard.gaps
        rig.arm.states.push(rig.clock.now_ns() + 5 * MS, position=0.2, velocity=0, load=0)  # moved by hand
        await rig.ticks(1)
        assert rig.loop.state == "running"
        assert rig.guard.gaps == gaps + 1

    rig.run(main)
    flags = rig.flags()
    blind = [n for n, f in enumerate(flags) if f & TickFlag.STALE_STATE]
    assert blind == list(range(blind[0], 40))
    for n in blind:
        assert not flags[n] & POSTED
        assert np.isnan(rig.history()[n]["clipped"]).all()
    assert rig.guard.calls[blind[0]]["previous"][0] == 0.2


def test_after_a_gap_the_arm_does_not_jump_back() -> None:
    rig = Rig({"follow_blend_s": 0.03, "engage_speed_rad_s": 0.8})

    async def main() -> None:
        rig.loop.follow(Motion([1.0] * 60))
        await rig.ticks(10)
        rig.alive = False
        await rig.ticks(40)
        rig.arm.states.push(rig.clock.now_ns() + 5 * MS, position=0.2, velocity=0, load=0)
        await rig.ticks(2)

    rig.run(main)
    assert rig.requested()[50] == pytest.approx(0.2 + 0.008 / 3)


def test_after_a_brief_gap_no_goal_is_taken_back() -> None:
    """The servos are still on their way to it: where they were read would be behind where they are."""
    rig = Rig({"engage_speed_rad_s": 0.8})

    async def main() -> None:
        rig.loop.follow(Motion([0.4] * 60))
        await rig.ticks(80)
        rig.alive = False
        await rig.ticks(12)
        rig.arm.states.push(rig.clock.now_ns() + 5 * MS, position=0.1, velocity=0, load=0)
        await rig.ticks(1)

    rig.run(main)
    assert rig.requested()[-1] == pytest.approx(0.4)


def test_after_a_gap_what_has_not_been_moved_keeps_its_target() -> None:
    """An arm that sags a little does not sag further, and a gripper does not let go of what it squeezes."""
    rig = Rig({"follow_blend_s": 0.3})
    rig.guard.rule = lambda requested: Outcome(np.array([0.5, 0.5, 0.1]))

    async def main() -> None:
        rig.loop.follow(Chunks(ramp))
        await rig.ticks(3)
        rig.alive = False
        rig.arm.states.push(rig.clock.now_ns() + 5 * MS, position=[0.48, 0.5, 0.3], velocity=0, load=0)
        await rig.ticks(40)
        assert rig.loop.state == "holding"
        rig.arm.states.push(rig.clock.now_ns() + 5 * MS, position=[0.47, 0.3, 0.29], velocity=0, load=0)
        await rig.ticks(1)

    rig.run(main)
    assert rig.guard.calls[-2]["previous"].tolist() == [0.5, 0.3, 0.1]


class PartOfRobot:
    """One of several arms, of `joints` joints, that says what it is told to say."""

    def __init__(self, joints: int) -> None:
        self.states = Ring(dict.fromkeys(("position", "velocity", "load"), ((joints,), "<f8")), 16)
        self.sent = Ring({"position": ((joints,), "<f8")}, 4)
        self.targets = Mailbox({"position": ((joints,), "<f8")})


def test_a_gap_of_one_of_two_arms_takes_no_squeeze_from_the_other() -> None:
    """The healthy arm's jaws have stopped at an object, at 0.3; what they were asked for is 0.1."""
    left, right = PartOfRobot(1), PartOfRobot(2)
    rig = Rig({"follow_blend_s": 0.3}, arm=ArmGroup({"arms.left": left, "arms.right": right}))
    rig.guard.rule = lambda requested: Outcome(np.array([0.5, 0.5, 0.1]))

    def say(arm: PartOfRobot, *position: float) -> None:
        arm.states.push(rig.clock.now_ns() + 5 * MS, position=position, velocity=0, load=0)

    async def main() -> None:
        rig.loop.follow(Chunks(ramp))
        for tick in range(40):
            say(right, 0.48, 0.3)
            if tick < 5:
                say(left, 0.5)
            await rig.ticks(1)
        assert (rig.loop.state, rig.loop.reason.split(":")[0]) == ("holding", "arms.left")
        say(left, 0.2)
        say(right, 0.48, 0.3)
        await rig.ticks(1)

    rig.run(main)
    assert rig.guard.calls[-2]["previous"].tolist() == [0.2, 0.5, 0.1]


def test_a_motion_of_any_length_is_made_whole() -> None:
    """It is longer than the horizon, which takes it in pieces."""
    rig = Rig({"horizon_rows": 1024})
    rows = np.repeat(np.arange(1, 3001)[:, None] / 1000, D, axis=1)

    async def main() -> None:
        rig.loop.follow(MotionSource(rows))
        assert await finished(rig.loop)

    rig.run(main)
    assert rig.requested()[1:3001] == [n / 1000 for n in range(1, 3001)]
    assert rig.statistics.splices == {"spliced": 6}


def test_a_motion_that_is_refused_is_not_done() -> None:
    rig = Rig()

    async def main() -> None:
        rig.loop.follow(MotionSource(np.full((4, D), np.nan)))
        assert await finished(rig.loop) is False
        assert (rig.loop.exhausted, rig.loop.refused) == (False, "not_finite")

    rig.run(main)


# --- engaging


def engaging_rig(*watches: Watch, **options: float) -> tuple[Rig, Ring]:
    """At 30 ticks a second, as an arm has it."""
    settings = {"rate_hz": 30, "engage_speed_rad_s": 0.8, "follow_blend_s": 0.3, "state_max_age_s": 0.1}
    return Rig({**settings, **options}, watches), Ring(STATES, 8)


@pytest.mark.parametrize("cause", ["fault", "camera", "leader", "arm"])
def test_after_any_hold_the_arm_engages_as_at_the_start(cause: str) -> None:
    """The leader is 0.69 rad ahead after a hold of 4.8 s."""
    camera = Ring({"color": ((2, 2, 3), "|u1")}, 3)
    rig, leader = engaging_rig(*([Watch("head", camera, 0.1)] if cause == "camera" else []))
    ahead = [0.0]

    async def live(ticks: int, *dead: str) -> None:
        for _ in range(ticks):
            now = rig.clock.now_ns()
            if "leader" not in dead:
                leader.push(now, position=ahead[0], velocity=0, load=0)
            if "camera" not in dead:
                camera.push(now, color=0)
            await rig.ticks(1)

    async def main() -> None:
        rig.loop.follow(LeaderSource(leader, 0.1))
        await live(30)
        assert rig.loop.state == "running"
        rig.alive = cause != "arm"
        rig.fault = (Decision.HOLD, "frozen") if cause == "fault" else None
        await live(144, cause)
        assert rig.loop.state == "holding"
        ahead[0], rig.alive, rig.fault = 0.69, True, None
        await live(60)
        assert rig.loop.state == "running"

    rig.run(main)
    steps = np.diff([float(each["clipped"][0]) for each in rig.history()[-60:]]) * 30
    met = int(np.flatnonzero(np.cumsum(steps) / 30 > 0.69 - 0.8 / 30)[0])
    assert rig.requested()[-1] == 0.69
    assert steps.max() <= 0.8 + 1e-9
    assert met >= 24
    assert steps[14 : met - 1] == pytest.approx(0.8)  # after gaining speed: the whole way


def test_after_the_process_stood_still_the_arm_engages() -> None:
    """No tick saw that anything was too old: the loop itself did not run."""
    rig, leader = engaging_rig()

    async def main() -> None:
        leader.push(rig.clock.now_ns(), position=0.0, velocity=0, load=0)
        rig.loop.follow(LeaderSource(leader, 1000.0))
        await rig.ticks(10)
        rig.loop.close()

    rig.run(main)
    leader.push(rig.clock.now_ns(), position=0.69, velocity=0, load=0)
    rig.arm.states.push(rig.clock.now_ns(), position=0, velocity=0, load=0)
    rig.loop.tick(10 + 360)
    assert 0 < rig.requested()[-1] < 0.8 / 30


def test_a_process_that_stood_still_while_a_tick_was_waited_for_starts_from_rest() -> None:
    """That tick has its number, and is late by 0.4 s; the next one, which skips the others, comes soon."""
    rig, leader = engaging_rig()

    async def main() -> None:
        leader.push(rig.clock.now_ns(), position=0.0, velocity=0, load=0)
        rig.loop.follow(LeaderSource(leader, 1000.0))
        await rig.ticks(10)
        rig.loop.close()

    rig.run(main)
    stops: list[int] = []
    rig.guard.interrupted = lambda: stops.append(rig.loop._tick)  # type: ignore[method-assign]
    leader.push(rig.clock.now_ns(), position=0.69, velocity=0, load=0)
    last_ns = rig.loop._output._before_ns
    for tick, after_ms in ((10, 410), (22, 434), (23, 467)):
        at_ns = last_ns + after_ms * MS
        rig.arm.states.push(at_ns, position=0, velocity=0, load=0)
        rig.loop._pacer.started_ns = at_ns
        rig.loop.tick(tick)
    assert stops == [10]
    assert 0 < rig.requested()[-1] < 3 * 0.8 / 30


@pytest.mark.parametrize(("late_ms", "skipped", "then_ms"), [(0, 1, 10), (7, 1, 10), (3, 0, 7), (9, 0, 1)])
def test_a_late_tick_is_credited_a_period_and_the_next_one_what_passed(
    late_ms: int, skipped: int, then_ms: int
) -> None:
    """The arm has stopped meanwhile: a longer time is no reason for a longer way at once."""
    rig = Rig()

    async def main() -> None:
        await rig.ticks(3)
        rig.loop.close()

    rig.run(main)
    last = len(rig.guard.calls) + 10
    due_ns = rig.clock.now_ns() + 10 * TICK
    for ticks, late_ns in ((-1, 0), (0, late_ms * MS), (1 + skipped, 0)):
        at_ns = due_ns + ticks * TICK + late_ns
        rig.arm.states.push(at_ns, position=0, velocity=0, load=0)
        rig.loop._pacer.started_ns = at_ns
        rig.loop.tick(last + ticks)
    credited = [call["dt_s"] * 1000 for call in rig.guard.calls[-2:]]
    assert credited == pytest.approx([10, then_ms])
    late = [10 + late_ms] * (late_ms > 0) + [10 + 10 * skipped - late_ms] * skipped
    assert [1000 * passed for _, passed in rig.guard.lasts[-len(late) :]] == pytest.approx(late)


def test_a_tick_that_is_off_by_a_tenth_is_on_time() -> None:
    rig = Rig()
    for tick, at_ms in enumerate((10, 20.9, 30, 40.9, 50)):
        at_ns = round(at_ms * MS)
        rig.arm.states.push(at_ns, position=0, velocity=0, load=0)
        rig.loop._pacer.started_ns = at_ns
        rig.loop.tick(tick)
    assert [call["dt_s"] for call in rig.guard.calls] == [0.01] * 5


@pytest.mark.parametrize("late_ms", [0, 12, 29, 105])
def test_no_late_tick_makes_a_target_faster_by_its_stamps(late_ms: int) -> None:
    """At full speed one tick is late, and the next one is skipped or comes soon after."""
    options, period = SafetyOptions(), NS_PER_S / 30
    stage, target, speed, skipped = (
        SafetyStage(options, crane()),
        np.zeros(3),
        0.0,
        3 if late_ms > 100 else late_ms > 20,
    )
    stamps = [*(k * period for k in range(8)), 8 * period + late_ms * MS]
    stamps += [(k + 9 + skipped) * period for k in range(4)]
    for before, now in itertools.pairwise(stamps):
        dt = min((now - before) / NS_PER_S, options.max_step_s)
        start, was = target, speed
        credited = min(dt, 1 / 30)
        target = stage.apply(np.array([1.9, 0.0, 0.0]), start, start, None, None, credited).target
        if dt > credited:
            stage.lasted(credited, dt)
        speed = (target[0] - start[0]) / dt
        assert speed <= options.max_velocity_rad_s + 1e-9
        assert abs(speed - was) <= options.max_acceleration_rad_s2 * dt + 1e-9


def test_a_leader_beyond_what_a_joint_can_do_keeps_no_other_joint_waiting() -> None:
    rig, leader = engaging_rig()
    rig.guard.rule = lambda requested: Outcome(np.minimum(requested, [0.1, 9, 9]))

    async def main() -> None:
        leader.push(0, position=[0.5, 0.2, 0.0], velocity=0, load=0)
        rig.loop.follow(LeaderSource(leader, 1000.0))
        await rig.ticks(60)
        leader.push(rig.clock.now_ns(), position=[0.5, 0.7, 0.0], velocity=0, load=0)
        await rig.ticks(3)
        assert rig.loop.target is not None
        assert rig.loop.target.tolist() == [0.1, 0.7, 0.0]  # it was met before: it follows at once

    rig.run(main)


def test_what_a_check_kept_back_is_come_to_slowly_when_it_lets_go() -> None:
    """The leader has gone on while a force held the arm: when it ends, nothing rushes there."""
    rig, leader = engaging_rig()

    async def main() -> None:
        rig.loop.follow(LeaderSource(leader, 1000.0))
        for tick in range(60):
            leader.push(rig.clock.now_ns(), position=min(0.6, tick * 0.02), velocity=0, load=0)
            if tick == 20:
                rig.guard.rule = lambda requested: Outcome(np.full(D, 0.38), Clip.FORCE)
            await rig.ticks(1)
        rig.guard.rule = lambda requested: Outcome(requested.copy())
        leader.push(rig.clock.now_ns() + 10_000 * MS, position=0.6, velocity=0, load=0)
        await rig.ticks(20)

    rig.run(main)
    steps = np.diff([float(each["clipped"][0]) for each in rig.history()[60:]]) * 30
    assert 0 < steps.max() <= 0.8 + 1e-9


def test_a_motion_that_was_held_goes_on_where_it_was_at_its_own_speed() -> None:
    rig, _ = engaging_rig(follow_blend_s=0.0)
    rows = [round(0.05 * n, 9) for n in range(1, 41)]

    async def main() -> None:
        rig.loop.follow(Motion(rows))
        await rig.ticks(30)
        rig.loop.hold()
        await rig.ticks(30)
        rig.loop.resume()
        assert await finished(rig.loop)

    rig.run(main)
    requested = rig.requested()
    assert requested[-1] == 2.0
    steps = np.diff(requested)
    assert steps.max() <= 0.05 + 1e-9
    assert set(rows) <= set(requested)  # along the same way
    assert len(requested) < 40 + 30 + 10


def test_before_the_first_state_nothing_is_sent() -> None:
    rig = Rig()
    rig.alive = False

    async def main() -> None:
        rig.loop.follow(Chunks(ramp))
        await rig.ticks(3)
        assert rig.loop.state == "holding"
        assert rig.loop.position is None
        assert rig.loop.target is None

    rig.run(main)
    assert rig.arm.targets.take() is None
    assert rig.guard.calls == []
    assert all(np.isnan(s["requested"]).all() for s in rig.history())


def test_a_watched_sensor_must_be_fresh_while_something_is_followed() -> None:
    camera = Ring({"color": ((2, 2, 3), "|u1")}, 3)
    rig = Rig(watches=(Watch("head", camera, 0.03),))

    async def main() -> None:
        await rig.ticks(2)
        assert rig.loop.state == "idle"
        rig.loop.follow(Chunks(ramp))
        await rig.ticks(2)
        assert (rig.loop.state, rig.loop.reason) == ("holding", "head: no data for 0.03 s")
        camera.push(rig.clock.now_ns(), color=0)
        await rig.ticks(2)
        assert rig.loop.state == "running"
        await rig.ticks(3)
        assert rig.loop.state == "holding"

    rig.run(main)


def test_changes_can_be_waited_for() -> None:
    rig, seen = Rig(), []

    async def watch() -> None:
        while rig.loop.state != "stopped":
            await rig.loop.changed()
            seen.append((rig.loop.state, rig.loop.reason))

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watch)
            await rig.ticks(1)
            rig.loop.hold("a")
            await rig.ticks(1)
            rig.loop.hold("b")
            await rig.ticks(1)
            rig.loop.stop("c")

    rig.run(main)
    assert seen == [("holding", "a"), ("holding", "b"), ("stopped", "c")]


def test_however_it_ends_the_last_target_stays() -> None:
    """Where the arm is measured would be less: a loaded arm would sag, a gripper drop what it holds."""
    rig = Rig()

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(rig.loop.run)
            rig.clock.spawn("arm", rig._device)
            rig.loop.follow(Chunks(ramp))
            await rig.ticks(5)
            tasks.cancel_scope.cancel()

    rig.clock.run(main)
    last = rig.arm.targets.take()
    assert last is not None
    np.testing.assert_array_equal(last["position"], rig.history()[-1]["requested"])
    assert last["position"][0] == 0.003
    assert rig.loop.position is not None
    assert rig.loop.position[0] == 0.002


def test_a_late_chunk_source_never_moves_the_deadlines() -> None:
    rig, source = Rig(), Chunks(ramp, delay=2)

    async def main() -> None:
        rig.loop.follow(source)
        await rig.ticks(50)

    rig.run(main)
    assert [s.stamp_ns for s in rig.history()][:50] == [n * TICK for n in range(1, 51)]


def test_two_runs_are_the_same() -> None:
    def run() -> list[tuple[object, ...]]:
        rig = Rig({"blend": "temporal_ensemble", "request_below": 1.0, "follow_blend_s": 0.05})
        rng = np.random.default_rng(7)

        async def main() -> None:
            rig.loop.follow(Chunks(lambda s: rng.normal(size=(20, D)), delay=3))
            await rig.ticks(60)
            rig.alive = False
            await rig.ticks(10)
            rig.alive = True
            await rig.ticks(20)

        rig.run(main)
        return [(s.stamp_ns, *(a.tobytes() for a in s.fields.values())) for s in rig.history()]

    first = run()
    assert first == run()
    assert len(first) > 80


def test_the_next_chunk_is_asked_for_early_enough_for_what_inference_took() -> None:
    rig = Rig({"blend": "latest", "request_below": 0.1})
    source = Chunks(lambda step: [float(step + k) for k in range(20)], delay=8)

    async def main() -> None:
        rig.loop.follow(source)
        await rig.ticks(20)
        rig.statistics.starved = 0  # the first answer's delay was not known yet
        await rig.ticks(200)

    rig.run(main)
    assert rig.statistics.starved <= 8  # the gap behind the first chunk, and none after it
    assert not any(flag & STARVED for flag in rig.flags()[-150:])


def test_what_cannot_last_until_the_next_chunk_is_played_slower() -> None:
    """Chunks of 20 that take 24 ticks: without it the arm stands for more than half of the time."""
    played: dict[bool, list[float]] = {}
    for stretch in (False, True):
        rig = Rig({"blend": "latest", "stretch": stretch, "follow_blend_s": 0.0})

        async def main(rig: Rig = rig) -> None:
            rig.loop.follow(Chunks(lambda step: [float(step + k) for k in range(20)], delay=24))
            await rig.ticks(150)
            rig.statistics.starved = rig.statistics.stretched = 0
            await rig.ticks(250)

        rig.run(main)
        played[stretch] = rig.requested()[-250:]
        assert (rig.statistics.starved == 0) == stretch
        assert (rig.statistics.stretched > 200) == stretch
    speeds = np.diff(played[True])
    assert 0.2 < speeds.min() < speeds.max() < 0.7  # 10 rows in 25 ticks
    assert np.abs(np.diff(speeds)).max() < 0.25
    assert played[True][-1] - played[True][0] == pytest.approx(played[False][-1] - played[False][0], abs=11)
    assert set(np.diff(played[False])) == {0.0, 1.0}


def test_what_lasts_is_played_as_it_is() -> None:
    rig = Rig({"blend": "latest", "stretch": True, "follow_blend_s": 0.0})

    async def main() -> None:
        rig.loop.follow(Chunks(lambda step: [float(step + k) for k in range(20)], delay=8))
        await rig.ticks(100)

    rig.run(main)
    assert rig.statistics.stretched == 0
    assert set(np.diff(rig.requested()[-50:])) == {1.0}


def test_only_so_many_steps_of_a_chunk_are_executed() -> None:
    rig = Rig({"blend": "latest", "request_below": 1.0, "execute_steps": 3})
    left: list[int] = []

    async def main() -> None:
        rig.loop.follow(Chunks(lambda step: [float(step)] * 20, delay=1))
        for _ in range(40):
            await rig.ticks(1)
            left.append(len(rig.loop.horizon))

    rig.run(main)
    assert max(left) <= 3
    taken = [value for value in rig.requested() if value]
    assert max(taken.count(value) for value in set(taken)) <= 3


def test_a_target_that_is_not_finite_is_never_posted() -> None:
    rig = Rig()

    async def main() -> None:
        rig.loop.follow(Chunks(ramp))
        await rig.ticks(5)
        rig.guard.rule = lambda requested: Outcome(requested * np.nan, Clip.NOT_FINITE, "position unknown")
        assert rig.arm.targets.take() is not None
        await rig.ticks(3)
        assert rig.arm.targets.take() is None

    rig.run(main)
    assert rig.loop.state == "stopped"
