"""Lock-free rings and mailboxes: the only things that threads and processes share.

One writer, any number of readers, preallocated slots. Each slot has a sequence number: ``2 i + 1`` while
sample ``i`` is written into it, ``2 i + 2`` once it is whole. ``head``, the number of samples published,
is stored last. A reader takes the head, checks the slot's number, copies, and checks the number again; if
it changed, the copy is thrown away.

What this relies on
-------------------
*Whole numbers.* Sequence numbers, stamps and the head are aligned 64-bit words, each loaded or stored by
one machine instruction on every 64-bit processor: no reader sees half of one.

*Order, threads of one process.* Every access here is made by a thread that holds the GIL, except the copy
of a large array, for which numpy gives the GIL up and takes it back. Passing the GIL on is a full memory
barrier, so that a reader sees the writer's stores in program order on any processor. The checks are
needed all the same: the GIL changes hands between any two steps, and during large copies.

*Order, processes.* Nothing but the processor's memory order remains. x86-64 keeps stores in order and
loads in order (large ``memcpy`` with non-temporal stores ends in a fence, and string moves are ordered
before later stores), which is all that the protocol needs. Other processors (ARM) may reorder, so there
`_fence` is called between the steps: two lock operations, whose release and acquire order what is before
against what is after.

*One writer.* Two threads that write one ring corrupt it; nothing checks this.

What follows
------------
A sample that a reader returns is whole and is the one it says. `newest` is never older than the newest
sample published before the call. A slot being written is never the newest one, so that a writer that
dies in the middle of a sample costs at most the oldest sample: no reader waits for a writer, ever. A
reader so slow that the writer laps it in `_ATTEMPTS` copies running gets ``None``, and `statistics`
counts it.
"""

from __future__ import annotations

import json
import math
import platform
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.shared_memory import Segment

Layout = Mapping[str, tuple[tuple[int, ...], str]]
"""Field name to (shape, numpy dtype string), the same for every slot."""

Fields = dict[str, NDArray[Any]]


@dataclass(slots=True)
class Sample:
    """A whole copy of one slot. `index` counts from 0 over the ring's life; -1 means: holds nothing."""

    index: int
    stamp_ns: int
    fields: Fields

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self.fields[name]

    def fresh(self, now_ns: int, max_age_ns: int) -> bool:
        """Whether it holds something that at `now_ns` is at most `max_age_ns` old."""
        return self.index >= 0 and _recent(self.stamp_ns, now_ns, max_age_ns)


def _recent(stamp_ns: int, now_ns: int | None, max_age_ns: int | None) -> bool:
    """The one place that decides what is too old."""
    return now_ns is None or max_age_ns is None or now_ns - stamp_ns <= max_age_ns


class Overwritten(Exception):  # noqa: N818 - not an error: the answer to a late question
    """The sample asked for has been overwritten: `oldest` is the first one still there."""

    def __init__(self, index: int, oldest: int) -> None:
        super().__init__(f"sample {index} was overwritten; the oldest one left is {oldest}")
        self.index = index
        self.oldest = oldest


def capacity_for(rate_hz: float, read_budget_s: float, margin: int = 2) -> int:
    """Slots so that a reader may take `read_budget_s` over a copy at `rate_hz` and still find it whole.

    While a reader copies sample ``i``, the writer may publish ``ceil(rate_hz * read_budget_s)`` more; one
    slot is the sample itself, one the slot that is always being written (both in `margin`).
    """
    return max(3, math.ceil(rate_hz * read_budget_s) + 1 + margin)


_MAGIC = b"dexring1"
_HEADER = 64
_ALIGN = 64
_ATTEMPTS = 64

_lock = threading.Lock()


def _nothing() -> None:
    """Stores and loads stay in order by themselves."""


def _locks() -> None:
    """A full barrier out of the two halves that a lock gives: no access passes both pairs."""
    with _lock:
        pass
    with _lock:
        pass


_fence: Callable[[], None] = _nothing if platform.machine() in ("x86_64", "AMD64") else _locks


