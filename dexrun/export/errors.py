"""What an export says when it cannot go on."""

from __future__ import annotations

from policies.data.dataset import DatasetError


class ExportError(DatasetError):
    """One line: what, where, what would be accepted.

    Attributes:
        usage: whether what was asked for is at fault (exit code 2), rather than how it went (1).
    """

    def __init__(self, message: str, *, usage: bool = True) -> None:
        super().__init__(message)
        self.usage = usage

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (str(self), self.usage)


class BadEpisodeError(ExportError):
    """One episode cannot be exported, whatever becomes of the others.

    Attributes:
        episode: its name.
    """

    def __init__(self, episode: str, message: str) -> None:
        super().__init__(message)
        self.episode = episode

    def __reduce__(self) -> tuple[object, ...]:
        return BadEpisodeError, (self.episode, str(self))


def _rebuild(message: str, usage: bool) -> ExportError:
    return ExportError(message, usage=usage)
