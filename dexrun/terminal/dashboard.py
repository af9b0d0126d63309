"""What a person at the terminal sees while a run is on: a live dashboard, or plain lines where there is none.

The picture is drawn on a thread of its own, from a snapshot of numbers; nothing of it happens on the loop.
While the dashboard is up, what is written to ``sys.stderr`` goes above it if both are on one terminal.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import textwrap
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TextIO

from dexrun.config.mode_options import TerminalOptions
from runtime.clock import NS_PER_S, Clock, ClockThread
from runtime.printable import line, printable

if TYPE_CHECKING:
    from rich.constrain import Constrain
    from rich.live import Live
    from rich.table import Table
    from rich.text import Text


@dataclass(frozen=True, slots=True)
class Status:
    """One moment of a run, in numbers.

    Attributes:
        episode: how the episode that is on, or comes next, stands; empty where none is recorded.
        keys: what may be pressed now; empty where no keys are listened to.
        reasoning: what the policy says that it does; empty if it says nothing.
        faults: times by device and kind, a joint's as ``<joint>.<kind>``.
    """

    mode: str
    step: str
    state: str
    elapsed_s: float
    rate_hz: float
    period_error_us: Mapping[str, float]
    work_us: Mapping[str, float]
    horizon: int
    ticks: int
    missed: int
    starved: int
    sensor_rates_hz: Mapping[str, float] = field(default_factory=dict)
    force_n: tuple[float, ...] = ()
    clips: Mapping[str, int] = field(default_factory=dict)
    faults: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    episode: str = ""
    keys: str = ""
    reasoning: str = ""


_VALUES = 49
"""Columns of a value in a terminal of 80."""


def _counts(counts: Mapping[str, int]) -> str:
    return " ".join(f"{name}:{count}" for name, count in counts.items() if count) or "none"


def summed_up(faults: Mapping[str, Mapping[str, int]]) -> str:
    """``arm: no_reply 12 (6 joints), late 3; head: timeout 2``: joints together, most frequent first."""
    devices = []
    for device, kinds in faults.items():
        total: dict[str, int] = {}
        joints: dict[str, set[str]] = {}
        for name, times in kinds.items():
            joint, _, kind = name.rpartition(".")
            total[kind] = total.get(kind, 0) + times
            if joint and times:
                joints.setdefault(kind, set()).add(joint)
        parts = [
            f"{kind} {times}{_of_joints(joints.get(kind, set()))}"
            for kind, times in sorted(total.items(), key=lambda item: -item[1])
            if times
        ]
        if parts:
            devices.append(f"{device}: {', '.join(parts)}")
    return "; ".join(devices) or "none"


def _of_joints(joints: set[str]) -> str:
    if not joints:
        return ""
    return f" ({next(iter(joints))})" if len(joints) == 1 else f" ({len(joints)} joints)"


def _fitting(text: str, columns: int, lines: int = 2) -> str:
    """`text` in at most so many lines, broken between words; that something is missing is said."""
    text = " ".join(_elided(word, columns) for word in text.split())
    wrapped = textwrap.wrap(text, columns, break_long_words=True, break_on_hyphens=False)
    if len(wrapped) <= lines:
        return text
    last = textwrap.shorten(" ".join(wrapped[lines - 1 :]), columns, placeholder=" ...")
    return "\n".join([*wrapped[: lines - 1], last])


def _elided(word: str, columns: int) -> str:
    """A path too long for a line: its beginning and its end tell most."""
    if len(word) <= columns - 2:
        return word
    kept = columns // 2 - 3
    return f"{word[:kept]}...{word[-kept:]}"


def _rates(rates: Mapping[str, float]) -> str:
    return " ".join(f"{name} {rate:.0f}" for name, rate in rates.items()) or "none"


def _force(force: tuple[float, ...]) -> str:
    return " ".join(f"{value:+.2f}" for value in force) + " N" if force else "none"


def as_line(status: Status) -> str:
    """One plain line."""
    return (
        f"{status.elapsed_s:7.1f}s {status.mode} {status.state:<8} {status.rate_hz:5.1f} Hz"
        f" p99 {status.period_error_us.get('p99', 0.0):.0f}us horizon {status.horizon}"
        f" sensors [{_rates(status.sensor_rates_hz)}] force [{_force(status.force_n)}]"
        f" clips [{_counts(status.clips)}] | {status.step}"
        f"{f' | {status.reasoning}' if status.reasoning else ''}"
    )


def as_table(status: Status, columns: int = _VALUES) -> Table:
    """The dashboard; a value has at most two lines of so many `columns`: 80x24 leave room for the log."""
    from rich.table import Table
    from rich.text import Text

    error, work = status.period_error_us, status.work_us
    table = Table(title=f"dexrun {status.mode}  {status.elapsed_s:.1f} s", show_header=False, min_width=72)
    table.add_column(style="bold", no_wrap=True)
    table.add_column()

    def row(name: str, value: str) -> None:
        table.add_row(name, Text(printable(value)))  # as it is: brackets in it are no markup

    if status.episode:
        row("episode", _fitting(status.episode, columns))
    if status.keys:
        row("keys", _fitting(status.keys, columns))
    row("step", _fitting(status.step, columns))
    if status.reasoning:
        row("policy says", _fitting(status.reasoning, columns))
    row("loop", _fitting(f"{status.state}, {status.rate_hz:.2f} Hz, {status.ticks} ticks", columns))
    row("missed / starved", f"{status.missed} / {status.starved}")
    row("period error", f"p50 {error.get('p50', 0):.0f} us, p99 {error.get('p99', 0):.0f} us")
    row("work per tick", f"p50 {work.get('p50', 0):.0f} us, p99 {work.get('p99', 0):.0f} us")
    row("horizon", f"{status.horizon} steps")
    row("sensors (Hz)", _fitting(_rates(status.sensor_rates_hz), columns))
    row("force", _force(status.force_n))
    row("clips", _fitting(_counts(status.clips), columns))
    row("faults", _fitting(summed_up(status.faults), columns))
    return table


def as_text(status: Status) -> Text:
    """The dashboard of a terminal that has no room for names beside values."""
    from rich.text import Text

    told = f"{status.mode} {status.elapsed_s:.1f} s, {status.state}", status.episode, status.keys, status.step
    return Text("\n".join(line(each) for each in (*told, summed_up(status.faults)) if each))


_LEAST, _BESIDE = 20, 23
"""Columns of a value at least, and what the dashboard has beside it: names and borders."""
_MARGIN = 8
"""Columns right of it for what the terminal itself writes there: the ``^C`` of an impatient person."""


class _Guarded:
    """A file that is not written to while somebody else holds `lock`."""

    def __init__(self, file: io.TextIOBase, lock: threading.RLock) -> None:
        self._file = file
        self._lock = lock

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def write(self, text: str) -> int:
        with self._lock:
            return self._file.write(text)

    def flush(self) -> None:
        with self._lock:
            self._file.flush()


def _one_terminal(first: TextIO, second: TextIO) -> bool:
    try:
        return os.ttyname(first.fileno()) == os.ttyname(second.fileno())
    except (OSError, ValueError):  # no terminal, or not even a file
        return False


class Dashboard:
    """Draws `status()` every so often, on a thread of its own."""

    def __init__(
        self,
        clock: Clock,
        options: TerminalOptions,
        status: Callable[[], Status],
        out: TextIO | None = None,
    ) -> None:
        self._clock = clock
        self._options = options
        self._status = status
        self._out = out if out is not None else sys.stdout
        self._wake = clock.signal()
        self._stopping = False
        self._thread: ClockThread | None = None

    @property
    def style(self) -> str:
        """``live``, ``lines`` or ``none``."""
        if self._options.style != "auto":
            return self._options.style
        return "live" if self._out.isatty() and not self._clock.stepped else "lines"

    def start(self) -> None:
        """Start drawing."""
        if self.style != "none":
            draw = self._live if self.style == "live" else self._lines
            self._thread = self._clock.spawn("dashboard", draw)

    async def stop(self) -> None:
        """Stop; the dashboard is drawn once more, and no line is begun."""
        self._stopping = True
        self._wake.set()
        if self._thread is not None:
            await self._thread.join()

    def _rest(self, seconds: float) -> bool:
        self._wake.wait(round(seconds * NS_PER_S))
        return not self._stopping

    def _lines(self) -> None:
        going_on = True
        while going_on:
            going_on = self._rest(self._options.line_s)
            self._out.write(line(as_line(self._status())) + "\n")
            self._out.flush()

    def _live(self) -> None:
        from rich.console import Console
        from rich.file_proxy import FileProxy
        from rich.live import Live

        console: Any = Console(file=self._out)
        live = Live(console=console, auto_refresh=False, redirect_stderr=False)
        # Rich works out how far to move up some time before it moves: a line in between would tear it.
        lock = threading.RLock()
        above: Any = sys.stderr
        if _one_terminal(self._out, sys.stderr):
            above = _Guarded(FileProxy(console, sys.stderr), lock)
        with contextlib.redirect_stderr(above):
            try:
                self._redraw(live, lock)
            finally:
                with lock:
                    live.stop()

    def _redraw(self, live: Live, lock: threading.RLock) -> None:
        going_on = True
        while going_on:
            panel = self._panel(live.console.width)
            with lock:
                live.start()
                live.update(panel, refresh=True)
            going_on = self._rest(self._options.refresh_s)
        live.update(self._panel(live.console.width))  # drawn when it stops

    def _panel(self, columns: int) -> Constrain:
        from rich.constrain import Constrain

        room = max(1, columns - _MARGIN)
        if room < _LEAST + _BESIDE:
            return Constrain(as_text(self._status()), room)
        return Constrain(as_table(self._status(), room - _BESIDE), room)