def _aligned(size: int) -> int:
    return (size + _ALIGN - 1) // _ALIGN * _ALIGN


def _bytes(shape: tuple[int, ...], dtype: str) -> int:
    return math.prod(shape) * np.dtype(dtype).itemsize


def _data_size(layout: Layout, capacity: int) -> int:
    return _HEADER + _aligned(16 * capacity) + capacity * _slot_size(layout)


def _slot_size(layout: Layout) -> int:
    return sum(_aligned(_bytes(shape, dtype)) for shape, dtype in layout.values())


def _check(layout: Layout, capacity: int) -> None:
    if capacity < 2:
        raise ValueError(f"a ring of {capacity} slots: at least 2, one to read while one is written")
    for name, (shape, dtype) in layout.items():
        if np.dtype(dtype).hasobject:
            raise ValueError(f"ring field {name}: dtype {dtype} holds references, not data")
        if any(n < 0 for n in shape):
            raise ValueError(f"ring field {name}: shape {shape} is negative")


class _Write:
    """The block in which the next slot is filled; one per ring, since there is one writer."""

    __slots__ = ("_index", "_ring", "stamp_ns")

    def __init__(self, ring: Ring) -> None:
        self._ring = ring
        self._index = -1
        self.stamp_ns = 0

    def __enter__(self) -> Fields:
        ring = self._ring
        self._index = index = ring._head[0]  # noqa: SLF001 - one mechanism in two classes
        place = index % ring.capacity
        ring._sequence[place] = 2 * index + 1  # noqa: SLF001
        _fence()
        return ring._slot(place)  # noqa: SLF001

    def __exit__(self, kind: object, value: object, trace: object) -> None:
        ring, index = self._ring, self._index
        if kind is not None:
            ring._aborted += 1  # noqa: SLF001
            return
        place = index % ring.capacity
        ring._stamps[place] = self.stamp_ns  # noqa: SLF001
        _fence()
        ring._sequence[place] = 2 * index + 2  # noqa: SLF001
        _fence()
        ring._head[0] = index + 1  # noqa: SLF001


