"""The port of a servo bus on an emulated line."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import serial

from drivers.emulated_port import EmulatedPort
from drivers.feetech.emulator import FeetechEmulator
from drivers.feetech.port import BusPort
from drivers.feetech.scan import raw_port, scan
from drivers.feetech.servo import SimpleServoBank
from runtime.messages import DeviceError, FaultKind
from runtime.stepped import SteppedClock


def test_what_one_left_on_the_line_does_not_keep_the_next_one_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It opens the port while the far end is still at it: it counts from before that is told."""
    gate, taken = threading.Event(), threading.Event()

    def slow(data: bytes) -> None:
        if data == b"left":
            taken.set()
            gate.wait()

    looks = 0
    select = BusPort._select

    def counted(port: BusPort, timeout_s: float) -> bool:
        nonlocal looks
        looks += 1
        return select(port, timeout_s)

    monkeypatch.setattr(BusPort, "_select", counted)
    far = EmulatedPort(tmp_path / "bus", slow)
    first = BusPort("one", str(tmp_path / "bus"), 1_000_000, 10.0, emulated=True)
    first.writePort(b"left")
    taken.wait()
    first.close()
    second = BusPort("two", str(tmp_path / "bus"), 1_000_000, 10.0, emulated=True)
    gate.set()
    second.setPacketTimeout(0)
    second.writePort(b"mine")
    assert second.readPort(1) == b""
    assert second.starved
    assert looks < 4000  # of 5000, which are ten seconds
    second.close()
    far.close()


def test_a_speed_is_set_on_a_port_that_went_away(tmp_path: Path) -> None:
    far = EmulatedPort(tmp_path / "bus", lambda data: None)
    port = BusPort("arm", far.path, 1_000_000, 10.0, emulated=True)
    far.unplug()
    with pytest.raises(DeviceError) as error:
        port.setBaudRate(500_000)
    assert error.value.kind is FaultKind.GONE
    port.close()
    assert not port._line.is_open
    far.close()


def test_an_adapter_without_a_speed_is_scanned_at_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pyserial has no constant for it, and the adapter's driver takes no other."""

    def refuse(line: serial.Serial, baudrate: int) -> None:
        raise ValueError(f"Failed to set custom baud rate ({baudrate})")

    monkeypatch.setattr(serial.Serial, "_set_special_baudrate", refuse)
    far = FeetechEmulator(SimpleServoBank(SteppedClock(), {1: 2000}), tmp_path / "bus")
    try:
        with raw_port("port", far.port, SteppedClock()) as port:
            assert [servo.servo_id for servo in scan("port", port).servos] == [1]
    finally:
        far.close()
