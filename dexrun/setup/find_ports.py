"""``dexrun find-ports``: which serial ports there are, what answers there, and which of them is which arm."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict

from dexrun.printing import complain, say
from dexrun.setup.person import Person, Terminal
from dexrun.setup.ports import PortReport, SerialPlace, links_in, look_at, places
from drivers.feetech import registers as reg
from drivers.feetech.bus import FeetechBus
from drivers.feetech.scan import bus_on, raw_port
from runtime.clock import Clock, RealClock
from runtime.messages import DeviceError

MOVED_TICKS = 40
"""A servo that turned by this much (3.5 degrees) was moved by a hand."""


class PortWatch:
    """Notices what is plugged, unplugged and moved, by reading alone.

    Args:
        reports: the ports as they were found; those with servos are opened and stay so.
        list_places: the ports that are there at this moment.
    """

    def __init__(
        self, reports: Sequence[PortReport], list_places: Callable[[], list[SerialPlace]], clock: Clock
    ) -> None:
        self._list = list_places
        self._open = contextlib.ExitStack()
        self._known = {report.place.path: report.place for report in reports}
        self._buses: dict[str, tuple[FeetechBus, list[int]]] = {}
        self._unread: dict[str, str] = {}
        """Ports that were not to be opened any more, and why."""
        self._first: dict[tuple[str, int], int] = {}
        self.moved: dict[str, dict[int, int]] = {}
        """By port, how far each servo was moved at most, in ticks."""
        self.gone: set[str] = set()
        """Ports that were unplugged at some time."""
        self.new: list[SerialPlace] = []
        """Ports that were plugged in since."""
        for report in reports:
            if report.is_bus:
                self._hold(report, clock)

    def _hold(self, report: PortReport, clock: Clock) -> None:
        path, speed = report.place.path, report.heard.servos[0].baudrate
        ids = [s.servo_id for s in report.heard.servos if s.baudrate == speed and not s.clashes]
        try:
            port = self._open.enter_context(raw_port("port", path, clock, speed))
        except DeviceError as error:  # unplugged, or another program's, since it was looked at
            self._unread[path] = error.detail
        else:
            self._buses[path] = (bus_on("port", port), ids)

    def close(self) -> None:
        """Let go of the ports."""
        self._open.close()

    def held(self) -> list[str]:
        """The ports with servos whose torque is on: no hand can move those."""
        return [path for path in self._buses if any(self._read(path, reg.TORQUE_ENABLE).values())]

    def look(self) -> None:
        """Take in what has changed."""
        there = {place.path: place for place in self._list()}
        self.gone |= self._known.keys() - there.keys()
        for path in there.keys() - self._known.keys():
            self._known[path] = there[path]
            self.new.append(there[path])
        for path in list(self._buses):
            for servo_id, ticks in self._read(path, reg.PRESENT_POSITION).items():
                turned = ticks - self._first.setdefault((path, servo_id), ticks)
                turned = (turned + reg.TICKS_PER_TURN // 2) % reg.TICKS_PER_TURN - reg.TICKS_PER_TURN // 2
                by_servo = self.moved.setdefault(path, {})
                by_servo[servo_id] = max(by_servo.get(servo_id, 0), abs(turned))

    def _read(self, path: str, register: reg.Register) -> dict[int, int]:
        bus, ids = self._buses[path]
        try:
            answers = bus.sync_read(ids, register.address, register.size)
        except DeviceError:
            self.gone.add(path)
            del self._buses[path]
            return {}
        return {servo_id: register.decode(data) for servo_id, data in answers.items()}

    def found(self) -> list[str]:
        """The ports that something was done to."""
        moved = [p for p, by in self.moved.items() if max(by.values(), default=0) >= MOVED_TICKS]
        return [*dict.fromkeys([*sorted(self.gone), *moved, *(place.path for place in self.new)])]

    def rows(self) -> list[str]:
        """What was done to each port, in words."""
        return [f"  {number}  {self._said(path)}" for number, path in enumerate(self._known, start=1)]

    def _said(self, path: str) -> str:
        by_servo = self.moved.get(path, {})
        most = max(by_servo, key=lambda servo: by_servo[servo], default=None)
        if path in self.gone:
            return "UNPLUGGED"
        if any(place.path == path for place in self.new):
            return f"PLUGGED IN: {path}"
        if most is not None and by_servo[most] >= MOVED_TICKS:
            return f"MOVED: servo {most}, by {by_servo[most]} ticks"
        return f"not read: {self._unread[path]}" if path in self._unread else "as it was"


def _shown(reports: Sequence[PortReport]) -> list[str]:
    lines = []
    for number, report in enumerate(reports, start=1):
        place = report.place
        lines.append(f"  {number}  {place.path}")
        if not place.lasting:
            lines.append("     this name may be another adapter's after a replug: no link below /dev/serial")
        elif place.device != place.path:
            lines.append(f"     {place.device}{', ' if place.adapter else ''}{place.adapter}")
        lines.append(f"     {report.said()}")
    return lines


def _parsed(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="dexrun find-ports",
        description="List the serial ports by names that last, and which servos answer there; then unplug "
        "one, or move an arm by hand, to see which one it is. Reads only: no torque is touched.",
        epilog="example: dexrun find-ports",
    )
    parser.add_argument(
        "--from", dest="folder", help="a folder of links, instead of the ports that are listed"
    )
    parser.add_argument(
        "--json", action="store_true", help="what was found as JSON, and nothing is waited for"
    )
    return parser.parse_args(arguments)


def main(arguments: list[str], person: Person | None = None, clock: Clock | None = None) -> int:
    """The command; returns its exit code: 0 if a port has servos."""
    options = _parsed(arguments)
    clock = clock or RealClock()

    def listed() -> list[SerialPlace]:
        return places() if options.folder is None else links_in(options.folder)

    try:
        reports = look_at(listed(), clock)
    except OSError as error:
        complain(f"dexrun: --from {options.folder}: {error.strerror or error}\n")
        return 2
    if options.json:
        say(json.dumps([asdict(report) for report in reports], indent=2) + "\n")
        return 0 if any(report.is_bus for report in reports) else 1
    seen = person or Terminal()
    for line in _shown(reports) or ["no serial port is there"]:
        seen.show(line)
    if person is not None or (sys.stdin.isatty() and sys.stdout.isatty()):
        _watch(reports, listed, seen, clock)
    return 0 if any(report.is_bus for report in reports) else 1


def _watch(
    reports: Sequence[PortReport], listed: Callable[[], list[SerialPlace]], person: Person, clock: Clock
) -> None:
    with contextlib.closing(PortWatch(reports, listed, clock)) as watch:
        person.show("Unplug one, or move an arm by hand, and see which one it is; Enter ends this.")
        for path in watch.held():
            person.show(f"torque is on at {path}: that arm cannot be moved by hand; unplug it instead")
        with contextlib.suppress(EOFError, KeyboardInterrupt):
            watch.look()
            while not person.confirmed():
                watch.look()
                person.watch(watch.rows())
        for path in watch.found():
            person.show(f"that one was {path}")
