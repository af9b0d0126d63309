"""Which port an arm is at: adapters that look alike, ports that were swapped, one port for two arms."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from drivers.feetech import registers as reg
from drivers.feetech.calibration import JointMap
from drivers.feetech.driver import FeetechArm
from drivers.feetech.emulator import FeetechEmulator
from drivers.feetech.options import FeetechOptions
from drivers.feetech.servo import SimpleServoBank
from drivers.serial_port import Adapter, find_ports
from runtime.messages import DeviceError
from runtime.stepped import SteppedClock
from tests.feetech.rig import CALIBRATION, RANGES, encoder, shipped

THEIRS = {
    name: joint.model_copy(update={"homing_offset": joint.homing_offset + 31, "range_min": 950})
    for name, joint in CALIBRATION.items()
}
KEYS = {
    reg.HOMING_OFFSET: "homing_offset",
    reg.MIN_POSITION_LIMIT: "range_min",
    reg.MAX_POSITION_LIMIT: "range_max",
}


@dataclass
class Bench:
    """This arm at socket 1-1 and another at 1-2, on adapters of one serial number."""

    arm: FeetechArm
    own: FeetechEmulator
    theirs: FeetechEmulator
    ports: list[SimpleNamespace]

    def wires(self) -> list[FeetechEmulator]:
        return [self.own, self.theirs]


def bench(folder: Path, number: str, **options: Any) -> Iterator[Bench]:
    clock = SteppedClock()
    bank = SimpleServoBank(clock, {j.id: encoder(n, 2500) for n, j in CALIBRATION.items()})
    values = {j.id: {r: getattr(j, key) for r, key in KEYS.items()} for j in THEIRS.values()}
    own = FeetechEmulator(bank, folder / "ttyACM0", registers=shipped())
    theirs = FeetechEmulator(bank, folder / "ttyACM1", registers=values)
    ports = [
        SimpleNamespace(device=wire.port, serial_number=number, location=place, vid=0x1A86, pid=0x7523)
        for wire, place in ((own, "1-1"), (theirs, "1-2"))
    ]
    arm = FeetechArm(
        "arm",
        FeetechOptions.model_validate({"port": own.port, **options}),
        JointMap.build(CALIBRATION, RANGES),
        clock,
        lambda: ports,
        others={"leader.calibration": THEIRS},
    )
    try:
        yield Bench(arm, own, theirs, ports)
    finally:
        arm.close()
        own.close()
        theirs.close()


@pytest.fixture(params=["58FA", None])
def twins(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    yield from bench(tmp_path, request.param)


def test_an_arm_is_found_in_its_socket_in_whatever_order_the_ports_are_listed(twins: Bench) -> None:
    twins.arm.open()
    twins.arm.close()
    twins.ports.reverse()
    twins.arm.open()
    assert twins.theirs.instructions == 0


def test_an_arm_that_is_plugged_in_elsewhere_is_told_by_what_its_servos_hold(tmp_path: Path) -> None:
    for twins in bench(tmp_path, "58FA", write_calibration=True):
        twins.arm.open()
        twins.arm.close()
        own, theirs = twins.ports
        own.location, theirs.location = "1-3", "1-1"
        twins.arm.open()
        assert twins.theirs.instructions > 0
        offsets = [servo.get(reg.HOMING_OFFSET) for servo in twins.theirs.servos.values()]
        assert offsets == [joint.homing_offset for joint in THEIRS.values()]
        assert not any(servo.get(reg.TORQUE_ENABLE) for servo in twins.theirs.servos.values())
        twins.arm.poll()


def test_the_other_arms_port_alone_is_not_taken(twins: Bench) -> None:
    twins.arm.open()
    twins.own.unplug()
    twins.arm.close()
    own, theirs = twins.ports
    twins.ports[:] = [theirs]
    with pytest.raises(DeviceError) as caught:
        twins.arm.open()
    assert caught.value.kind in {"wrong_calibration", "not_found"}
    assert not any(servo.get(reg.TORQUE_ENABLE) for servo in twins.theirs.servos.values())
    twins.own.plug()
    twins.ports[:] = [theirs, own]
    twins.arm.open()


def test_swapped_ports_are_noticed_and_nothing_is_written(tmp_path: Path) -> None:
    for twins in bench(tmp_path, "58FA", port=str(tmp_path / "ttyACM1"), write_calibration=True):
        said = "the servos hold the values of leader.calibration, not of this arm's file: are the ports"
        with pytest.raises(DeviceError, match=said):
            twins.arm.open()
        offsets = [servo.get(reg.HOMING_OFFSET) for servo in twins.theirs.servos.values()]
        assert offsets == [joint.homing_offset for joint in THEIRS.values()]


def test_a_port_that_this_program_has_open_is_said_to_be_anothers_of_its_own(twins: Bench) -> None:
    twins.arm.open()
    other = FeetechArm(
        "leader",
        FeetechOptions(port=twins.own.port, role="leader"),
        JointMap.build(CALIBRATION, RANGES),
        SteppedClock(),
        list,
    )
    with pytest.raises(DeviceError, match="in_use: another device of this configuration is at this port"):
        other.open()


def test_what_is_asked_for_counts(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).touch()
    a, b = str(tmp_path / "a"), str(tmp_path / "b")
    ports = [
        SimpleNamespace(device=a, serial_number="X", location="1-1"),
        SimpleNamespace(device=b, serial_number="X", location="1-2"),
    ]
    assert find_ports("arm", b, Adapter(), list) == [b]
    assert find_ports("arm", "", Adapter("X"), lambda: ports) == [a, b]
    assert find_ports("arm", b, Adapter("X"), lambda: ports) == [b, a]
    assert find_ports("arm", b, Adapter("X", "1-1"), lambda: ports) == [a, b]
    with pytest.raises(DeviceError, match="no serial port has this serial number"):
        find_ports("arm", b, Adapter("Y"), lambda: ports)
