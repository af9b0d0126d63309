"""What a page starts: real children, their output, their end, and what cannot be asked for."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dexrun.panel.server.job import PanelJob
from dexrun.panel.server.job_kinds import KINDS, JobKind
from dexrun.panel.server.options import PanelServerOptions
from dexrun.panel.server.places import BadArgumentError, Places
from dexrun.panel.server.tail import LINES, OutputTail
from runtime.clock import RealClock
from tests.panel.server_rig import Panel, hear, published, serve

_TRAINING_KEYS = ("--batch", "--log_every", "--save_every", "--device")
"""Of a training's configuration, which its help does not list."""


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Places:
    monkeypatch.chdir(tmp_path)
    for name in ("runs/one/episodes", "data/pick", "outputs/pick/last", "secret"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "config.toml").touch()
    (tmp_path / "other.toml").touch()
    return Places(PanelServerOptions())


async def started(panel: Panel, kind: str, **args: Any) -> dict[str, Any]:
    answer = await panel.post("/api/jobs", {"kind": kind, "args": args})
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


async def told(panel: Panel, number: int, what: str, lines: int = 1) -> dict[str, Any]:
    """The job, once so many lines of its output hold `what`."""
    while True:
        job = dict((await panel.http.get(f"/api/jobs/{number}")).json())
        if sum(what in line for line in job["output"]) >= lines:
            return job
        assert job["state"] == "running", job["output"]
        await asyncio.sleep(0.02)


async def asked(panel: Panel, number: int) -> dict[str, Any]:
    """What the job asks, once it does."""
    while True:
        job = (await panel.http.get(f"/api/jobs/{number}")).json()
        if job["asked"] is not None:
            return dict(job["asked"])
        await asyncio.sleep(0.02)


async def enter(panel: Panel, number: int, line: str = "") -> None:
    """Answer what the job asks, once it does."""
    question = (await asked(panel, number))["question"]
    answer = await panel.post(f"/api/jobs/{number}/input", {"line": line, "question": question})
    assert answer.status_code == 200, answer.text


async def ended(panel: Panel, number: int) -> dict[str, Any]:
    while True:
        job = dict((await panel.http.get(f"/api/jobs/{number}")).json())
        if job["state"] != "running":
            return job
        await asyncio.sleep(0.02)


def test_a_wizard_asks_and_a_person_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    async def script(panel: Panel) -> None:
        async with panel.page() as page:
            job = await started(panel, "init", to="mine.toml")
            jobs: list[Any] = []
            while not jobs:  # the first message says that there are none
                jobs = (await hear(page, "jobs"))["jobs"]
            assert (jobs[0]["kind"], jobs[0]["state"]) == ("init", "running")
            await told(panel, job["id"], "Which arm")
            assert await asked(panel, job["id"]) == {
                "line": "Which arm: 1 SO-101, 2 SO-100? [1]",
                "choices": [["1", "SO-101"], ["2", "SO-100"]],
                "question": 1,
            }
            refused = await panel.post("/api/jobs", {"kind": "doctor"})
            assert refused.status_code == 409
            assert "init" in refused.json()["error"]
            for line in ("9", "2", "1"):
                await enter(panel, job["id"], line)
            await told(panel, job["id"], "What is done in the episodes")
            await enter(panel, job["id"], "put the cube in the tray")
            done = await ended(panel, job["id"])
            assert done["code"] == 0, done["output"]
            assert "'9' is none of 1, 2" in "\n".join(done["output"])
            late = await panel.post(f"/api/jobs/{job['id']}/input", {"line": "x", "question": 3})
            assert late.status_code == 409
        assert 'task = "put the cube in the tray"' in (tmp_path / "mine.toml").read_text()

    serve(tmp_path, script, config=tmp_path / "config.toml")


def test_a_job_is_interrupted_and_ends_with_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data/ports").mkdir(parents=True)
    seen: list[int] = []

    async def script(panel: Panel) -> None:
        job = await started(panel, "find-ports", **{"from": "data/ports"})
        await told(panel, job["id"], "Enter ends this")
        await panel.post(f"/api/jobs/{job['id']}/stop", {})
        done = await ended(panel, job["id"])
        assert (done["state"], done["code"]) == ("stopped", 1)
        job = await started(panel, "find-ports", **{"from": "data/ports"})
        await told(panel, job["id"], "Enter ends this")
        (child,) = children()
        os.kill(child, signal.SIGKILL)
        done = await ended(panel, job["id"])
        assert (done["state"], done["code"]) == ("failed", -signal.SIGKILL)
        job = await started(panel, "find-ports", **{"from": "data/ports"})
        await told(panel, job["id"], "Enter ends this")
        seen.extend(children())

    serve(tmp_path, script)
    assert len(seen) == 1
    with pytest.raises(ProcessLookupError):
        os.kill(seen[0], 0)


