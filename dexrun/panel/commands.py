"""What a panel asks of a run: looked for once a tick, on the loop, and done or refused at once.

A stop comes first, whoever asks, and however old it is. What else comes too late is refused: the person who
asked has seen another picture of the table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import anyio
from loguru import logger

from dexrun.episodes.actions import RunActions
from dexrun.episodes.episodes import EpisodeError
from dexrun.modes.homing import way_home
from dexrun.modes.moves import carry_out
from dexrun.panel.jogging import JOGS, OFTEN, PanelJog
from dexrun.panel.shared import PanelCommand
from dexrun.stopping import StopPhase
from policies.motion import MotionError
from runtime.clock import NS_PER_S
from runtime.limits import LEAST_SPEED

if TYPE_CHECKING:
    from dexrun.config.panel_options import PanelOptions
    from dexrun.episodes.episodes import Episodes
    from dexrun.panel.link import PublishedRun
    from dexrun.robot import Robot

_AT_ONCE = 64
_LATE_NS = NS_PER_S
_TEXT = 1000
_PATHS = {
    "start": "/start",
    "end": "/stop",
    "label": "/label",
    "discard": "/discard",
    "keep": "/keep",
    "take": "/take",
    "give": "/give",
    "pause": "/pause",
    "tell": "/tell",
}
"""Commands that a mode or its episodes know by a path."""
_ARGS = {**OFTEN, "start": ("task",), "end": ("label",), "label": ("label",), "tell": ("text",)}
_NOW = {
    "recording": ("end", "label", "discard"),
    "review": ("start", "label", "discard", "keep"),
    "ready": ("start",),
}
"""What is possible with episodes, by their state."""
_GOING = ("policy", "person", "bringing", "offered", "awaited")


class CommandReader:
    """Once the mode is open, `actions` and `episodes` are what can be asked of it.

    Args:
        quit: ends the run, where the mode has no way of its own.

    Attributes:
        answered: the newest command that was done or refused.
    """

    def __init__(
        self, robot: Robot, run: PublishedRun, options: PanelOptions, quit: Callable[[str], None]
    ) -> None:
        self.actions = RunActions(None, None, "panel")
        self.episodes: Episodes | None = None
        self.answered = 0
        self._robot, self._control, self._clock = robot, robot.control, robot.clock
        self._stopping = robot.stopping
        self._run = run
        self._options = options
        self._quit = quit
        self._held = False
        self._homing: list[PanelCommand] = []
        self._lost = 0
        self._jog = PanelJog(robot)
        self._refused = ""
        self._beat, self._heard_ns, self._gone = 0, -1, False

    # --- on the loop

    async def run(self, each: Callable[[], None]) -> None:
        """For ever, once a tick: do what is asked for; then `each`."""
        async with anyio.create_task_group() as tasks:
            while True:
                self.look()
                while self._homing:
                    tasks.start_soon(self._home, self._homing.pop(0), name="panel-home")
                each()
                await self._control.ticked()

    def look(self) -> None:
        """Whatever has come since, stops first."""
        asked: list[PanelCommand] = []
        for _ in range(_AT_ONCE):
            try:
                command = self._run.next_command()
            except ValueError as error:
                logger.warning("panel: what was asked for makes no sense: {}", error)
                continue
            if command is None:
                break
            asked.append(command)
        if self._run.lost != self._lost:
            logger.warning("panel: {} commands were overwritten unread", self._run.lost - self._lost)
            self._lost = self._run.lost
        for command in sorted(asked, key=lambda each: each.name != "stop"):
            self._obey(command)
        self._watch(commanded=bool(asked))

    def _obey(self, command: PanelCommand) -> None:
        now_ns = self._clock.now_ns()
        late_ns = 0 if self._clock.stepped else now_ns - command.stamp_ns  # else of another domain
        error = ""
        try:
            if command.name == "stop":
                self._stopping.stop(command.client or "the panel")
            elif self._before_the_stop(command):
                raise EpisodeError(
                    f"{command.name} was asked for before the arm was stopped, and is not done"
                )
            elif late_ns > _LATE_NS:
                raise EpisodeError(f"{command.name} came {late_ns / NS_PER_S:.1f} s late, and is not done")
            else:
                self._do(command)
        except (EpisodeError, ValueError, ArithmeticError) as refused:  # a number may be beyond any float
            error = " ".join(str(refused).split())
        if not error and command in self._homing:
            return  # answered once there is a way
        self._answer(command, error)

    def _before_the_stop(self, command: PanelCommand) -> bool:
        """Whether who asks did not know yet of the newest stop; who wants the end needs not to."""
        if command.name == "quit":
            return False
        if command.seen is not None:
            return command.seen != self._stopping.number
        return not self._clock.stepped and command.stamp_ns < self._stopping.stamp_ns

    def _answer(self, command: PanelCommand, error: str) -> None:
        who = command.client or "somebody"
        often = command.name in OFTEN
        if error and not (often and error == self._refused):
            logger.warning("panel: {} by {}: {}", command.name, who, error)
        elif not error and not often:
            logger.info("panel: {} by {}", command.name, who)
        self._refused = error if often else ""
        self.answered = max(self.answered, command.id)
        self._run.answer(self._clock.now_ns(), command.id, error)

    def _do(self, command: PanelCommand) -> None:
        name, args = command.name, dict(command.args)
        allowed = _ARGS.get(name, ())
        if unknown := sorted(set(args) - set(allowed)):
            raise EpisodeError(f"{name}: no {unknown[0]!r}; accepted: {', '.join(allowed) or 'nothing'}")
        own: dict[str, Callable[[], None]] = {
            "hold": lambda: self._hold("asked to hold by the panel"),
            "resume": lambda: self._resume(command),
            "home": lambda: self._ask_home(command),
            "quit": self._end,
            "reset": lambda: self._stopping.reset(command.client or "the panel", command.seen),
            "speed": lambda: self._control.limit_speed(_share(args.get("value"))),
        }
        if name not in ("reset", "resume", "quit") and (why := self._stopping.hinders(name)):
            raise EpisodeError(why)
        if name in own:
            own[name]()
        elif name in JOGS:
            stamp_ns = self._clock.now_ns() if self._clock.stepped else command.stamp_ns
            self._jog.ask(name, args, stamp_ns, str(self.actions.state().get("driving", "")))
        elif name in _PATHS:
            self._pass_on(_PATHS[name], args)
        else:
            raise EpisodeError(f"{name!r:.40} is no command")

    def _pass_on(self, path: str, args: Mapping[str, Any]) -> None:
        if path not in self.actions.known:
            raise EpisodeError(f"not in this run: {path.strip('/')}")
        said = {key: _text(key, value) for key, value in args.items() if value is not None}
        if "text" in said:
            said = {self.actions.allowed(path)[0]: said["text"]}
        self.actions.act(path, said)

    # --- what a mode has no part in

    def _hold(self, reason: str) -> None:
        self._control.hold(reason)
        self._held = True

    def _resume(self, command: PanelCommand) -> None:
        if self._stopping.phase is not StopPhase.READY:
            self._stopping.go_on(command.client or "the panel", command.seen)
            self._held = False
        elif self._held:
            self._held = False
            self._control.resume()
        elif "/resume" in self.actions.known:
            self.actions.act("/resume", {})
        else:
            raise EpisodeError("nothing is held")

    def _end(self) -> None:
        if self._stopping.quit():
            return
        if "/quit" in self.actions.known:
            self.actions.act("/quit", {})
        else:
            self._quit("asked to quit by the panel")

    def _at_rest(self) -> str:
        """Why the arm cannot be sent home now, or ``""``."""
        if why := self._control.latched:
            return why
        if self._control.state == "holding":
            return f"the arm is held: {self._control.reason}"
        driving = self.actions.state().get("driving", "")
        if self._control.state != "idle" or self._control.source is not None or driving in _GOING:
            return "the arm is driven; pause it first, or wait until the episode is over"
        return ""

    def _ask_home(self, command: PanelCommand) -> None:
        if why := self._at_rest():
            raise EpisodeError(why)
        self._homing.append(command)

    async def _home(self, command: PanelCommand) -> None:
        """Once the arm stands, plan the way on another thread and make it, unless somebody drives by then, or
        has stopped the arm meanwhile.
        """
        number = self._stopping.number
        while not self._at_rest() and not self._control.resting:
            await self._control.ticked()
        try:
            rows = await way_home(self._robot)
        except MotionError as error:
            self._answer(command, f"no way home: {error}")
            return
        why_not = "the arm was stopped meanwhile" if self._stopping.number != number else self._at_rest()
        self._answer(command, why_not)
        if why_not:
            return
        why = await carry_out(self._robot, rows)
        if why is not None:
            self._control.rest()
        if why:
            logger.warning("panel: not home: {}", why)

    # --- pages that go away

    def _watch(self, *, commanded: bool) -> None:
        """Whether a page that has sent a command is still heard of."""
        now_ns = self._clock.now_ns()
        _, beat = self._run.heartbeat()
        if commanded or beat not in (0, self._beat):
            if self._gone:
                logger.info("the panel is back")
            self._gone, self._beat = False, beat
            if commanded or self._heard_ns >= 0:
                self._heard_ns = now_ns
        elif 0 <= self._heard_ns < now_ns - self._options.heartbeat_s * NS_PER_S and not self._gone:
            self._gone = True
            self._miss()

    def _miss(self) -> None:
        why = f"the panel was not heard of for {self._options.heartbeat_s:g} s"
        logger.warning("{} (panel.gone = {!r})", why, self._options.gone)
        if self._options.gone == "hold":
            self._hold(why)
        elif self._options.gone == "stop":
            self._control.stop(why, brakes=True)

    # --- for the page

    @property
    def jogged(self) -> list[str]:
        """The arms whose leader is none: a page moves their grippers."""
        return self._jog.arms

    def can(self) -> list[str]:
        """The commands that are possible now."""
        state, stopped = self.actions.state(), self._stopping.phase
        now = list(_NOW.get(str(state.get("state", "")), ())) if self.episodes is not None else []
        if stopped is not StopPhase.READY:
            now = ["stop", "quit", "speed", *(name for name in now if not self._stopping.hinders(name))]
            if stopped is StopPhase.RESET:
                return [*now, "resume"]
            return now if self._stopping.unresettable() else [*now, "reset"]
        known, driving = self.actions.known, state.get("driving", "")
        paused = driving == "paused"
        rules = {
            "hold": not self._held,
            "resume": self._held or paused,
            "home": not self._at_rest(),
            "tell": "/tell" in known,
            "pause": "/pause" in known and not paused,
            "take": "/take" in known and self._robot.leader is not None and driving != "person",
            "give": "/give" in known and driving not in ("policy", "nobody"),
            **dict.fromkeys(JOGS, self._jog.possible(str(driving))),
        }
        return ["stop", "quit", "speed", *now, *(name for name, possible in rules.items() if possible)]


def _share(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise EpisodeError(f"speed: a number from {LEAST_SPEED:g} to 1 is wanted")
    return float(value)


def _text(key: str, value: Any) -> str:
    if not isinstance(value, str) or len(value) > _TEXT:
        raise EpisodeError(f"{key}: a text of at most {_TEXT} characters is wanted")
    return value.encode(errors="replace").decode()
