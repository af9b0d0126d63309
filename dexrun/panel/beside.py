"""The panel's part of a run: what is shared, who copies, who obeys, and the processes that are started."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
from loguru import logger

from dexrun.config.panel_options import SERVER_PACKAGES
from dexrun.episodes.actions import RunActions
from dexrun.modes.mode import PersonsMode
from dexrun.panel.commands import CommandReader
from dexrun.panel.link import PublishedRun
from dexrun.panel.processes import ProcessBeside
from dexrun.panel.tap import STATUS_NS, UNSEEN_NS, Attention, RunMoment, Tap
from dexrun.panel.telling import RunTeller, facts_of
from runtime.latest import Latest
from runtime.teardown import boxed

if TYPE_CHECKING:
    from dexrun.modes.mode import Mode
    from dexrun.robot import Robot

_STOP_S = 5.0


class PanelSide:
    """What a run does for its panels; with nothing shared it does nothing.

    Attributes:
        quitting: why somebody wants the run to end, where its mode has no way of its own to.
    """

    def __init__(
        self,
        robot: Robot,
        run: PublishedRun | None = None,
        told: Latest[RunMoment] | None = None,
        nudge: Callable[[], None] = lambda: None,
    ) -> None:
        self.quitting = ""
        self._robot = robot
        self._quit = anyio.Event()
        self._told = told
        self._nudge = nudge
        self._teller = RunTeller(robot)
        self._reader = None
        if run is not None:
            self._reader = CommandReader(robot, run, robot.settings.panel, self._end)
            self._run = run
            self._attention = Attention(run.looks, robot.clock)
            self._next_ns = 0
            self._stop: tuple[str, dict[str, Any] | None] = "", None
            self._tell()

    def works(self, mode: Mode) -> None:
        """The mode is open: what a person can ask of it is known."""
        if self._reader is None:
            return
        self._teller.mode = mode
        episodes, requests = mode.controls() if isinstance(mode, PersonsMode) else (None, None)
        self._reader.episodes = episodes
        self._reader.actions = RunActions(episodes, requests, "panel", self._robot.stopping)

    async def run(self) -> None:
        """Beside the mode, for ever: do what is asked for, say what is so."""
        if self._reader is None:
            await anyio.sleep_forever()
            raise AssertionError("for ever is over")
        await self._reader.run(self._each)

    async def quit(self) -> str:
        """Until somebody wants the run to end; returns why."""
        await self._quit.wait()
        return self.quitting

    def _end(self, why: str) -> None:
        self.quitting = why
        self._quit.set()

    def _each(self) -> None:
        now_ns = self._robot.clock.now_ns()
        stop = self._robot.control.latched, self._robot.stopping.state()
        if now_ns >= self._next_ns or stop != self._stop:  # a run that is stopped may end at once
            self._stop = stop
            self._next_ns = now_ns + (STATUS_NS if self._attention.now() else UNSEEN_NS)
            self._tell()
        self._nudge()

    def _tell(self) -> None:
        reader, run = self._reader, self._run
        if reader is None or self._told is None:
            return
        state: dict[str, Any] = reader.actions.state()
        more = {
            "stop": self._robot.stopping.state(),
            "episodes": None if reader.episodes is None else reader.episodes.status().as_json(),
            "can": reader.can(),
            "jogged": reader.jogged,
            "clients": run.heartbeat()[0],
            "answered": reader.answered,
        }
        self._told.post(self._teller.told(state, more))


@contextlib.asynccontextmanager
async def open_panel(robot: Robot, folder: Path) -> AsyncIterator[PanelSide]:
    """Share the run of `folder`, as ``[panel]`` says; what cannot be had is said in a line, and left out."""
    options = robot.settings.panel
    if not options.shared(stepped=robot.clock.stepped):
        yield PanelSide(robot)
        return
    try:
        run = PublishedRun(folder, facts_of(robot))
    except OSError as error:
        logger.warning("no panel can attach to this run: shared memory: {}", error.strerror or error)
        yield PanelSide(robot)
        return
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(run.close)
        told: Latest[RunMoment] = Latest()
        tap = Tap(robot, run, told, options.rate_hz)
        side = PanelSide(robot, run, told, tap.nudge)
        tap.start()
        stack.push_async_callback(boxed, "the tap", _STOP_S, tap.stop)
        for process in _started(robot, folder):
            end: Callable[[], None] = process.end
            gone = partial(robot.clock.run_blocking, end)
            stack.push_async_callback(boxed, "a process beside the run", 2 * _STOP_S, gone)
        yield side


def _started(robot: Robot, folder: Path) -> list[ProcessBeside]:
    options, runs = robot.settings.panel, folder.resolve().parent
    wanted: list[tuple[str, tuple[str, ...], str, list[str], str]] = []
    if options.port >= 0:
        place = ["--host", options.host, "--port", str(options.port), "--language", options.language]
        of = ["--runs", str(runs), "--run", str(folder.resolve())]
        name = "the panel's server"
        wanted.append((name, SERVER_PACKAGES, "dexrun.panel.server", [*of, *place], "panel at"))
    if options.view == "rerun":
        wanted.append(("Rerun", ("rerun",), "dexrun.panel.rerun_view", [str(folder)], "rerun shows"))
    if options.foxglove_port >= 0:
        of = [str(folder), "--port", str(options.foxglove_port)]
        name = "the Foxglove server"
        wanted.append((name, ("foxglove",), "dexrun.panel.foxglove_server", of, "foxglove at"))
    return [process for each in wanted if (process := _start(*each)) is not None]


def _start(
    name: str, needs: tuple[str, ...], module: str, arguments: list[str], says: str
) -> ProcessBeside | None:
    if missing := [package for package in needs if find_spec(package) is None]:
        logger.warning(
            "{} is not started: {} is not installed; pip install 'dexrun[panel]'", name, missing[0]
        )
        return None
    try:
        return ProcessBeside(name, module, arguments, says)
    except OSError as error:
        logger.warning("{} is not started: {}", name, error)
        return None
