"""Episodes by keys: raw bytes of the terminal, so that it works over SSH and needs no window system.

A mode may be asked for more than episodes: its commands are given by name, with what they do (`Extra`).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from loguru import logger

from dexrun.stopping import StopPhase
from runtime.recording.recorder import EpisodeError

if TYPE_CHECKING:
    from dexrun.episodes.episodes import Episodes, EpisodeStatus
    from dexrun.stopping import PersonsStop

HELP = (
    "keys: SPACE or RIGHT start and stop an episode; s success, f failure (stop and label, or label last);"
    " d, BACKSPACE or LEFT discard; ENTER keep the last as it is; q or ESC end the run; ? this help"
)


PAUSE = "e stop the arm, p pause, go on, q end, ? help"
"""What may be pressed in grasp mode."""
TAKE_OVER = f"TAB take over, give back, {PAUSE}"
"""The same where a person may take over."""


def hint(status: EpisodeStatus) -> str:
    """What may be pressed now, in a line, as long as no stop is latched (`stop_hint`)."""
    if status.state == "recording":
        return "SPACE end, e stop the arm, s success, f failure, d discard, q end, ? help"
    if status.state == "review":
        many = "ENTER end" if 0 < status.wanted <= status.recorded else "SPACE next"
        return f"{many}, e stop the arm, s success, f failure, d discard, q end, ? help"
    return "SPACE start, e stop the arm, q end, ? help"


def stop_hint(phase: StopPhase) -> str:
    """What may be pressed once somebody has stopped the arm; empty where nobody has."""
    now = {StopPhase.LATCHED: "r reset the stop", StopPhase.RESET: "g go on, e stop the arm"}
    return f"{now[phase]}, q end, ? help" if phase in now else ""


_ESC_S = 0.1
"""A lone ESC that nothing follows for so long is the key, and not the beginning of an arrow's bytes."""

JOG_KEYS: Mapping[str, str] = {
    "k": "forward",
    "j": "back",
    "h": "left",
    "l": "right",
    "u": "up",
    "n": "down",
    "z": "roll-",
    "x": "roll+",
    "y": "pitch+",
    "b": "pitch-",
    ",": "yaw+",
    ".": "yaw-",
    "o": "open",
    "c": "close",
    "-": "slower",
    "+": "faster",
    "a": "other",
}
"""What moves a leader without an arm, where there is one; a key that is held repeats."""

Extra = Mapping[str, Callable[[], None]]
"""What a mode does on the commands ``pause`` (p), ``take`` (TAB or t), ``instruct`` (i) and ``jog.<way>``
(`JOG_KEYS`), and on ``quit`` and ``help``, where nobody else has episodes; ``more`` adds to their help.
"""

_ESCAPES = {b"\x1b[C": "toggle", b"\x1bOC": "toggle", b"\x1b[D": "discard", b"\x1bOD": "discard"}
_BYTES = {
    ord(" "): "toggle",
    ord("s"): "success",
    ord("f"): "failure",
    ord("d"): "discard",
    0x7F: "discard",
    0x08: "discard",
    ord("\r"): "keep",
    ord("\n"): "keep",
    ord("q"): "quit",
    ord("?"): "help",
    ord("p"): "pause",
    ord("e"): "estop",
    ord("r"): "reset",
    ord("g"): "go_on",
    ord("i"): "instruct",
    ord("t"): "take",
    ord("\t"): "take",
    **{ord(key): f"jog.{what}" for key, what in JOG_KEYS.items()},
}
_BYTES |= {ord(chr(key).upper()): command for key, command in _BYTES.items() if chr(key).isalpha()}
"""Capitals as well: whoever wants the arm stopped does not look for the shift lock first."""


class KeyParser:
    """Bytes of a terminal to commands. Escape sequences may arrive in pieces; unknown ones are skipped."""

    def __init__(self) -> None:
        self._rest = b""

    @property
    def escaped(self) -> bool:
        """Whether all that has come since the last command is an ESC."""
        return self._rest == b"\x1b"

    def lone(self) -> list[str]:
        """Nothing has followed the ESC: then it was the key."""
        commands = ["quit"] if self.escaped else []
        self._rest = b"" if self.escaped else self._rest
        return commands

    def feed(self, data: bytes) -> list[str]:
        """The commands in `data`, in order."""
        data, self._rest = self._rest + data, b""
        commands, at = [], 0
        while at < len(data):
            if data[at] != 0x1B:
                if command := _BYTES.get(data[at]):
                    commands.append(command)
                at += 1
                continue
            size = _escape_size(data[at:])
            if size == 0:
                self._rest = data[at:]
                break
            if command := _ESCAPES.get(data[at : at + size]):
                commands.append(command)
            at += size
        return commands


