"""The control channel between the world and the runtime: JSON messages with a length in front."""

from __future__ import annotations

import contextlib
import json
import socket
from typing import Any

Message = dict[str, Any]

_MAX_BYTES = 4 << 20


class ChannelClosedError(Exception):
    """The other side is gone."""


class ControlChannel:
    """One end of the socket pair. Used by one thread at a time."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def send(self, message: Message) -> None:
        """Send one message.

        Raises:
            ChannelClosedError: nobody is there to read it.
        """
        body = json.dumps(message).encode()
        try:
            self._sock.sendall(len(body).to_bytes(4, "big") + body)
        except OSError as error:
            raise ChannelClosedError(str(error)) from error

    def receive(self, timeout_s: float | None = None) -> Message:
        """The next message.

        Raises:
            ChannelClosedError: the other side hung up, or sent what is no message.
            TimeoutError: nothing came within `timeout_s`.
        """
        self._sock.settimeout(timeout_s)
        size = int.from_bytes(self._take(4), "big")
        if size > _MAX_BYTES:
            raise ChannelClosedError(f"a message of {size} bytes")
        message = json.loads(self._take(size))
        if not isinstance(message, dict):
            raise ChannelClosedError(f"a message that is no object: {message!r}")
        return message

    def _take(self, count: int) -> bytes:
        parts = bytearray()
        while len(parts) < count:
            try:
                piece = self._sock.recv(count - len(parts))
            except TimeoutError:
                raise
            except OSError as error:
                raise ChannelClosedError(str(error)) from error
            if not piece:
                raise ChannelClosedError("end of stream")
            parts += piece
        return bytes(parts)

    def hang_up(self) -> None:
        """End the conversation from another thread: whoever waits in `receive` is told."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Hang up. Idempotent."""
        self._sock.close()
