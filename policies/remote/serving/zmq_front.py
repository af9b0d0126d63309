"""A ROUTER socket on the event loop: every request is a task, no client holds up another."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

import zmq

from policies.encoding.limits import WireError
from policies.remote.hosts import address_to_bind, in_url
from policies.remote.serving.hang_up import by_descriptor, hang_up, is_hostile
from policies.remote.serving.service import Service, told
from policies.remote.serving.zmq_watch import EVERY_S, ConnectionWatch
from runtime.clock import NS_PER_S

Handler = Callable[[str, memoryview], Coroutine[Any, Any, list[Any]]]
ENVELOPE_FRAMES = 4
ENVELOPE_BYTES = 1 << 20
WAITING_MESSAGES = 4
"""So many of the largest messages may wait in libzmq, of all connections together."""
DROPPED_AT_ONCE = 32
"""Messages dropped unread in one turn of the loop."""
MAX_REFUSED = 32
"""Messages of one connection that are no use by their form, after which the others are not read."""
_BAD_FORM = frozenset({"malformed", "too_large", "forbidden", "version", "token"})
MAX_TASKS = 1024
"""Messages in hand, beyond which the next ones wait in their senders' sockets."""
MAX_DOUBTFUL = 256
"""Messages in hand of all clients that are not trusted; more are refused unread.

If they waited in libzmq, everybody's would wait behind them.
"""
MAX_GONE = 10_000
LAST_REPLIES_S = 0.5
"""How long replies that are ready may take to be sent when the server ends."""


