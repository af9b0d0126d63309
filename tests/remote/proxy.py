"""A TCP relay between client and server that can be cut and joined again, as a network can."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading


class Relay:
    """Listens on a port of its own; every connection goes on to `port`."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listening, selectors.EVENT_READ)
        self._wake_read, self._wake = socket.socketpair()
        self._selector.register(self._wake_read, selectors.EVENT_READ)
        self._pairs: dict[socket.socket, socket.socket] = {}
        self._joined = threading.Event()
        self._joined.set()
        self._ended = False
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def cut(self) -> None:
        """Bytes stop arriving; nobody is told."""
        self._joined.clear()

    def join(self) -> None:
        """Bytes that waited go on."""
        self._joined.set()

    def reset(self) -> None:
        """Every connection breaks."""
        for peer in list(self._pairs):
            with contextlib.suppress(OSError):  # the relay's own thread may be dropping its other end
                peer.shutdown(socket.SHUT_RDWR)

    def _run(self) -> None:
        while not self._ended:
            for key, _ in self._selector.select():
                self._joined.wait()
                self._one(key.fileobj)

    def _one(self, ready: object) -> None:
        assert isinstance(ready, socket.socket)
        if ready is self._listening:
            near, _ = self._listening.accept()
            far = socket.create_connection(("127.0.0.1", self._to))
            self._pairs |= {near: far, far: near}
            for peer in (near, far):
                self._selector.register(peer, selectors.EVENT_READ)
        elif ready in self._pairs:
            try:
                data = ready.recv(1 << 16)
                if data:
                    self._pairs[ready].sendall(data)
            except OSError:
                data = b""
            if not data:
                self._drop(ready)

    def _drop(self, peer: socket.socket) -> None:
        for each in (peer, self._pairs[peer]):
            self._selector.unregister(each)
            del self._pairs[each]
            each.close()

    def close(self) -> None:
        self._ended = True
        self._joined.set()
        self._wake.send(b"x")
        self._thread.join()
        for each in [*self._pairs, self._listening, self._wake, self._wake_read]:
            each.close()
        self._selector.close()
