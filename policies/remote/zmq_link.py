"""A ZeroMQ request and reply link with deadlines, matched replies and a known state of the connection.

A DEALER socket writes the envelope of a REQ socket with a number in front, which every REP and ROUTER
gives back untouched: a late reply is told from the awaited one, and a lost one does not wedge the socket
as it does a REQ. The socket's monitor tells at once when the server has gone.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from typing import Any

import zmq
from zmq.utils.garbage import gc as collector
from zmq.utils.monitor import recv_monitor_message

from policies.encoding.limits import Limits
from policies.encoding.msgpack_views import Piece
from policies.remote.hosts import in_url, resolved
from policies.remote.link import Counts, Deadline, LinkError, Waker

_UP = zmq.EVENT_HANDSHAKE_SUCCEEDED
_DOWN = zmq.EVENT_DISCONNECTED | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_AUTH
_DOWN |= zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL


class _Open:
    """Counts the process's links. Large messages are lent to libzmq, and pyzmq runs a thread that notes when
    they come back; with the last link it ends, too.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0

    def one_more(self) -> None:
        with self._lock:
            self._count += 1

    def one_less(self) -> None:
        with self._lock:
            self._count -= 1
            if not self._count:
                collector.stop()


_OPEN = _Open()


LAST_ANSWER_MS = 50
"""How long an answer may come after the news that its connection has ended."""


class ZmqLink:
    """One connection to one server.

    Args:
        host, port: where it is.
        limits: how large a reply may be.
        keep_alive_s: heartbeat period; a peer silent for three of them counts as gone.
        waker: ends every wait.
        counts: gets ``late`` replies.
    """

    def __init__(
        self, host: str, port: int, limits: Limits, keep_alive_s: float, waker: Waker, counts: Counts
    ) -> None:
        self._target = (host, port)
        self.where = f"tcp://{in_url(host)}:{port}"
        self._limits = limits
        self._keep_alive_ms = max(1, round(keep_alive_s * 1000))
        self._waker = waker
        self._counts = counts
        self._numbers = itertools.count(1)
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._socket: Any = None
        self._monitor: Any = None
        self._poller = zmq.Poller()
        self._buffer = bytearray()
        self._lent = False
        self._up = False

    def open(self, deadline: Deadline) -> None:
        """Connect and wait for the handshake.

        Raises:
            LinkError: nobody, or nobody who speaks ZeroMQ, answers there in time; or there is no such host.
        """
        self.drop()
        address = resolved(*self._target)
        _OPEN.one_more()
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        for option, value in (
            (zmq.LINGER, 0),
            (zmq.SNDHWM, 4),
            (zmq.RCVHWM, 8),
            (zmq.MAXMSGSIZE, self._limits.size_bytes),
            (zmq.HEARTBEAT_IVL, self._keep_alive_ms),
            (zmq.HEARTBEAT_TIMEOUT, 3 * self._keep_alive_ms),
            (zmq.TCP_KEEPALIVE, 1),
            (zmq.RECONNECT_IVL, 50),
            (zmq.IPV6, int(":" in address)),
        ):
            self._socket.setsockopt(option, value)
        self._monitor = self._socket.get_monitor_socket(_UP | _DOWN)
        self._poller = zmq.Poller()
        for source in (self._socket, self._monitor, self._waker.fileno()):
            self._poller.register(source, zmq.POLLIN)
        try:
            self._socket.connect(f"tcp://{in_url(address)}:{self._target[1]}")
        except zmq.ZMQError as error:
            raise LinkError("connect", f"cannot connect: {error}") from None
        self._await_handshake(deadline)

    def _await_handshake(self, deadline: Deadline) -> None:
        while not deadline.passed:
            if self._wait(deadline, "connect"):
                continue
            if self._event() == _UP:
                self._up = True
                return
        raise LinkError("connect", f"no ZeroMQ server answered within {deadline.seconds:g} s")

    def _event(self) -> int:
        """Take the connection's next event."""
        return int(recv_monitor_message(self._monitor)["event"])

    def _refresh(self) -> None:
        """Take in what happened to the connection while nobody looked.

        Raises:
            LinkError: kind ``stale``: it has ended; nothing was asked on it yet.
        """
        while self._monitor.poll(0):
            self._up = self._event() == _UP
        if not self._up:
            raise LinkError("stale", "the connection ended while it was idle")

    def _wait(self, deadline: Deadline, kind: str) -> bool:
        """Whether a message is there; ``False`` for an event of the connection.

        Raises:
            LinkError: `kind` after the deadline; ``closed`` when woken.
        """
        ready = dict(self._poller.poll(deadline.left_ms()))
        if self._waker.fileno() in ready:
            raise LinkError("closed", "the client was closed")
        if not ready:
            raise LinkError(kind, f"no answer within {deadline.seconds:g} s", broken=kind == "connect")
        return self._socket in ready

    def _join(self, pieces: list[Piece]) -> memoryview:
        """The pieces in one buffer, reused once the previous message was answered."""
        size = sum(len(piece) for piece in pieces)
        if self._lent or len(self._buffer) < size:
            self._buffer = bytearray(size)
        view = memoryview(self._buffer)[:size]
        at = 0
        for piece in pieces:
            view[at : at + len(piece)] = piece
            at += len(piece)
        return view

    def exchange(self, pieces: list[Piece], deadline: Deadline) -> memoryview:
        """Send one message, return the one that answers it (a view; valid as long as it is referenced).

        Raises:
            LinkError: ``timeout``, ``lost`` or ``closed``.
        """
        self._refresh()
        number = next(self._numbers).to_bytes(8, "big")
        message = self._join(pieces)
        self._lent = True
        try:
            self._socket.send_multipart([number, b"", message], zmq.NOBLOCK, copy=False)
        except zmq.Again:
            raise LinkError("lost", "the connection is down") from None
        while True:
            if not self._wait(deadline, "timeout"):
                down = self._event() != _UP
                # A server that ends answers first: the answer may have come between the two looks.
                if down and not self._socket.poll(LAST_ANSWER_MS, zmq.POLLIN):
                    raise LinkError("lost", "the server closed the connection")
                continue
            frames = self._socket.recv_multipart(zmq.NOBLOCK, copy=False)
            if len(frames) == 3 and frames[0].bytes == number:
                self._lent = False
                return memoryview(frames[2].buffer)
            self._counts.add("late")

    def drop(self) -> None:
        """Close the socket, its monitor and the I/O thread. Never raises."""
        if self._context is None:
            return
        with contextlib.suppress(zmq.ZMQError):
            self._socket.disable_monitor()
        self._monitor.close(linger=0)
        self._socket.close(linger=0)
        self._context.term()  # nothing is lent any more
        _OPEN.one_less()
        self._context = self._socket = self._monitor = None
        self._buffer, self._lent = bytearray(), False