def children() -> list[int]:
    """The jobs among this process's children."""
    found = []
    for listing in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += [int(pid) for pid in listing.read_text().split()]
    return [pid for pid in found if b"find-ports" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def test_a_job_whose_server_is_killed_is_interrupted() -> None:
    script = (
        "import os, subprocess, sys\n"
        "words = ['dexrun.panel.child', str(os.getpid()), 'dexrun', 'init']\n"
        "p = subprocess.Popen([sys.executable, '-m', *words],"
        " stdin=0, start_new_session=True)\n"
        "p.wait()\n"
    )
    server = subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert server.stdout is not None
    assert server.stdin is not None
    said = b""
    while b"Which arm" not in said:
        said += os.read(server.stdout.fileno(), 4096)
    server.kill()
    server.wait()
    rest = server.stdout.read()  # until the job has ended, too
    assert b"interrupted" in rest
    server.stdin.close()
    server.stdout.close()


async def alone(job: PanelJob, words: list[str]) -> None:
    async with asyncio.timeout(30):
        await job.run(words, lambda: None)


@pytest.mark.parametrize("kind", ["doctor", "init"])  # over a pipe, and over a terminal
def test_what_a_job_leaves_behind_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\nsleep 20 >&1 &\necho $! > pid\necho last words\nexit 3\n")
    script.chmod(0o700)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "executable", str(script))
    job = PanelJob(1, KINDS[kind], {}, None, RealClock())
    RealClock().run(alone, job, [])
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
    assert (job.code, job.tail.lines()) == (3, ["last words"])
    monkeypatch.setattr(sys, "executable", str(tmp_path / "none"))
    job = PanelJob(2, KINDS[kind], {}, None, RealClock())
    RealClock().run(alone, job, [])
    assert job.code == 1
    assert "cannot be started: No such file" in job.tail.lines()[0]


class _SetClock(RealClock):
    """Whose wall time is set back by an hour each time that it is looked at, as by NTP."""

    def __init__(self) -> None:
        super().__init__()
        self.looks = 0

    def wall_ns(self) -> int:
        self.looks += 1
        return super().wall_ns() - self.looks * 3_600_000_000_000