class Ring:
    """A ring of samples of one layout, over private memory or, via `create_shared`, shared memory."""

    def __init__(
        self,
        layout: Layout,
        capacity: int,
        *,
        _memory: memoryview | None = None,
        _segment: Segment | None = None,
    ) -> None:
        _check(layout, capacity)
        if _memory is None:
            # An array, not a bytearray, so that the slots begin on a cache line, as shared ones do.
            room = np.zeros(_data_size(layout, capacity) + _ALIGN, np.uint8)
            start = -room.ctypes.data % _ALIGN
            _memory = room[start : start + _data_size(layout, capacity)].data
        self.layout: Layout = dict(layout)
        self.capacity = capacity
        self._segment = _segment
        self._head = _memory[:8].cast("q")
        self._sequence = _memory[_HEADER : _HEADER + 8 * capacity].cast("q")
        self._stamps = _memory[_HEADER + 8 * capacity : _HEADER + 16 * capacity].cast("q")
        self._memory = _memory
        self._slot_bytes = _slot_size(layout)
        self._slots: list[Fields | None] = [None] * capacity
        self._write = _Write(self)
        self._aborted = 0
        self._retries = 0
        self._lapped = 0

    def _slot(self, place: int) -> Fields:
        """The arrays of a slot; made at its first use, since a ring may have ten thousands."""
        slot = self._slots[place]
        if slot is None:
            slot = {}
            offset = _HEADER + _aligned(16 * self.capacity) + place * self._slot_bytes
            for key, (shape, dtype) in self.layout.items():
                slot[key] = np.frombuffer(self._memory, dtype, math.prod(shape), offset).reshape(shape)
                offset += _aligned(_bytes(shape, dtype))
            self._slots[place] = slot
        return slot

    @classmethod
    def create_shared(cls, layout: Layout, capacity: int, name: str | None = None) -> Ring:
        """A ring that another process can `attach` to by its ``name``.

        Raises:
            FileExistsError: `name` is taken.
        """
        _check(layout, capacity)
        text = json.dumps({"layout": {k: [list(s), d] for k, (s, d) in layout.items()}, "n": capacity})
        body = text.encode()
        start = _aligned(16 + len(body))
        segment = Segment.create(start + _data_size(layout, capacity), name)
        view = memoryview(segment.memory)
        view[16 : 16 + len(body)] = body
        view[8:16] = len(body).to_bytes(8, "little")
        view[:8] = _MAGIC
        return cls(layout, capacity, _memory=view[start:], _segment=segment)

    @classmethod
    def attach(cls, name: str) -> Ring:
        """The ring that another process created under `name`.

        Raises:
            FileNotFoundError: there is none (any more).
            ValueError: the name belongs to something else.
        """
        segment = Segment.attach(name)
        view = memoryview(segment.memory)
        if bytes(view[:8]) != _MAGIC:
            view.release()
            segment.close()
            raise ValueError(f"shared memory {name!r} is not a ring of this version")
        size = int.from_bytes(view[8:16], "little")
        text = json.loads(bytes(view[16 : 16 + size]))
        layout = {key: (tuple(shape), dtype) for key, (shape, dtype) in text["layout"].items()}
        return cls(layout, text["n"], _memory=view[_aligned(16 + size) :], _segment=segment)

    @property
    def name(self) -> str:
        """The shared-memory name, or ``""`` for private memory."""
        return self._segment.name if self._segment is not None else ""

    @property
    def published(self) -> int:
        """How many samples were ever published."""
        return self._head[0]

    # --- the writer

    def write(self, stamp_ns: int) -> _Write:
        """``with ring.write(stamp) as slot:`` fills the next slot's own arrays.

        Published when the block ends, dropped if it raises. The arrays belong to the ring: do not keep them.
        """
        write = self._write
        write.stamp_ns = stamp_ns
        return write

    def push(self, stamp_ns: int, **fields: Any) -> None:
        """Copy `fields` into the next slot and publish it. A field that is left out keeps old data."""
        with self.write(stamp_ns) as slot:
            for key, value in fields.items():
                slot[key][...] = value

    # --- readers

    def blank(self) -> Sample:
        """A sample to be passed as `into`, so that reading allocates nothing."""
        return Sample(-1, 0, {k: np.zeros(s, d) for k, (s, d) in self.layout.items()})

    def _copy(self, index: int, into: Sample) -> bool:
        place, whole = index % self.capacity, 2 * index + 2
        if self._sequence[place] != whole:
            return False
        _fence()
        slot = self._slot(place)
        for key, array in into.fields.items():
            np.copyto(array, slot[key])
        into.stamp_ns = self._stamps[place]
        _fence()
        into.index = index if self._sequence[place] == whole else -1
        return into.index >= 0

    def newest(
        self, into: Sample | None = None, *, now_ns: int | None = None, max_age_ns: int | None = None
    ) -> Sample | None:
        """A copy of the newest whole sample; ``None`` if nothing was published yet, or if at `now_ns` it is
        more than `max_age_ns` old (in which case `into` holds it all the same).

        ``None`` as well, with ``into.index`` -1, if the writer lapped every attempt (see the module).

        Raises:
            ValueError: `now_ns` without `max_age_ns`, or the other way round.
        """
        if (now_ns is None) != (max_age_ns is None):
            raise ValueError("how old a sample is takes both: now_ns and max_age_ns")
        head = self._head[0]
        if head == 0:
            return None
        sample = into if into is not None else self.blank()
        for _ in range(_ATTEMPTS):
            if self._copy(head - 1, sample):
                return sample if _recent(sample.stamp_ns, now_ns, max_age_ns) else None
            self._retries += 1
            head = self._head[0]
        self._lapped += 1
        return None

    def newest_stamp_ns(self) -> int | None:
        """Stamp of the newest sample, without copying it."""
        head = self._head[0]
        return self._stamps[(head - 1) % self.capacity] if head else None

    def fresh(self, now_ns: int, max_age_ns: int) -> bool:
        """Whether there is a sample that at `now_ns` is at most `max_age_ns` old, without copying it."""
        stamp_ns = self.newest_stamp_ns()
        return stamp_ns is not None and _recent(stamp_ns, now_ns, max_age_ns)

    def read(self, index: int, into: Sample | None = None) -> Sample | None:
        """A copy of sample `index`; ``None`` if it is not published yet.

        Raises:
            Overwritten: it was, and is gone.
        """
        if index >= self._head[0]:
            return None
        sample = into if into is not None else self.blank()
        if index >= 0 and self._copy(index, sample):
            return sample
        raise Overwritten(index, max(0, self._head[0] - self.capacity + 1))

    def before(self, stamp_ns: int, into: Sample | None = None) -> Sample | None:
        """The newest sample stamped at or before `stamp_ns` that is still there, else ``None``."""
        head = self._head[0]
        for index in range(head - 1, max(-1, head - self.capacity), -1):
            if self._stamps[index % self.capacity] <= stamp_ns:
                try:
                    return self.read(index, into)
                except Overwritten:
                    return None
        return None

    def reader(self, start: str = "now") -> RingReader:
        """A cursor that returns every sample once, in order, and counts the ones it missed.

        `start` is ``"now"`` (the next sample to be published) or ``"oldest"``.
        """
        return RingReader(self, self.published if start == "now" else 0)

    def statistics(self) -> Mapping[str, int]:
        """Counters for reports; all but ``published`` and ``capacity`` count this object's own calls.

        ``aborted``: writes that raised; ``retries``: copies that the writer overtook; ``lapped``: reads that
        were overtaken every time.
        """
        counts = {"aborted": self._aborted, "retries": self._retries, "lapped": self._lapped}
        return {"published": self.published, "capacity": self.capacity, **counts}

    def close(self) -> None:
        """Let go of shared memory. The ring must not be used afterwards."""
        if self._segment is not None and self._slots:
            for view in (self._head, self._sequence, self._stamps):
                view.release()
            self._slots = []
            self._memory = memoryview(b"")
            self._segment.close()

    def unlink(self) -> None:
        """Free the name of the shared memory (the creator's duty), before or after `close`."""
        if self._segment is not None:
            self._segment.unlink()


