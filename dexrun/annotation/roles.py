"""What the worker processes have in common.

A *lease* is one piece of work under way, with a number of its own: whoever gets a message of a lease that it
was not given, or that was taken back, drops it. So nothing that a process that died, or was taken for dead,
has still sent can be taken for what its successor sends.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from runtime.clock import NS_PER_S
from runtime.frame_channel import FrameSender

WAIT_NS = NS_PER_S // 200
"""How long a worker waits for a picture, or for room, before it looks for commands again."""
TOLD_EVERY_NS = NS_PER_S // 2
"""So often somebody who works says how far it is."""

Senders = Callable[[str], FrameSender]
"""From an address to the way there."""


class Role(Protocol):
    """What a worker does. None of them knows the others; the command does."""

    def handle(self, command: Mapping[str, Any]) -> None:
        """Carry out a command."""

    def step(self) -> bool:
        """Do a little; ``False`` if there is nothing to do until the next command."""

    def close(self) -> None:
        """Let go of everything."""
