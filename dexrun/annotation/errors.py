"""What an annotation says when it cannot go on."""

from __future__ import annotations


class AnnotateError(Exception):
    """One line: what, where, what would be accepted.

    Attributes:
        usage: whether what was asked for is at fault (exit code 2), rather than how it went (1).
    """

    def __init__(self, message: str, *, usage: bool = True) -> None:
        super().__init__(message)
        self.usage = usage
