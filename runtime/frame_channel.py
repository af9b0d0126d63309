"""Pictures from one process to another: every one arrives once, in order, and nobody gets far ahead.

One message is one picture (or mask) with a header that says what it is: its id, shape and dtype. On one
machine it goes through a ring in shared memory (here), over a network through ZeroMQ (`runtime.zmq_channel`).
A ring overwrites what is old, so the sender is told how many were taken, through another ring, and waits.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from runtime.clock import Clock
from runtime.ring import Layout, Overwritten, Ring, Sample

HEADER_BYTES = 2048
_SCHEME = "ring:"
_DTYPE = re.compile(r"[|<>=]?[buif][1248]")
"""Whole numbers, floats and bits: NumPy's other words (fields, dates, objects) are of no picture."""
_FIRST_WAIT_NS, _LONGEST_WAIT_NS = 50_000, 2_000_000


class FrameError(Exception):
    """A message is no picture with its header. One line."""


@dataclass(frozen=True, slots=True)
class FrameMessage:
    """A picture and what it is.

    Attributes:
        about: what the receiver is told besides shape and dtype; small, and JSON.
    """

    about: Mapping[str, Any]
    data: NDArray[Any]

    def header(self) -> bytes:
        """As it is sent: `about`, ``shape`` and ``dtype``.

        Raises:
            FrameError: it is too long.
        """
        said = {**self.about, "shape": list(self.data.shape), "dtype": self.data.dtype.str}
        text = json.dumps(said).encode()
        if len(text) > HEADER_BYTES:
            raise FrameError(f"a header of {len(text)} bytes; at most {HEADER_BYTES} are sent")
        return text

    @classmethod
    def of(cls, header: bytes, data: Any) -> FrameMessage:
        """The picture over `data`, which is not copied.

        Raises:
            FrameError: the header is none, or is of another size than the data: two in one, or half of one.
        """
        if len(header) > HEADER_BYTES:
            raise FrameError(f"a header of {len(header)} bytes; at most {HEADER_BYTES} are read")
        try:
            said = json.loads(header)
            shape, name = tuple(map(int, said.pop("shape"))), str(said.pop("dtype"))
            if not _DTYPE.fullmatch(name) or min(shape, default=0) < 0:
                raise FrameError(f"a picture of {name!r:.40}, {len(shape)} dimensions")
            size, given = math.prod(shape) * np.dtype(name).itemsize, memoryview(data).nbytes
            if size != given:
                raise FrameError(f"a picture of {size} bytes by its header, and {given} came")
            return cls(said, np.frombuffer(data, name).reshape(shape))
        except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError) as error:
            raise FrameError(f"no header of a picture: {type(error).__name__}") from None


class FrameSender(Protocol):
    """Sends to one receiver. Belongs to one thread."""

    def send(self, message: FrameMessage, timeout_ns: int) -> bool:
        """``False`` if there is no room for it within `timeout_ns`; it is then not sent, and may be again."""

    def settle(self, timeout_ns: int) -> bool:
        """Whether all that was sent has arrived, after at most `timeout_ns`."""

    def close(self) -> None:
        """Let go."""


class FrameReceiver(Protocol):
    """Receives from any number of senders. Belongs to one thread.

    Attributes:
        address: where senders find it.
    """

    address: str

    def receive(self, timeout_ns: int) -> FrameMessage | None:
        """The next message, its data the caller's own; ``None`` if there is none within `timeout_ns`."""

    def close(self) -> None:
        """Let go."""


class GrowingWait:
    """Waits a little, then a little longer, until `timeout_ns` is over: nobody spins."""

    def __init__(self, clock: Clock, timeout_ns: int) -> None:
        self._clock = clock
        self._until_ns = clock.now_ns() + timeout_ns
        self._step_ns = _FIRST_WAIT_NS

    def wait(self) -> bool:
        """``False`` if the time is over."""
        now_ns = self._clock.now_ns()
        if now_ns >= self._until_ns:
            return False
        self._clock.wait_until_ns(min(now_ns + self._step_ns, self._until_ns))
        self._step_ns = min(2 * self._step_ns, _LONGEST_WAIT_NS)
        return True


