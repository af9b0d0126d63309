"""What can be told about a configuration on this machine without opening a device, in milliseconds."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from dexrun.config.settings import Settings
from dexrun.printing import complain
from dexrun.setup.findings import PreflightFinding, failed, failures, passed, warned
from dexrun.setup.machine import HostMachine
from drivers.feetech.options import FeetechOptions
from drivers.opencv_camera.capture import is_network
from drivers.opencv_camera.options import OpenCvOptions
from drivers.opencv_camera.usb import UsbBus, bus_of, reserved_mbit_s, stream_mb_s
from runtime.masking import masked
from runtime.messages import DeviceError
from runtime.parts import DeviceTable

UDEV = 'SUBSYSTEM=="tty", ATTRS{idVendor}=="1a86", MODE="0660", GROUP="dialout", TAG+="uaccess"'
UDEV_FILE = "/etc/udev/rules.d/99-dexrun.rules"
"""Of the boards that SO arms come with (QinHeng's CH343 and CH340)."""
_PACKAGES = ("dexrun", "numpy", "mujoco", "opencv-python-headless", "pyserial", "ftservo-python-sdk", "torch")
_EARLIEST_NS = 1_760_000_000 * 1_000_000_000
"""October 2025: a clock that says less was never set."""


def preflight(settings: Settings, machine: HostMachine, wall_ns: int) -> Iterator[PreflightFinding]:
    """All of it; `wall_ns` is what the machine's clock says."""
    yield passed("versions", ", ".join([f"Python {platform.python_version()}", *_versions()]))
    yield from _needed(settings, machine)
    yield from _calibrations(settings)
    yield _scheduling(settings, machine)
    yield _date(wall_ns)


def _needed(settings: Settings, machine: HostMachine) -> Iterator[PreflightFinding]:
    """What can be FAIL."""
    for key, table in _real_tables(settings).items():
        yield from _port(key, table, machine)
        yield from _gamepad(f"{key}.gamepad", table.addresses().get("gamepad", ""), machine)
    yield from _cameras(settings, machine)
    yield _room(settings, machine)
    yield from _gpu(settings, machine)


def _versions() -> Iterator[str]:
    for name in _PACKAGES:
        try:
            yield f"{name} {version(name)}"
        except PackageNotFoundError:
            continue


def _port(device: str, table: DeviceTable, machine: HostMachine) -> Iterator[PreflightFinding]:
    """The serial port of a device, if it has one."""
    where = table.addresses()
    number, path = where.get("serial_number", ""), where.get("port", "")
    if number:
        try:
            path = machine.port_of(device, path, number)
        except DeviceError as error:
            todo = "plug it in; dexrun find-ports lists what is"
            yield failed(f"{device}.serial_number", f"{number}: {error.detail}", todo)
            return
    if path:
        yield _opened(f"{device}.port", path, machine, lasting=bool(number))


def _gamepad(key: str, path: str, machine: HostMachine) -> Iterator[PreflightFinding]:
    """The joystick device of a leader without an arm, if it has one."""
    if path and not machine.exists(path):
        yield failed(key, f"{path} is not there", "plug the gamepad in; ls /dev/input/js* lists what is")
    elif path and not machine.readable(path):
        todo = f"sudo usermod -aG {machine.group_of(path) or 'input'} $USER, then log in anew"
        yield failed(key, f"{path}: this user may not read it", todo)
    elif path:
        yield passed(key, f"{path} is there and may be read")


def _opened(key: str, path: str, machine: HostMachine, *, lasting: bool) -> PreflightFinding:
    if not machine.exists(path):
        return failed(key, f"{path} is not there", "plug it in; dexrun find-ports lists what is")
    if not machine.allowed(path):
        group = machine.group_of(path) or "dialout"
        todo = (
            f"sudo usermod -aG {group} $USER, then log in anew; or write {UDEV_FILE}: {UDEV}, and sudo "
            "udevadm control --reload && sudo udevadm trigger"
        )
        return failed(key, f"{path}: this user may not open it", todo)
    if not lasting and os.path.basename(path).startswith("tty"):
        todo = "write the link below /dev/serial/by-id that dexrun find-ports shows"
        return warned(key, f"{path} may be another adapter's after a replug", todo)
    return passed(key, f"{path} is there and may be opened")


def real_cameras(settings: Settings) -> dict[str, OpenCvOptions]:
    """The UVC and network cameras that the mode opens, by name."""
    real = _real_tables(settings)
    return {
        key.removeprefix("cameras."): table for key, table in real.items() if isinstance(table, OpenCvOptions)
    }


def _cameras(settings: Settings, machine: HostMachine) -> Iterator[PreflightFinding]:
    buses: dict[str, list[tuple[str, float, UsbBus]]] = {}
    for name, camera in real_cameras(settings).items():
        path = camera.address
        if is_network(path):
            continue
        if not machine.exists(path):
            todo = "plug it in; dexrun find-cameras lists what is"
            yield failed(f"cameras.{name}", f"{path} is not there", todo)
            continue
        if not machine.allowed(path):
            todo = f"sudo usermod -aG {machine.group_of(path) or 'video'} $USER, then log in anew"
            yield failed(f"cameras.{name}", f"{path}: this user may not open it", todo)
        bus = bus_of(camera.source, machine.root)
        mb_s = stream_mb_s(camera.width, camera.height, camera.fps, camera.fourcc)
        if bus is not None:
            buses.setdefault(bus.name, []).append((name, mb_s, bus))
    for on_it in buses.values():
        yield bandwidth([(name, mb_s) for name, mb_s, _ in on_it], on_it[0][2])


def bandwidth(streams: list[tuple[str, float]], bus: UsbBus) -> PreflightFinding:
    """Whether a bus carries these streams, each a name and megabytes a second."""
    taken = sum(mb_s for _, mb_s in streams)
    reserved = sum(reserved_mbit_s(mb_s) for _, mb_s in streams)
    said = (
        f"{bus.name}: {', '.join(f'{name} {mb_s:.1f} MB/s' for name, mb_s in streams)}, {8 * taken:.0f} "
        f"of {bus.mbit_s:g} Mbit/s, of which cameras reserve {reserved:.0f} and may reserve "
        f"{bus.room_mbit_s:.0f}"
    )
    if bus.mbit_s <= 480 and reserved > bus.room_mbit_s:
        return failed("USB", said, 'set fourcc = "MJPG", or plug one camera into a socket of another bus')
    return passed("USB", said)


def _calibrations(settings: Settings) -> Iterator[PreflightFinding]:
    for key, table in _real_tables(settings).items():
        file = table.own_files().get("calibration")
        if file is not None:
            yield passed(f"{key}.calibration", f"{file} has every joint, with ranges that the model can have")


def _scheduling(settings: Settings, machine: HostMachine) -> PreflightFinding:
    options = settings.realtime
    if options.scheduler != "fifo":
        return passed(
            "scheduling", 'ordinary, as configured (realtime.scheduler = "fifo" runs the loop first)'
        )
    refused = machine.fifo_refused(options.priority)
    if not refused:
        return passed("scheduling", f"FIFO with priority {options.priority} is granted")
    todo = (
        f'add "@{machine.group_of("/dev/ttyS0") or "dialout"} - rtprio {options.priority}" to '
        "/etc/security/limits.conf and log in anew; without it the loop runs as an ordinary thread"
    )
    return warned("scheduling", f"FIFO with priority {options.priority} is refused: {refused}", todo)


def _room(settings: Settings, machine: HostMachine) -> PreflightFinding:
    needed = settings.recording.min_free_mib
    try:
        free = machine.free_mib(settings.runs)
    except OSError as error:
        return failed("disk", f"runs = {str(settings.runs)!r}: {error.strerror or error}")
    said = f"{free} MiB are free for runs = {str(settings.runs)!r}"
    if settings.recording.wanted(settings.mode) and free < needed:
        todo = "make room, or choose another folder (--runs FOLDER)"
        return failed("disk", f"{said}; recording stops below {needed} (recording.min_free_mib)", todo)
    return passed("disk", said)


def _date(wall_ns: int) -> PreflightFinding:
    if wall_ns < _EARLIEST_NS:
        return warned(
            "clock", "the machine's date is in the past", "set it: runs are named by it (timedatectl)"
        )
    return passed("clock", "the machine's date is set")


def _gpu(settings: Settings, machine: HostMachine) -> Iterator[PreflightFinding]:
    wanted = list(_on_cuda(_used(settings)))
    if wanted and not machine.has_gpu():
        todo = 'install the driver, or set device = "cpu"'
        yield failed("GPU", f"{', '.join(wanted)} = 'cuda', and no NVIDIA driver is there", todo)
    elif wanted:
        yield passed("GPU", f"an NVIDIA driver is there, for {', '.join(wanted)}")
    else:
        yield passed("GPU", "none is asked for")


def _used(settings: Settings) -> dict[str, Any]:
    """The tables of what computes in this mode."""
    if settings.mode == "teleop":
        return {}
    return {
        "policy": settings.policy.model_dump(mode="json"),
        "perception": settings.perception.model_dump(mode="json"),
    }


def _on_cuda(value: Any, path: str = "") -> Iterator[str]:
    if isinstance(value, dict):
        for key, each in value.items():
            yield from _on_cuda(each, f"{path}.{key}" if path else str(key))
    elif path.endswith("device") and str(value).startswith("cuda"):
        yield path


def _real_tables(settings: Settings) -> dict[str, DeviceTable]:
    """The real devices that the mode opens, by the key of their table."""
    real = {key.rsplit(".", 1)[0] for key in settings.real_addresses()}
    return {key: table for key, table in settings.device_tables().items() if key in real}


def real_arms(settings: Settings) -> dict[str, FeetechOptions]:
    """The real arms and leaders on a servo bus that the mode opens, by the key of their table."""
    return {k: table for k, table in _real_tables(settings).items() if isinstance(table, FeetechOptions)}


def warn_before_a_run(settings: Settings, machine: HostMachine) -> None:
    """Say what would fail, before anything is opened; the run itself then says why it cannot go on."""
    for finding in failures(_needed(settings, machine)):
        complain(f"dexrun: {masked(finding.line())}\n")
