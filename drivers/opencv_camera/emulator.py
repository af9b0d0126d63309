"""An MJPEG network camera: ``multipart/x-mixed-replace`` over HTTP on the loopback interface.

The wire is what mjpg-streamer, ESP32-CAM and most IP cameras speak: one response that never ends, each
part a JPEG with ``Content-Type`` and ``Content-Length``. One thread serves every client with
non-blocking sockets, so a client that does not read costs nobody else anything.

A new client is sent the newest picture at once (black before the first one), as real servers do; that
part is no published frame and is not counted by `MjpegEmulator.publish`. A client that shuts down its
sending side is dropped, and sees the end of the stream after that: from then on `publish` does not
count it any more.
"""

from __future__ import annotations

import collections
import contextlib
import selectors
import socket
import threading
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from runtime.messages import ColorImage

BOUNDARY = "frame"
FAULTS = ("freeze", "gone", "back", "torn", "garbage")
_QUEUE = 4
_MAX_REQUEST = 8192
_FIRST_PART = 4096
"""Least size of the first JPEG (zeros after its end): FFmpeg looks at 2 KiB before it opens a stream, and
would wait for the second picture if the first one is smaller."""
_HEADERS = (
    "HTTP/1.0 200 OK\r\n"
    "Cache-Control: no-store\r\n"
    "Connection: close\r\n"
    f"Content-Type: multipart/x-mixed-replace; boundary={BOUNDARY}\r\n\r\n"
).encode()
_NOT_FOUND = b"HTTP/1.0 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


@dataclass
class _Client:
    sock: socket.socket
    request: bytes = b""
    streaming: bool = False
    closing: bool = False
    parts: collections.deque[bytes] = field(default_factory=collections.deque)
    sending: memoryview = field(default_factory=lambda: memoryview(b""))


