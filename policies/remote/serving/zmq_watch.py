"""What libzmq does not bound: the parts of one message, connections, and what both may hold together.

libzmq hands over a message when its last part is there, and keeps as many before as somebody sends
(``ZMQ_MAXMSGSIZE`` is one part's size, the high-water mark counts whole messages). So what each connection
has received is read from the kernel (``TCP_INFO``), what was handed over is counted, and whoever has sent too
much beyond that is hung up on: by itself, or as the one with the most, if all of them have.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import zmq
from loguru import logger
from zmq.utils.monitor import parse_monitor_message

from policies.remote.serving.hang_up import copy_of

EVERY_S = 0.05
"""How often it is looked; some 100 MB can come meanwhile on this machine, far less over a network."""
_RECEIVED_AT = 128
"""``tcpi_bytes_received`` in ``struct tcp_info`` of linux/tcp.h, since Linux 4.1."""
_SHORT_HEAD, _LONG_HEAD = 2, 9
"""Bytes before a part in ZMTP 3.x, by its size."""
_EVENTS = zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED | zmq.EVENT_CLOSED


@dataclass(slots=True)
class _Connection:
    """One that libzmq has accepted; `taken` bytes of it were handed over, heads of parts included.

    Heartbeats are not among them: 100 kB a day, of tens of MB that may wait.
    """

    taken: int
    names: set[str]


class ConnectionWatch:
    """Follows the connections of one bound socket.

    Args:
        watched: the socket, before it is bound.
        one_bytes: what one connection may have sent and is not handed over yet.
        all_bytes: the same of all together.
        most: connections at the same time.
        left: told the name of each client whose connection has ended.
    """

    def __init__(
        self, watched: Any, one_bytes: int, all_bytes: int, most: int, left: Callable[[str], None]
    ) -> None:
        self._watched = watched
        self._events = watched.get_monitor_socket(_EVENTS)
        self._one, self._all, self._most = one_bytes, all_bytes, most
        self._left = left
        self._connections: dict[int, _Connection] = {}

    def follow(self) -> None:
        """Take in who has come and gone; to be done before a message is looked at."""
        while self._events.getsockopt(zmq.EVENTS) & zmq.POLLIN:
            told = parse_monitor_message(self._events.recv_multipart(zmq.NOBLOCK))
            number, event = int(told["value"]), told["event"]
            gone = self._connections.pop(number, None)
            for name in gone.names if gone is not None else ():
                self._left(name)
            if event == zmq.EVENT_ACCEPTED:
                self._connections[number] = _Connection(0, set())

    def taken(self, number: int, name: str, sizes: Iterable[int]) -> bool:
        """Parts of these sizes, of the client called `name`, were handed over from descriptor `number`.

        Whether that is still a connection: libzmq goes on handing over what one has sent that has ended.
        """
        if (connection := self._connections.pop(number, None)) is None:
            return False
        connection.taken += sum(size + (_LONG_HEAD if size > 255 else _SHORT_HEAD) for size in sizes)
        connection.names.add(name)
        self._connections[number] = connection  # last in order: the one heard last
        return True

    def check(self) -> None:
        """Hang up on whoever has sent too much, and on those that are too many."""
        self.follow()
        held = {number: _received(number) - each.taken for number, each in self._connections.items()}
        over = [number for number, size in held.items() if size > self._one]
        rest = sum(size for number, size in held.items() if number not in over)
        for number in sorted(held, key=lambda n: held[n], reverse=True):
            if rest <= self._all:
                break
            if number not in over:
                over.append(number)
                rest -= held[number]
        silent = [number for number in self._connections if number not in over]
        over += silent[: max(0, len(silent) - self._most)]
        for number in over:
            _end(number)
            for name in self._connections.pop(number).names:
                self._left(name)
        if over:
            logger.warning("{} connections have sent too much, or are too many: hung up on", len(over))

    def close(self) -> None:
        """Stop following. Before the socket is closed."""
        self._watched.disable_monitor()
        self._events.close(linger=0)


def _received(number: int) -> int:
    """Bytes that the kernel has received for descriptor `number`; 0 where it does not tell."""
    if (copy := copy_of(number)) is None:
        return 0
    with copy, contextlib.suppress(OSError):
        told = copy.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
        if len(told) >= _RECEIVED_AT + 8:
            return int(struct.unpack_from("=Q", told, _RECEIVED_AT)[0])
    return 0


def _end(number: int) -> None:
    if (copy := copy_of(number)) is None:
        return
    with copy, contextlib.suppress(OSError):
        copy.shutdown(socket.SHUT_RDWR)