class FrameRings:
    """The two rings of one way: pictures there, back how many were taken. Of whoever outlives both ends."""

    def __init__(self, most_bytes: int, slots: int = 8) -> None:
        layout: Layout = {
            "sizes": ((2,), "<i8"),
            "header": ((HEADER_BYTES,), "|u1"),
            "data": ((most_bytes,), "|u1"),
        }
        self._rings = [Ring.create_shared(layout, slots), Ring.create_shared({"taken": ((), "<i8")}, 4)]

    @property
    def address(self) -> str:
        """What both ends attach by."""
        return _SCHEME + ",".join(ring.name for ring in self._rings)

    def close(self) -> None:
        """Free them; whoever is attached keeps them until it lets go."""
        for ring in self._rings:
            ring.close()
            ring.unlink()


def _attached(address: str) -> tuple[Ring, Ring]:
    names = address.removeprefix(_SCHEME).split(",")
    if not address.startswith(_SCHEME) or len(names) != 2:
        raise ValueError(f"{address!r}: expected {_SCHEME}NAME,NAME")
    return Ring.attach(names[0]), Ring.attach(names[1])


class RingSender:
    """`FrameSender` through `FrameRings`; one at a time.

    Raises:
        FileNotFoundError: the rings are gone.
    """

    def __init__(self, address: str, clock: Clock) -> None:
        self._frames, self._taken = _attached(address)
        self._clock = clock
        self._most = self._frames.layout["data"][0][0]

    def send(self, message: FrameMessage, timeout_ns: int) -> bool:
        """See `FrameSender`.

        Raises:
            FrameError: it is larger than the ring's slots.
        """
        header, data = message.header(), np.ascontiguousarray(message.data).reshape(-1).view(np.uint8)
        if data.size > self._most:
            raise FrameError(f"a picture of {data.size} bytes; the ring takes {self._most}")
        if not self._wait(self._frames.capacity - 1, timeout_ns):
            return False
        with self._frames.write(self._clock.now_ns()) as slot:
            slot["sizes"][:] = len(header), data.size
            slot["header"][: len(header)] = np.frombuffer(header, np.uint8)
            slot["data"][: data.size] = data
        return True

    def settle(self, timeout_ns: int) -> bool:
        """See `FrameSender`."""
        return self._wait(1, timeout_ns)

    def _wait(self, room: int, timeout_ns: int) -> bool:
        """Until fewer than `room` are on their way."""
        patience = GrowingWait(self._clock, timeout_ns)
        while self._frames.published - self._count() >= room:
            if not patience.wait():
                return False
        return True

    def _count(self) -> int:
        sample = self._taken.newest()
        return 0 if sample is None else int(sample["taken"])

    def close(self) -> None:
        """See `FrameSender`."""
        self._frames.close()
        self._taken.close()


class RingReceiver:
    """`FrameReceiver` of one sender; goes on where one before it ended.

    Raises:
        FileNotFoundError: the rings are gone.
    """

    def __init__(self, address: str, clock: Clock) -> None:
        self.address = address
        self._frames, self._acknowledged = _attached(address)
        self._clock = clock
        sample = self._acknowledged.newest()
        self._next = 0 if sample is None else int(sample["taken"])
        self._sample: Sample = self._frames.blank()

    def receive(self, timeout_ns: int) -> FrameMessage | None:
        """See `FrameReceiver`."""
        patience = GrowingWait(self._clock, timeout_ns)
        while True:
            try:
                sample = self._frames.read(self._next, self._sample)
            except Overwritten as gap:  # a sender that did not wait: not this class's
                raise FrameError(f"a picture was overwritten unread: {gap}") from None
            if sample is not None:
                break
            if not patience.wait():
                return None
        header, size = sample["sizes"].tolist()
        message = FrameMessage.of(sample["header"][:header].tobytes(), sample["data"][:size].copy())
        self._next += 1
        self._acknowledged.push(self._clock.now_ns(), taken=self._next)
        return message

    def close(self) -> None:
        """See `FrameReceiver`."""
        self._frames.close()
        self._acknowledged.close()


class MergedReceiver:
    """Several receivers as one, each in its turn."""

    def __init__(self, receivers: Sequence[FrameReceiver], clock: Clock) -> None:
        self._receivers = list(receivers)
        self._clock = clock
        self.address = ""

    def receive(self, timeout_ns: int) -> FrameMessage | None:
        """See `FrameReceiver`."""
        patience = GrowingWait(self._clock, timeout_ns)
        while True:
            for place, receiver in enumerate(self._receivers):
                if (message := receiver.receive(0)) is not None:
                    self._receivers = self._receivers[place + 1 :] + self._receivers[: place + 1]
                    return message
            if not patience.wait():
                return None

    def close(self) -> None:
        """See `FrameReceiver`."""
        for receiver in self._receivers:
            receiver.close()
