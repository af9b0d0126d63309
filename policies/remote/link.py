"""What the four clients share below the protocol: deadlines, being woken, and how a link fails."""

from __future__ import annotations

import contextlib
import os
import select
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from numpy.typing import NDArray

from runtime.clock import NS_PER_S, RealClock
from runtime.messages import Floats, Latent, PolicyStatus

_REAL = RealClock()
"""A peer answers in real time, also where simulated time stands still meanwhile."""


class LinkError(Exception):
    """A link cannot be used any more, or not now.

    Attributes:
        kind: ``"connect"``, ``"lost"``, ``"timeout"``, ``"closed"``, ``"token"``; countable.
        broken: whether the connection must be given up (a reply may still come on one that is not).
    """

    def __init__(self, kind: str, detail: str, *, broken: bool = True) -> None:
        super().__init__(detail)
        self.kind = kind
        self.broken = broken


class Deadline:
    """A point in real time, from now."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end_ns = _REAL.now_ns() + round(seconds * NS_PER_S)

    def left_s(self) -> float:
        """Seconds left, not below 0."""
        return max(0, self._end_ns - _REAL.now_ns()) / NS_PER_S

    def left_ms(self) -> int:
        """Milliseconds left, rounded up."""
        return -(-max(0, self._end_ns - _REAL.now_ns()) // 1_000_000)

    @property
    def passed(self) -> bool:
        """Whether it is over."""
        return _REAL.now_ns() >= self._end_ns


class Waker:
    """Lets another thread end a wait for I/O. Once woken it stays so."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        self.woken = False

    def fileno(self) -> int:
        """Readable once woken."""
        return self._read

    def wake(self) -> None:
        """End the present wait and every later one."""
        self.woken = True
        with contextlib.suppress(OSError):
            os.write(self._write, b"x")

    def close(self) -> None:
        """Let go of the pipe."""
        os.close(self._read)
        os.close(self._write)


def wait_for(peer: socket.socket, waker: Waker, deadline: Deadline, *, writing: bool = False) -> None:
    """Wait until `peer` can be read (or written).

    Raises:
        LinkError: kind ``timeout`` or ``closed``.
    """
    poller = select.poll()
    poller.register(peer, select.POLLOUT if writing else select.POLLIN)
    poller.register(waker, select.POLLIN)
    ready = poller.poll(deadline.left_ms())
    if any(fd == waker.fileno() for fd, _ in ready):
        raise LinkError("closed", "the client was closed")
    if not ready:
        raise LinkError("timeout", f"no answer within {deadline.seconds:g} s", broken=False)


@dataclass(frozen=True, slots=True)
class PolicyRequest:
    """An observation in the policy's keys and units.

    Attributes:
        state: float64 ``[n]`` each.
        images: uint8 ``[H, W, 3]``, depths uint16 ``[H, W]``, masks uint8 ``[H, W]``.
        prefix: ``[n, A]`` actions already committed, concatenated in the order of the action keys.
        frozen: how many of them will have been executed when the chunk arrives.
    """

    step: int
    stamp_s: float
    state: Mapping[str, Floats]
    images: Mapping[str, NDArray[Any]]
    instruction: str
    prefix: Floats
    frozen: int


@dataclass(frozen=True, slots=True)
class PolicyReply:
    """A server's answer.

    Attributes:
        actions: the chunk by the policy's keys, each ``[T, n]``, in its units.
        status: what our own server adds about how the attempt stands, and why, if its policy tells.
        reasoning, latent: what it adds of `runtime.messages.PolicyAnswer`.
    """

    actions: Mapping[str, Floats]
    status: tuple[PolicyStatus, str] | None = None
    reasoning: str = ""
    latent: Latent | None = None


@dataclass(slots=True)
class Counts:
    """Events of one client, by kind."""

    by_kind: dict[str, int] = field(default_factory=dict)

    def add(self, kind: str, count: int = 1) -> None:
        """Count an event."""
        self.by_kind[kind] = self.by_kind.get(kind, 0) + count


class Session(Protocol):
    """One protocol's side of a client. All but `interrupt` are called under one lock."""

    where: str

    @property
    def takes_prefix(self) -> bool:
        """Whether the policy behind the server goes on from a prefix; known once open."""

    def open(self, deadline: Deadline) -> None:
        """Connect and check who answers.

        Raises:
            LinkError, WireError: not reachable, or not a server of this protocol.
        """

    def ask(self, request: PolicyRequest, deadline: Deadline) -> PolicyReply:
        """One chunk.

        Raises:
            LinkError, WireError: no answer, or one that cannot be used.
        """

    def reset(self, deadline: Deadline) -> None:
        """Tell the server that a new episode begins, where the protocol can say it."""

    def interrupt(self) -> None:
        """End a wait that does not look at the waker. From any thread."""

    def drop(self) -> None:
        """Give the connection up. Never raises; `open` may follow."""

    def close(self) -> None:
        """Give everything up. Never raises."""
