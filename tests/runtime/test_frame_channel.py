"""Pictures from one process to another: each once, in order, whatever the way loses."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from runtime.clock import NS_PER_S, RealClock
from runtime.frame_channel import (
    FrameError,
    FrameMessage,
    FrameReceiver,
    FrameRings,
    FrameSender,
    MergedReceiver,
    RingReceiver,
    RingSender,
)
from runtime.zmq_channel import WINDOW, ZmqReceiver, ZmqSender

CLOCK = RealClock()
TOKEN = "a token"  # noqa: S105 - of this test
SOON, GUARD = NS_PER_S // 1000, 30 * NS_PER_S
MOST = 40 * 50 * 3


def picture(number: int) -> FrameMessage:
    return FrameMessage({"id": number}, np.full((40, 50, 3), number % 256, np.uint8))


@pytest.fixture
def ring() -> Iterator[FrameRings]:
    rings = FrameRings(MOST)
    yield rings
    rings.close()


@pytest.fixture(params=["ring", "zeromq"])
def way(request: pytest.FixtureRequest, ring: FrameRings) -> Iterator[tuple[FrameSender, FrameReceiver]]:
    receiver: FrameReceiver
    sender: FrameSender
    if request.param == "ring":
        receiver, sender = RingReceiver(ring.address, CLOCK), RingSender(ring.address, CLOCK)
    else:
        receiver = ZmqReceiver("127.0.0.1", MOST, TOKEN, CLOCK)
        sender = ZmqSender(receiver.address, TOKEN, CLOCK)
    yield sender, receiver
    sender.close()
    receiver.close()


def test_every_picture_arrives_once_and_in_order(way: tuple[FrameSender, FrameReceiver]) -> None:
    sender, receiver = way
    for number in range(50):
        assert sender.send(picture(number), GUARD)
        got = receiver.receive(GUARD)
        assert got is not None
        assert got.about == {"id": number}
        assert (got.data == picture(number).data).all()
    assert receiver.receive(SOON) is None
    assert sender.settle(GUARD)


def test_a_sender_waits_for_who_does_not_take(way: tuple[FrameSender, FrameReceiver]) -> None:
    sender, receiver = way
    sent = 0
    while sender.send(picture(sent), SOON):
        sent += 1
        assert sent <= WINDOW
    assert sent >= WINDOW - 1
    assert not sender.settle(SOON)
    for number in range(sent):
        got = receiver.receive(GUARD)
        assert got is not None
        assert got.about["id"] == number
    assert sender.settle(GUARD)


def test_one_that_takes_over_from_a_dead_one_goes_on_where_it_ended(ring: FrameRings) -> None:
    sender, first = RingSender(ring.address, CLOCK), RingReceiver(ring.address, CLOCK)
    for number in range(3):
        sender.send(picture(number), GUARD)
    assert first.receive(SOON) is not None
    with pytest.raises(ZeroDivisionError), sender._frames.write(0):
        raise ZeroDivisionError  # it dies in the middle of a picture
    sender.close()
    first.close()
    sender, second = RingSender(ring.address, CLOCK), RingReceiver(ring.address, CLOCK)
    sender.send(picture(3), GUARD)
    got = [second.receive(SOON) for _ in range(4)]
    assert [each and each.about["id"] for each in got] == [1, 2, 3, None]
    sender.close()
    second.close()


def test_what_zeromq_loses_is_sent_again_and_taken_once(monkeypatch: pytest.MonkeyPatch) -> None:
    receiver = ZmqReceiver("127.0.0.1", MOST, TOKEN, CLOCK)
    sender = ZmqSender(receiver.address, TOKEN, CLOCK)
    post, fate = sender._post, random.Random(7)  # a rhythm could be that of what is sent again, without end

    def lossy(parts: list[Any]) -> bool:
        times = fate.randrange(3)
        return all(post(parts) for _ in range(times))  # it is lost on the way, arrives, or comes twice

    monkeypatch.setattr(sender, "_post", lossy)
    monkeypatch.setattr("runtime.zmq_channel.RETRY_NS", SOON)
    got: list[int] = []
    sent = 0
    until_ns = CLOCK.now_ns() + GUARD
    while len(got) < 30:
        assert CLOCK.now_ns() < until_ns
        sent += sent < 30 and sender.send(picture(sent), 0)
        sender.settle(0)
        if (message := receiver.receive(SOON)) is not None:
            got.append(message.about["id"])
    assert got == list(range(30))
    sender.close()
    receiver.close()


def test_a_receiver_that_takes_its_time_is_not_sent_ever_more_of_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Turned(RealClock):
        at_ns = 0

        def now_ns(self) -> int:
            return self.at_ns

    clock = Turned()
    receiver = ZmqReceiver("127.0.0.1", MOST, TOKEN, CLOCK)
    sender = ZmqSender(receiver.address, TOKEN, clock)
    posted = 0

    def nowhere(parts: list[Any]) -> bool:
        nonlocal posted
        posted += 1
        return True

    monkeypatch.setattr(sender, "_post", nowhere)
    sender.send(picture(0), 0)
    for _ in range(600):  # a minute
        clock.at_ns += NS_PER_S // 10
        sender.settle(0)
    assert 12 < posted < 20
    sender.close()
    receiver.close()


def test_strangers_and_halves_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    import zmq

    receiver = ZmqReceiver("127.0.0.1", MOST, TOKEN, CLOCK)
    stranger = ZmqSender(receiver.address, "another", CLOCK)
    stranger.send(picture(1), GUARD)
    came: list[int] = []
    taken = receiver._taken

    def counted(parts: list[Any]) -> FrameMessage | None:
        came.append(len(parts))
        return taken(parts)

    monkeypatch.setattr(receiver, "_taken", counted)
    plain = zmq.Context()
    socket = plain.socket(zmq.DEALER)
    socket.setsockopt(zmq.LINGER, 0)
    socket.connect(receiver.address)
    for parts in ([b""], [b"{}", b"x"], [b"{", b""], [picture(1).header(), b"half"]):
        socket.send_multipart(parts)
    until_ns = CLOCK.now_ns() + GUARD
    while len(came) < 5:
        assert CLOCK.now_ns() < until_ns
        assert receiver.receive(SOON) is None
    own = ZmqSender(receiver.address, TOKEN, CLOCK)
    assert own.send(picture(2), GUARD)
    got = receiver.receive(GUARD)
    assert got is not None
    assert got.about == {"id": 2}
    for each in (socket, stranger, own, receiver):
        each.close()
    plain.term()


def test_two_pictures_in_one_are_none() -> None:
    one = picture(1)
    twice = one.data.tobytes() * 2
    with pytest.raises(FrameError, match="6000 bytes by its header, and 12000 came"):
        FrameMessage.of(one.header(), twice)
    with pytest.raises(FrameError):
        FrameMessage.of(b'{"shape": [1], "dtype": "O"}', b"12345678")
    with pytest.raises(FrameError, match="at most"):
        FrameMessage({"id": "x" * 3000}, one.data).header()


HOSTILE = {
    "deep": b"[" * 2000,
    "long": b'{"shape": [1], "dtype": "|u1", "x": "' + b"x" * 3000 + b'"}',
    "endless": b'{"shape": [Infinity], "dtype": "|u1"}',
    "no number": b'{"shape": [NaN], "dtype": "|u1"}',
    "negative": b'{"shape": [-1, -1], "dtype": "|u1"}',
    "enormous": b'{"shape": [' + b"9" * 400 + b'], "dtype": "|u1"}',
    "list": b"[1, 2]",
    "no type": b'{"shape": [1], "dtype": ["x"]}',
    "fields": b'{"shape": [1], "dtype": "u1,u1"}',
    "named": b'{"shape": [1], "dtype": "uint8"}',
    "date": b'{"shape": [1], "dtype": "<M8[ns]"}',
    "repeated": b'{"shape": [1], "dtype": "(1,1)u1"}',
    "syntax": b'{"shape": [1], "dtype": "{\'a\': 1"}',
    "unknown": b'{"shape": [1], "dtype": "f1"}',
    "dimensions": b'{"shape": [' + b"1," * 99 + b'1], "dtype": "|u1"}',
}


@pytest.mark.parametrize("header", HOSTILE.values(), ids=HOSTILE)
def test_a_header_that_nobody_of_ours_sends_is_one_line(header: bytes) -> None:
    with pytest.raises(FrameError) as refused:
        FrameMessage.of(header, b"x")
    assert "\n" not in str(refused.value)


def test_an_acknowledgement_that_counts_nothing_is_none() -> None:
    import zmq

    plain = zmq.Context()
    receiver = plain.socket(zmq.ROUTER)
    receiver.setsockopt(zmq.LINGER, 0)
    port = receiver.bind_to_random_port("tcp://127.0.0.1")
    sender = ZmqSender(f"tcp://127.0.0.1:{port}", TOKEN, CLOCK)
    assert sender.send(picture(1), GUARD)
    whose = receiver.recv_multipart()[0]
    for taken in ("", ', "taken": Infinity', ', "taken": "x"', ', "taken": [1]', ', "taken": null'):
        receiver.send_multipart([whose, f'{{"stream": "{sender._stream}"{taken}}}'.encode()])
    assert not sender.settle(20 * SOON)
    receiver.send_multipart([whose, f'{{"stream": "{sender._stream}", "taken": 1}}'.encode()])
    assert sender.settle(GUARD)
    sender.close()
    receiver.close()
    plain.term()


def test_a_token_that_is_no_text_of_ours_is_a_wrong_one() -> None:
    receiver = ZmqReceiver("127.0.0.1", MOST, TOKEN, CLOCK)
    strangers = [ZmqSender(receiver.address, token, CLOCK) for token in ("\u00e9", "\ud800")]
    for stranger in strangers:
        stranger.send(picture(1), GUARD)
    own = ZmqSender(receiver.address, TOKEN, CLOCK)
    own.send(picture(2), GUARD)
    got = receiver.receive(GUARD)
    assert got is not None
    assert got.about == {"id": 2}
    for each in (*strangers, own, receiver):
        each.close()


def test_a_picture_that_is_too_large_is_refused(ring: FrameRings) -> None:
    sender = RingSender(ring.address, CLOCK)
    with pytest.raises(FrameError, match="the ring takes 6000"):
        sender.send(FrameMessage({}, np.zeros(MOST + 1, np.uint8)), SOON)
    sender.close()


def test_several_senders_take_turns(ring: FrameRings) -> None:
    other = FrameRings(MOST)
    merged = MergedReceiver([RingReceiver(each.address, CLOCK) for each in (ring, other)], CLOCK)
    senders = [RingSender(each.address, CLOCK) for each in (ring, other)]
    for number in range(2):
        for place, sender in enumerate(senders):
            sender.send(picture(10 * place + number), GUARD)
    got = [message and message.about["id"] for message in (merged.receive(SOON) for _ in range(5))]
    assert got == [0, 10, 1, 11, None]
    for each in (*senders, merged, other):
        each.close()
