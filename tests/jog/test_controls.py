"""How a leader without an arm is driven in the modes: its keys, its hand-over, its configuration."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dexrun.__main__ import main
from dexrun.config.load import load
from dexrun.episodes import keys
from dexrun.episodes.keys import JOG_KEYS, KeyParser, press
from dexrun.exit_codes import BAD_CONFIGURATION
from dexrun.modes.hand_over import DrivingPhase
from dexrun.modes.jogging import JogKeys
from dexrun.setup.machine import HostMachine
from dexrun.setup.preflight import preflight
from runtime.ring import Mailbox
from runtime.stepped import SteppedClock
from tests.rollout.test_hand_over import WHERE, D, Motorised, stage


class Jogged(Motorised):
    def __init__(self) -> None:
        super().__init__(WHERE)
        self.jog = Mailbox({"twist": ((6,), "<f8"), "grip": ((), "<f8")})
        self.hand = self.jog


def keys_of(*names: str, heard: bool = True) -> tuple[JogKeys, list[Jogged]]:
    leaders = {name: Jogged() for name in names}
    robot: Any = SimpleNamespace(clock=SteppedClock(), leaders=leaders)
    return JogKeys(robot, lambda: heard), list(leaders.values())


def typed(jog: JogKeys, text: str) -> None:
    for command in KeyParser().feed(text.encode()):
        press(None, command, jog.commands())


def test_every_key_is_free_in_every_mode_and_does_something() -> None:
    jog, _ = keys_of("leader")
    commands = [KeyParser().feed(key.encode()) for key in JOG_KEYS]
    assert [each for command in commands for each in command] == [f"jog.{what}" for what in JOG_KEYS.values()]
    assert {f"jog.{what}" for what in JOG_KEYS.values()} == set(jog.commands())
    assert all(f" {key}" in f" {jog.help}" for key in JOG_KEYS if key != "a")
    assert not JogKeys(SimpleNamespace(clock=None, leaders={"leader": Motorised(WHERE)})).commands()  # type: ignore[arg-type]


def test_keys_say_which_way_and_how_fast_and_for_which_arm() -> None:
    jog, (left, right) = keys_of("leaders.left", "leaders.right")
    typed(jog, "k")
    slow = left.jog.take()
    assert slow is not None
    assert slow["twist"].tolist() == [pytest.approx(0.08), 0, 0, 0, 0, 0]
    typed(jog, "+n")
    fast = left.jog.take()
    assert fast is not None
    assert fast["twist"].tolist() == [0, 0, pytest.approx(-0.16), 0, 0, 0]
    typed(jog, "ac")
    closes = right.jog.take()
    assert closes is not None
    assert (closes["grip"], left.jog.take()) == (pytest.approx(-0.8), None)


def test_keys_count_only_while_the_person_drives() -> None:
    jog, (leader,) = keys_of("leader", heard=False)
    typed(jog, "k")
    assert leader.jog.take() is None


def test_nobody_has_to_take_it_in_hand() -> None:
    person = Jogged()
    person.move(np.zeros(D))
    hand, _, phases = stage(person, bring_leader=False)
    hand.policy()
    hand.take()
    assert hand.phase is DrivingPhase.BRINGING
    while hand.phase is not DrivingPhase.PERSON:
        hand.tick()
        person.obey()
    assert (phases[-2:], person.held) == ([DrivingPhase.OFFERED, DrivingPhase.PERSON], False)
    sample = person.states.newest()
    assert sample is not None
    np.testing.assert_allclose(sample["position"], WHERE, atol=0.1)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--teleop.gain", "2"), "teleop.gain = 2: it scales nothing of leader"),
        (("--leader.pad.up", "4"), "leader: gamepad is not given"),
        (("--leader.pad.up", "y"), "leader.pad.up = 'y'"),
        (("--leader.valid_s", "5"), "leader.valid_s = '5'"),
    ],
)
def test_what_makes_no_sense_is_said(
    given: tuple[str, str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "jog.toml"
    file.write_text('mode = "teleop"\n[arm]\nport = "world:follower"\n[leader]\ndriver = "jog"\n')
    assert main(["--config", str(file), "--check"]) == 0
    assert "leader without an arm (jog)" in capsys.readouterr().out
    assert main(["--config", str(file), "--check", *given]) == BAD_CONFIGURATION
    assert said in capsys.readouterr().err


def test_the_help_of_episodes_is_not_all_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setitem(keys._ACTIONS, "help", lambda episodes: said.append("episodes"))
    press(object(), "help", {"more": lambda: said.append("jog")})  # type: ignore[arg-type]
    assert said == ["episodes", "jog"]


def test_doctor_looks_for_the_gamepad(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "jog.toml"
    text = 'mode = "teleop"\n[arm]\nport = "world:follower"\n[leader]\ndriver = "jog"\n'
    file.write_text(f'{text}gamepad = "/dev/input/js3"\n')
    settings, machine = load(["--config", str(file)], {}), HostMachine(tmp_path)

    def said() -> str:
        return next(each for each in preflight(settings, machine, 0) if each.what == "leader.gamepad").line()

    assert said().startswith("FAIL")
    assert "/dev/input/js3 is not there" in said()
    (tmp_path / "dev" / "input").mkdir(parents=True)
    (tmp_path / "dev" / "input" / "js3").touch()
    assert said().startswith("PASS")
    monkeypatch.setattr(machine, "readable", lambda path: False)
    assert "may not read it; sudo usermod -aG" in said()
