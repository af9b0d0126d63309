"""What moves the point: keys, a hand with its clutch, a gamepad at the wire; and what does not."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from shutil import which
from typing import Any

import numpy as np
import pytest

from drivers.jog import gamepad
from drivers.jog.emulator import GamepadEmulator
from drivers.jog.options import PadOptions
from runtime.interfaces import GuidedLeader, JoggedLeader
from runtime.messages import DeviceError, FaultKind
from tests.jog.rig import READY, Rig

PERIOD_S = 1 / 50


def test_it_says_nothing_before_there_is_a_follower_and_begins_where_it_is() -> None:
    rig = Rig()
    assert isinstance(rig.leader, JoggedLeader)
    assert isinstance(rig.leader, GuidedLeader)
    rig.leader.open()
    assert not rig.leader.poll()
    assert rig.leader.states.newest() is None
    rig.at(READY)
    assert rig.leader.poll()
    np.testing.assert_allclose(rig.position, READY, atol=1e-12)


def test_a_key_counts_for_a_fifth_of_a_second_and_silence_is_standing_still() -> None:
    rig = Rig()
    start = rig.begin()
    rig.jog([0, 0.1, 0, 0, 0, 0])
    rig.poll(40)
    moved = rig.place - start
    np.testing.assert_allclose(moved, [0, 0.1 * 0.2, 0], atol=0.003)
    rig.jog([0, 9.0, 0, 0, 0, 0])  # no faster than the table says
    rig.poll(1)
    assert np.linalg.norm(rig.place - start - moved) <= rig.config.linear_m_s * PERIOD_S + 0.001


@pytest.mark.parametrize("far", [1e5, 1e200, 1.7e308])
def test_a_number_that_is_no_place_moves_the_arm_no_faster_and_spoils_nothing(far: float) -> None:
    rig = Rig()
    rig.begin()
    for turn, place in enumerate((-far, far)):
        before = rig.place
        rig.jog([far, -far, far, far, far, far], grip=-far)
        rig.hand([place, place, place], (far, 0, 0, far), clutch=turn, grip=far)
        rig.poll()
        assert np.linalg.norm(rig.place - before) <= rig.config.linear_m_s * PERIOD_S + 0.001
        rig.hand([place, place, place], (far, 0, 0, far), grip=far)
        rig.poll()
        rig.hand([-place, place, place], (-far, 0, far, far), grip=far)
        rig.poll()
        assert np.isfinite(rig.position).all()
    before = rig.place
    rig.hand([0, 0, 0], clutch=0.0)
    rig.jog([0, 0.1, 0, 0, 0, 0])
    rig.poll(5)
    np.testing.assert_allclose(rig.place - before, [0, 5 * 0.1 * PERIOD_S, 0], atol=0.003)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_what_is_no_number_moves_nothing(wrong: float) -> None:
    rig = Rig()
    start = rig.begin()
    rig.jog([wrong, 0.1, 0, 0, 0, 0])
    rig.hand([0, wrong, 0])
    rig.poll(3)
    np.testing.assert_array_equal(rig.place, start)


def test_the_gripper_opens_and_closes_at_its_own_speed_and_stays_shut_on_what_it_holds() -> None:
    rig = Rig()
    rig.begin()
    rig.jog([0] * 6, grip=0.5)
    rig.poll(5)
    assert rig.position[5] == pytest.approx(READY[5] + 5 * 0.5 * PERIOD_S)
    rig.stays = True  # it holds something
    held = rig.position
    for _ in range(30):
        rig.at(held)
        rig.jog([0] * 6, grip=-1.0)
        rig.poll()
    assert rig.position[5] == pytest.approx(max(0.0, held[5] - 0.35))
    for _ in range(30):
        rig.at(held)
        rig.poll()
    assert rig.position[5] == pytest.approx(max(0.0, held[5] - 0.35))


def test_a_held_follower_is_not_run_away_from_and_a_moved_one_is_gone_to() -> None:
    rig = Rig()
    start = rig.begin()
    rig.stays = True
    for _ in range(100):
        rig.at(READY)
        rig.jog([0, 0.1, 0, 0, 0, 0])
        rig.poll()
    assert np.linalg.norm(rig.place - start) <= rig.config.leash_m + 0.001
    assert rig.leader.statistics()["out_of_reach"] > 0
    elsewhere = READY + np.array([0.6, 0, 0, 0, 0, 0])
    for _ in range(20):
        rig.at(elsewhere)
        rig.poll()
    np.testing.assert_allclose(rig.position[:5], elsewhere[:5], atol=1e-9)


def test_what_was_asked_for_before_a_gap_is_not_done_after_it() -> None:
    rig = Rig()
    rig.begin()
    rig.hand([0, 0, 0])
    rig.poll()
    elsewhere = READY + np.array([0.15, 0, 0, 0, 0, 0])
    for posted in (True, False):  # in the mailboxes; taken out of them
        rig.hand([0, 0.1, 0], clutch=float(posted))
        rig.jog([0, 0.1, 0, 0, 0, 0], grip=1.0)
        if posted:
            rig.leader.guide.post(rig.clock.now_ns(), position=READY + 0.1)
        else:
            rig.poll()
        rig.leader.close()
        rig.leader.open()
        rig.at(elsewhere)
        if posted:
            rig.hand([0, 0.2, 0])  # its clutch counts from here on
        rig.poll(2)
        np.testing.assert_allclose(rig.position, elsewhere, atol=1e-9)


def test_what_says_that_it_is_of_later_is_not_kept_until_then() -> None:
    rig = Rig()
    start = rig.begin()
    zero = np.zeros(3)
    rig.leader.jog.post(rig.clock.now_ns() + 300_000_000, twist=np.array([0, 0.1, 0, 0, 0, 0]), grip=0.0)
    rig.leader.hand.post(
        rig.clock.now_ns() + 300_000_000, position=zero, quaternion=np.ones(4), grip=1.0, clutch=1.0
    )
    rig.poll(30)
    np.testing.assert_array_equal(rig.place, start)
    assert rig.position[5] == READY[5]


def test_a_stale_follower_moves_nothing() -> None:
    rig = Rig()
    start = rig.begin()
    rig.stays = True
    rig.clock.at_ns += 600_000_000
    rig.jog([0, 0.1, 0, 0, 0, 0])
    rig.poll(3)
    np.testing.assert_array_equal(rig.place, start)


def test_a_hand_moves_the_point_from_where_its_clutch_was_pressed() -> None:
    rig = Rig()
    start = rig.begin()
    rig.hand([5.0, 5.0, 5.0])
    rig.poll()
    np.testing.assert_allclose(rig.place, start, atol=1e-6)
    for _ in range(30):
        rig.hand([5.0, 5.02, 5.0])
        rig.poll()
    np.testing.assert_allclose(rig.place - start, [0, 0.02, 0], atol=0.002)
    rig.hand([5.0, 5.02, 5.0], clutch=0.0)
    rig.poll()
    for _ in range(5):
        rig.hand([0.0, 0.0, 0.0])  # pressed again somewhere else
        rig.poll()
    np.testing.assert_allclose(rig.place - start, [0, 0.02, 0], atol=0.002)


def test_a_hand_that_leaps_is_followed_no_faster_than_allowed_and_one_that_is_lost_not_at_all() -> None:
    rig = Rig()
    start = rig.begin()
    rig.hand([0, 0, 0])
    rig.poll()
    rig.hand([0, 1.0, 0])
    rig.poll()
    assert 0 < np.linalg.norm(rig.place - start) <= rig.config.linear_m_s * PERIOD_S + 0.001
    rig.poll(40)  # nothing comes
    there = rig.place
    rig.hand([0, 2.0, 0])  # it is back: its clutch counts from here on
    rig.poll(3)
    np.testing.assert_allclose(rig.place, there, atol=1e-6)


def test_a_hand_turns_the_gripper_and_says_how_far_it_is_open() -> None:
    rig = Rig()
    rig.begin()
    rig.hand([0, 0, 0])
    rig.poll()
    before = rig.position
    for _ in range(40):
        rig.hand([0, 0, 0], (0, 0, np.sin(0.1), np.cos(0.1)), grip=0.6)
        rig.poll()
    assert abs(rig.position[4] - before[4]) == pytest.approx(0.2, abs=0.03)
    assert rig.position[5] == pytest.approx(0.6)


def test_whoever_guides_it_says_where_it_is_until_it_is_let_go() -> None:
    rig = Rig()
    rig.begin()
    rig.stays = True
    there = READY + np.array([0.5, 0.1, 0, 0, 0, 0.2])
    rig.leader.guide.post(rig.clock.now_ns(), position=there)
    rig.jog([0, 0.1, 0, 0, 0, 0])
    rig.at(READY)
    rig.poll()
    np.testing.assert_allclose(rig.position, there)
    rig.leader.guide.post(rig.clock.now_ns(), position=np.full(6, np.nan))
    rig.at(READY)
    rig.clock.at_ns += 300_000_000  # the key does not count any more
    rig.poll()
    np.testing.assert_allclose(rig.position[:5], READY[:5])  # it stays near its follower again


# --- the gamepad

_HEADER = Path("/usr/include/linux/joystick.h")
_C = """
#include <linux/joystick.h>
#include <stddef.h>
#include <stdio.h>
int main(void)
{
    struct js_event event = {.time = 1, .value = -2, .type = JS_EVENT_AXIS | JS_EVENT_INIT, .number = 3};
    for (unsigned i = 0; i < sizeof event; i++) printf("%02x", ((unsigned char *)&event)[i]);
    printf(" %lu %d %d %d\\n", (unsigned long)JSIOCGNAME(128), JS_EVENT_BUTTON, JS_EVENT_AXIS, JS_EVENT_INIT);
    return 0;
}
"""


@pytest.mark.skipif(not (_HEADER.exists() and which("cc")), reason="no C compiler, or no linux/joystick.h")
def test_events_and_requests_are_what_the_kernels_header_says(tmp_path: Path) -> None:
    (tmp_path / "layout.c").write_text(_C)
    subprocess.run(["cc", "layout.c", "-o", "layout"], cwd=tmp_path, check=True)
    event, *numbers = subprocess.run(
        [tmp_path / "layout"], capture_output=True, text=True, check=True
    ).stdout.split()
    assert gamepad.EVENT.unpack(bytes.fromhex(event)) == (1, -2, gamepad.AXIS | gamepad.INIT, 3)
    known = [gamepad.JSIOCGNAME_128, gamepad.BUTTON, gamepad.AXIS, gamepad.INIT]
    assert list(map(int, numbers)) == known


@pytest.fixture
def driven(pad: GamepadEmulator) -> Iterator[Callable[..., Rig]]:
    """Makes the leader that the gamepad moves."""
    rigs: list[Rig] = []

    def make(**options: Any) -> Rig:
        rigs.append(Rig(gamepad=pad.device, **options))
        return rigs[0]

    yield make
    for rig in rigs:
        rig.leader.close()


@pytest.fixture
def pad(tmp_path: Path) -> Iterator[GamepadEmulator]:
    emulator = GamepadEmulator(tmp_path / "js0")
    yield emulator
    emulator.close()


def test_a_stick_moves_the_point_as_long_as_it_is_held(
    pad: GamepadEmulator, driven: Callable[..., Rig]
) -> None:
    rig = driven()
    start = rig.begin()
    rig.poll(2)
    np.testing.assert_array_equal(rig.place, start)  # what the kernel says at the opening is where things are
    pad.move(0, -1.0)
    pad.move(1, -0.1)  # within the dead zone
    rig.poll(20)
    np.testing.assert_allclose(rig.place - start, [0, 20 * 0.15 * PERIOD_S, 0], atol=0.003)
    pad.move(0, 0.0)
    there = rig.place
    rig.poll(3)
    np.testing.assert_array_equal(rig.place, there)
    pad.move(5, 1.0)
    rig.poll(5)
    assert rig.position[5] == pytest.approx(READY[5] + 5 * PERIOD_S, abs=1e-6)


def test_nothing_moves_while_the_dead_mans_button_is_up(
    pad: GamepadEmulator, driven: Callable[..., Rig]
) -> None:
    rig = driven(pad={"deadman_button": 4})
    start = rig.begin()
    pad.move(0, -1.0)
    rig.poll(3)
    np.testing.assert_array_equal(rig.place, start)
    pad.press(4)
    rig.poll(3)
    assert rig.place[1] > start[1]
    pad.press(4, down=False)
    there = rig.place
    rig.poll(3)
    np.testing.assert_array_equal(rig.place, there)


def test_what_is_held_at_the_opening_counts_once_it_was_let_go(
    pad: GamepadEmulator, driven: Callable[..., Rig]
) -> None:
    rig = driven(pad={"deadman_button": 4})
    rig.begin()
    pad.unplug()
    with pytest.raises(DeviceError):
        rig.poll(2)
    rig.leader.close()
    pad.plug({0: -1.0}, [4])
    start = rig.begin()
    rig.poll(3)
    np.testing.assert_array_equal(rig.place, start)
    pad.press(4)
    pad.move(0, -0.9)
    rig.poll(3)
    np.testing.assert_array_equal(rig.place, start)  # the stick was not in its middle yet
    pad.move(0, 0.02)
    pad.move(0, -1.0)
    pad.say_all({0: -1.0}, [4])  # as the kernel does where events were lost
    rig.poll(3)
    assert rig.place[1] > start[1]


def test_its_button_counts_for_keys_and_hands_too(pad: GamepadEmulator, driven: Callable[..., Rig]) -> None:
    rig = driven(pad={"deadman_button": 4})
    start = rig.begin()
    for away in (0.0, 0.05, 0.1):
        rig.jog([0, 0.1, 0, 0, 0, 0], grip=1.0)
        rig.hand([0, away, 0], grip=1.0)
        rig.poll()
    np.testing.assert_array_equal(rig.position, READY)
    pad.press(4)
    rig.hand([0, 0.1, 0])
    rig.poll()
    np.testing.assert_allclose(rig.place, start, atol=1e-6)  # the hand is counted from here on
    rig.hand([0, 0.102, 0])
    rig.poll(2)
    np.testing.assert_allclose(rig.place - start, [0, 0.002, 0], atol=0.0005)


def test_an_unplugged_gamepad_is_a_fault_and_is_opened_again(
    pad: GamepadEmulator, driven: Callable[..., Rig]
) -> None:
    rig = driven()
    rig.begin()
    pad.move(0, -1.0)
    rig.poll()
    pad.unplug()
    with pytest.raises(DeviceError) as raised:
        rig.poll(2)
    assert raised.value.kind is FaultKind.GONE
    rig.leader.close()
    with pytest.raises(DeviceError) as raised:
        rig.leader.open()
    assert raised.value.kind is FaultKind.NOT_FOUND
    assert "/dev/input/js0" in str(raised.value)
    pad.plug()
    start = rig.begin()
    rig.poll(3)
    np.testing.assert_array_equal(rig.place, start)  # a stick that is not held any more


def test_it_is_known_again_by_its_name_under_another_number(
    tmp_path: Path, pad: GamepadEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pseudo-terminal has no name: where the kernel is asked for it, it is told here."""
    names = {"js0": "Pad", "js1": "Somebody else's", "js2": "Pad"}
    opened: list[str] = []

    def name_of(descriptor: int) -> str:
        opened.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        link = next(file for file in tmp_path.iterdir() if os.path.realpath(file) == opened[-1])
        return names[link.name]

    monkeypatch.setattr(gamepad, "name_of", name_of)
    others = [GamepadEmulator(tmp_path / name) for name in ("js1", "js2")]
    one = gamepad.Gamepad("leader", pad.device, PadOptions(), lambda: [each.device for each in others])
    one.open()
    pad.unplug()
    with pytest.raises(DeviceError):
        one.read()
    one.open()
    assert opened[1:] == [os.path.realpath(each.device) for each in others]
    others[1].move(0, 1.0)
    one.read()
    assert one.twist()[0][1] == pytest.approx(-1.0)
    one.close()
    for each in others:
        each.close()
