"""What the worker processes have in common.

A *lease* is one piece of work under way, with a number of its own: whoever gets a message of a lease that it
was not given, or that was taken back, drops it. So nothing that a process that died, or was taken for dead,
has still sent can be taken for what its successor sends.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from runtime.clock import NS_PER_S
from runtime.frame_channel import FrameMessage, FrameReceiver, FrameSender

WAIT_NS = NS_PER_S // 200
"""How long a worker waits for a picture, or for room, before it looks for commands again."""
TOLD_EVERY_NS = NS_PER_S // 2
"""So often somebody who works says how far it is."""

Senders = Callable[[str], FrameSender]
"""From an address to the way there."""


class LeaseInbox:
    """What is sent. Pictures and commands come by different ways, and leases have rising numbers: what is of
    a later lease than any command told of yet waits for that command, and so does all behind it.

    Attributes:
        newest: the latest lease that a command told of.
    """

    def __init__(self, receiver: FrameReceiver) -> None:
        self._receiver = receiver
        self._early: FrameMessage | None = None
        self.newest = -1

    def told_of(self, lease: int) -> None:
        """A command was about this lease."""
        self.newest = max(self.newest, lease)

    @property
    def waits(self) -> bool:
        """Whether nothing can be received before the next command."""
        return self._early is not None and bool(self._early.about["lease"] > self.newest)

    def receive(self, timeout_ns: int) -> FrameMessage | None:
        """The next message of a lease that is known, or was; ``None`` if there is none yet."""
        if self.waits:
            return None
        message, self._early = self._early or self._receiver.receive(timeout_ns), None
        if message is not None and message.about["lease"] > self.newest:
            self._early = message
            return None
        return message

    def close(self) -> None:
        """Let go."""
        self._receiver.close()


class Role(Protocol):
    """What a worker does. None of them knows the others; the command does."""

    def handle(self, command: Mapping[str, Any]) -> None:
        """Carry out a command."""

    def step(self) -> bool:
        """Do a little; ``False`` if there is nothing to do until the next command."""

    def close(self) -> None:
        """Let go of everything."""
