"""Plays runs of the campaign in this process, one after the other: plans in on stdin, results out on a pipe.

Runs in one process show what a run leaves behind in it: threads, descriptors, memory. Nothing is judged here.
"""

from __future__ import annotations

import contextlib
import faulthandler
import fcntl
import gc
import json
import os
import resource
import shutil
import signal
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import anyio

from bench.campaign_plan import Plan
from bench.campaign_policies import DyingServer, Unruly, Wanderer
from dexrun import policies
from dexrun.app import run
from dexrun.config.load import ConfigError, load
from dexrun.config.settings import Settings
from dexrun.episodes.recording import RunRecording
from dexrun.modes.mode import Mode
from dexrun.modes.opening import open_mode
from dexrun.robot import Robot
from dexrun.run_folder import RunFolder
from dexrun.run_record import RunRecord
from drivers.world.client import WorldError
from drivers.world.faults import Fault
from runtime.clock import NS_PER_S, RealClock
from runtime.interfaces import Policy
from runtime.part_context import PolicyContext
from runtime.parts import PolicyTable
from runtime.stepped import SteppedClock

ROOT = Path(__file__).parents[1]
_SHARED = Path("/dev/shm")  # noqa: S108 - the system's own place for shared memory
KILLED = "killed_ns"
"""A file beside the runs: the simulated time at which the process was told to be killed."""
MARK = "CAMPAIGN_RUN"
"""Of the environment: what every process that a run starts has in it."""


class _Play:
    """One run of a plan."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self._plan = plan
        self._runs = folder
        self._clock = SteppedClock()
        self._server: DyingServer | None = None
        self.motion: dict[str, Any] = {}
        self.untold: list[str] = []
        """Faults that could not be made any more."""

    def settings(self) -> Settings:
        """The configuration.

        Raises:
            ConfigError: a part of the plan is no configuration.
        """
        words = ["--config", str(ROOT / "config.toml"), "--runs", str(self._runs)]
        for key, value in self._plan["options"].items():
            words += [f"--{key}", value]
        if self._plan["mode"] == "rollout":  # a policy that needs no mask of an object
            port = 1 if self._server is None else self._server.port
            words += ["--policy.type", "openpi", "--policy.port", str(port)]
        return load(words, {})

    def play(self) -> int:
        """The exit code."""
        policy = self._plan.get("policy", {})
        if policy.get("base") == "remote":
            ranges = [[-1.5, 1.5], [-2.8, 0.1], [0.1, 2.8], [-1.5, 1.5], [-2.0, 2.0], [0.0, 1.0]]
            self._server = DyingServer(ranges, policy.get("deeds", ()), self._plan["seed"])
        with mock.patch.object(policies, "build_policy", self._policy(policies.build_policy)):
            try:
                return run(self.settings(), self._clock, self._open)
            finally:
                if self._server is not None:
                    self._server.die()

    def _policy(self, build: Any) -> Any:
        wanted = self._plan.get("policy", {})
        deeds = wanted.get("deeds", ())

        def built(table: PolicyTable, context: PolicyContext) -> Policy:
            if wanted["base"] in ("wander", "still"):
                still = wanted["base"] == "still"
                policy: Any = Wanderer(context.joints, self._plan["seed"], still=still)
            else:
                policy = build(table, context)
            return policy if wanted["base"] == "remote" else Unruly(policy, deeds, context.clock)

        return built

    @contextlib.asynccontextmanager
    async def _open(
        self, robot: Robot, folder: RunFolder, record: RunRecord, recording: RunRecording | None
    ) -> AsyncIterator[Mode]:
        """The mode, with the plan's faults beside it, and a look at what the arm ran into at its end."""
        async with open_mode(robot, folder, record, recording) as mode, anyio.create_task_group() as beside:
            beside.start_soon(self._faults, robot)
            try:
                yield mode
            finally:
                beside.cancel_scope.cancel()
                with anyio.CancelScope(shield=True), contextlib.suppress(WorldError):
                    assert robot.world is not None  # noqa: S101 - all runs are simulated
                    self.motion = await self._clock.run_blocking(robot.world.motion)

    async def _faults(self, robot: Robot) -> None:
        began_ns = self._clock.now_ns()
        for event in self._plan["events"]:
            await self._clock.sleep_until_ns(began_ns + round(event["at"] * NS_PER_S))
            try:
                self._make(robot, event)
            except (WorldError, ValueError) as error:
                self.untold.append(f"{event['device']}.{event['kind']}: {error}")

    def _make(self, robot: Robot, event: dict[str, Any]) -> None:
        special = {"process": self._stand_still, "end": self._end, "server": self._serve}
        if event["device"] in special:
            special[event["device"]](robot, event)
            return
        assert robot.world is not None  # noqa: S101 - all runs are simulated
        robot.world.inject(Fault.model_validate({k: v for k, v in event.items() if k != "at"}))

    def _stand_still(self, robot: Robot, event: dict[str, Any]) -> None:
        clock, duration_ns = self._clock, round(event["seconds"] * NS_PER_S)
        if event["kind"] in ("stop", "loop"):
            clock.stall(duration_ns, threads=event["kind"] == "loop")
        elif event["thread"] in robot.threads:
            driver: Any = robot.threads[event["thread"]].driver
            poll = driver.poll

            def late() -> Any:
                driver.poll = poll
                clock.wait_until_ns(clock.now_ns() + duration_ns)
                return poll()

            driver.poll = late

    def _end(self, robot: Robot, event: dict[str, Any]) -> None:
        assert robot.world is not None  # noqa: S101 - all runs are simulated
        if event["kind"] == "world":
            robot.world.process.kill()
            robot.world.process.wait()
        elif event["kind"] == "SIGKILL":
            (self._runs.parent / KILLED).write_text(str(self._clock.now_ns()))
            _kill_soon(event["seconds"])
        else:
            os.kill(os.getpid(), signal.Signals[event["kind"]])

    def _serve(self, robot: Robot, event: dict[str, Any]) -> None:
        assert self._server is not None  # noqa: S101 - only plans with one have it die
        if event["kind"] == "die":
            self._server.die()
        else:
            self._server.back()