def _escape_size(data: bytes) -> int:
    """Length of the escape sequence at the start of `data`; 0 if its end is not there yet."""
    if len(data) == 1:
        return 0
    if data[1] == ord("O"):
        return 3 if len(data) >= 3 else 0
    if data[1] != ord("["):
        return 1  # a bare ESC, then something else
    if data[2:3] == b"[":  # a function key of Linux's console, whose letter is no key of ours
        return 4 if len(data) >= 4 else 0
    for end in range(2, len(data)):
        if 0x40 <= data[end] <= 0x7E:
            return end + 1
        if not 0x20 <= data[end] <= 0x3F:
            return end  # broken off by something else
    return 0 if len(data) < 32 else len(data)


def press(
    episodes: Episodes | None, command: str, extra: Extra | None = None, stopping: PersonsStop | None = None
) -> None:
    """Do what a key stands for; what cannot be done is said, and nothing else happens."""
    try:
        if stopping is not None and _is_the_stops(command, stopping):
            return
        if episodes is not None and command in _ACTIONS:
            _ACTIONS[command](episodes)
            if command == "help" and extra and "more" in extra:
                extra["more"]()
        elif extra is not None and command in extra:
            extra[command]()
    except EpisodeError as error:
        logger.warning("{}", error)


def _is_the_stops(command: str, stopping: PersonsStop) -> bool:
    """Whether that is all that `command` does.

    Raises:
        EpisodeError: it cannot be done now.
    """
    own = stopping.commands()
    if command in own:
        own[command]()
        return True
    if command == "quit":
        return stopping.quit()
    if why := stopping.hinders(command):
        raise EpisodeError(why)
    return False


def _toggle(episodes: Episodes) -> None:
    if episodes.recording:
        episodes.stop(reason="key")
    elif episodes.finished:
        episodes.settle()
    else:
        episodes.start()


def _label(label: str) -> Callable[[Episodes], None]:
    def act(episodes: Episodes) -> None:
        if episodes.recording:
            episodes.stop(label, reason="key")
        else:
            episodes.label(label)

    return act


def _discard(episodes: Episodes) -> None:
    episodes.discard("key")


def _keep(episodes: Episodes) -> None:
    episodes.settle()


def _quit(episodes: Episodes) -> None:
    episodes.quit()


def _help(episodes: Episodes) -> None:
    logger.info("{} - now: {}", HELP, episodes.status())


_ACTIONS: dict[str, Callable[[Episodes], None]] = {
    "toggle": _toggle,
    "success": _label("success"),
    "failure": _label("failure"),
    "discard": _discard,
    "keep": _keep,
    "quit": _quit,
    "help": _help,
}


@contextlib.contextmanager
def open_keys(
    episodes: Episodes | None,
    descriptor: int | None = None,
    extra: Extra | None = None,
    stopping: PersonsStop | None = None,
) -> Iterator[bool]:
    """Listen to the terminal's keys on the running loop; yields ``False`` if there is no terminal.

    The terminal is in cbreak mode meanwhile (no echo, no line editing, Ctrl-C as ever) and is put back.
    """
    fd = descriptor if descriptor is not None else _terminal()
    if fd is None or not os.isatty(fd):
        yield False
        return
    import termios
    import tty

    before = termios.tcgetattr(fd)
    loop, parser = asyncio.get_running_loop(), KeyParser()
    later: list[asyncio.TimerHandle] = []

    def obey(commands: list[str]) -> None:
        for command in commands:
            press(episodes, command, extra, stopping)

    def read() -> None:
        try:
            data = os.read(fd, 256)
        except OSError:
            data = b""
        if not data:  # the terminal is gone
            loop.remove_reader(fd)
        obey(parser.feed(data))
        if parser.escaped:
            later[:] = [loop.call_later(_ESC_S, lambda: obey(parser.lone()))]

    tty.setcbreak(fd, termios.TCSANOW)
    loop.add_reader(fd, read)
    try:
        yield True
    finally:
        loop.remove_reader(fd)
        for timer in later:
            timer.cancel()
        with contextlib.suppress(termios.error):
            termios.tcsetattr(fd, termios.TCSANOW, before)


def _terminal() -> int | None:
    try:
        return sys.stdin.fileno()
    except (AttributeError, OSError, ValueError):  # no standard input, or not a real one
        return None
