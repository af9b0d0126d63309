"""``dexrun init``: every kit gives a configuration that the loader takes; a scripted person answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from dexrun.config.load import load
from dexrun.setup.cameras import FoundCamera
from dexrun.setup.init import main, write
from dexrun.setup.kit import ArmChoice, KitChoice
from drivers.arms import describe
from drivers.feetech.calibration import JointCalibration, save_calibration
from drivers.feetech.emulator import FeetechEmulator
from drivers.feetech.servo import SimpleServoBank
from drivers.opencv_camera.v4l2 import CameraMode
from runtime.stepped import SteppedClock

SPANS = {name: (high - low) for name, (low, high) in zip(describe().joints, describe().ranges, strict=True)}
FILES = ("follower", "leader", "left", "right", "leader_left", "leader_right")


def calibration(offset: int) -> dict[str, JointCalibration]:
    """One that no other arm has."""
    return {
        name: JointCalibration(
            id=i, homing_offset=offset, range_min=2047 - round(span * 320), range_max=2047 + round(span * 320)
        )
        for i, (name, span) in enumerate(SPANS.items(), 1)
    }


class Typist:
    """Types `answers`, one after another; then is gone."""

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []
        self.said: list[str] = []
        self.before_enter: list[object] = []

    def ask(self, text: str, choices: Mapping[str, str] | None = None) -> str:
        del choices
        self.asked.append(text)
        if not self.answers:
            raise EOFError
        return self.answers.pop(0)

    def confirm(self, text: str) -> None:
        self.said.append(text)
        for act in self.before_enter:
            act()  # type: ignore[operator]

    def confirmed(self) -> bool:
        return True

    def show(self, text: str) -> None:
        self.said.append(text)

    def watch(self, lines: Sequence[str]) -> None:
        raise AssertionError(lines)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "by-id").mkdir()
    for offset, name in enumerate(FILES):
        save_calibration(tmp_path / f"{name}.json", calibration(offset))
    return tmp_path


def arm(name: str, *, real: bool, led: bool) -> ArmChoice:
    follower, leader = (name, f"leader_{name}") if name else ("follower", "leader")
    given = [f"/dev/serial/by-id/{follower}", f"{follower}.json"] if real else ["", ""]
    given += [f"/dev/serial/by-id/{leader}", f"{leader}.json"] if led else ["", ""]
    return ArmChoice(name, *given)


@pytest.mark.parametrize("model", ["so100", "so101"])
@pytest.mark.parametrize("names", [("",), ("left", "right")])
@pytest.mark.parametrize(("real", "led"), [(False, False), (True, True), (True, False), (False, True)])
def test_every_kit_gives_a_configuration_that_is_taken(
    folder: Path, model: str, names: tuple[str, ...], real: bool, led: bool
) -> None:
    mode = CameraMode("MJPG", 640, 480, 30)
    cameras = {"head": ("/dev/v4l/by-id/usb-cam", mode), "side": ("http://10.0.0.7/stream", mode)}
    kit = KitChoice(
        model,
        tuple(arm(name, real=real, led=led) for name in names),
        cameras if real else {},
        'put "it" away',
    )
    person = Typist()
    assert write(kit, folder / "config.toml", person) == 0, person.said
    settings = load(["--config", "config.toml"], {})
    assert settings.mode == ("rollout" if real and not led else "teleop")
    assert settings.control.rate_hz == (100.0 if real and led else 30.0)
    assert settings.recording.task == 'put "it" away'
    assert all(table.address.startswith("world:") is not real for table in settings.arm_tables().values())
    if real and not led:
        assert settings.all_leader_tables() == {}
    if real:
        assert settings.cameras["head"].address == "/dev/v4l/by-id/usb-cam"


def test_a_laptop_alone_gets_a_simulated_arm(folder: Path) -> None:
    person = Typist("", "", "")
    assert main(["--from", "by-id"], person, SteppedClock(), list) == 0
    assert "No port has servos that answer: the arm is simulated." in person.said
    settings = load(["--config", "config.toml"], {})
    assert (settings.mode, settings.simulated, settings.real_addresses()) == ("teleop", True, {})
    assert settings.teleop.scripted
    assert main(["--simulated", "--to", "other/config.toml"], Typist()) == 0


def test_a_file_that_is_there_is_kept_unless_its_owner_says_so(folder: Path) -> None:
    (folder / "config.toml").write_text("mine")
    for answer in ("", "n"):
        assert main(["--simulated"], Typist(answer)) == 1
    assert main(["--simulated"], Typist()) == 1
    assert (folder / "config.toml").read_text() == "mine"
    assert main(["--simulated"], Typist("y")) == 0
    assert "mode" in (folder / "config.toml").read_text()
    assert not list(folder.glob(".*"))


@pytest.fixture
def buses(folder: Path) -> Iterator[dict[str, SimpleServoBank]]:
    banks = {name: SimpleServoBank(SteppedClock(), dict.fromkeys(range(1, 7), 2047)) for name in ("a", "b")}
    emulators = [FeetechEmulator(bank, folder / "by-id" / name) for name, bank in banks.items()]
    yield banks
    for emulator in emulators:
        emulator.close()


def test_arms_are_found_by_moving_them_and_cameras_are_named(
    folder: Path,
    buses: dict[str, SimpleServoBank],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def looked_at(camera: FoundCamera, picture: Path, clock: object) -> FoundCamera:
        return replace(camera, fps=14.8, picture=str(picture))

    monkeypatch.setattr("dexrun.setup.init.looked_at", looked_at)
    modes = (CameraMode("MJPG", 640, 480, 30), CameraMode("MJPG", 640, 480, 15))
    cameras = [FoundCamera("/dev/v4l/by-id/usb-cam", modes=modes, mode=modes[0])]
    person = Typist("2", "1", "m", "follower.json", "1", "leader.json", "Head", "head", "stack the cubes")
    person.before_enter = [lambda: buses["b"].override(2, position=2200)]
    assert main(["--from", "by-id"], person, SteppedClock(), lambda: cameras) == 0, person.said
    settings = load(["--config", "config.toml"], {})
    assert settings.arm is not None
    assert settings.leader is not None
    assert (settings.arm.model, settings.arm.address) == ("so100", "by-id/b")
    assert settings.leader.address == "by-id/a"
    assert (settings.cameras["head"].fps, settings.mode) == (15, "teleop")
    assert "'Head': small letters, digits and _, and not the name of another one" in person.said


def test_an_arm_that_is_not_calibrated_stays_simulated(
    folder: Path, buses: dict[str, SimpleServoBank]
) -> None:
    person = Typist("2", "1", "1", "", "n", "0", "")
    assert main(["--from", "by-id"], person, SteppedClock(), list) == 0
    assert "the follower is simulated until it is calibrated" in person.said
    assert load(["--config", "config.toml"], {}).real_addresses() == {}


def test_who_leaves_finds_nothing_written(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--from", "by-id"], Typist("1"), SteppedClock(), list) == 1
    assert capsys.readouterr().err == "dexrun: the input ended; config.toml is not written\n"
    assert main(["--from", "none"], Typist("1"), SteppedClock(), list) == 2
    assert not (folder / "config.toml").exists()


@pytest.mark.parametrize("more", [["--from", "by-id"], ["--pictures", "seen"]])
def test_what_has_no_effect_on_a_simulated_kit_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], more: list[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        main(["--simulated", *more], Typist())
    assert left.value.code == 2
    assert "--simulated: no port and no camera is looked at" in capsys.readouterr().err
    assert not (folder / "config.toml").exists()