def _kill_soon(seconds: float) -> None:
    """End this process the hard way, wherever it is by then."""

    def kill() -> None:
        clock = RealClock()
        clock.wait_until_ns(clock.now_ns() + round(seconds * NS_PER_S))
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=kill, daemon=True).start()


# --- what is left over


def _held() -> dict[str, set[str]]:
    """What this process holds now: threads, descriptors, and processes that carry our mark."""
    descriptors = set()
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            descriptors.add(f"{entry.name} {entry.readlink()}")
    return {
        "threads": {thread.name for thread in threading.enumerate()},
        "descriptors": descriptors,
        "processes": set(_marked()),
        "memory": {entry.name for entry in _SHARED.iterdir() if entry.name.startswith("dexrun")},
    }


def _marked() -> Iterator[str]:
    mark = f"{MARK}={os.environ[MARK]}".encode()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            if mark in (entry / "environ").read_bytes():
                yield f"{entry.name} {(entry / 'cmdline').read_bytes().replace(bytes(1), b' ').decode()[:80]}"


def _dead(name: str) -> bool:
    """Whether the shared memory `name` is there and its maker is not: it is locked while he lives."""
    try:
        with (_SHARED / name).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _nobodys(names: set[str]) -> set[str]:
    """Of shared memory, what stays there and belongs to nobody: others on the machine have some, too."""
    pause, left = threading.Event(), names
    for _ in range(10):
        left = {name for name in left if _dead(name)}
        if not left:
            break
        pause.wait(0.5)
    return left


_ONCE = ("descriptors", "threads")
"""What libraries open at their first use and keep: of a process's first run, it is none of the run's."""


def left_over(before: dict[str, set[str]], *, first: bool) -> list[str]:
    """What there is now and was not `before` a run."""
    gc.collect()
    found = []
    for what, now in _held().items():
        more = set() if first and what in _ONCE else now - before[what]
        if what == "memory":
            more = _nobodys(more)
        found += [f"{what}: {each}" for each in sorted(more)]
    return found


def _resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return round(pages * resource.getpagesize() / 2**20, 1)


def _cpu_s() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def perform(plan: Plan, folder: Path, *, first: bool = False) -> dict[str, Any]:
    """Play `plan`; what the run came to, leftovers included. `first` of this process's."""
    before, cpu_s = _held(), _cpu_s()
    temporary = folder / "tmp"
    temporary.mkdir(parents=True, exist_ok=True)
    play = _Play(plan, folder / "runs")
    result: dict[str, Any] = {"code": None, "error": ""}
    try:
        result["code"] = play.play()
    except ConfigError as error:
        result |= {"code": 2, "error": str(error)}
    except BaseException as error:
        result["error"] = f"{type(error).__name__}: {error}"
    result["left_over"] = left_over(before, first=first) + [
        f"file: {path.name}" for path in temporary.iterdir()
    ]
    shutil.rmtree(temporary)
    result |= {"motion": play.motion, "untold": play.untold}
    return result | {"cpu_s": round(_cpu_s() - cpu_s, 2), "rss_mib": _resident_mib()}


def _die_with(parent: int) -> None:
    """A run that hangs must not outlive who would have ended it."""

    def watch() -> None:
        never = threading.Event()
        while os.getppid() == parent:
            never.wait(1.0)
        os._exit(1)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


def main() -> None:
    """A plan a line, with the folder that is its own."""
    _die_with(os.getppid())
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whoever started the campaign by nohup
    faulthandler.register(signal.SIGUSR1)
    out, first = os.fdopen(int(sys.argv[1]), "w"), True
    for line in sys.stdin:
        task = json.loads(line)
        folder = Path(task["folder"])
        folder.mkdir(parents=True, exist_ok=True)
        os.environ["TMPDIR"] = str(folder / "tmp")
        import tempfile

        tempfile.tempdir = None
        out.write(json.dumps(perform(task["plan"], folder, first=first)) + "\n")
        out.flush()
        first = False


if __name__ == "__main__":
    main()