def test_how_long_a_job_took_does_not_depend_on_the_time_of_day(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/true")
    job = PanelJob(1, KINDS["doctor"], {}, None, _SetClock())
    assert 0 <= job.as_json()["seconds"] < 600
    RealClock().run(alone, job, [])
    told = job.as_json()
    assert 0 <= told["seconds"] < 600
    assert told["ended_s"] == pytest.approx(told["began_s"] + told["seconds"])


def test_no_job_takes_the_arm_from_a_run(tmp_path: Path) -> None:
    with contextlib.closing(published(tmp_path)) as run:

        async def script(panel: Panel) -> None:
            async with panel.page() as page:
                run.say(1, {})
                await hear(page, "status")
                refused = await panel.post("/api/jobs", {"kind": "run", "args": {}})
                assert refused.status_code == 409
                assert "2026-11-27T10-00-00" in refused.json()["error"]
                assert (await panel.http.get("/api/jobs/99")).status_code == 404

        serve(tmp_path, script)


@pytest.mark.parametrize(
    ("kind", "given", "complaint"),
    [
        ("run", {"policy": "act; rm -rf /"}, "policy"),
        ("run", {"checkpoint": "/etc/passwd"}, "checkpoint"),
        ("run", {"checkpoint": "outputs/../secret"}, "checkpoint"),
        ("run", {"checkpoint": "outputs"}, "checkpoint"),
        ("run", {"config": "/etc/hosts"}, "config"),
        ("run", {"arm.port": "/dev/ttyUSB0"}, "arm.port"),
        ("run", {"mode": "fly"}, "mode"),
        ("run", {"task": "two\nlines"}, "task"),
        ("run", {"count": True}, "count"),
        ("eval", {"policy": "other.toml", "to": "new"}, "policy"),
        ("eval", {"policy": "still", "control": "geometric,/etc/passwd", "to": "new"}, "control"),
        ("eval", {"policy": "still", "control": "secret", "to": "new"}, "control"),
        ("eval", {"policy": "still", "compare": "secret", "to": "new"}, "compare"),
        ("drop", {"episodes": "1"}, "data"),
        ("drop", {"data": "data/pick", "episodes": "--to=/tmp/x"}, "episodes"),
        ("drop", {"data": "data/none"}, "data"),
        ("merge", {"data": "data/pick", "to": "all"}, "data"),
        ("merge", {"data": ["data/pick"], "to": "../all"}, "to"),
        ("merge", {"data": ["data/pick"], "to": "/srv/all"}, "to"),
        ("calibrate", {"port": "/etc/shadow", "name": "a"}, "port"),
        ("calibrate", {"port": "/dev/ttyACM0", "name": "../a"}, "name"),
        ("calibrate", {"port": "/dev/ttyACM0", "name": "a"}, "model"),
        ("joints", {"port": "/dev/ttyACM0", "model": "so101", "calibration": "/etc/shadow"}, "calibration"),
        ("train", {"data": "data/pick", "to": "new", "steps": float("nan")}, "steps"),
        ("init", {"to": "../x.toml"}, "to"),
    ],
)
def test_what_cannot_be_asked_for_is_named(
    places: Places, kind: str, given: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(BadArgumentError, match=complaint.replace(".", "\\.")):
        KINDS[kind].command(places, given)


def test_what_can_be_asked_for_is_one_word_each(places: Places, tmp_path: Path) -> None:
    words = KINDS["run"].command(
        places, {"mode": "rollout", "task": "--x y", "policy": "act", "config": "other.toml"}
    )
    assert words == [f"--config={tmp_path}/other.toml", "--mode=rollout", "--task=--x y", "--policy.type=act"]
    words = KINDS["eval"].command(
        places, {"policy": "outputs/pick/last", "control": "act, still", "to": "new"}
    )
    checkpoint = f"--policy={tmp_path}/outputs/pick/last"
    assert words == ["eval", checkpoint, "--control=act,still", f"--to={tmp_path}/outputs/new"]
    words = KINDS["drop"].command(places, {"data": "data/pick", "episodes": "3, 7-9"})
    assert words == ["data", "drop", f"{tmp_path}/data/pick", "--episodes=3,7-9"]
    words = KINDS["calibrate"].command(
        places, {"port": "/dev/serial/by-id/usb-1a86_X-if00", "model": "so101", "name": "left", "check": True}
    )
    port = "--port=/dev/serial/by-id/usb-1a86_X-if00"
    assert words == ["calibrate", port, "--name=left", "--model=so101", "--check"]


def test_a_tail_is_what_a_terminal_shows() -> None:
    tail = OutputTail()
    for piece in (
        b"one\r\ntwo\r\n\x1b[",
        b"2A\r\x1b[Kfirst\r\n\x1b[31mse",
        "cönd\x1b[0m\n".encode()[:3],
        b"\xb6nd\n",
    ):
        tail.feed(piece)
    assert tail.lines()[0] == "first"
    assert tail.lines()[1].startswith("sec")
    tail.feed(b"10 %\r99 %")
    assert tail.lines()[-1] == "99 %"
    tail.feed(b"\n" + b"".join(b"line %d\n" % n for n in range(3 * LINES)))
    assert tail.lines()[-1] == f"line {3 * LINES - 1}"
    assert len(tail.lines()) <= LINES
    tail.feed(b"\x1b]0;" + b"x" * 10_000)
    assert tail.lines()[-1] == f"line {3 * LINES - 1}"


def test_what_a_program_asks_is_known_and_not_shown() -> None:
    tail = OutputTail()
    asks = b'\x1b]1771;{"enter": "Plug it in"}\x07'
    for piece in (b"Plug it in\n" + asks[:9], asks[9:20], asks[20:]):
        tail.feed(piece)
    assert (tail.asked, tail.question, tail.lines()) == ({"enter": "Plug it in"}, 1, ["Plug it in"])
    tail.feed(b"\x1b]1771;{}\x07")
    assert (tail.asked, tail.question) == ({}, 1)
    for broken in (b"no JSON", b"[1]", b"{" * 100):
        tail.feed(b"\x1b]1771;" + broken + b"\x07")
        assert tail.asked == {}


@pytest.mark.parametrize("kind", KINDS.values(), ids=list(KINDS))
def test_every_kind_is_a_command_line_that_its_command_takes(
    kind: JobKind, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every option, as the command itself says in its help."""
    from dexrun.__main__ import HELP, main

    said = HELP
    if kind.words:
        with contextlib.suppress(SystemExit):
            main([*kind.words, "--help"])
        said = capsys.readouterr().out
    options = [each.option for each in kind.arguments if each.option]
    keys = [option for option in options if "." in option or option in _TRAINING_KEYS]
    assert [option for option in options if option not in said and option not in keys] == []
