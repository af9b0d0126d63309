"""What the system grants is applied and undone; what it refuses is reported and nothing else."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest

from runtime import realtime as module
from runtime.realtime import Realtime, RealtimeOptions, ahead_of_ordinary, apply_realtime, realtime

NOTHING = RealtimeOptions(scheduler="other", keep_memory=False, gc_freeze=False, switch_interval_s=0)


def state() -> tuple[object, ...]:
    return (
        sys.getswitchinterval(),
        gc.isenabled(),
        gc.get_freeze_count() > 0,
        os.sched_getscheduler(0),
        os.sched_getaffinity(0),
    )


def refuse(*args: object) -> None:
    raise PermissionError(1, "Operation not permitted")


def test_a_thread_that_comes_before_ordinary_ones_leaves_nothing_of_that_to_what_it_starts() -> None:
    seen: list[tuple[bool, int, int]] = []

    def main() -> None:
        asked = ahead_of_ordinary(RealtimeOptions())
        seen.append((asked, os.sched_getscheduler(0), os.sched_getparam(0).sched_priority))

    thread = threading.Thread(target=main)
    thread.start()
    thread.join()
    asked, policy, priority = seen[0]
    fifo = os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, 1
    assert (policy, priority) == (fifo if asked else (os.SCHED_OTHER, 0))
    assert not ahead_of_ordinary(RealtimeOptions(scheduler="other"))


def test_nothing_asked_nothing_done() -> None:
    before = state()
    with realtime(NOTHING) as done:
        assert state() == before
    assert (done.applied, done.refused) == ([], [])


def test_everything_is_undone() -> None:
    before = state()
    options = RealtimeOptions(cpu_affinity=(min(os.sched_getaffinity(0)),), switch_interval_s=0.002)
    with realtime(options) as done:
        assert sys.getswitchinterval() == pytest.approx(0.002)
        assert not gc.isenabled()
        assert gc.get_freeze_count() > 0
        assert len(os.sched_getaffinity(0)) == 1
        assert len(done.applied) + len(done.refused) == 6
    assert state() == before
    done.undo()
    assert state() == before


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="there is one processor")
def test_processors_are_for_every_thread_and_each_has_its_own_back() -> None:
    first, second, *_ = sorted(os.sched_getaffinity(0))
    ending = threading.Event()
    threads = [threading.Thread(target=ending.wait) for _ in range(3)]

    def start(thread: threading.Thread) -> int:
        thread.start()
        assert thread.native_id is not None
        return thread.native_id

    def ours() -> list[set[int]]:
        return [os.sched_getaffinity(i) for i in (0, *ids)]

    try:
        ids = [start(threads[0]), start(threads[1])]
        os.sched_setaffinity(ids[1], {second})
        before = ours()
        with realtime(NOTHING.model_copy(update={"cpu_affinity": (first,)})) as done:
            assert done.refused == []
            ids.append(start(threads[2]))
            assert ours() == [{first}] * 4
        assert ours() == [*before, before[0]]
    finally:
        ending.set()
        for thread in threads:
            thread.join()


def test_undone_after_an_error_too() -> None:
    before = state()
    with pytest.raises(KeyError), realtime(RealtimeOptions(scheduler="other")):
        raise KeyError
    assert state() == before


def test_garbage_is_collected_between_episodes_only() -> None:
    class Cycle:
        def __init__(self) -> None:
            self.me = self

    def alive() -> int:
        return sum(type(o) is Cycle for o in gc.get_objects())  # isinstance asks lazy modules

    with realtime(RealtimeOptions(scheduler="other", switch_interval_s=0)) as done:
        Cycle()
        assert alive() == 1
        done.collect()
        assert alive() == 0
    gc.collect()
    Cycle()
    done.collect()  # after the end it is the interpreter's business again
    assert alive() == 1
    gc.collect()


def test_collection_stays_automatic_where_nobody_pauses() -> None:
    before = state()
    with realtime(RealtimeOptions(scheduler="other", switch_interval_s=0), pauses=False):
        assert gc.isenabled()
        assert gc.get_freeze_count() > 0
    assert state() == before


@pytest.mark.parametrize(
    ("options", "target", "what"),
    [
        (RealtimeOptions(scheduler="fifo"), (os, "sched_setscheduler"), "fifo scheduler, priority 50"),
        (RealtimeOptions(cpu_affinity=(0,)), (os, "sched_setaffinity"), "CPU affinity [0]"),
        (RealtimeOptions(lock_memory=True), (module, "_libc"), "locked memory"),
        (RealtimeOptions(keep_memory=True), (module, "_mallopt"), "freed memory kept"),
    ],
)
def test_what_is_refused_is_listed_and_not_fatal(
    options: RealtimeOptions, target: tuple[object, str], what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(*target, refuse)
    if options.scheduler == "fifo" and what[0] != "f":
        options = options.model_copy(update={"scheduler": "other"})
    with realtime(options) as done:
        assert done.refused == [f"{what}: [Errno 1] Operation not permitted"]
        assert what not in done.applied


def test_processors_that_are_not_there() -> None:
    done = apply_realtime(NOTHING.model_copy(update={"cpu_affinity": (4000,)}))
    assert len(done.refused) == 1
    assert "CPU affinity [4000]" in done.refused[0]
    done.undo()


def test_locked_memory_is_asked_for_and_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[object, ...]] = []
    monkeypatch.setattr(module, "_libc", lambda *args: calls.append(args))
    with realtime(NOTHING.model_copy(update={"lock_memory": True})) as done:
        assert done.applied == ["locked memory"]
    assert calls == [("mlockall", 3), ("munlockall",)]


FAULTS = """
import resource, sys
from runtime.realtime import RealtimeOptions, realtime
options = RealtimeOptions(scheduler="other", keep_memory=True, gc_freeze=False, switch_interval_s=0)

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        del [b"x" * 2_000_000][:]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

with realtime(options) as done:
    assert done.applied == ["freed memory kept"], done.refused
    faults()
    kept = faults()
print(kept, faults())
"""


def test_freed_memory_is_used_again_and_not_made_anew() -> None:
    """In a process of its own: elsewhere there may be a large free block in the heap anyway."""
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    kept, given_back = map(int, done.stdout.split())
    assert kept < 1000
    assert given_back > 5000  # 488 pages for each


def test_a_failing_system_call_says_why() -> None:
    with pytest.raises(OSError, match="Invalid argument"):
        module._libc("mlockall", 0x7FFF)


def test_undoing_goes_on_after_a_failure() -> None:
    log: list[str] = []
    done = Realtime()
    steps: list[Callable[[], object]] = [lambda: log.append("first"), refuse, lambda: log.append("last")]
    for step in steps:
        done.attempt("x", lambda: None, step)
    done.undo()
    assert log == ["last", "first"]


def test_threads_do_not_inherit_the_priority() -> None:
    with realtime(RealtimeOptions(gc_freeze=False, switch_interval_s=0)) as done:
        seen: list[int] = []
        thread = threading.Thread(target=lambda: seen.append(os.sched_getscheduler(0)))
        thread.start()
        thread.join()
        assert seen == [os.SCHED_OTHER]
        if not done.refused:
            assert os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK == os.SCHED_FIFO
