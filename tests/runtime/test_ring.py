"""Rings and mailboxes: whole or not at all, in threads and in processes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from runtime import ring as ring_module
from runtime import shared_memory
from runtime.ring import Layout, Mailbox, Overwritten, Ring, Sample, capacity_for

LAYOUT: Layout = {"x": ((3,), "<f8"), "n": ((), "<i8"), "picture": ((4, 5, 3), "|u1")}


def push(ring: Ring, index: int) -> None:
    ring.push(index * 10, x=index + 0.5, n=index, picture=index % 256)


def holds(sample: Sample, index: int) -> bool:
    same = sample.index == index and sample.stamp_ns == index * 10 and sample["n"] == index
    return bool(same and (sample["x"] == index + 0.5).all() and (sample["picture"] == index % 256).all())


class RingMachine(RuleBasedStateMachine):
    """Against a deque that remembers what a ring must still have."""

    def __init__(self) -> None:
        super().__init__()
        self.ring = Ring(LAYOUT, 4)
        self.model: deque[int] = deque(maxlen=3)  # one slot is always the one to be written next
        self.count = 0
        self.cursor = self.ring.reader("oldest")
        self.seen = 0

    @rule()
    def write(self) -> None:
        push(self.ring, self.count)
        self.model.append(self.count)
        self.count += 1

    @rule()
    def write_and_raise(self) -> None:
        with contextlib.suppress(KeyError), self.ring.write(1) as slot:
            slot["n"][...] = -1
            raise KeyError

    @rule(index=st.integers(0, 40))
    def read(self, index: int) -> None:
        if index >= self.count:
            assert self.ring.read(index) is None
        elif index in self.model:
            sample = self.ring.read(index)
            assert sample is not None
            assert holds(sample, index)
        else:
            # Whether the slot to be written next still holds its old sample depends on dropped writes.
            with contextlib.suppress(Overwritten):
                sample = self.ring.read(index)
                assert sample is not None
                assert holds(sample, index)

    @rule(stamp=st.integers(-5, 400))
    def before(self, stamp: int) -> None:
        expected = [i for i in self.model if i * 10 <= stamp]
        sample = self.ring.before(stamp)
        if expected:
            assert sample is not None
            assert holds(sample, expected[-1])
        elif sample is not None:
            assert sample.stamp_ns <= stamp

    @rule()
    def follow(self) -> None:
        sample = self.cursor.next()
        if sample is None:
            assert self.seen + self.cursor.lost == self.count
        else:
            assert holds(sample, self.seen + self.cursor.lost)
            self.seen += 1

    @invariant()
    def newest(self) -> None:
        sample = self.ring.newest()
        assert self.ring.published == self.count
        if self.count:
            assert sample is not None
            assert holds(sample, self.count - 1)
            assert self.ring.newest_stamp_ns() == (self.count - 1) * 10
        else:
            assert sample is None
            assert self.ring.newest_stamp_ns() is None


RingMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
TestRingAgainstModel = RingMachine.TestCase


@given(
    shape=st.lists(st.integers(0, 5), max_size=3).map(tuple),
    dtype=st.sampled_from(["<f8", "<f4", "|u1", "<u2", "|b1", "<i8"]),
    capacity=st.integers(2, 6),
    count=st.integers(0, 12),
)
@settings(max_examples=60, deadline=None)
def test_any_layout_in_shared_memory(shape: tuple[int, ...], dtype: str, capacity: int, count: int) -> None:
    ring = Ring.create_shared({"a": (shape, dtype), "b": ((), "<i8")}, capacity)
    other = Ring.attach(ring.name)
    try:
        assert (other.layout, other.capacity) == (ring.layout, ring.capacity)
        for index in range(count):
            ring.push(index, a=np.full(shape, index % 2, dtype), b=index)
            sample = other.newest()
            assert sample is not None
            assert (sample.index, sample["b"]) == (index, index)
            assert sample["a"].shape == shape
            assert (sample["a"] == np.full(shape, index % 2, dtype)).all()
    finally:
        other.close()
        ring.close()
        ring.unlink()


def test_reading_into_allocates_nothing_new() -> None:
    ring = Ring(LAYOUT, 3)
    push(ring, 0)
    into = ring.blank()
    arrays = {id(a) for a in into.fields.values()}
    assert ring.newest(into) is into
    assert {id(a) for a in into.fields.values()} == arrays
    push(ring, 1)
    assert holds(into, 0)


def test_the_reader_says_how_old_is_too_old() -> None:
    ring = Ring(LAYOUT, 3)
    assert not ring.fresh(0, 10**9)
    assert not ring.blank().fresh(0, 10**9)
    push(ring, 0)
    push(ring, 1)
    into = ring.blank()
    stamp_ns = ring.newest_stamp_ns()
    assert stamp_ns is not None
    assert ring.newest(into, now_ns=stamp_ns + 5, max_age_ns=5) is into
    assert into.fresh(stamp_ns + 5, 5)
    assert ring.fresh(stamp_ns + 5, 5)
    assert ring.newest(into, now_ns=stamp_ns + 6, max_age_ns=5) is None
    assert not into.fresh(stamp_ns + 6, 5)
    assert not ring.fresh(stamp_ns + 6, 5)
    assert holds(into, 1)
    with pytest.raises(ValueError, match="takes both"):
        ring.newest(into, max_age_ns=5)


def test_slots_begin_on_cache_lines() -> None:
    for ring in (Ring(LAYOUT, 3), Ring.create_shared(LAYOUT, 3)):
        with ring.write(0) as slot:
            assert all(a.ctypes.data % 64 == 0 for a in slot.values())
        del slot
        ring.close()
        ring.unlink()


def test_a_writer_in_the_middle_of_a_sample_hides_only_the_oldest() -> None:
    ring = Ring(LAYOUT, 4)
    for index in range(4):
        push(ring, index)
    with ring.write(99) as slot:
        slot["n"][...] = -1
        newest = ring.newest()
        assert newest is not None
        assert holds(newest, 3)
        with pytest.raises(Overwritten) as gone:
            ring.read(0)
        assert (gone.value.index, gone.value.oldest) == (0, 1)
        assert ring.published == 4


class Numpy:
    """numpy for the ring module, with something that happens after every `copyto`."""

    def __init__(self, after: Callable[[], None]) -> None:
        self._after = after

    def __getattr__(self, name: str) -> object:
        return getattr(np, name)

    def copyto(self, target: np.ndarray, source: np.ndarray) -> None:
        np.copyto(target, source)
        self._after()


def test_a_copy_that_was_overtaken_is_thrown_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """The writer laps the reader after the first field: that copy is torn, the next one is whole."""
    ring = Ring(LAYOUT, 3)
    for index in range(3):
        push(ring, index)

    def lap() -> None:
        while ring.published < 6:
            push(ring, ring.published)

    monkeypatch.setattr(ring_module, "np", Numpy(lap))
    sample = ring.newest()
    assert sample is not None
    assert holds(sample, 5)
    assert ring.statistics()["retries"] == 1


def test_a_reader_that_is_always_lapped_gives_up_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    ring = Ring(LAYOUT, 2)
    push(ring, 0)

    def lap() -> None:
        push(ring, ring.published)
        push(ring, ring.published)

    into = ring.blank()
    monkeypatch.setattr(ring_module, "np", Numpy(lap))
    assert ring.newest(into) is None
    assert into.index == -1
    assert ring.statistics()["lapped"] == 1


def test_a_cursor_catches_up_with_a_fast_writer() -> None:
    ring = Ring(LAYOUT, 8)
    cursor = ring.reader()
    for index in range(100):
        push(ring, index)
    seen = []
    while (sample := cursor.next()) is not None:
        seen.append(sample.index)
    assert seen == list(range(seen[0], 100))
    assert len(seen) >= 4
    assert cursor.lost == 100 - len(seen)


def test_capacity_formula() -> None:
    assert capacity_for(30, 0.1) == 6
    assert capacity_for(30, 0.5) == 18
    assert capacity_for(1, 0.0) == 3


@pytest.mark.parametrize(
    ("layout", "capacity", "said"),
    [
        ({"x": ((1,), "<f8")}, 1, "at least 2"),
        ({"x": ((1,), "O")}, 3, "references"),
        ({"x": ((-1,), "<f8")}, 3, "negative"),
    ],
)
def test_impossible_rings_are_refused(layout: Layout, capacity: int, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Ring(layout, capacity)
    with pytest.raises(ValueError, match=said):
        Ring.create_shared(layout, capacity)


# --- shared memory


def test_attach_to_nothing_says_what_is_missing() -> None:
    with pytest.raises(FileNotFoundError, match="dexrun-0-0"):
        Ring.attach("dexrun-0-0")
    with pytest.raises(ValueError, match="letters"):
        Ring.attach("../etc/passwd")


def test_attach_to_something_else_is_refused() -> None:
    segment = shared_memory.Segment.create(4096)
    try:
        with pytest.raises(ValueError, match="not a ring"):
            Ring.attach(segment.name)
    finally:
        segment.close()
        segment.unlink()


def test_a_name_that_is_taken() -> None:
    ring = Ring.create_shared(LAYOUT, 3)
    try:
        with pytest.raises(FileExistsError):
            Ring.create_shared(LAYOUT, 3, ring.name)
    finally:
        ring.close()
        ring.unlink()
        ring.unlink()


def test_closing_while_a_slot_is_still_referred_to() -> None:
    ring = Ring.create_shared(LAYOUT, 3)
    with ring.write(1) as slot:
        slot["n"][...] = 5
    kept = slot["n"]
    ring.close()
    ring.close()
    ring.unlink()
    assert kept == 5


OF_PROCESS_ONE = """
import os, sys
os.getpid = lambda: 1  # as in containers that share the memory and do not see each other's processes
from runtime.ring import Ring
rings = [Ring.create_shared({"x": ((2,), "<f8")}, 3) for _ in range(2)]
print(*(ring.name for ring in rings), flush=True)
sys.stdin.read()
"""


def test_what_lives_in_another_container_is_kept_and_what_was_killed_is_removed() -> None:
    def start() -> subprocess.Popen[str]:
        command = [sys.executable, "-c", OF_PROCESS_ONE]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    with start() as one, start() as other:
        left = []
        for process in (one, other):
            assert process.stdout is not None
            left.append([Path("/dev", "shm", name) for name in process.stdout.readline().split()])
        assert len({*left[0], *left[1]}) == 4
        shared_memory.sweep()
        assert all(path.exists() for path in (*left[0], *left[1]))
        one.kill()
        one.wait()
        ring = Ring.create_shared(LAYOUT, 3)  # what creates one looks first what was left behind
        assert [path.exists() for path in (*left[0], *left[1])] == [False, False, True, True]
        ring.close()
        ring.unlink()
        other.kill()
        other.wait()
        shared_memory.sweep()
        assert not any(path.exists() for path in left[1])


def test_what_has_no_size_yet_is_somebodys_who_is_about_to_make_it() -> None:
    path = Path("/dev", "shm", "dexrun-0123456789abcdef")
    path.touch()
    try:
        shared_memory.sweep()
        assert path.exists()
    finally:
        path.unlink()


WRITER = """
import os, signal, sys
from runtime.ring import Ring
ring = Ring.attach(sys.argv[1])
for index in range(int(sys.argv[2])):
    with ring.write(index) as slot:
        slot["a"].fill(index)
        slot["b"].fill(index)
