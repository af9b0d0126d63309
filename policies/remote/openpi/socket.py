"""A blocking websocket client with deadlines: the state machine is `websockets`', the bytes are moved here.

The library copies and masks a message in three passes; an observation of two frames is 1.8 MB, so it is
masked in place in a buffer that is kept.
"""

from __future__ import annotations

import contextlib
import secrets
import socket
from typing import Any

import numpy as np
from websockets.client import ClientProtocol
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.uri import parse_uri

from policies.encoding.limits import Limits, WireError
from policies.encoding.msgpack_views import Piece
from policies.remote.hosts import resolved
from policies.remote.link import Deadline, LinkError, Waker, wait_for

HEAD = 16
"""Room before the payload, so that it starts on a word."""
READ_BYTES = 1 << 18


class WebSocket:
    """One connection; every wait ends at a deadline or when woken."""

    def __init__(self, host: str, port: int, limits: Limits, token: str, waker: Waker) -> None:
        self.where = f"ws://{f'[{host}]' if ':' in host else host}:{port}"
        self._target = (host, port)
        self._limits = limits
        self._token = token
        self._waker = waker
        self._socket: socket.socket | None = None
        self._protocol: ClientProtocol | None = None
        self._buffer = np.zeros(0, np.uint8)
        self._parts: list[bytes] = []
        self._messages: list[tuple[bool, bytes]] = []
        self._text = False

    @property
    def _peer(self) -> socket.socket:
        if self._socket is None:
            raise LinkError("lost", "not connected")
        return self._socket

    @property
    def _state(self) -> ClientProtocol:
        if self._protocol is None:
            raise LinkError("lost", "not connected")
        return self._protocol

    def open(self, deadline: Deadline) -> None:
        """Connect and shake hands.

        Raises:
            LinkError: nobody answers, or not as a websocket; ``token`` if the server wants another one.
        """
        self.drop()
        resolved(*self._target)
        try:
            self._socket = socket.create_connection(self._target, timeout=max(deadline.left_s(), 0.001))
        except OSError as error:
            raise LinkError("connect", f"cannot connect: {error}") from None
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._socket.setblocking(False)
        self._protocol = ClientProtocol(parse_uri(self.where), max_size=self._limits.size_bytes)
        request = self._protocol.connect()
        if self._token:
            request.headers["Authorization"] = f"Api-Key {self._token}"
        self._protocol.send_request(request)
        self._flush(deadline)
        while self._protocol.state is State.CONNECTING and self._protocol.handshake_exc is None:
            self._pump(deadline)
        self._check_handshake()

    def _check_handshake(self) -> None:
        error = self._state.handshake_exc
        if error is None:
            return
        if isinstance(error, InvalidStatus):
            kind = "token" if error.response.status_code in (401, 403) else "connect"
            raise LinkError(kind, f"the server answered HTTP {error.response.status_code}")
        raise LinkError("connect", f"no websocket server: {str(error)[:200]}")

    def _pump(self, deadline: Deadline) -> None:
        """Take what the peer sent into the state machine, and send what that asks for (pongs, closes)."""
        wait_for(self._peer, self._waker, deadline)
        self._read()
        self._flush(deadline)

    def _read(self) -> None:
        try:
            data = self._peer.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            raise LinkError("lost", f"the connection broke: {error}") from None
        if data:
            self._state.receive_data(data)
        else:
            self._state.receive_eof()

    def _flush(self, deadline: Deadline) -> None:
        for data in self._state.data_to_send():
            if data:
                self._write(memoryview(data), deadline)

    def _write(self, data: memoryview, deadline: Deadline) -> None:
        while data:
            try:
                data = data[self._peer.send(data) :]
            except BlockingIOError:
                self._wait_to_write(deadline)
            except OSError as error:
                raise LinkError("lost", f"the connection broke: {error}") from None

    def _wait_to_write(self, deadline: Deadline) -> None:
        try:
            wait_for(self._peer, self._waker, deadline, writing=True)
        except LinkError as error:  # half a message is on its way: nothing can follow it
            raise LinkError(error.kind, f"the server does not read: {error}") from None

    def refresh(self, deadline: Deadline) -> None:
        """Answer pings that came while nobody looked.

        Raises:
            LinkError: kind ``stale``: the connection ended meanwhile; nothing was asked on it yet.
        """
        try:
            self._read()
            self._flush(deadline)
            alive = self._state.state is State.OPEN
        except LinkError:
            alive = False
        if not alive:
            raise LinkError("stale", "the connection ended while it was idle")

    def send(self, pieces: list[Piece], deadline: Deadline) -> None:
        """Send one binary message."""
        size = sum(len(piece) for piece in pieces)
        if len(self._buffer) < HEAD + size + 8:
            self._buffer = np.zeros(HEAD + size + 8, np.uint8)
        view = self._buffer.data
        at = HEAD
        for piece in pieces:
            view[at : at + len(piece)] = piece
            at += len(piece)
        mask = secrets.token_bytes(4)
        words = self._buffer[HEAD : HEAD + (size + 7) // 8 * 8].view(np.uint64)
        np.bitwise_xor(words, np.frombuffer(mask * 2, np.uint64)[0], out=words)
        head = _frame_head(size) + mask
        start = HEAD - len(head)
        view[start:HEAD] = head
        self._write(view[start : HEAD + size], deadline)

    def receive(self, deadline: Deadline) -> bytes:
        """The next binary message.

        Raises:
            LinkError: ``timeout``, ``lost``, ``closed``; ``refused`` with the server's text.
        """
        while True:
            for event in self._state.events_received():
                self._take(event)
            if self._messages:
                return self._next()
            if self._state.state is not State.OPEN:
                raise LinkError("lost", f"the server closed the connection{self._reason()}")
            self._pump(deadline)

    def _reason(self) -> str:
        error = self._state.close_exc if self._state.state is State.CLOSED else None
        if isinstance(error, ConnectionClosed) and error.rcvd is not None:
            return f": {error.rcvd.code} {error.rcvd.reason[:200]}".rstrip()
        return ""

    def _next(self) -> bytes:
        text, data = self._messages.pop(0)
        if text:
            lines = data.decode(errors="replace").strip().splitlines() or [""]
            raise LinkError("refused", f"the server answered: {lines[-1][:300]}")
        return data

    def _take(self, event: Any) -> None:
        """Keep a frame; a whole message once its last one is there."""
        if not isinstance(event, Frame) or event.opcode not in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            return
        if event.opcode is not Opcode.CONT:
            self._parts, self._text = [], event.opcode is Opcode.TEXT
        self._parts.append(bytes(event.data))
        if event.fin:
            data = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
            self._messages.append((self._text, data))
            self._parts = []

    def drop(self) -> None:
        """Say goodbye if that needs no waiting, and close. Never raises."""
        peer, self._socket = self._socket, None
        if peer is None:
            return
        with contextlib.suppress(OSError, InvalidHandshake, WireError, ConnectionClosed):
            if self._protocol is not None and self._protocol.state is State.OPEN:
                self._protocol.send_close(1000)
                peer.send(b"".join(self._protocol.data_to_send()))
        peer.close()
        self._protocol = None
        self._parts, self._messages = [], []


def _frame_head(size: int) -> bytes:
    """A final, masked, binary frame's first bytes (RFC 6455, section 5.2), without the mask."""
    if size < 126:
        return bytes([0x82, 0x80 | size])
    if size < 1 << 16:
        return b"\x82\xfe" + size.to_bytes(2, "big")
    return b"\x82\xff" + size.to_bytes(8, "big")