class ZmqFront:
    """Serves `answer` to REQ and DEALER sockets.

    Args:
        service: the shared state.
        answer: gives the reply's pieces to one message of the client so called; may raise anything.
        error: the pieces of a reply that says so.
    """

    def __init__(self, service: Service, answer: Handler, error: Callable[[str], list[Any]]) -> None:
        self._service = service
        self._answer = answer
        self._error = error
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._socket: Any = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._of: dict[str, set[asyncio.Task[None]]] = {}  # the same, by whose message it is
        self._doubtful: dict[asyncio.Task[None], int] = {}  # bytes, of clients that are not trusted
        self._gone: dict[str, None] = {}
        self._open = False
        self._due = False
        self._refused: Counter[str] = Counter()
        self._watch: ConnectionWatch | None = None
        self._watching: asyncio.Task[None] | None = None
        self.address = ""

    async def open(self) -> None:
        """See `Front`."""
        options = self._service.options
        address = address_to_bind(options.host, options.port)
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        for option, value in (
            (zmq.LINGER, 1000),
            (zmq.SNDHWM, 16),
            (zmq.RCVHWM, 16),
            (zmq.MAXMSGSIZE, self._service.limits.size_bytes),
            (zmq.ROUTER_MANDATORY, 1),
            (zmq.HANDSHAKE_IVL, 5_000),
            (zmq.HEARTBEAT_IVL, 10_000),
            (zmq.HEARTBEAT_TIMEOUT, 30_000),
            (zmq.IPV6, int(":" in address)),
        ):
            self._socket.setsockopt(option, value)
        one = self._service.limits.size_bytes + ENVELOPE_BYTES
        most = options.max_clients + 32
        self._watch = ConnectionWatch(self._socket, one, WAITING_MESSAGES * one, most, self._left)
        try:
            # ZeroMQ binds addresses alone, and takes names for those of network interfaces.
            self._socket.bind(f"tcp://{in_url(address)}:{options.port or '*'}")
        except zmq.ZMQError as error:
            await self.close()
            raise OSError(f"tcp://{in_url(options.host)}:{options.port}: {error}") from None
        self.address = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)
        self._open = True
        loop = asyncio.get_running_loop()
        loop.add_reader(self._socket.FD, self._receive)
        self._watching = loop.create_task(self._keep_watch(self._watch))
        self._receive_soon()

    async def _keep_watch(self, watch: ConnectionWatch) -> None:
        clock = self._service.clock
        while True:
            await clock.sleep_until_ns(clock.now_ns() + round(EVERY_S * NS_PER_S))
            watch.check()

    def _receive_soon(self) -> None:
        if self._open and not self._due:
            self._due = True
            asyncio.get_running_loop().call_soon(self._receive)

    def _receive(self) -> None:
        """Take one, and come back for more: the descriptor tells of a change once, not of each message.

        One in a turn of the loop: a flood holds up neither replies nor the server's end. What is dropped
        unread costs little, and others' messages are behind it.
        """
        self._due = False
        for _ in range(DROPPED_AT_ONCE):
            if not self._open or len(self._tasks) >= MAX_TASKS:
                return  # a task's end comes back
            if not self._socket.getsockopt(zmq.EVENTS) & zmq.POLLIN:
                return
            if self._dispatch(self._socket.recv_multipart(zmq.NOBLOCK, copy=False)):
                break
        self._receive_soon()

    def _dispatch(self, frames: list[Any]) -> bool:
        """Whether there is something to do for it; others are dropped unread."""
        name = frames[0].bytes.hex()
        if not self._is_here(name, frames):
            self._service.metrics.refuse("gone")  # nobody would get the answer
            return False
        if self._refused[name] >= MAX_REFUSED:
            self._service.metrics.refuse("banned")  # unread: it is being hung up on
            return False
        empty = next((i for i, f in enumerate(frames[:ENVELOPE_FRAMES]) if i and len(f.buffer) == 0), None)
        if empty is None or len(frames) != empty + 2:
            self._service.metrics.refuse("envelope")
            self._note_refusal(frames)
            return False
        envelope = [frame.bytes for frame in frames[: empty + 1]]
        size = 0 if self._service.trusted(name) else len(frames[-1].buffer)
        if size and not self._room_for(size):
            full = WireError("too many messages wait to be read", "busy")
            self._service.refused(name, full)
            self._send(envelope, self._error(told(full)))
            return True
        task = self._in_hand(name, self._serve(envelope, frames[-1]))
        if size:
            self._doubtful[task] = size
        return True

    def _is_here(self, name: str, frames: list[Any]) -> bool:
        """Whether the connection from which `frames` came still is one."""
        if self._watch is None:
            return True
        self._watch.follow()
        sizes = (len(frame.buffer) for frame in frames[1:])
        connected = self._watch.taken(frames[-1].get(zmq.SRCFD), name, sizes)
        return connected and name not in self._gone  # the descriptor may be another connection's by now

    def _room_for(self, size: int) -> bool:
        most = WAITING_MESSAGES * (self._service.limits.size_bytes + ENVELOPE_BYTES)
        return len(self._doubtful) < MAX_DOUBTFUL and sum(self._doubtful.values()) + size <= most

    def _in_hand(self, name: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        self._of.setdefault(name, set()).add(task)
        task.add_done_callback(lambda ended: self._ended(name, ended))
        return task

    def _ended(self, name: str, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._doubtful.pop(task, None)
        if (others := self._of.get(name)) is not None:
            others.discard(task)
            if not others:
                del self._of[name]
        self._receive_soon()

    def _left(self, name: str) -> None:
        """The connection of the client called `name` has ended: what waits of it is for nobody."""
        for task in self._of.get(name, ()):
            task.cancel()
        self._refused.pop(name, None)
        if name.startswith("00"):  # given by libzmq, which gives none twice; others are clients' own
            self._gone[name] = None
            if len(self._gone) > MAX_GONE:
                del self._gone[next(iter(self._gone))]
        self._service.forget(name)

    def _note_refusal(self, frames: list[Any]) -> None:
        """Hang up on a connection whose messages are of no use so often; the rest of them is not read."""
        name = (frames[0] if isinstance(frames[0], bytes) else frames[0].bytes).hex()
        if len(self._refused) >= 10_000:
            self._refused.clear()
        self._refused[name] += 1
        if self._refused[name] == MAX_REFUSED and (peer := _connection_of(frames[-1])) is not None:
            for task in self._of.get(name, ()):
                if task is not asyncio.current_task():
                    task.cancel()
            self._in_hand(name, hang_up(peer, self._service.clock))

    async def _serve(self, envelope: list[bytes], frame: Any) -> None:
        name = envelope[0].hex()
        try:
            self._send(envelope, await self._answer(name, memoryview(frame.buffer)))
        except Exception as error:
            self._service.refused(name, error)
            if isinstance(error, WireError) and error.kind in _BAD_FORM:
                self._note_refusal([*envelope, frame])
            peer = _connection_of(frame) if is_hostile(error) else None
            self._send(envelope, self._error(told(error)))
            if is_hostile(error):
                await hang_up(peer, self._service.clock)
                self._service.forget(name)

    def _send(self, envelope: list[bytes], pieces: list[Any]) -> None:
        if not self._open and self._socket is None:
            return
        try:
            self._socket.send_multipart([*envelope, b"".join(pieces)], zmq.NOBLOCK)
        except zmq.ZMQError as error:  # gone, or does not read its replies
            name = envelope[0].hex()
            self._service.forget(name)
            self._service.refused(name, WireError(f"does not take its reply: {error}", "gone"))
        self._receive_soon()  # sending may have swallowed the descriptor's signal

    async def refuse_new(self) -> None:
        """See `Front`."""
        if self._open:
            self._open = False
            asyncio.get_running_loop().remove_reader(self._socket.FD)

    async def close(self) -> None:
        """See `Front`."""
        await self.refuse_new()
        if self._tasks:  # inferred, and on the way to being sent
            await asyncio.wait(self._tasks, timeout=LAST_REPLIES_S)
        for task in list(self._tasks):
            task.cancel()
        if self._watching is not None:
            self._watching.cancel()
        if self._socket is not None:
            if self._watch is not None:
                self._watch.close()
            self._socket.close()
            self._socket = None
        if self._context is not None:
            context, self._context = self._context, None
            await asyncio.to_thread(context.term)  # lets the last replies out, at most LINGER


def _connection_of(frame: Any) -> socket.socket | None:
    try:
        return by_descriptor(frame.get(zmq.SRCFD), frame.get("Peer-Address"))
    except zmq.ZMQError:  # the message came some other way
        return None