if sys.argv[3] == "die":
    with ring.write(0) as slot:
        slot["a"].fill(-1)
        os.kill(os.getpid(), signal.SIGKILL)
ring.close()
"""

SMALL: Layout = {"a": ((8,), "<i8"), "b": ((), "<i8")}


def whole(sample: Sample) -> bool:
    values, index = sample["a"], sample.index
    return bool((values == index).all()) and sample["b"] == index and sample.stamp_ns == index


def test_a_writer_that_dies_in_the_middle_stops_no_reader() -> None:
    ring = Ring.create_shared(SMALL, 4)
    try:
        command = [sys.executable, "-W", "error", "-c", WRITER, ring.name, "6", "die"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (-signal.SIGKILL, "")
        sample = ring.newest()
        assert sample is not None
        assert sample.index == 5
        assert whole(sample)
        with pytest.raises(Overwritten):
            ring.read(2)
        ring.push(6, a=6, b=6)  # the next writer takes over where the dead one was
        assert [whole(s) for s in (ring.read(i) for i in (4, 5, 6)) if s is not None] == [True] * 3
    finally:
        ring.close()
        ring.unlink()


def test_processes_neither_tear_nor_go_back_and_leave_no_warning() -> None:
    ring = Ring.create_shared(SMALL, 4)
    total = 60_000
    try:
        command = [sys.executable, "-W", "error", "-c", WRITER, ring.name, str(total), "live"]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as writer:
            into, last = ring.blank(), -1
            while last < total - 1:
                published = ring.published
                sample = ring.newest(into)
                if sample is not None:
                    assert whole(sample)
                    assert sample.index >= max(last, published - 1)
                    last = sample.index
                elif writer.poll():  # it could not even start
                    break
            errors = writer.stderr.read() if writer.stderr is not None else ""
        assert (writer.returncode, errors) == (0, "")
    finally:
        ring.close()
        ring.unlink()


def test_threads_neither_tear_nor_go_back() -> None:
    ring, total, problems = Ring(SMALL, 4), 20_000, []
    before = sys.getswitchinterval()

    def read() -> None:
        into, last = ring.blank(), -1
        while last < total - 1:
            published = ring.published
            sample = ring.newest(into)
            if sample is not None:
                if not whole(sample) or sample.index < max(last, published - 1):
                    problems.append(sample)
                last = sample.index
            os.sched_yield()

    readers = [threading.Thread(target=read) for _ in range(2)]
    sys.setswitchinterval(1e-6)
    try:
        for reader in readers:
            reader.start()
        for index in range(total):
            ring.push(index, a=index, b=index)
        for reader in readers:
            reader.join()
    finally:
        sys.setswitchinterval(before)
    assert problems == []


def test_the_barrier_of_other_processors_works_here_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ring_module, "_fence", ring_module._locks)
    ring = Ring(LAYOUT, 3)
    push(ring, 0)
    sample = ring.newest()
    assert sample is not None
    assert holds(sample, 0)


# --- mailboxes


@given(st.lists(st.sampled_from(["post", "take"]), max_size=60))
@settings(deadline=None)
def test_mailbox_gives_the_newest_once(steps: list[str]) -> None:
    box, posted, taken = Mailbox({"n": ((), "<i8")}), 0, 0
    for step in steps:
        if step == "post":
            posted += 1
            box.post(posted, n=posted)
            continue
        sample = box.take()
        if taken == posted:
            assert sample is None
        else:
            assert sample is not None
            assert sample["n"] == posted
            taken = posted
