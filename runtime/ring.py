"""Lock-free rings and mailboxes: the only things that threads and processes share.

One writer, any number of readers, preallocated slots. A slot's own sequence number is odd while it is
written and even once it is whole; a reader copies and checks that the number did not change meanwhile.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from multiprocessing import resource_tracker, shared_memory
from typing import Any

import numpy as np
from numpy.typing import NDArray

Layout = Mapping[str, tuple[tuple[int, ...], str]]
"""Field name to (shape, numpy dtype string), the same for every slot."""

Fields = dict[str, NDArray[Any]]


@dataclass(slots=True)
class Sample:
    """A whole copy of one slot. `index` counts from 0 over the ring's life."""

    index: int
    stamp_ns: int
    fields: Fields

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self.fields[name]


class Overwritten(Exception):
    """The sample asked for has been overwritten: `oldest` is the first one still there."""

    def __init__(self, index: int, oldest: int) -> None:
        super().__init__(f"sample {index} was overwritten; the oldest one left is {oldest}")
        self.index = index
        self.oldest = oldest


def capacity_for(rate_hz: float, read_budget_s: float, margin: int = 2) -> int:
    """Slots so that a reader may take `read_budget_s` over a copy at `rate_hz` and still find it whole."""
    return max(3, int(np.ceil(rate_hz * read_budget_s)) + 1 + margin)


_HEADER = 64
_ALIGN = 64


def _aligned(size: int) -> int:
    return (size + _ALIGN - 1) // _ALIGN * _ALIGN


