"""``dexrun lead``: what it reads and refuses, and a leader's bus whose joints arrive at the other end."""

from __future__ import annotations

import json
import os
from pathlib import Path

import anyio
import numpy as np
import pytest

from dexrun.__main__ import main
from dexrun.exit_codes import BAD_CONFIGURATION
from dexrun.leading.command import joints_of, lead, leader_table
from drivers.feetech import registers as reg
from drivers.feetech.calibration import JointCalibration, save_calibration
from drivers.feetech.emulator import FeetechEmulator
from drivers.feetech.servo import SimpleServoBank
from drivers.remote_leader.config import RemoteLeaderConfig
from drivers.remote_leader.sender import LeaderSender
from runtime.clock import RealClock
from runtime.part_context import ArmContext

NAMES = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
LIMITS = (900, 3200)


@pytest.mark.parametrize(
    ("text", "to", "said"),
    [
        ("", "robot:1", "no [leader]; there is no leader"),
        ('[leader]\nport = "world:leader"\nrole = "leader"', "robot:1", "it is no arm of this machine"),
        ('[leader]\ndriver = "jog"', "robot:1", "it is no arm of this machine"),
        ('[leader]\nport = "/dev/null"', "robot:1", "leader.calibration is not given"),
        ('[leader]\nprot = "/dev/null"', "robot:1", "leader.prot"),
        ('[leaders.left]\nport = "/dev/null"', "robot:1", "there is leaders.left; --leader NAME"),
        ("[leader", "robot:1", "leader.toml"),
    ],
)
def test_what_cannot_be_sent_is_said_before_anything_is_opened(
    text: str, to: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "leader.toml"
    file.write_text(text)
    assert main(["lead", "--config", str(file), "--to", to]) == BAD_CONFIGURATION
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def written(folder: Path) -> Path:
    calibration = {
        name: JointCalibration(id=number, homing_offset=0, range_min=LIMITS[0], range_max=LIMITS[1])
        for number, name in enumerate(NAMES, 1)
    }
    save_calibration(folder / "leader.json", calibration)
    file = folder / "leader.toml"
    bus, table = json.dumps(str(folder / "bus")), json.dumps(str(folder / "leader.json"))
    file.write_text(f"[leader]\nport = {bus}\ncalibration = {table}\npacket_timeout_s = 1.0\n")
    return file


@pytest.mark.parametrize(
    ("to", "said"), [("robot", "give HOST:PORT"), ("10.0.0.1:8471", "the same secret in the environment")]
)
def test_an_address_beyond_this_machine_needs_the_secret(
    to: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DEXRUN_LEADER_TOKEN", raising=False)
    assert main(["lead", "--config", str(written(tmp_path)), "--to", to]) == BAD_CONFIGURATION
    assert said in capsys.readouterr().err


def test_a_follower_that_others_reach_needs_it_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DEXRUN_LEADER_TOKEN", raising=False)
    file = tmp_path / "robot.toml"
    file.write_text(
        'mode = "teleop"\n[arm]\nport = "world:follower"\n'
        '[leader]\ndriver = "remote"\nlisten = "0.0.0.0:8471"\n'
    )
    assert main(["--config", str(file), "--check"]) == BAD_CONFIGURATION
    assert "leader.listen = '0.0.0.0' is not this machine alone" in capsys.readouterr().err
    monkeypatch.setenv("DEXRUN_LEADER_TOKEN", "a secret of both")
    assert main(["--config", str(file), "--check"]) == 0


def test_the_joints_of_a_bus_arrive_at_the_other_end(tmp_path: Path) -> None:
    """Over the wire twice: the servos' packets, and the datagrams."""
    file = written(tmp_path)
    registers = {reg.HOMING_OFFSET: 0, reg.MIN_POSITION_LIMIT: LIMITS[0], reg.MAX_POSITION_LIMIT: LIMITS[1]}
    clock = RealClock()
    bank = SimpleServoBank(clock, dict.fromkeys(range(1, 7), 2050))
    bus = FeetechEmulator(bank, tmp_path / "bus", registers=dict.fromkeys(range(1, 7), registers))
    key, table = leader_table(file, "")
    layout = joints_of(table, file, key)
    options = RemoteLeaderConfig(listen="127.0.0.1:0")
    follower = RemoteLeaderConfig.build(options, ArmContext("leader", clock, joints=layout))
    follower.open()
    sender = LeaderSender(("127.0.0.1", follower.port), b"", layout, clock)
    driver = table.build(ArmContext(key, clock, joints=layout))

    async def run() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(lead, driver, sender, clock)
            while not await clock.run_blocking(follower.poll):
                pass
            group.cancel_scope.cancel()

    try:
        clock.run(run)
        sent, came = driver.states.newest(), follower.states.newest()
        assert sent is not None
        assert came is not None
        np.testing.assert_allclose(came["position"], sent["position"], atol=1e-9)
    finally:
        sender.close()
        follower.close()
        bus.close()
    assert not os.path.lexists(tmp_path / "bus")
