"""Pictures over a network: one ZeroMQ message is one picture with its header.

Its bytes go to ZeroMQ and come from it without a copy, if there are more than pyzmq's threshold of 64 KiB.

ZeroMQ alone loses what was on its way when a connection breaks. So every sender numbers its messages and
keeps the last few until they are acknowledged; what is not taken in time is sent again from there on, and the
receiver takes each number once, in order. Nothing is pickled; what lacks the run's token is dropped.
"""

from __future__ import annotations

import json
import secrets
from collections import OrderedDict, deque
from typing import Any

from runtime.clock import NS_PER_S, Clock
from runtime.frame_channel import HEADER_BYTES, FrameError, FrameMessage

WINDOW = 8
"""Messages of one sender that may be on their way."""
RETRY_NS, SELDOM_NS = NS_PER_S // 2, 4 * NS_PER_S
"""What was not taken within this time is sent again; then after twice as long, and so on, up to the second: a
receiver that is slow, as one that runs a large model is, is not to find ever more of the same."""
_STREAMS = 256
"""Senders that a receiver remembers."""
_LOOK_NS = 5_000_000
"""So long a sender waits for an acknowledgement before it looks for room in ZeroMQ's own queue."""


def _milliseconds(left_ns: int) -> int:
    return max(1, left_ns // 1_000_000)


class ZmqReceiver:
    """`FrameReceiver` on a port of its own.

    Args:
        host: the address to listen on, and under which it is reached.
        most_bytes: of one picture; more is refused by the socket.
        token: what messages must carry.

    Raises:
        OSError: it cannot listen there.
    """

    def __init__(self, host: str, most_bytes: int, token: str, clock: Clock) -> None:
        import zmq

        self._zmq: Any = zmq
        self._clock = clock
        self._token = token.encode()
        self._context: Any = zmq.Context()
        self._socket: Any = self._context.socket(zmq.ROUTER)
        for option, value in (
            (zmq.LINGER, 0),
            (zmq.RCVHWM, WINDOW),
            (zmq.SNDHWM, 4 * WINDOW),
            (zmq.MAXMSGSIZE, max(most_bytes, HEADER_BYTES)),
            (zmq.IPV6, int(":" in host)),
        ):
            self._socket.setsockopt(option, value)
        inside = f"[{host}]" if ":" in host else host
        try:
            port = self._socket.bind_to_random_port(f"tcp://{inside}")
        except (zmq.ZMQError, zmq.ZMQBindError) as error:
            self.close()
            raise OSError(f"tcp://{inside}: {error}") from None
        self.address = f"tcp://{inside}:{port}"
        self._expected: OrderedDict[str, int] = OrderedDict()

    def receive(self, timeout_ns: int) -> FrameMessage | None:
        """See `FrameReceiver`; the data is the message's own memory."""
        until_ns = self._clock.now_ns() + timeout_ns
        while True:
            try:
                parts = self._socket.recv_multipart(self._zmq.NOBLOCK, copy=False)
            except self._zmq.Again:
                if (left_ns := until_ns - self._clock.now_ns()) <= 0:
                    return None
                self._socket.poll(_milliseconds(left_ns))
                continue
            if (message := self._taken(parts)) is not None:
                return message

    def _taken(self, parts: list[Any]) -> FrameMessage | None:
        """The message if it is the next of its sender; what is no message of ours is dropped."""
        if len(parts) != 3:
            return None
        try:
            message = FrameMessage.of(parts[1].bytes, parts[2].buffer)
        except FrameError:
            return None
        about = dict(message.about)
        stream, number = about.pop("stream", None), about.pop("number", None)
        if not isinstance(stream, str) or not isinstance(number, int):
            return None
        if not secrets.compare_digest(str(about.pop("token", "")).encode(errors="replace"), self._token):
            return None
        expected = self._expected.pop(stream, 0)
        self._expected[stream] = expected + (number == expected)
        while len(self._expected) > _STREAMS:
            self._expected.popitem(last=False)
        self._acknowledge(parts[0].bytes, stream)
        return FrameMessage(about, message.data) if number == expected else None

    def _acknowledge(self, whose: bytes, stream: str) -> None:
        said = json.dumps({"stream": stream, "taken": self._expected[stream]}).encode()
        try:
            self._socket.send_multipart([whose, said], self._zmq.NOBLOCK)
        except self._zmq.ZMQError:  # it has gone, or asks again
            return

    def close(self) -> None:
        """See `FrameReceiver`."""
        self._socket.close()
        self._context.term()


class ZmqSender:
    """`FrameSender` to the receiver at `address`, which may come up later, and may break off in between."""

    def __init__(self, address: str, token: str, clock: Clock) -> None:
        import zmq

        self._zmq: Any = zmq
        self._clock = clock
        self._token = token
        self._context: Any = zmq.Context()
        self._socket: Any = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.SNDHWM, 4 * WINDOW)  # a queue is opened again when half of it is gone
        self._socket.setsockopt(zmq.IPV6, int("[" in address))
        self._socket.connect(address)
        self._stream = secrets.token_hex(8)
        self._number = 0
        self._kept: deque[tuple[int, list[Any]]] = deque()
        self._moved_ns = clock.now_ns()
        self._patience_ns = 0
        self._waiting: deque[list[Any]] = deque()  # that ZeroMQ had no room for yet

    def send(self, message: FrameMessage, timeout_ns: int) -> bool:
        """See `FrameSender`. The data must not be written to until it has arrived."""
        if not self._wait(WINDOW, timeout_ns):
            return False
        about = {**message.about, "stream": self._stream, "number": self._number, "token": self._token}
        parts = [FrameMessage(about, message.data).header(), message.data]
        if not self._kept:
            self._moved_ns = self._clock.now_ns()
        self._kept.append((self._number, parts))
        self._number += 1
        self._waiting.append(parts)
        self._post_waiting()
        return True

    def settle(self, timeout_ns: int) -> bool:
        """See `FrameSender`."""
        return self._wait(1, timeout_ns)

    def _wait(self, room: int, timeout_ns: int) -> bool:
        """Until fewer than `room` are on their way."""
        until_ns = self._clock.now_ns() + timeout_ns
        while True:
            self._hear()
            if len(self._kept) < room:
                return True
            if (left_ns := until_ns - self._clock.now_ns()) <= 0:
                return False
            self._socket.poll(_milliseconds(min(left_ns, _LOOK_NS)))

    def _hear(self) -> None:
        """Take acknowledgements; send again what waits for one for too long."""
        while True:
            try:
                said = json.loads(self._socket.recv(self._zmq.NOBLOCK))
            except self._zmq.Again:
                break
            except (ValueError, RecursionError):
                continue
            if not isinstance(said, dict) or said.get("stream") != self._stream:
                continue
            taken = said.get("taken")
            while type(taken) is int and self._kept and self._kept[0][0] < taken:
                self._kept.popleft()
                self._moved_ns, self._patience_ns = self._clock.now_ns(), 0
        patience_ns = max(RETRY_NS, self._patience_ns)
        if self._kept and self._clock.now_ns() - self._moved_ns > patience_ns:
            self._moved_ns, self._patience_ns = self._clock.now_ns(), min(2 * patience_ns, SELDOM_NS)
            self._waiting = deque(parts for _, parts in self._kept)
        self._post_waiting()

    def _post_waiting(self) -> None:
        while self._waiting and self._post(self._waiting[0]):
            self._waiting.popleft()

    def _post(self, parts: list[Any]) -> bool:
        try:
            self._socket.send_multipart(parts, self._zmq.NOBLOCK, copy=False)
        except self._zmq.Again:
            return False
        return True

    def close(self) -> None:
        """See `FrameSender`."""
        self._socket.close()
        self._context.term()
