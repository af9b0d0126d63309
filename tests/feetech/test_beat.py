"""A bus in step with a control loop: what is read just before a tick, and what a goal waits for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from loguru import logger

from drivers.feetech import registers as reg
from drivers.feetech.emulator import READ, SYNC_READ, SYNC_WRITE, Instruction
from drivers.feetech.schedule import KeepingUp, ReadTimes
from runtime.beat import Beat
from runtime.latest import Latest
from runtime.messages import DeviceError
from tests.feetech.rig import MS, NAMES, Rig, encoder, rig

MIDDLES = dict.fromkeys(NAMES[:4], 2000)
BEGIN = 1_100 * MS
"""When tick 0 is due; the rig's clock is at a second then, and its bus has been read a few times."""
LATE = 1_000_000
WIRE = 1_820_000
"""The 182 bytes that six servos' torque, goals and states are, question included, at 1 Mbit/s."""


def beat_of(rate_hz: float) -> Latest[Beat]:
    box: Latest[Beat] = Latest()
    box.post(Beat.of(BEGIN, rate_hz))
    return box


@contextmanager
def in_step(folder: Path, rate_hz: float, quiet_ns: int = 0, **options: object) -> Iterator[Rig]:
    """An arm that was open before its loop began, which says so then, and stands at tick 0.

    A follower trusts what its servos said before the tick, unless it is told not to.
    """
    box: Latest[Beat] = Latest()
    options.setdefault("trust_torque_s", 0.01)
    with rig(folder, start=MIDDLES, beat=box, **options) as r:  # type: ignore[arg-type]
        r.arm.open()
        r.run(1)
        box.post(Beat.of(BEGIN, rate_hz, quiet_ns))
        play(r, BEGIN)
        yield r


def play(r: Rig, until_ns: int) -> None:
    """Poll until then."""
    while r.clock.now_ns() < until_ns:
        left = until_ns - r.clock.now_ns()
        if r.arm._times.due_ns - r.clock.now_ns() > left:
            r.clock.wait_until_ns(until_ns)
        else:
            r.arm.poll()


def listen(r: Rig, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, Instruction]]:
    """Whatever is said on the bus from now on, and when."""
    heard: list[tuple[int, Instruction]] = []
    answer = r.emulator._answer

    def note(instruction: Instruction) -> Iterator[bytes]:
        heard.append((r.clock.now_ns(), instruction))
        return answer(instruction)

    monkeypatch.setattr(r.emulator, "_answer", note)
    return heard


@pytest.mark.parametrize(
    ("rate_hz", "role"),
    [(25.0, "leader"), (100.0, "leader"), (200.0, "leader"), (25.0, "follower"), (100.0, "follower")],
)
def test_an_arm_is_read_just_before_each_tick(tmp_path: Path, rate_hz: float, role: str) -> None:
    wire = {"leader": 860_000, "follower": WIRE}[role]
    with in_step(tmp_path, rate_hz, role=role) as r:
        beat = Beat.of(BEGIN, rate_hz)
        for tick in range(1, 20):
            play(r, beat.at_ns(tick))
            stamp = r.arm.states.newest_stamp_ns()
            assert stamp is not None
            # What its bytes take on the wire, and what is kept for a thread that wakes late: some 0.5 ms.
            assert wire + LATE <= beat.at_ns(tick) - stamp <= wire + LATE + MS // 5
        seconds = 0.1 + 19 / rate_hz
        assert r.arm.states.published == pytest.approx(max(100, rate_hz) * seconds, abs=2)


def test_it_is_read_before_the_loop_keeps_the_lock_for_its_tick(tmp_path: Path) -> None:
    with in_step(tmp_path, 25.0, quiet_ns=3 * MS, role="leader") as r:
        beat = Beat.of(BEGIN, 25.0)
        for tick in range(1, 20):
            play(r, beat.at_ns(tick))
            stamp = r.arm.states.newest_stamp_ns()
            assert stamp is not None
            assert 860_000 + 3 * MS <= beat.at_ns(tick) - stamp <= 860_000 + 3 * MS + MS // 5


