"""What a run shares, across processes that come, go, hang and are killed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from dexrun.panel.link import LINK, AttachedRun, NoRunError, PublishedRun, live_runs
from dexrun.panel.shared import SharedCamera, SharedFacts, put_text
from runtime.ring import Layout, Ring
from runtime.shared_memory import lives

HEAD = SharedCamera(
    6, 4, depth=True, depth_scale_m=0.001, intrinsics={"fx": 5.0, "fy": 5.0, "cx": 3, "cy": 2}
)
FACTS = SharedFacts(
    "teleop", 30.0, ("pan", "jaw"), ("rad", "0..1"), ((-1.0, 1.0), (0.0, 1.0)), (1,), 2, False, {"head": HEAD}
)
_WAIT = "print(1, flush=True); sys.stdin.read()"


@pytest.fixture
def run(tmp_path: Path) -> Iterator[PublishedRun]:
    published = PublishedRun(tmp_path, FACTS)
    yield published
    published.close()


def attached_to(folder: Path) -> contextlib.closing[AttachedRun]:
    return contextlib.closing(AttachedRun.attach(folder))


def child(folder: Path, code: str) -> subprocess.Popen[str]:
    head = "import sys, os, signal\nfrom pathlib import Path\nfrom dexrun.panel.link import *\n"
    command = [sys.executable, "-c", f"{head}folder = Path(sys.argv[1])\n{code}", str(folder)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def picture(run: PublishedRun, stamp_ns: int, value: int) -> None:
    color, depth = np.full((4, 6, 3), value, np.uint8), np.full((4, 6), value, np.uint16)
    run.cameras["head"].push(stamp_ns, color=color, depth=depth, mask=color[..., 0], masked=value % 2)


def test_everything_arrives_in_another_process(run: PublishedRun, tmp_path: Path) -> None:
    run.say(7, {"state": "running", "prompt": "杯子"})
    for tick in range(3):
        run.ticks.push(tick, tick=tick, position=[0.1 * tick, 1.0], force=[1.0, 2.0])
    picture(run, 55, 9)
    code = """