class MjpegEmulator:
    """Serves the pictures given to `publish` at `url` until `close`.

    Args:
        width, height: of the black picture that is shown before the first one.
        port: 0 takes a free one.
        quality: JPEG quality, 1..100.

    Raises:
        OSError: the port is taken.
    """

    def __init__(
        self,
        width: int,
        height: int,
        *,
        port: int = 0,
        host: str = "127.0.0.1",
        path: str = "/stream",
        quality: int = 90,
    ) -> None:
        self._quality = quality
        self._path = path
        self._host = host
        self._port = port
        self._clients: dict[socket.socket, _Client] = {}
        self._lock = threading.RLock()
        self._frozen = False
        self._damage = ""
        self._stopping = False
        self._served = 0
        self._skipped = 0
        self._selector = selectors.DefaultSelector()
        self._wake_in, self._wake_out = socket.socketpair()
        self._wake_in.setblocking(False)
        self._wake_out.setblocking(False)
        self._selector.register(self._wake_out, selectors.EVENT_READ)
        self._listener: socket.socket | None = None
        self._newest = self._encode(np.zeros((height, width, 3), np.uint8))
        try:
            self._listen()
        except OSError:
            self._release()
            raise
        self._thread = threading.Thread(target=self._serve, name="mjpeg-emulator", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """Where the stream is."""
        return f"http://{self._host}:{self._port}{self._path}"

    @property
    def clients(self) -> int:
        """How many clients get frames."""
        with self._lock:
            return sum(c.streaming and not c.closing for c in self._clients.values())

    def publish(self, color: ColorImage, stamp_ns: int) -> int:
        """Send RGB uint8 ``[H, W, 3]`` to every client; returns how many will get it.

        Never blocks: a client with a full queue misses this frame. `stamp_ns` goes into the part's
        ``X-Timestamp`` header (seconds), where many servers put it.
        """
        jpeg = self._encode(color)
        with self._lock:
            if self._frozen or self._listener is None:
                return 0
            self._newest = jpeg
            part = self._part(self._damaged(jpeg), stamp_ns)
            sent = 0
            for client in [c for c in self._clients.values() if c.streaming and not c.closing]:
                if self._hung_up(client):
                    self._drop(client)
                elif len(client.parts) < _QUEUE:
                    client.parts.append(part)
                    self._pump(client)  # in the socket's buffer by the time that this returns
                    sent += 1
                else:
                    self._skipped += 1
            self._served += sent
        return sent

    def inject(self, fault: str) -> None:
        """Do what `fault` says from now on.

        ``freeze``: connections stay open, nothing is sent any more. ``gone``: the server closes every
        connection and its port. ``back``: ends both. ``torn``: the next frame's JPEG is cut in half.
        ``garbage``: the next frame is noise.

        Raises:
            ValueError: an unknown fault.
        """
        if fault not in FAULTS:
            raise ValueError(f"camera fault {fault!r} is not one of {', '.join(FAULTS)}")
        with self._lock:
            if fault == "freeze":
                self._frozen = True
            elif fault == "gone":
                self._hang_up()
            elif fault == "back":
                self._frozen = False
                if self._listener is None:
                    self._listen()
            else:
                self._damage = fault
        self._wake()

    def statistics(self) -> dict[str, int]:
        """Frames sent and frames that a slow client missed."""
        return {"served": self._served, "skipped": self._skipped}

    def close(self) -> None:
        """Hang up and stop. Idempotent."""
        if self._stopping:
            return
        self._stopping = True
        self._wake()
        self._thread.join()
        with self._lock:
            self._hang_up()
            self._release()

    # --- pictures

    def _encode(self, color: ColorImage) -> bytes:
        import cv2

        ok, jpeg = cv2.imencode(
            ".jpg", cv2.cvtColor(color, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, self._quality]
        )
        if not ok:
            raise ValueError(f"a picture of shape {color.shape} cannot be encoded as JPEG")
        return bytes(jpeg.tobytes())

    def _damaged(self, jpeg: bytes) -> bytes:
        damage, self._damage = self._damage, ""
        if damage == "torn":
            return jpeg[: len(jpeg) // 2]
        if damage == "garbage":
            return np.random.default_rng(0).bytes(len(jpeg))
        return jpeg

    @staticmethod
    def _part(jpeg: bytes, stamp_ns: int) -> bytes:
        head = (
            f"--{BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n"
            f"X-Timestamp: {stamp_ns // 1_000_000_000}.{stamp_ns % 1_000_000_000:09d}\r\n\r\n"
        )
        return head.encode() + jpeg + b"\r\n"

    # --- sockets (the lock is held wherever clients or the listener change)

    def _listen(self) -> None:
        listener = socket.socket()
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((self._host, self._port))
            listener.listen(8)
        except OSError:
            listener.close()
            raise
        listener.setblocking(False)
        self._port = listener.getsockname()[1]
        self._listener = listener
        self._selector.register(listener, selectors.EVENT_READ)

    def _hang_up(self) -> None:
        for client in list(self._clients.values()):
            self._drop(client)
        if self._listener is not None:
            self._selector.unregister(self._listener)
            self._listener.close()
            self._listener = None

    def _release(self) -> None:
        self._selector.close()
        self._wake_in.close()
        self._wake_out.close()

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._wake_in.send(b"w")

    def _drop(self, client: _Client) -> None:
        if self._clients.pop(client.sock, None) is not None:
            self._selector.unregister(client.sock)
            client.sock.close()

    @staticmethod
    def _hung_up(client: _Client) -> bool:
        """Whether the client closed its end, even if the serving thread has not noticed yet."""
        try:
            return client.sock.recv(1, socket.MSG_PEEK) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True

    def _serve(self) -> None:
        while not self._stopping:
            events = self._selector.select()
            with self._lock:
                for key, mask in events:
                    self._handle(key.fileobj, mask)
                for client in list(self._clients.values()):
                    self._pump(client)

    def _handle(self, source: Any, mask: int) -> None:
        if source is self._wake_out:
            with contextlib.suppress(BlockingIOError):
                self._wake_out.recv(4096)
        elif source is self._listener:
            with contextlib.suppress(BlockingIOError):
                sock, _ = self._listener.accept()
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._clients[sock] = _Client(sock)
                self._selector.register(sock, selectors.EVENT_READ)
        elif source in self._clients and mask & selectors.EVENT_READ:
            self._hear(self._clients[source])

    def _hear(self, client: _Client) -> None:
        try:
            data = client.sock.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._drop(client)
        elif not client.streaming:
            client.request += data
            if b"\r\n\r\n" in client.request or len(client.request) > _MAX_REQUEST:
                self._answer(client)

    def _answer(self, client: _Client) -> None:
        client.streaming = True
        words = client.request.split(None, 2)
        if len(words) == 3 and words[0] == b"GET" and words[1].decode(errors="replace") == self._path:
            client.parts.append(_HEADERS + self._part(self._newest.ljust(_FIRST_PART, b"\0"), 0))
        else:
            client.closing = True
            client.parts.append(_NOT_FOUND)

    def _pump(self, client: _Client) -> None:
        """Send as much as the socket takes; ask to be told when it takes more."""
        try:
            while client.sending or client.parts:
                if not client.sending:
                    client.sending = memoryview(client.parts.popleft())
                client.sending = client.sending[client.sock.send(client.sending) :]
        except BlockingIOError:
            self._selector.modify(client.sock, selectors.EVENT_READ | selectors.EVENT_WRITE)
            return
        except OSError:
            self._drop(client)
            return
        if client.closing:
            self._drop(client)
        else:
            self._selector.modify(client.sock, selectors.EVENT_READ)
