"""``python -m dexrun.annotation.worker ROLE``: one of the pipeline's processes; ends with who started it."""

from __future__ import annotations

import signal
import sys
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from dexrun.annotation.commands import Commands
from dexrun.annotation.options import AnnotateOptions
from runtime.clock import Clock, RealClock
from runtime.frame_channel import FrameReceiver, FrameSender, MergedReceiver, RingReceiver, RingSender
from runtime.interfaces import PerceptionError
from runtime.recording.bounds import one_line

ROLES = ("reader", "namer", "tracker", "writer")
_IDLE_S = 1.0


class Channels:
    """The ways to and from the other processes, as the command said where they are."""

    def __init__(self, start: Mapping[str, Any], clock: Clock) -> None:
        self._start = start
        self._clock = clock
        self._senders: dict[str, FrameSender] = {}

    def inbox(self) -> FrameReceiver:
        """Where others send to: the rings that were made for it, or a port of its own."""
        start = self._start
        if start["host"]:
            from runtime.zmq_channel import ZmqReceiver

            return ZmqReceiver(start["host"], start["most_bytes"], start["token"], self._clock)
        return MergedReceiver([RingReceiver(each, self._clock) for each in start["rings"]], self._clock)

    def sender(self, address: str) -> FrameSender:
        """The way to `address`; the one that there is already, if there is."""
        if address not in self._senders:
            self._senders[address] = self._made(address)
        return self._senders[address]

    def _made(self, address: str) -> FrameSender:
        if address.startswith("tcp:"):
            from runtime.zmq_channel import ZmqSender

            return ZmqSender(address, self._start["token"], self._clock)
        return RingSender(address, self._clock)

    def forget(self, address: str) -> None:
        """Nobody is there any more."""
        if (sender := self._senders.pop(address, None)) is not None:
            sender.close()

    def close(self) -> None:
        """Let go of all."""
        for sender in self._senders.values():
            sender.close()


def _role(name: str, start: Mapping[str, Any], commands: Commands, channels: Channels, clock: Clock) -> Any:
    """The role and where it is reached; what others do is not imported."""
    options = AnnotateOptions.model_validate(start["options"])
    if name == "reader":
        from dexrun.annotation.reading import ReaderRole

        return ReaderRole(options, commands, channels.sender), ""
    inbox = channels.inbox()
    if name == "namer":
        from dexrun.annotation.naming import NamerRole

        return NamerRole(options, commands, inbox), inbox.address
    if name == "tracker":
        from dexrun.annotation.tracking import TrackerRole

        return TrackerRole(options, commands, inbox, channels.sender, clock), inbox.address
    from dexrun.annotation.writing import WriterRole

    return WriterRole(options, commands, inbox), inbox.address


def main(arguments: list[str]) -> int:
    """Serve one role until the standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it reaches all of them; the command alone answers it
    if len(arguments) != 1 or arguments[0] not in ROLES:
        sys.stderr.write(f"expected one of {', '.join(ROLES)}\n")
        return 2
    clock = RealClock()
    commands = Commands(clock)
    start: Mapping[str, Any] | None = None
    while start is None and not commands.ended:
        start = next(commands.come(_IDLE_S), None)
    if start is None:
        return 0
    channels = Channels(start, clock)
    try:
        role, address = _role(arguments[0], start, commands, channels, clock)
    except (PerceptionError, ImportError, OSError, ValidationError) as error:
        commands.answer(unfit=one_line(error))
        return 1
    commands.answer(ready=True, address=address)
    try:
        busy = True
        while not commands.ended:
            for command in commands.come(0.0 if busy else _IDLE_S):
                if command["do"] == "gone":
                    channels.forget(command["address"])
                else:
                    role.handle(command)
            busy = role.step()
            commands.hear()
    finally:
        role.close()
        channels.close()
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
