"""The serial ports that are there: by names that last, what each adapter is, and which servos answer."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from drivers.feetech import registers as reg
from drivers.feetech.scan import BusScan, raw_port, scan
from drivers.serial_port import Lister, list_ports
from runtime.clock import Clock
from runtime.messages import DeviceError

BY_ID, BY_PATH = Path("/dev/serial/by-id"), Path("/dev/serial/by-path")


@dataclass(frozen=True, slots=True)
class SerialPlace:
    """One serial port.

    Attributes:
        path: to be written into a configuration: a link that names the adapter, if there is one.
        device: what `path` leads to now.
        adapter: what the adapter says of itself.
        lasting: whether `path` leads to the same adapter (or USB socket) after a replug.
    """

    path: str
    device: str
    adapter: str = ""
    lasting: bool = True


@dataclass(frozen=True, slots=True)
class PortReport:
    """A port and what was heard on it; `trouble` says why it could not be opened."""

    place: SerialPlace
    heard: BusScan = field(default_factory=BusScan)
    trouble: str = ""

    @property
    def is_bus(self) -> bool:
        """Whether servos answer."""
        return bool(self.heard.servos)

    def said(self) -> str:
        """What is there, in words."""
        if self.trouble:
            return self.trouble
        if self.heard.babbles:
            return "something that talks without being asked (a force sensor?); nothing was sent to it"
        return servos_said(self.heard) or "no servo answers (is the arm powered? its adapter is another's?)"


def servos_said(heard: BusScan) -> str:
    """The servos that answered, in words; empty if none did."""
    parts = []
    for speed in dict.fromkeys(servo.baudrate for servo in heard.servos):
        here = [servo for servo in heard.servos if servo.baudrate == speed]
        ids = ", ".join(str(servo.servo_id) for servo in here)
        count = f"{len(here)} servo{'s' if len(here) > 1 else ''}"
        parts.append(f"{count} at {speed} bit/s: {ids} ({_kinds(heard, speed)})")
    broken = [str(servo.servo_id) for servo in heard.servos if servo.clashes]
    if broken:
        parts.append(f"broken answers from {', '.join(broken)}: two servos with one id, or a bad cable")
    return "; ".join(parts)


def _kinds(heard: BusScan, speed: int) -> str:
    kinds: dict[str, None] = {}
    for servo in heard.servos:
        if servo.baudrate == speed and not servo.clashes:
            model = "STS3215" if servo.model == reg.MODEL_STS3215 else f"model {servo.model}"
            kinds[f"{model}, firmware {servo.firmware}"] = None
    return "; ".join(kinds) or "unreadable"


def places(lister: Lister = list_ports, links: Sequence[Path] = (BY_ID, BY_PATH)) -> list[SerialPlace]:
    """The ports that `lister` finds, each by the first of `links` that leads to it."""
    named: dict[str, str] = {}
    for folder in links:
        for link in _entries(folder):
            named.setdefault(os.path.realpath(link), link)
    found = []
    for info in lister():
        path = named.get(os.path.realpath(info.device), "")
        found.append(SerialPlace(path or info.device, info.device, _adapter(info), bool(path)))
    return sorted(found, key=lambda place: place.path)


def _adapter(info: object) -> str:
    about = str(getattr(info, "description", "") or "")
    vendor, product = getattr(info, "vid", None), getattr(info, "pid", None)
    number = getattr(info, "serial_number", None) or "no serial number"
    if isinstance(vendor, int) and isinstance(product, int):
        return f"{about} ({vendor:04x}:{product:04x}, {number})"
    return about if about not in ("", "n/a") else ""


def links_in(folder: str | Path) -> list[SerialPlace]:
    """The ports that the entries of `folder` lead to, instead of those that the machine lists.

    Raises:
        OSError: it cannot be read.
    """
    entries = [str(Path(folder) / name) for name in sorted(os.listdir(folder))]
    return [SerialPlace(path, os.path.realpath(path)) for path in entries if _is_terminal(path)]


def _entries(folder: Path) -> list[str]:
    with suppress(OSError):
        return [str(folder / name) for name in sorted(os.listdir(folder))]
    return []


def _is_terminal(path: str) -> bool:
    with suppress(OSError):
        return Path(path).is_char_device()
    return False


def look_at(ports: Iterable[SerialPlace], clock: Clock) -> list[PortReport]:
    """Ask at each port who is there. Reads only: no register is written, no torque is touched."""
    return [_looked_at(place, clock) for place in ports]


def _looked_at(place: SerialPlace, clock: Clock) -> PortReport:
    try:
        with raw_port("port", place.path, clock) as port:
            return PortReport(place, scan("port", port))
    except DeviceError as error:
        return PortReport(place, trouble=error.detail or str(error.kind))