class RingReader:
    """One reader's place in a ring. `lost` counts the samples that were overwritten unread."""

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
                # Not to the oldest one left, which goes next: a fast writer would always be ahead. Half a
                # ring is room enough to catch up, and at least one sample is given up each time.
                ahead = max(gap.oldest + self._ring.capacity // 2 - 1, self._index + 1)
                ahead = min(ahead, max(self._ring.published - 1, self._index + 1))
                self.lost += ahead - self._index
                self._index = ahead
                continue
            if sample is not None:
                self._index += 1
            return sample


class Mailbox:
    """Latest wins: the reader sees the newest post once, and never an older one. One poster, one taker.

    Attributes:
        died: posts that were too old when they were taken.
    """

    def __init__(self, layout: Layout, ring: Ring | None = None) -> None:
        self._ring = ring if ring is not None else Ring(layout, 4)
        self._taken = -1
        self.died = 0

    def post(self, stamp_ns: int, **fields: Any) -> None:
        """Replace what is in the box."""
        self._ring.push(stamp_ns, **fields)

    def take(
        self, into: Sample | None = None, *, now_ns: int | None = None, max_age_ns: int | None = None
    ) -> Sample | None:
        """The newest post if it was not taken yet, unless at `now_ns` it is more than `max_age_ns` old."""
        if self._ring.published - 1 <= self._taken:
            return None
        sample = self._ring.newest(into)
        if sample is None:
            return None
        self._taken = sample.index
        if not _recent(sample.stamp_ns, now_ns, max_age_ns):
            self.died += 1
            return None
        return sample
