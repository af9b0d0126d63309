"""What the operating system and the interpreter can be asked to do for punctuality, and its undoing."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import sys
from collections.abc import Callable, Iterator
from typing import Literal

from loguru import logger
from pydantic import Field

from runtime.options import Options

_MCL_CURRENT, _MCL_FUTURE = 1, 2
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEPT_BYTES, _LARGEST_BYTES = 128 << 20, 32 << 20
_GLIBC_DEFAULT_BYTES = 128 << 10


class RealtimeOptions(Options):
    """Table ``[realtime]``, the part that concerns the process.

    Attributes:
        scheduler: ``fifo`` runs the loop's thread, and after it the devices', before all ordinary ones (Linux
            ``SCHED_FIFO``; threads that they start are ordinary). Needs root, ``CAP_SYS_NICE`` or an
            ``rtprio`` limit.
        priority: of ``fifo``, 1 to 99.
        cpu_affinity: processors that this process may use, all its threads; empty for all.
        lock_memory: keep all memory in RAM (``mlockall``). Needs an unlimited ``memlock`` limit, or
            ``CAP_IPC_LOCK``.
        keep_memory: let the C library keep what is freed, up to 128 MiB, for the next frame. By itself it
            gives blocks of a frame's size back to the system and asks for them again, and every page of them
            is then made anew: that took half of the time of a round trip to a policy server.
        gc_freeze: take everything that exists at the start out of garbage collection, and collect only
            where a run pauses: between episodes, and in grasp mode while the arm rests at home. A run
            without pauses keeps the automatic collection.
        switch_interval_s: how long a thread may keep the GIL while another wants it. A fraction of
            the pacer's spin, so that the loop has the GIL in time even from a thread that never waits, and
            soon after each call in a tick that gives it up; Python's own default is 5 ms. 0 leaves it
            alone.
    """

    scheduler: Literal["other", "fifo"] = "fifo"
    priority: int = Field(default=50, ge=1, le=99)
    cpu_affinity: tuple[int, ...] = ()
    lock_memory: bool = False
    keep_memory: bool = True
    gc_freeze: bool = True
    switch_interval_s: float = Field(default=0.0002, ge=0, le=0.1)


class Realtime:
    """What was applied. `refused` holds one line for each thing that the system did not allow."""

    def __init__(self) -> None:
        self.applied: list[str] = []
        self.refused: list[str] = []
        self._undo: list[Callable[[], object]] = []
        self._collect = False

    def attempt(self, what: str, action: Callable[[], object], undo: Callable[[], object]) -> None:
        """Do `action`; remember how to undo it, or that it was refused."""
        try:
            action()
        except (OSError, ValueError, AttributeError) as error:
            self.refused.append(f"{what}: {error}")
            logger.warning("real time: the system refuses {}: {}", what, error)
        else:
            self.applied.append(what)
            self._undo.append(undo)

    def undo(self) -> None:
        """Put everything back, the last first. Idempotent."""
        while self._undo:
            with contextlib.suppress(OSError, ValueError):
                self._undo.pop()()
        self._collect = False

    def keep_collecting(self) -> None:
        """Let `collect` collect: automatic collection is off."""
        self._collect = True

    def collect(self) -> None:
        """Collect garbage now: called where a pause of milliseconds hurts nobody."""
        if self._collect:
            gc.collect()


def apply_realtime(
    options: RealtimeOptions, done: Realtime | None = None, *, pauses: bool = True
) -> Realtime:
    """Apply `options` to this process and, for the scheduler, to the calling thread (the loop's).

    What was applied is noted in `done`. `pauses` says whether ``collect`` will be called now and then;
    otherwise collection stays automatic. Never raises: what the system refuses is logged once and listed in
    ``refused``. Call ``undo`` at the end.
    """
    done = done or Realtime()
    if options.scheduler == "fifo":
        _scheduler(done, options.priority)
    if options.cpu_affinity:
        _affinity(done, set(options.cpu_affinity))
    if options.lock_memory:
        done.attempt("locked memory", lambda: _libc("mlockall", _MCL_CURRENT | _MCL_FUTURE), _unlock)
    if options.keep_memory:
        done.attempt("freed memory kept", keep_freed_memory, _give_back_freed_memory)
    if options.gc_freeze:
        done.attempt("what exists kept out of collection", _freeze, gc.unfreeze)
    if options.gc_freeze and pauses:
        done.attempt("collection kept out of episodes", gc.disable, gc.enable)
        done.keep_collecting()
    if options.switch_interval_s:
        before = sys.getswitchinterval()
        what = f"switch interval {options.switch_interval_s * 1e3:g} ms"
        done.attempt(
            what,
            lambda: sys.setswitchinterval(options.switch_interval_s),
            lambda: sys.setswitchinterval(before),
        )
    return done


@contextlib.contextmanager
def realtime(
    options: RealtimeOptions, done: Realtime | None = None, *, pauses: bool = True
) -> Iterator[Realtime]:
    """`apply_realtime` for the length of a block."""
    done = apply_realtime(options, done, pauses=pauses)
    try:
        yield done
    finally:
        done.undo()


def ahead_of_ordinary(options: RealtimeOptions) -> bool:
    """Have the calling thread come before ordinary ones, and after the loop; whether that is so now.

    For a thread that does little and often, and holds Python's lock meanwhile: where ordinary work takes the
    processor away from it in the middle of that, the loop waits for the lock until it has it back.
    """
    if options.scheduler != "fifo" or not hasattr(os, "sched_setscheduler"):
        return False
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(1))
    except PermissionError:
        return False
    return True


def _scheduler(done: Realtime, priority: int) -> None:
    if not hasattr(os, "sched_setscheduler"):
        done.refused.append("fifo scheduler: this system has none")
        return
    before, parameter = os.sched_getscheduler(0), os.sched_getparam(0)
    # Reset on fork: device, inference and recorder threads must not inherit the priority.
    policy = os.SCHED_FIFO | os.SCHED_RESET_ON_FORK

    def restore() -> None:
        try:
            os.sched_setscheduler(0, before, parameter)
        except PermissionError:  # whom a limit lets ask for it may not take back what is reset on fork
            os.sched_setscheduler(0, before | os.SCHED_RESET_ON_FORK, parameter)

    done.attempt(
        f"fifo scheduler, priority {priority}",
        lambda: os.sched_setscheduler(0, policy, os.sched_param(priority)),
        restore,
    )


@contextlib.contextmanager
def keep_scheduling() -> Iterator[None]:
    """For a library that changes it: the caller's thread, and those that begin, are scheduled as before."""
    if not hasattr(os, "sched_setscheduler"):
        yield
        return
    there, before, parameter = set(_threads()), os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        for thread in (0, *(each for each in _threads() if each not in there)):
            with contextlib.suppress(OSError):  # it has ended, or is as it is for good
                os.sched_setscheduler(thread, before, parameter)


def _affinity(done: Realtime, processors: set[int]) -> None:
    if not hasattr(os, "sched_setaffinity"):
        done.refused.append("CPU affinity: this system has none")
        return
    ours, before = os.sched_getaffinity(0), dict[int, set[int]]()

    def pin() -> None:
        # Devices, recorder and inference run by now, and a thread has its own processors. One that starts has
        # those of the thread that starts it: once no more are found, there are none with others.
        while found := [thread for thread in _threads() if thread not in before]:
            for thread in found:
                before[thread] = _move(thread, processors)

    def restore() -> None:
        for thread in _threads():
            _move(thread, before.get(thread) or ours)

    done.attempt(f"CPU affinity {sorted(processors)}", pin, restore)


def _threads() -> list[int]:
    return [int(name) for name in os.listdir("/proc/self/task")]


def _move(thread: int, processors: set[int]) -> set[int]:
    """Let `thread` run on `processors`; returns those that it had. One that has just ended has none."""
    try:
        before = os.sched_getaffinity(thread)
        os.sched_setaffinity(thread, processors)
    except ProcessLookupError:
        return set()
    return before


def _libc(function: str, *args: int) -> None:
    call = getattr(ctypes.CDLL(None, use_errno=True), function)
    if call(*args) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def keep_freed_memory() -> None:
    """As `RealtimeOptions.keep_memory` says, for the rest of this process.

    Raises:
        AttributeError: another C library than glibc.
        OSError: it refuses.
    """
    _mallopt(_KEPT_BYTES, _LARGEST_BYTES)


def _give_back_freed_memory() -> None:
    _mallopt(_GLIBC_DEFAULT_BYTES, _GLIBC_DEFAULT_BYTES)


def _mallopt(kept: int, largest: int) -> None:
    mallopt = ctypes.CDLL(None).mallopt
    if not mallopt(_M_TRIM_THRESHOLD, kept) or not mallopt(_M_MMAP_THRESHOLD, largest):
        raise OSError("mallopt refuses")


def _unlock() -> None:
    _libc("munlockall")


def _freeze() -> None:
    gc.collect()
    gc.freeze()