run = AttachedRun.attach(folder)
ticks, picture = run.ticks_since(0), run.newest_picture("head")
print(run.link["cameras"]["head"]["depth_scale_m"], run.status()["prompt"].encode().hex())
print([int(t["tick"]) for t in ticks], ticks[2]["position"][0], picture.stamp_ns, picture["depth"].max())
print(run.newest_picture("head", picture.index), end=" ")
print(run.send("stop", {}, "laptop"), run.send("tell", {"text": "\\u676f"}))
run.beat(2, 123)
"""
    said, _ = child(tmp_path, code).communicate(timeout=30)
    assert said.splitlines() == [
        f"0.001 {'杯子'.encode().hex()}",
        "[0, 1, 2] 0.2 55 9",
        "None 1 2",
    ]
    stop, tell = run.next_command(), run.next_command()
    assert stop is not None
    assert tell is not None
    assert (stop.id, stop.name, stop.client, stop.args) == (1, "stop", "laptop", {})
    assert (tell.id, tell.args) == (2, {"text": "杯"})
    assert run.next_command() is None
    assert run.heartbeat() == (2, 123)


def test_answers_go_to_whoever_asks_from_where_it_was(run: PublishedRun, tmp_path: Path) -> None:
    attached = AttachedRun.attach(tmp_path)
    place, before = attached.answers_since(-1)
    run.answer(1, 41)
    run.answer(2, 42, "no episode is on")
    after, answers = attached.answers_since(place)
    assert (before, answers) == (
        [],
        [{"id": 41, "ok": True, "error": ""}, {"id": 42, "ok": False, "error": "no episode is on"}],
    )
    assert attached.answers_since(after) == (after, [])
    attached.close()


def test_ticks_that_were_overwritten_are_left_out_and_the_rest_is_in_order(
    run: PublishedRun, tmp_path: Path
) -> None:
    attached = AttachedRun.attach(tmp_path)
    assert attached.ticks_since(-1) == []
    for tick in range(run.ticks.capacity + 10):
        run.ticks.push(tick, tick=tick)
    found = [int(sample["tick"]) for sample in attached.ticks_since(0)]
    assert found == list(range(11, run.ticks.capacity + 10))
    assert [sample.index for sample in attached.ticks_since(-1)] == [run.ticks.capacity + 9]
    attached.close()


def test_numbers_of_commands_go_on_after_a_restart(run: PublishedRun, tmp_path: Path) -> None:
    with attached_to(tmp_path) as first:
        assert [first.send("hold"), first.send("resume")] == [1, 2]
    with attached_to(tmp_path) as second:
        assert second.send("home") == 3


def test_one_that_hangs_in_its_turn_keeps_nobody_from_stopping_the_arm(
    run: PublishedRun, tmp_path: Path
) -> None:
    hung = child(
        tmp_path,
        f"run = AttachedRun.attach(folder)\nwith run._turn():\n {_WAIT}",
    )
    assert hung.stdout is not None
    hung.stdout.readline()
    os.kill(hung.pid, signal.SIGSTOP)
    try:
        with attached_to(tmp_path) as other:
            other.send("stop")
        command = run.next_command()
        assert command is not None
        assert command.name == "stop"
    finally:
        hung.kill()
        hung.communicate()


def test_the_link_is_whole_private_and_gone_with_the_run(tmp_path: Path) -> None:
    run = PublishedRun(tmp_path, FACTS)
    attached = AttachedRun.attach(tmp_path)
    path = tmp_path / LINK
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert json.loads(path.read_text()) == attached.link
    assert attached.link["run"] == tmp_path.name
    assert attached.link["grippers"] == [1]
    run.close()
    assert list(tmp_path.iterdir()) == []
    for ask in (attached.status, attached.check, lambda: attached.send("stop"), lambda: attached.beat(1, 1)):
        with pytest.raises(NoRunError, match="has ended"):
            ask()
    with pytest.raises(NoRunError, match="shares nothing"):
        AttachedRun.attach(tmp_path)
    attached.close()


def test_a_killed_run_leaves_a_link_that_is_known_to_be_dead(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
    code = "from tests.panel.test_link import FACTS\nrun = PublishedRun(folder, FACTS)\n" + _WAIT
    killed, alive = child(tmp_path / "a", code), child(tmp_path / "b", code)
    for process in (killed, alive):
        assert process.stdout is not None
        process.stdout.readline()
    attached = AttachedRun.attach(tmp_path / "a")
    assert sorted(path.name for path in live_runs(tmp_path)) == ["a", "b"]
    killed.kill()
    killed.communicate()
    assert (tmp_path / "a" / LINK).exists()
    with pytest.raises(NoRunError, match="has ended"):
        attached.status()
    attached.close()
    with pytest.raises(NoRunError, match="a has gone without a word"):
        AttachedRun.attach(tmp_path / "a")
    (tmp_path / "c" / LINK).write_text("{")
    assert [path.name for path in live_runs(tmp_path)] == ["b"]
    alive.communicate()


def test_what_is_no_command_is_said_and_skipped(run: PublishedRun, tmp_path: Path) -> None:
    attached = AttachedRun.attach(tmp_path)
    with pytest.raises(ValueError, match="at most 8192 are shared"):
        attached.send("tell", {"text": "x" * 9000})
    run._rings["commands"].push(1, text=ord(" "), length=5)
    put_text(run._rings["commands"], 1, {"id": "1"})
    put_text(run._rings["commands"], 1, {"id": 10**400, "name": "hold"})
    deep = b"[" * 8000
    run._rings["commands"].push(1, text=np.frombuffer(deep.ljust(8192), np.uint8), length=len(deep))
    for why in ("line 1", "it has id, name", "it has id, name", "nested too deeply"):
        with pytest.raises(ValueError, match=why):
            run.next_command()
    assert run.next_command() is None
    attached.close()


@pytest.mark.parametrize("letter", ["x", "\U0001f916", "\x01", "\ud800"])
def test_however_long_an_error_is_there_is_an_answer(run: PublishedRun, tmp_path: Path, letter: str) -> None:
    attached = AttachedRun.attach(tmp_path)
    run.answer(1, 2**63 - 1, letter * 5000)
    _, (answer,) = attached.answers_since(0)
    assert (answer["id"], answer["ok"], len(answer["error"])) == (2**63 - 1, False, 300)
    attached.close()


def test_without_room_in_shared_memory_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Ring] = []
    create = Ring.create_shared

    def kept(layout: Layout, slots: int) -> Ring:
        made.append(create(layout, slots))
        return made[-1]

    monkeypatch.setattr(Ring, "create_shared", kept)
    huge = {"head": SharedCamera(10**7, 10**7)}
    with pytest.raises(OSError, match=r"No space|too large"):
        PublishedRun(tmp_path, SharedFacts("teleop", 30, ("a",), ("rad",), ((0, 1),), cameras=huge))
    assert len(made) > 2  # before the one that there is no room for
    assert not any(lives(ring.name) for ring in made)
    assert not (tmp_path / LINK).exists()
