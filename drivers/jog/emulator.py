"""A gamepad that is not there: joystick events on a pseudo-terminal, as the kernel writes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from drivers.emulated_port import EmulatedPort
from drivers.jog.gamepad import AXIS, BUTTON, EVENT, FULL, INIT

AXES, BUTTONS = 8, 11
"""An Xbox pad's."""
TRIGGERS = (2, 5)


class GamepadEmulator:
    """Says what is moved and pressed; at the plug, as at an opening, where everything is.

    Attributes:
        device: the path to open.
    """

    def __init__(self, link: str | Path) -> None:
        self._line = EmulatedPort(link, lambda data: None)
        self.device = self._line.path
        self.say_all()

    def say_all(self, held_axes: Mapping[int, float] = {}, held_buttons: Sequence[int] = ()) -> None:
        """Say where everything is, as the kernel does at an opening and where events were lost."""
        for number in range(BUTTONS):
            self._say(int(number in held_buttons), BUTTON | INIT, number)
        for number in range(AXES):
            rest = -1.0 if number in TRIGGERS else 0.0
            self._say(round(held_axes.get(number, rest) * FULL), AXIS | INIT, number)

    def _say(self, value: int, kind: int, number: int) -> None:
        self._line.write(EVENT.pack(0, value, kind, number))

    def move(self, axis: int, value: float) -> None:
        """Move a stick or trigger to `value`, -1 to 1."""
        self._say(round(value * FULL), AXIS, axis)

    def press(self, button: int, down: bool = True) -> None:
        """Press a button, or let it go."""
        self._say(int(down), BUTTON, button)

    def unplug(self) -> None:
        """Pull the plug."""
        self._line.unplug()

    def plug(self, held_axes: Mapping[int, float] = {}, held_buttons: Sequence[int] = ()) -> None:
        """Put it back; `held_axes` are pushed and `held_buttons` pressed already."""
        self._line.plug()
        self.say_all(held_axes, held_buttons)

    def close(self) -> None:
        """Unplug for good."""
        self._line.close()
