"""What a page asks of a leader without an arm: passed on while a person drives, and only what is numbers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dexrun.episodes.episodes import EpisodeError
from dexrun.panel.commands import CommandReader
from dexrun.panel.jogging import PanelJog
from dexrun.panel.shared import PanelCommand
from dexrun.stopping import StopPhase
from runtime.ring import Mailbox
from tests.jog.rig import HandClock
from tests.rollout.test_hand_over import WHERE, Motorised

TWIST: dict[str, Any] = {"twist": [0.1, 0, 0, 0, 0, 0.5], "grip": -1}
HAND: dict[str, Any] = {"position": [1, 2, 3], "quaternion": [0, 0, 0, 1], "clutch": True}


class Jogged(Motorised):
    def __init__(self) -> None:
        super().__init__(WHERE)
        self.jog = Mailbox({"twist": ((6,), "<f8"), "grip": ((), "<f8")})
        pose = {"position": ((3,), "<f8"), "quaternion": ((4,), "<f8")}
        self.hand = Mailbox({**pose, "grip": ((), "<f8"), "clutch": ((), "<f8")})


def robot_of(*names: str, mode: str = "teleop") -> Any:
    leaders = {name: Jogged() for name in names}
    settings = SimpleNamespace(mode=mode)
    clock, control = HandClock(), SimpleNamespace(limit_speed=lambda share: None)
    return SimpleNamespace(
        leaders=leaders,
        settings=settings,
        clock=clock,
        control=control,
        leader=None,
        stopping=SimpleNamespace(
            phase=StopPhase.READY, number=0, stamp_ns=-1, hinders=lambda name: "", unresettable=lambda: ""
        ),
    )


def test_a_velocity_and_a_hand_are_passed_on_with_their_stamp() -> None:
    robot = robot_of("leaders.left", "leaders.right")
    left, right = robot.leaders.values()
    panel = PanelJog(robot)
    panel.ask("jog", TWIST, 7, "")
    jog = left.jog.take()
    assert (jog.stamp_ns, jog["twist"].tolist(), float(jog["grip"])) == (7, TWIST["twist"], -1.0)
    panel.ask("hand", {**HAND, "arm": "right"}, 8, "")
    hand = right.hand.take()
    assert (hand.stamp_ns, hand["position"].tolist(), float(hand["clutch"])) == (8, [1, 2, 3], 1.0)
    assert np.isnan(hand["grip"])


@pytest.mark.parametrize(
    ("name", "args", "said"),
    [
        ("jog", {"twist": [0] * 5}, "twist: 6 numbers"),
        ("jog", {"twist": [0, 0, 0, 0, 0, None]}, "twist: 6 numbers"),
        ("jog", {"twist": [0, 0, 0, 0, 0, True]}, "twist: 6 numbers"),
        ("jog", {"twist": [0, 0, 0, 0, 0, float("nan")]}, "twist: 6 numbers"),
        ("jog", {**TWIST, "grip": "1"}, "grip: a number"),
        ("jog", {**TWIST, "arm": "third"}, "arm is one of left"),
        ("jog", {**TWIST, "arm": ["left"]}, "arm is one of left"),
        ("hand", {**HAND, "quaternion": [0, 0, 0, 0]}, "of length 1"),
        ("hand", {**HAND, "position": [1, 2]}, "position: 3 numbers"),
    ],
)
def test_what_is_no_pose_is_refused(name: str, args: dict[str, Any], said: str) -> None:
    robot = robot_of("leaders.left")
    with pytest.raises(EpisodeError, match=said):
        PanelJog(robot).ask(name, args, 0, "")
    leader = robot.leaders["leaders.left"]
    assert leader.jog.take() is leader.hand.take() is None


def test_it_counts_while_a_person_drives_alone() -> None:
    panel = PanelJog(robot_of("leader", mode="rollout"))
    assert [panel.possible(driving) for driving in ("policy", "person")] == [False, True]
    with pytest.raises(EpisodeError, match="take over first"):
        panel.ask("jog", TWIST, 0, "policy")
    other = robot_of()
    other.leaders["leader"] = Motorised(WHERE)
    with pytest.raises(EpisodeError, match="is an arm"):
        PanelJog(other).ask("jog", TWIST, 0, "")


def test_a_number_beyond_any_other_is_refused_and_the_run_goes_on() -> None:
    answers: list[Any] = []
    waiting = [PanelCommand(1, "speed", {"value": 10**400}, "phone", 0)]
    run: Any = SimpleNamespace(
        next_command=lambda: waiting.pop(0) if waiting else None,
        lost=0,
        heartbeat=lambda: (0, 0),
        answer=lambda stamp, number, error: answers.append((number, error)),
    )
    options: Any = SimpleNamespace(heartbeat_s=2.0)
    robot = robot_of("leader")
    CommandReader(robot, run, options, lambda why: None).look()
    assert answers == [(1, "int too large to convert to float")]


def test_a_reader_of_commands_passes_it_on_and_does_not_say_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HandClock, "stepped", False)  # a server's stamp is of the same clock
    robot, told, answers = robot_of("leader"), list[str](), list[Any]()
    for level in ("info", "warning"):
        monkeypatch.setattr(
            f"dexrun.panel.commands.logger.{level}", lambda text, *values: told.append(text.format(*values))
        )
    waiting = [PanelCommand(n, "jog", TWIST, "phone", robot.clock.now_ns() - 5) for n in (1, 2)]
    waiting += [PanelCommand(n, "jog", {"twist": []}, "phone", robot.clock.now_ns()) for n in (3, 4)]
    run: Any = SimpleNamespace(
        next_command=lambda: waiting.pop(0) if waiting else None,
        lost=0,
        heartbeat=lambda: (0, 0),
        answer=lambda stamp, number, error: answers.append((number, error)),
    )
    options: Any = SimpleNamespace(heartbeat_s=2.0)
    CommandReader(robot, run, options, told.append).look()
    assert [number for number, error in answers if not error] == [1, 2]
    assert len(told) == 1
    assert robot.leaders["leader"].jog.take().stamp_ns == robot.clock.now_ns() - 5
