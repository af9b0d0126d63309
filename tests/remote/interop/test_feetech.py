"""Our servo bus against feetech-cli's simulator, and feetech-cli against our emulated servos."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dexrun.setup.calibrate import main as calibrate
from drivers.arms.so100 import JOINT_NAMES
from drivers.feetech import registers as reg
from drivers.feetech.calibration import JointMap, load_calibration
from drivers.feetech.driver import FeetechArm
from drivers.feetech.emulator import FeetechEmulator
from drivers.feetech.options import FeetechOptions
from drivers.feetech.servo import SimpleServoBank
from runtime.clock import NS_PER_S, RealClock
from runtime.messages import DeviceError
from tests.feetech.rig import CALIBRATION, NAMES, RANGES, encoder
from tests.remote.interop.peers import ROOT, Peer, needs

PEER = "feetech"
PATIENT: dict[str, Any] = {
    "packet_timeout_s": 1.0,
    "give_up_s": 20.0,
    "health_period_s": 0.05,
    "target_max_age_s": 5,
}
SEEN_NS = round(4 * PATIENT["health_period_s"] * NS_PER_S)
pytestmark = needs(PEER)

SHIPPED = {
    joint.id: {
        "homing_offset": joint.homing_offset,
        "min_position_limit": joint.range_min,
        "max_position_limit": joint.range_max,
        "raw_position": encoder(name, 2200),
    }
    for name, joint in CALIBRATION.items()
}


class Simulator:
    """feetech-cli's bus."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self.port = peer.line("port ")

    def tell(self, text: str) -> str:
        """Have it do something; returns what it answers."""
        self._peer.say(text)
        return self._peer.line("done ").strip()

    def get(self, servo_id: int, name: str) -> int:
        return int(self.tell(f"get {servo_id} {name}"))


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    with Peer(PEER, json.dumps(SHIPPED)) as peer:
        yield Simulator(peer)


def arm_at(port: str, **options: Any) -> FeetechArm:
    settings = {"port": port, **PATIENT, **options}
    joints = JointMap.build(CALIBRATION, RANGES)
    return FeetechArm("arm", FeetechOptions.model_validate(settings), joints, RealClock())


@pytest.fixture
def arm(simulator: Simulator) -> Iterator[FeetechArm]:
    made = arm_at(simulator.port)
    made.open()
    made.poll()
    yield made
    made.close()


def watch(arm: FeetechArm) -> None:
    """Nobody asks for anything, until the health poll has come round, however quick the machine is."""
    clock = RealClock()
    end_ns = clock.now_ns() + SEEN_NS
    while clock.now_ns() < end_ns:
        for _ in range(20):
            arm.poll()


def move(arm: FeetechArm, polls: int = 40) -> None:
    """Goals stream."""
    clock = RealClock()
    for _ in range(polls):
        arm.targets.post(clock.now_ns(), position=np.full(6, 0.2))
        arm.poll()


def follow(arm: FeetechArm) -> None:
    """Goals stream, until the health poll has come round."""
    clock = RealClock()
    end_ns = clock.now_ns() + SEEN_NS
    while clock.now_ns() < end_ns:
        move(arm)


def test_the_driver_moves_its_servos(simulator: Simulator, arm: FeetechArm) -> None:
    state = arm.states.newest()
    assert state is not None
    tick = 2 * np.pi / 4096
    assert state["position"][:4] == pytest.approx([200 * tick, 200 * tick, -200 * tick, 200 * tick])
    follow(arm)
    state = arm.states.newest()
    assert state is not None
    assert state["position"] == pytest.approx(np.full(6, 0.2), abs=2e-3)
    assert simulator.get(6, "torque_limit") == 500
    assert simulator.get(1, "p_coefficient") == 16  # it takes no EEPROM writes while locked
    assert simulator.get(1, "lock") == 1
    assert arm.statistics() == {}


def test_a_servo_whose_torque_drops_under_streaming_goals_is_noticed(
    simulator: Simulator, arm: FeetechArm
) -> None:
    move(arm, 5)
    simulator.tell("drop 2")
    simulator.tell("move 2 1500")
    with pytest.raises(DeviceError, match=r"torque_lost: .*: shoulder_lift"):
        follow(arm)
    assert simulator.get(2, "torque_enable") == 0
    arm.open()
    assert simulator.get(2, "goal_position") == 1500 + 200
    follow(arm)


