"""A plain ZeroMQ REP socket on a thread, as the reference servers are: one request, one reply."""

from __future__ import annotations

import threading
from collections.abc import Callable

import zmq

_STOP = b"stop"


class RepServer:
    """Answers every message with what `answer` makes of it, until it is closed."""

    def __init__(self, answer: Callable[[bytes], bytes]) -> None:
        self._answer = answer
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.REP)
        self.port = self._socket.bind_to_random_port("tcp://127.0.0.1")
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while (message := self._socket.recv()) != _STOP:
            self._socket.send(self._answer(message))
        self._socket.send(b"")

    def close(self) -> None:
        """End the thread; nothing is left open."""
        with self._context.socket(zmq.REQ) as socket:
            socket.connect(f"tcp://127.0.0.1:{self.port}")
            socket.send(_STOP)
            socket.recv()
        self._thread.join()
        self._socket.close(linger=0)
        self._context.term()
