"""The one way of commands to the terminal, for text of their own and from outside alike."""

from __future__ import annotations

import sys

from runtime.printable import line, printable


def say(text: str) -> None:
    """On the standard output."""
    sys.stdout.write(printable(text))


def complain(text: str) -> None:
    """On the standard error."""
    sys.stderr.write(printable(text))


def fail(error: BaseException | str, command: str = "dexrun") -> None:
    """What went wrong, in one line."""
    sys.stderr.write(f"{command}: {line(str(error))}\n")
