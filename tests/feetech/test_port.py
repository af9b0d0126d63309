"""The port of a servo bus on an emulated line."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from drivers.emulated_port import EmulatedPort
from drivers.feetech.port import BusPort


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
