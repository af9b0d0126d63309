"""Messages over a socket pair, whole or not at all."""

from __future__ import annotations

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.world.channel import ChannelClosedError, ControlChannel
from drivers.world.world import Periodic

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(st.dictionaries(st.text(max_size=8), JSON, max_size=4), max_size=4))
def test_messages_arrive_whole_and_in_order(messages: list[dict[str, object]]) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for message in messages:
            ControlChannel(ours).send(message)
        assert [ControlChannel(theirs).receive(1.0) for _ in messages] == messages


@pytest.mark.parametrize("data", [b"", b"\x00", b"\x00\x00\x00\x05{}", b"\xff\xff\xff\xff"])
def test_a_stream_that_breaks_off_is_closed(data: bytes) -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        ours.sendall(data)
        ours.close()
        with pytest.raises(ChannelClosedError):
            ControlChannel(theirs).receive(1.0)


def test_silence_times_out() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(TimeoutError):
        ControlChannel(theirs).receive(0.01)


def test_what_is_no_object_is_refused() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(b"\x00\x00\x00\x02[]")
        with pytest.raises(ChannelClosedError, match="no object"):
            ControlChannel(theirs).receive(1.0)


def test_hanging_up_ends_a_wait() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        channel = ControlChannel(theirs)
        channel.hang_up()
        with pytest.raises(ChannelClosedError):
            channel.receive(1.0)


@given(st.floats(1.0, 500.0), st.integers(0, 10**15), st.integers(0, 10**12))
def test_periods_do_not_drift(rate_hz: float, start_ns: int, ahead_ns: int) -> None:
    due = Periodic(rate_hz, start_ns)
    for k in range(5):
        assert due.next_ns == start_ns + round(k * 1_000_000_000 / rate_hz)
        due.take()
    skipped = due.skip_to(start_ns + ahead_ns)
    assert skipped >= 0
    if skipped:
        assert due.next_ns <= start_ns + ahead_ns + 1
        assert due.next_ns > start_ns + ahead_ns - 1_000_000_000 / rate_hz - 2
