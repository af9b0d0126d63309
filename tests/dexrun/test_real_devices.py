"""Real devices beside the simulated tabletop: an arm on a wire of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from dexrun.__main__ import main
from dexrun.app import run
from dexrun.exit_codes import BAD_CONFIGURATION, STOPPED
from drivers.feetech.calibration import save_calibration
from drivers.feetech.config import FeetechFollowerConfig
from drivers.feetech.emulator import FeetechEmulator
from drivers.feetech.servo import SimpleServoBank
from runtime.clock import RealClock
from tests.dexrun.rig import ROOT, arguments, newest, settings
from tests.feetech.rig import CALIBRATION, encoder, shipped


@dataclass
class RealArm:
    """An SO-100 that stands on the bench.

    Attributes:
        wire: its bus. calibration: its own file.
    """

    wire: FeetechEmulator
    calibration: Path

    @property
    def port(self) -> str:
        return self.wire.port

    def untouched(self) -> bool:
        """Whether nobody said anything to it."""
        return self.wire.instructions == 0


@pytest.fixture
def real_arm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealArm]:
    folder = tmp_path_factory.mktemp("bench")
    save_calibration(folder / "arm.json", CALIBRATION)
    places = {joint.id: encoder(name, 2500) for name, joint in CALIBRATION.items()}
    wire = FeetechEmulator(SimpleServoBank(RealClock(), places), folder / "arm", registers=shipped())
    try:
        yield RealArm(wire, folder / "arm.json")
    finally:
        wire.close()


def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], **keys: str) -> str:
    """Why this robot is not even begun: the one line, without its beginning."""
    assert main(arguments(tmp_path, **keys)) == BAD_CONFIGURATION
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n"), list(tmp_path.iterdir())) == ("", 1, [])
    return said.err.removeprefix("dexrun: ").rstrip()


# --- calibration


@pytest.mark.parametrize("write", ["false", "true"])
@pytest.mark.parametrize("name", ["arm", "leader"])
def test_a_real_arm_needs_its_own_calibration(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], real_arm: RealArm, name: str, write: str
) -> None:
    keys = {f"{name}__port": real_arm.port, f"{name}__write_calibration": write, "realtime__clock": "real"}
    why = refused(tmp_path, capsys, mode="teleop", **keys)
    assert why == (
        f"{ROOT / 'config.toml'}: {name}.calibration is not given: the arm at '{real_arm.port}' "
        "needs the file that dexrun calibrate or LeRobot made of it"
    )
    assert real_arm.untouched()


def test_a_calibration_of_no_such_arm_is_refused_before_the_port_is_opened(
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    capsys: pytest.CaptureFixture[str],
    real_arm: RealArm,
) -> None:
    file = tmp_path_factory.mktemp("elsewhere") / "over_the_seam.json"
    swept = CALIBRATION["shoulder_lift"].model_copy(update={"range_min": 0, "range_max": 4095})
    save_calibration(file, {**CALIBRATION, "shoulder_lift": swept})
    keys = {"arm__port": real_arm.port, "arm__calibration": str(file), "realtime__clock": "real"}
    why = refused(tmp_path, capsys, **keys)
    assert why == (
        f"command line: arm.calibration {file}: shoulder_lift: its range is 0 to 4095, 4095 ticks, a full "
        "turn, and the joint has stops: it was moved over its encoder's end; calibrate it again (dexrun "
        "calibrate)"
    )
    assert real_arm.untouched()


def test_two_names_of_one_port_are_one_port(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], real_arm: RealArm
) -> None:
    other = real_arm.calibration.with_name("by-id")
    other.symlink_to(real_arm.port)
    file = str(real_arm.calibration)
    keys = {"arm__port": real_arm.port, "arm__calibration": file, "leader__port": str(other)}
    why = refused(tmp_path, capsys, mode="teleop", leader__calibration=file, realtime__clock="real", **keys)
    assert why.endswith(f"leader.port = '{other}': arm.port is the same device; it has one table")


@pytest.mark.parametrize("copied", [False, True])
def test_two_arms_have_not_one_calibration(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], real_arm: RealArm, copied: bool
) -> None:
    """With write_calibration the second arm's servos would be given what the first one measured."""
    file = other = real_arm.calibration
    if copied:
        other = file.with_name("copy.json")
        other.write_text(json.dumps(json.loads(file.read_text())))
    given = {"arm__port": real_arm.port, "arm__calibration": str(file), "leader__port": "/dev/ttyACM7"}
    why = refused(
        tmp_path, capsys, mode="teleop", leader__calibration=str(other), realtime__clock="real", **given
    )
    same = f"has the same numbers ({file})" if copied else "is the same file"
    assert why.endswith(f"leader.calibration = '{other}': arm.calibration {same}; each device has its own")
    assert real_arm.untouched()


def test_the_tabletops_calibration_is_not_lent_to_a_real_arm(tmp_path: Path, real_arm: RealArm) -> None:
    """Not even past the configuration's own check."""
    arm = FeetechFollowerConfig(port=real_arm.port, write_calibration=True)
    assert run(settings(tmp_path).model_copy(update={"arm": arm})) == STOPPED
    assert "no calibration: give calibration = FILE" in (newest(tmp_path) / "summary.json").read_text()
    assert real_arm.untouched()


def test_a_leader_that_the_mode_does_not_open_needs_nothing(tmp_path: Path) -> None:
    given = settings(tmp_path, mode="grasp", leader__port="/dev/leader", realtime__clock="real")
    assert given.leader is not None
    assert given.leader.calibration is None


@pytest.mark.parametrize("name", ["arm", "force"])
def test_a_device_is_real_or_simulated(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    why = refused(tmp_path, capsys, **{f"{name}__serial_number": "58FA083324"})
    assert why.startswith(
        f"command line: {name}.serial_number = '58FA083324' is a real device's, and {name}.port = 'world:"
    )


# --- clock


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("arm.port", ""),
        ("leader.port", ""),
        ("force.port", "/dev/force"),
        ("cameras.head.serial", "941322071234"),
        ("cameras.wrist.source", "/dev/video6"),
    ],
)
def test_real_devices_have_no_simulated_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], real_arm: RealArm, key: str, value: str
) -> None:
    name = key.partition(".")[0]
    keys = {key: value or real_arm.port}
    if not value:
        keys[f"{name}__calibration"] = str(real_arm.calibration)
    why = refused(tmp_path, capsys, mode="teleop", **keys)
    assert why == (
        f"command line: realtime.clock = 'stepped' is for the simulated tabletop alone, and {key} = "
        f"'{keys[key]}' is a real device, which does not wait; give 'real', or an address that begins with "
        "'world:'"
    )
    assert real_arm.untouched()
    assert settings(tmp_path, mode="teleop", realtime__clock="real", **keys).realtime.clock == "real"


@pytest.mark.parametrize("kind", ["act", "dexgrasp"])
def test_random_weights_move_no_real_arm(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], real_arm: RealArm, kind: str
) -> None:
    keys = {"arm__port": real_arm.port, "arm__calibration": str(real_arm.calibration), "policy__type": kind}
    line = refused(tmp_path, capsys, realtime__clock="real", **keys)
    why = "random weights would move the real arm of [arm]; they are for simulated arms"
    assert line.endswith(f": policy.checkpoint is not given: {why}")
    assert real_arm.untouched()
