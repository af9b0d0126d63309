"""A leader on another machine, over real sockets: what is lost, late, sent again, forged, of another run."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from dexrun.robot import Robot
from drivers.remote_leader.driver import _FOLLOWED_S
from drivers.remote_leader.sender import RefusedLeaderError
from drivers.remote_leader.wire import Datagram, Kind, unpacked
from runtime.control_options import ControlOptions
from runtime.inputs import LONGEST_STATE_AGE_S
from runtime.interfaces import LeaderDriver
from runtime.joints import JointLayout
from tests.leading.rig import JOINTS, Road, drained

AT = np.array([0.1, -0.2, 0.5])


@pytest.fixture
def road() -> Iterator[Callable[..., Road]]:
    made: list[Road] = []

    def build(**options: Any) -> Road:
        made.append(Road(**options))
        return made[-1]

    yield build
    for each in made:
        each.close()


def position(road: Road) -> list[float]:
    assert road.newest is not None
    return list(road.newest["position"].tolist())


def test_a_state_goes_over_and_is_stamped_by_the_clock_of_the_follower(road: Callable[..., Road]) -> None:
    r = road()
    assert isinstance(r.follower, LeaderDriver)
    r.agree()
    assert r.turn(AT)
    assert position(r) == AT.tolist()
    assert r.newest is not None
    assert r.newest.stamp_ns == r.there.at_ns


def test_a_state_is_as_old_as_half_of_the_shortest_way_there_and_back(road: Callable[..., Road]) -> None:
    r = road()
    r.agree(out_ms=3.0, back_ms=7.0)
    for step in range(4):
        r.turn(AT + step / 100, out_ms=3.0, back_ms=7.0)
        r.pass_ms(10)
    r.turn(AT, out_ms=3.0)
    assert r.newest is not None
    assert r.there.at_ns - r.newest.stamp_ns == 5_000_000
    assert r.leader.trips.newest_ns <= 10_000_000
    assert "round trip 10.0 ms" in r.follower.account()
    robot: Any = SimpleNamespace(drivers={"leader": r.follower, "arm": object()})
    trip = {"p50": 0.01, "p99": 0.01}
    assert Robot.links(robot) == {"leader": {"came": 5, "lost": 0, "round_trip_s": trip}}


def test_what_is_lost_is_counted_and_what_is_late_or_twice_has_no_effect(
    road: Callable[..., Road],
) -> None:
    r = road()
    r.agree()
    kept: list[bytes] = []

    def keep(datagrams: list[bytes]) -> list[bytes]:
        kept.extend(datagrams)
        return []

    assert r.turn(AT)
    assert not r.turn(AT + 0.01, out=keep)
    assert not r.turn(AT + 0.02, out=lambda datagrams: [])
    assert r.turn(AT + 0.03, out=lambda datagrams: datagrams * 2)
    assert not r.deliver(kept)
    assert position(r) == (AT + 0.03).tolist()
    assert r.follower.statistics() == {"lost": 1, "reordered": 1, "duplicate": 1}


def test_without_the_secret_nothing_is_taken_and_nothing_is_answered(
    road: Callable[..., Road], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEXRUN_LEADER_TOKEN", "a secret of both")
    r = road(secret=b"another one")
    heard: list[bytes] = []
    r.turn(back=lambda datagrams: heard.extend(datagrams) or datagrams)  # type: ignore[func-returns-value]
    assert (r.leader.agreed, heard, r.follower.statistics()) == (False, [], {"forged": 1})
    r = road(secret=b"a secret of both")
    r.agree()
    flip = [lambda data, at=at: [*data[:0], _flipped(data[0], at)] for at in (0, 20, 60, 100)]
    for way in flip:
        assert not r.turn(AT, out=way)
    assert r.follower.statistics()["forged"] == len(flip)
    assert r.turn(AT)


def _flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def test_what_was_recorded_of_an_earlier_run_moves_nothing(road: Callable[..., Road]) -> None:
    r = road()
    r.agree()
    r.turn(AT)
    recorded = list(r.caught)
    r.follower.close()
    r.follower.open()
    assert not r.deliver(recorded)  # a hello among them: it is offered a session that nobody knows
    r.pass_ms(3000)
    r.leader.turn(None)
    r.agree()
    assert r.turn(AT + 0.1)
    assert not r.deliver(recorded)
    assert r.turn(AT + 0.2)
    assert position(r) == (AT + 0.2).tolist()
    assert r.follower.statistics()["replayed"] == 2


def test_a_leader_that_is_started_again_is_followed_again(road: Callable[..., Road]) -> None:
    r = road()
    r.agree()
    for _ in range(5):
        r.turn(AT)
    r.leader.close()
    r.leader = r.restarted()
    r.agree()
    assert r.turn(AT + 0.3)
    assert position(r) == (AT + 0.3).tolist()


def test_a_second_leader_counts_only_once_the_first_is_silent(road: Callable[..., Road]) -> None:
    """Its joints are anywhere: without a gap in between the arm would be sent there at once."""
    r = road()
    r.agree()
    assert r.turn(AT)
    first, r.leader = r.leader, r.restarted()
    r.turn()
    assert r.leader.agreed
    r.pass_ms(900)  # so long at the most, and some ticks, until any loop holds
    assert not r.turn(AT + 0.3)
    assert (position(r), r.follower.statistics()) == (AT.tolist(), {"second": 1})
    r.pass_ms(200)
    assert r.turn(AT + 0.3)
    first.close()


def test_no_loop_waits_for_its_leader_until_another_one_counts() -> None:
    """Else another leader's joints would come within what counts as one's own, and nothing would engage."""
    assert LONGEST_STATE_AGE_S < _FOLLOWED_S
    with pytest.raises(ValidationError, match=r"less than or equal to 0\.5"):
        ControlOptions(state_max_age_s=LONGEST_STATE_AGE_S + 0.1)


def test_a_refusal_that_was_recorded_ends_no_leader(road: Callable[..., Road]) -> None:
    recorded: list[bytes] = []
    with pytest.raises(RefusedLeaderError):
        road(joints=replace(JOINTS, ranges=JOINTS.ranges * 1.1)).turn(
            back=lambda datagrams: recorded.extend(datagrams) or datagrams  # type: ignore[func-returns-value]
        )
    r = road()
    r.pass_ms(7)
    r.turn(back=lambda datagrams: [*recorded, *datagrams])
    assert r.leader.agreed


@pytest.mark.parametrize("joints", ["\ud800", 7, [[]], {}, "x" * 7000])
def test_a_hello_of_anything_is_answered_in_one_line(road: Callable[..., Road], joints: Any) -> None:
    r = road()
    body = json.dumps({"joints": joints, "units": "rad", "ranges": []}).encode()
    r.deliver([Datagram(Kind.HELLO, 0, 0, 5, body=body).packed(b"")])
    ((answer, _),) = drained(r.far)
    said = unpacked(answer, b"")
    assert said is not None
    assert (said.kind, said.heard_ns, said.body.count(b"\n")) == (Kind.REFUSED, 5, 0)


def test_a_datagram_that_is_too_big_is_none(road: Callable[..., Road]) -> None:
    r = road()
    assert not r.deliver([Datagram(Kind.HELLO, 0, 0, 5, body=bytes(60_000)).packed(b"")])
    assert (drained(r.far), r.follower.statistics()) == ([], {"forged": 1})


@pytest.mark.parametrize("leap_s", [-100_000, -0.004, 0.004, 100_000])
def test_a_leaders_clock_that_leaps_makes_nothing_look_newer_than_it_came(
    road: Callable[..., Road], leap_s: float
) -> None:
    r = road()
    r.agree(out_ms=3.0, back_ms=7.0)
    r.turn(AT, out_ms=3.0, back_ms=7.0)
    r.here.at_ns += round(leap_s * 1e9)
    came = 0
    for _ in range(20):
        r.pass_ms(100)
        if not r.turn(AT, out_ms=3.0, back_ms=7.0):
            continue  # it asked anew, as after a silence
        came += 1
        assert r.newest is not None
        assert 0 <= r.there.at_ns - r.newest.stamp_ns - 7_000_000 <= 10_000_000
    assert came > 10


def test_a_follower_that_is_started_again_is_greeted_again(road: Callable[..., Road]) -> None:
    r = road()
    r.agree()
    assert r.turn(AT)
    r.follower.close()
    r.follower.open()
    assert not r.turn(AT)
    r.pass_ms(2100)
    r.turn()
    r.agree()
    assert r.turn(AT)


@pytest.mark.parametrize(
    ("joints", "said"),
    [
        (JointLayout(("pan", "gripper", "lift"), JOINTS.ranges, (2,)), "the follower's"),
        (JointLayout(JOINTS.names, JOINTS.ranges), "0..1"),
        (replace(JOINTS, ranges=JOINTS.ranges * 1.1), "another model"),
    ],
)
def test_a_leader_of_other_joints_is_told_why_not(
    road: Callable[..., Road], joints: JointLayout, said: str
) -> None:
    r = road(joints=joints)
    with pytest.raises(RefusedLeaderError, match=said):
        r.turn()
    assert r.follower.statistics() == {"bad": 1}


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_what_is_no_number_is_not_taken(road: Callable[..., Road], wrong: float) -> None:
    r = road()
    r.agree()
    assert not r.turn(np.array([0.0, wrong, 0.0]))
    assert not r.turn(np.zeros(4))
    assert r.follower.statistics() == {"bad": 2}


def test_much_loss_and_long_delay_are_said_once_they_last(
    road: Callable[..., Road], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(
        "drivers.remote_leader.driver.logger.warning", lambda text, *values: told.append(text.format(*values))
    )
    r = road()
    r.agree()
    for step in range(40):
        r.turn(AT, out=list if step % 4 else lambda datagrams: [], out_ms=60, back_ms=60)
    assert told[0] == "leader: 28% of what the leader sends is lost, and a round trip takes 120 ms"
    assert r.leader.lost == pytest.approx(0.25, abs=0.05)


@given(st.binary(max_size=300))
def test_any_bytes_are_taken(data: bytes) -> None:
    assert unpacked(data, b"secret") is None
    whole = Datagram(Kind.STATE, 2**63, 2**63, -5, 6, 7, data).packed(b"secret")
    again = unpacked(whole, b"secret")
    assert again is not None
    assert (again.session, again.number, again.stamp_ns, again.body) == (2**63, 2**63, -5, data)