def test_between_a_tick_and_its_goal_the_bus_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the goal is one packet: what has to be asked before was asked before the tick."""
    with in_step(tmp_path, 100.0, health_period_s=0.05) as r:
        heard = listen(r, monkeypatch)
        for tick in range(20):
            at_ns = BEGIN + tick * 10 * MS
            play(r, at_ns)
            heard.clear()
            r.arm.targets.post(at_ns, position=np.full(6, 0.001 * tick))
            r.arm.poll()
            assert [(ns - at_ns, each.code) for ns, each in heard] == [(0, SYNC_WRITE), (0, READ)]
            play(r, at_ns + 5 * MS)
            assert len(heard) == 2
        assert r.arm.sent.published == 20
        sent = r.arm.sent.newest()
        assert sent is not None
        assert sent["target_ns"].tolist() == [at_ns] * 6
        assert r.arm.health.published >= 4


def test_unless_it_may_trust_them_servos_are_asked_right_before_each_goal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A goal switches torque on: one that has just restarted would jump to it, with a new servo's gains."""
    with in_step(tmp_path, 30.0, trust_torque_s=0.0) as r:
        beat = Beat.of(BEGIN, 30.0)
        heard = listen(r, monkeypatch)
        for tick in range(5):
            play(r, beat.at_ns(tick))
            assert {each.parameters[0] for _, each in heard} <= {reg.PRESENT_POSITION.address}
            heard.clear()
            r.arm.targets.post(r.clock.now_ns(), position=np.zeros(6))
            r.arm.poll()
            assert [each.code for _, each in heard] == [SYNC_READ, SYNC_WRITE, READ]
            heard.clear()
        play(r, beat.at_ns(5))
        r.emulator.restart(2)
        r.arm.targets.post(r.clock.now_ns(), position=np.full(6, 0.1))
        with pytest.raises(DeviceError, match="shoulder_lift"):
            r.arm.poll()
        assert not r.bank.motion(2)[2]
        assert r.arm.sent.published == 5


def test_at_30_hz_readings_are_as_often_as_before_and_only_the_last_is_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with in_step(tmp_path, 30.0, health_period_s=10.0) as r:
        heard = listen(r, monkeypatch)
        play(r, Beat.of(BEGIN, 30.0).at_ns(3))
        assert [each.parameters[0] for _, each in heard] == [
            reg.PRESENT_POSITION.address,
            reg.PRESENT_POSITION.address,
            reg.TORQUE_ENABLE.address,
        ] * 3
        assert {each.code for _, each in heard} == {SYNC_READ}


def test_a_goal_that_comes_late_asks_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with in_step(tmp_path, 20.0, state_rate_hz=20.0) as r:
        play(r, BEGIN + 50 * MS)
        heard = listen(r, monkeypatch)
        for late in (6, 9):
            heard.clear()
            r.arm.targets.post(r.clock.now_ns(), position=np.zeros(6))
            r.clock.wait_until_ns(BEGIN + 50 * MS + late * MS)
            r.arm.poll()
            codes = [each.code for _, each in heard]
            assert codes == ([SYNC_WRITE, READ] if late == 6 else [SYNC_READ, SYNC_WRITE, READ])


def test_each_goal_needs_a_question_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with in_step(tmp_path, 100.0) as r:
        play(r, BEGIN + 10 * MS)
        heard = listen(r, monkeypatch)
        for goal in (0.0, 0.01):
            r.arm.targets.post(r.clock.now_ns(), position=np.full(6, goal))
            r.arm.poll()
        assert [each.code for _, each in heard] == [SYNC_WRITE, READ, SYNC_READ, SYNC_WRITE, READ]


@pytest.mark.parametrize("rate_hz", [30.0, 100.0])
def test_torque_that_was_lost_is_noticed_before_the_tick_and_no_goal_switches_it_on(
    tmp_path: Path, rate_hz: float
) -> None:
    with in_step(tmp_path, rate_hz) as r:
        beat = Beat.of(BEGIN, rate_hz)
        for tick in range(5):
            play(r, beat.at_ns(tick))
            r.arm.targets.post(r.clock.now_ns(), position=np.zeros(6))
            r.arm.poll()
        r.emulator.servos[2].write(reg.TORQUE_ENABLE.address, b"\0")  # nothing shows that it let go
        r.bank.place(2, encoder("shoulder_lift", 1200))  # it fell
        with pytest.raises(DeviceError) as caught:
            play(r, beat.at_ns(5))
        assert caught.value.kind == "torque_lost"
        assert caught.value.detail.endswith(": shoulder_lift")
        assert r.clock.now_ns() < beat.at_ns(5)
        assert r.arm.sent.published == 5
        assert not r.bank.motion(2)[2]