class Ring:
    """A ring of samples of one layout, over private memory or, via `create_shared`, shared memory."""

    def __init__(self, layout: Layout, capacity: int) -> None:
        self._setup(layout, capacity, memoryview(bytearray(self._size(layout, capacity))), None)

    @classmethod
    def create_shared(cls, layout: Layout, capacity: int, name: str | None = None) -> Ring:
        """A ring that another process can `attach` to by its ``name``."""
        text = json.dumps({"layout": {k: [list(s), d] for k, (s, d) in layout.items()}, "n": capacity})
        head = _aligned(8 + len(text))
        memory = shared_memory.SharedMemory(name, create=True, size=head + cls._size(layout, capacity))
        memory.buf[:8] = len(text).to_bytes(8, "little")
        memory.buf[8 : 8 + len(text)] = text.encode()
        ring = cls.__new__(cls)
        ring._setup(layout, capacity, memory.buf[head:], memory)
        return ring

    @classmethod
    def attach(cls, name: str) -> Ring:
        """The ring that another process created under `name`."""
        memory = shared_memory.SharedMemory(name)
        # The creator unlinks; without this the tracker of this process would, too (bpo-38119).
        resource_tracker.unregister(memory._name, "shared_memory")  # type: ignore[attr-defined]  # noqa: SLF001
        size = int.from_bytes(memory.buf[:8], "little")
        text = json.loads(bytes(memory.buf[8 : 8 + size]))
        layout = {k: (tuple(s), d) for k, (s, d) in text["layout"].items()}
        ring = cls.__new__(cls)
        ring._setup(layout, text["n"], memory.buf[_aligned(8 + size) :], memory)
        return ring

    @staticmethod
    def _size(layout: Layout, capacity: int) -> int:
        slot = sum(_aligned(int(np.prod(s)) * np.dtype(d).itemsize) for s, d in layout.values())
        return _HEADER + _aligned(16 * capacity) + capacity * slot

    def _setup(
        self,
        layout: Layout,
        capacity: int,
        buffer: memoryview,
        memory: shared_memory.SharedMemory | None,
    ) -> None:
        self.layout = dict(layout)
        self.capacity = capacity
        self._memory = memory
        self._head = np.frombuffer(buffer, np.int64, 1, 0)
        self._sequence = np.frombuffer(buffer, np.int64, capacity, _HEADER)
        self._stamps = np.frombuffer(buffer, np.int64, capacity, _HEADER + 8 * capacity)
        offset = _HEADER + _aligned(16 * capacity)
        self._slots: list[Fields] = []
        for _ in range(capacity):
            slot: Fields = {}
            for key, (shape, dtype) in self.layout.items():
                count = int(np.prod(shape))
                slot[key] = np.frombuffer(buffer, dtype, count, offset).reshape(shape)
                offset += _aligned(count * np.dtype(dtype).itemsize)
            self._slots.append(slot)

    @property
    def name(self) -> str:
        """The shared-memory name, or ``""`` for private memory."""
        return self._memory.name if self._memory is not None else ""

    @property
    def published(self) -> int:
        """How many samples were ever published."""
        return int(self._head[0])

    @contextlib.contextmanager
    def write(self, stamp_ns: int) -> Iterator[Fields]:
        """The next slot's own arrays; published when the block ends, dropped if it raises."""
        index = int(self._head[0])
        place = index % self.capacity
        self._sequence[place] = 2 * index + 1
        yield self._slots[place]
        self._stamps[place] = stamp_ns
        self._sequence[place] = 2 * index + 2
        self._head[0] = index + 1

    def push(self, stamp_ns: int, **fields: Any) -> None:
        """Copy `fields` into the next slot and publish it."""
        with self.write(stamp_ns) as slot:
            for key, value in fields.items():
                slot[key][...] = value

    def blank(self) -> Sample:
        return Sample(-1, 0, {k: np.empty(s, d) for k, (s, d) in self.layout.items()})

    def _copy(self, index: int, into: Sample) -> bool:
        place = index % self.capacity
        if self._sequence[place] != 2 * index + 2:
            return False
        slot = self._slots[place]
        for key, array in into.fields.items():
            np.copyto(array, slot[key])
        into.stamp_ns = int(self._stamps[place])
        into.index = index
        return bool(self._sequence[place] == 2 * index + 2)

    def newest(self, into: Sample | None = None) -> Sample | None:
        """A copy of the newest whole sample; ``None`` if nothing was published yet."""
        sample = into if into is not None else self.blank()
        while (head := int(self._head[0])) > 0:
            if self._copy(head - 1, sample):
                return sample
        return None

    def newest_stamp_ns(self) -> int | None:
        """Stamp of the newest sample, without copying it."""
        head = int(self._head[0])
        return int(self._stamps[(head - 1) % self.capacity]) if head else None

    def read(self, index: int, into: Sample | None = None) -> Sample | None:
        """A copy of sample `index`; ``None`` if it is not published yet.

        Raises:
            Overwritten: it was, and is gone.
        """
        if index >= int(self._head[0]):
            return None
        sample = into if into is not None else self.blank()
        if self._copy(index, sample):
            return sample
        raise Overwritten(index, max(0, int(self._head[0]) - self.capacity + 1))

    def before(self, stamp_ns: int, into: Sample | None = None) -> Sample | None:
        """The newest sample stamped at or before `stamp_ns` that is still there, else ``None``."""
        head = int(self._head[0])
        for index in range(head - 1, max(-1, head - self.capacity), -1):
            if self._stamps[index % self.capacity] <= stamp_ns:
                try:
                    return self.read(index, into)
                except Overwritten:
                    return None
        return None

    def reader(self, start: str = "now") -> RingReader:
        """A cursor that returns every sample once, in order, and counts the ones it missed."""
        return RingReader(self, self.published if start == "now" else 0)

    def statistics(self) -> Mapping[str, int]:
        """Counters for reports."""
        return {"published": self.published, "capacity": self.capacity}

    def close(self) -> None:
        """Let go of shared memory. The ring must not be used afterwards."""
        if self._memory is not None:
            del self._head, self._sequence, self._stamps
            self._slots = []
            with contextlib.suppress(BufferError):
                self._memory.close()

    def unlink(self) -> None:
        """Free the shared memory (the creator's duty)."""
        if self._memory is not None:
            self._memory.unlink()


class RingReader:
    """One reader's place in a ring."""

    def __init__(self, ring: Ring, index: int) -> None:
        self._ring = ring
        self._index = index
        self.lost = 0

    def next(self, into: Sample | None = None) -> Sample | None:
        """The next sample in order, or ``None`` if there is none yet."""
        while True:
            try:
                sample = self._ring.read(self._index, into)
            except Overwritten as gap:
                self.lost += gap.oldest - self._index
                self._index = gap.oldest
                continue
            if sample is not None:
                self._index += 1
            return sample


class Mailbox:
    """Latest wins: the reader sees the newest post once, and never an older one."""

    def __init__(self, layout: Layout, ring: Ring | None = None) -> None:
        self._ring = ring if ring is not None else Ring(layout, 4)
        self._taken = -1

    def post(self, stamp_ns: int, **fields: Any) -> None:
        """Replace what is in the box."""
        self._ring.push(stamp_ns, **fields)

    def take(self, into: Sample | None = None) -> Sample | None:
        """The newest post if it was not taken yet."""
        if self._ring.published - 1 <= self._taken:
            return None
        sample = self._ring.newest(into)
        if sample is not None:
            self._taken = sample.index
        return sample

    def peek(self, into: Sample | None = None) -> Sample | None:
        """The newest post, taken or not."""
        return self._ring.newest(into)