@pytest.mark.parametrize("torque_is_back", [False, True])
def test_a_bus_that_browned_out_is_noticed_and_prepared_again(
    simulator: Simulator, arm: FeetechArm, torque_is_back: bool
) -> None:
    move(arm, 5)
    for servo_id in range(1, 7):
        simulator.tell(f"restart {servo_id}")
        if torque_is_back:
            simulator.tell(f"goal {servo_id} 2100")
    with pytest.raises(DeviceError, match=r"restarted: .*Acceleration 0 instead of 254") as caught:
        follow(arm)
    assert caught.value.detail.endswith(f": {', '.join(NAMES)}")
    arm.close()
    arm.open()
    assert (simulator.get(6, "torque_limit"), simulator.get(6, "acceleration")) == (500, 254)
    follow(arm)


def test_a_leader_that_restarted_is_noticed(simulator: Simulator) -> None:
    leader = arm_at(simulator.port, role="leader")
    leader.open()
    simulator.tell("restart 3")
    with pytest.raises(DeviceError, match=r"restarted: .*: elbow_flex"):
        watch(leader)
    leader.close()
    assert simulator.get(3, "torque_enable") == 0


class Hand:
    """Moves the simulated servos from stop to stop."""

    def __init__(self, simulator: Simulator) -> None:
        self._simulator = simulator
        self._places = [1200, 2048, 2900, 2048]

    def _move(self, ticks: int) -> None:
        for servo_id in range(1, 7):
            self._simulator.tell(f"move {servo_id} {ticks}")

    def confirm(self, text: str) -> None:
        if "middle" in text:
            self._move(2048)
        elif text.startswith("Close"):
            self._move(2890)

    def confirmed(self) -> bool:
        if self._places:
            self._move(self._places.pop(0))
            return False
        return True

    def show(self, text: str) -> None:
        del text

    def watch(self, lines: Sequence[str]) -> None:
        del lines


def test_an_arm_is_calibrated_and_then_driven_by_that_file(simulator: Simulator, tmp_path: Path) -> None:
    target = tmp_path / "arm.json"
    assert calibrate(["--port", simulator.port, "--to", str(target)], Hand(simulator)) == 0
    file = load_calibration(target, JOINT_NAMES)
    assert [file["elbow_flex"].homing_offset, file["elbow_flex"].range_min] == [1, 1199]
    assert file["gripper"].drive_mode == 1
    assert simulator.get(3, "min_position_limit") == 1199
    ranges = dict.fromkeys(NAMES, (-1.5, 1.5))
    joints = JointMap.build(file, ranges)
    arm = FeetechArm("arm", FeetechOptions(port=simulator.port, **PATIENT), joints, RealClock())
    arm.open()
    arm.poll()
    state = arm.states.newest()
    arm.close()
    assert state is not None
    assert state["position"][5] == pytest.approx(0.0, abs=0.02)  # closed, as it was left


def feetech(port: str, *arguments: str) -> str:
    """feetech-cli's own command on a port of ours."""
    command = [str(ROOT / ".venv-feetech" / "bin" / "feetech"), "-p", port, "--timeout", "2", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_its_commands_work_on_our_servos(tmp_path: Path) -> None:
    bank = SimpleServoBank(RealClock(), {1: 2000, 2: 2100})
    emulator = FeetechEmulator(bank, tmp_path / "arm")
    speed = ("-b", "1000000", "--max-id", "2")
    try:
        assert "Found 2 servo(s)" in feetech(emulator.port, *speed, "scan")
        feetech(emulator.port, *speed, "move", "--position", "2300", "1")
        assert emulator.servos[1].get(reg.TORQUE_ENABLE) == 1
        assert bank.motion(1)[1] == 2300
        feetech(emulator.port, *speed, "selftest", "1")
        feetech(emulator.port, *speed, "set-baud", "-y", "2", "500000")
        assert emulator.servos[2].baudrate == 500_000
        emulator.restart(2)
        assert emulator.servos[2].baudrate == 500_000
    finally:
        emulator.close()