def test_at_200_hz_one_reading_answers_for_the_goal_before_it_and_the_one_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with in_step(tmp_path, 200.0, health_period_s=10.0) as r:
        play(r, BEGIN + 4 * MS)  # once in the middle between two ticks, where no goal came
        heard = listen(r, monkeypatch)
        for tick in range(1, 20):
            at_ns = BEGIN + tick * 5 * MS
            play(r, at_ns)
            assert not heard
            r.arm.targets.post(at_ns, position=np.full(6, 0.001 * tick))
            r.arm.poll()
            assert [(ns - at_ns, each.code) for ns, each in heard] == [(0, SYNC_WRITE), (0, SYNC_READ)]
            assert r.arm.states.newest_stamp_ns() == at_ns
            heard.clear()
        assert r.arm.sent.published == 19
        play(r, BEGIN + 120 * MS)  # the loop has nothing to say any more
        assert [each.parameters[0] for _, each in heard] == [reg.TORQUE_ENABLE.address] * 4
        r.emulator.servos[2].write(reg.TORQUE_ENABLE.address, b"\0")
        with pytest.raises(DeviceError, match="torque is off"):
            play(r, BEGIN + 125 * MS)


def test_a_restart_is_noticed_with_the_next_health_though_goals_switch_torque_on(tmp_path: Path) -> None:
    with in_step(tmp_path, 100.0, health_period_s=0.2) as r:
        play(r, BEGIN + 10 * MS)
        r.emulator.restart(3)
        r.emulator.servos[3].write(reg.TORQUE_ENABLE.address, b"\1")  # as a goal that was on its way does

        def follow() -> None:
            for tick in range(2, 25):
                r.arm.targets.post(r.clock.now_ns(), position=np.zeros(6))
                play(r, BEGIN + tick * 10 * MS)

        with pytest.raises(DeviceError, match=r"P_Coefficient 32 instead of 16.*: elbow_flex$"):
            follow()
        assert r.clock.now_ns() <= BEGIN + 230 * MS


def test_a_goal_that_was_lost_is_seen_before_the_next_tick(tmp_path: Path) -> None:
    with in_step(tmp_path, 100.0) as r:
        for tick, goal in enumerate((0.0, 0.02, 0.04)):
            play(r, BEGIN + tick * 10 * MS)
            r.emulator.faults.silent = {1} if tick == 1 else set()
            r.arm.targets.post(r.clock.now_ns(), position=np.full(6, goal))
            r.arm.poll()
            r.emulator.faults.silent = set()
        sent = r.arm.sent.newest()
        assert sent is not None
        assert sent["position"][:2] == pytest.approx([0.0, 0.04], abs=1e-3)
        assert r.arm.statistics()["shoulder_pan.lost_goal"] == 1


def test_readings_that_take_longer_begin_earlier_and_later_again_once_they_do_not() -> None:
    beat = Beat.of(0, 100.0)
    box: Latest[Beat] = Latest()
    box.post(beat)
    times = ReadTimes(100.0, box)
    times.begin(-50 * MS)
    times.plan(-50 * MS, 2 * MS)

    def run(took_ns: int, readings: int) -> int:
        """How long before its tick the last of them began."""
        for _ in range(readings):
            began = times.due_ns
            times.took(began + took_ns, 2 * MS)
            times.plan(began, 2 * MS)
        return beat.at_ns(beat.after(times.due_ns)) - times.due_ns

    assert run(3 * MS, 200) == pytest.approx(3 * MS + LATE, abs=MS // 5)
    assert run(2 * MS, 1000) == 2 * MS + LATE
    for _ in range(20):  # what one of ten takes is not waited for
        run(2 * MS, 19)
        run(8 * MS, 1)
    assert run(2 * MS, 1) < 2.4 * MS + LATE
    assert run(20 * MS, 1000) == 16 * MS // 3 + LATE  # never more than a third of a period besides the bytes


def test_readings_that_were_due_while_nobody_read_are_left_out() -> None:
    times = ReadTimes(100.0, beat_of(100.0), goals=True)
    times.begin(BEGIN)
    times.plan(BEGIN, WIRE)
    first = times.due_ns
    times.plan(first + 95 * MS, WIRE)
    assert times.due_ns - first == 100 * MS
    assert times.before_goal


def test_a_bus_that_is_slower_than_the_loop_says_so() -> None:
    said: list[str] = []
    sink = logger.add(lambda message: said.append(message.record["message"]), level="WARNING")
    try:
        keeps = KeepingUp("arm")
        for index in range(400):  # two seconds at 200 Hz
            if index % 5 in (0, 2):
                keeps.taken(index, index * 5 * MS)
        assert keeps.replaced == 238
        assert len(said) == 1
        assert said[0].startswith("arm: its bus writes 80 of 200 targets a second")
        keeps.forget()
        for index in range(500, 900):
            keeps.taken(index, index * 5 * MS)
        assert (keeps.replaced, len(said)) == (238, 1)
    finally:
        logger.remove(sink)
