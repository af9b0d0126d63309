"""``dexrun service``: the unit as systemd itself reads it, and who may write it."""

from __future__ import annotations

import getpass
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from dexrun.lab.service import ServicePlan, main, unit_text
from tests.dexrun.rig import ROOT


class Systemd:
    """Notes what it is told; some of it fails."""

    def __init__(self, failing: str = "") -> None:
        self.told: list[tuple[str, ...]] = []
        self.failing = failing

    def __call__(self, words: Sequence[str]) -> str:
        self.told.append(tuple(words))
        return "Access denied" if words[0] == self.failing else ""


def plan(what: str = "panel", folder: str = "/srv/a robot/50%", user: str = "daemon") -> ServicePlan:
    place = Path(folder)
    return ServicePlan(
        what, "left", place / "config.toml", place, user, (), what == "run", sys.executable, (place / "runs",)
    )


def fields(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line and line[0] != "#")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
@pytest.mark.parametrize("user", ["daemon", ""])
@pytest.mark.parametrize("what", ["panel", "run", "serve"])
def test_systemd_reads_the_unit_without_a_complaint(tmp_path: Path, what: str, user: str) -> None:
    made = plan(what, str(tmp_path / "a robot 50%"), user)
    made.folder.mkdir()
    path = tmp_path / made.unit
    path.write_text(unit_text(made))
    own = [] if user else ["--user"]
    verified = subprocess.run(
        ["systemd-analyze", *own, "--man=no", "verify", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    about_it = [line for line in verified.stderr.splitlines() if made.unit in line]
    assert about_it == []


def test_what_moves_an_arm_is_never_begun_again_by_itself() -> None:
    moves, others = fields(unit_text(plan("run"))), [fields(unit_text(plan(w))) for w in ("panel", "serve")]
    assert moves["Restart"] == "no"
    assert [each["Restart"] for each in others] == ["on-failure"] * 2
    assert all(each["RestartPreventExitStatus"] == "2" for each in others)
    assert all(each["KillSignal"] == "SIGINT" for each in (moves, *others))


def test_it_has_no_rights_beyond_those_it_needs() -> None:
    unit = fields(unit_text(plan("run")))
    assert unit["User"] == "daemon"
    assert unit["CapabilityBoundingSet"] == ""
    assert (unit["ProtectSystem"], unit["ProtectHome"]) == ("strict", "yes")
    assert unit["ReadWritePaths"] == '-"/srv/a robot/50%%/runs"'
    assert unit["ExecStart"] == f'{sys.executable} -m dexrun --config "/srv/a robot/50%%/config.toml"'
    assert unit["WorkingDirectory"] == "/srv/a robot/50%%"
    assert unit["LimitRTPRIO"] == "50"  # asked for by realtime.scheduler
    assert "LimitRTPRIO" not in fields(unit_text(plan("panel")))
    assert fields(unit_text(plan(folder="/home/me/robot")))["ProtectHome"] == "read-only"


def test_install_and_remove(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    systemd, units = Systemd(), tmp_path / "units"
    words = ["--config", str(ROOT / "config.toml"), "--user", getpass.getuser(), "--to", str(units)]
    assert main(["install", "run", "--name", "left", *words], systemd) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"written to {units}/dexrun-left.service\n")
    assert "MOVES THE ARM" in said
    assert systemd.told == [("daemon-reload",), ("enable", "dexrun-left.service")]  # not started
    assert main(["show", "run", "--name", "left", *words]) == 0
    assert (units / "dexrun-left.service").read_text() == capsys.readouterr().out
    assert main(["remove", "--name", "left", *words], systemd) == 0
    assert list(units.iterdir()) == []
    assert systemd.told[2:] == [("disable", "--now", "dexrun-left.service"), ("daemon-reload",)]


def test_what_cannot_be_a_service_is_said_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    config = ["--config", str(ROOT / "config.toml"), "--to", str(tmp_path / "units")]
    for words, code, told in (
        (["install", "--name", "Left Arm"], 2, "--name 'Left Arm': a name is of a-z, 0-9 and -"),
        (["install", "--user", "no-such-user"], 2, "this machine knows no such user"),
        (["install", "--config", "nowhere.toml"], 2, "nowhere.toml"),
        (["remove", "--own"], 2, "there is no"),
    ):
        assert main([*config, *words], Systemd()) == code
        error = capsys.readouterr().err
        assert told in error
        assert error.count("\n") == 1
    assert not (tmp_path / "units").exists()
    assert main([*config, "install", "--own"], Systemd("enable")) == 1
    assert "systemctl enable dexrun-panel.service: Access denied" in capsys.readouterr().err


def test_root_is_asked_whose_service_it_shall_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("getpass.getuser", lambda: "root")
    monkeypatch.delenv("SUDO_USER", raising=False)
    config = ["--config", str(ROOT / "config.toml"), "--to", str(tmp_path)]
    assert main(["install", *config], Systemd()) == 2
    assert "--user NAME" in capsys.readouterr().err
    monkeypatch.setenv("SUDO_USER", "nobody")
    assert main(["show", *config], Systemd()) == 0
    assert fields(capsys.readouterr().out)["User"] == "nobody"


def test_the_panel_gives_its_runs_what_the_configuration_asks_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    config = tmp_path / "config.toml"
    plain = (ROOT / "config.toml").read_text()
    config.write_text(plain.replace("[realtime]\n", '[realtime]\nscheduler = "fifo"\n'))
    asked = ["--config", str(config), "--user", "daemon"]
    limits = {}
    for what in ("panel", "run", "serve"):
        assert main(["show", what, *asked]) == 0
        unit = fields(capsys.readouterr().out)
        limits[what] = (unit.get("LimitRTPRIO"), unit["ReadWritePaths"].split())
    beside = [f"-{tmp_path}/{name}" for name in ("runs", "data", "outputs")]
    assert limits == {
        "panel": ("50", [beside[0], f"-{tmp_path}"]),
        "run": ("50", beside),
        "serve": (None, beside),
    }
