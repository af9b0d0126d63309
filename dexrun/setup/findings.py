"""What a preflight found: good, doubtful or bad, and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Grade(StrEnum):
    """How a finding counts."""

    PASS = "PASS"  # noqa: S105 - no password
    WARN = "WARN"
    FAIL = "FAIL"


@dataclass(frozen=True, slots=True)
class PreflightFinding:
    """One thing that was looked at.

    Attributes:
        grade: FAIL: a run cannot work. WARN: it may, and worse than it could.
        what: was looked at, in a word or two.
        said: what was found.
        todo: what to do about it; empty where nothing is to be done.
    """

    grade: Grade
    what: str
    said: str
    todo: str = ""

    def line(self) -> str:
        """On one line."""
        return f"{self.grade}  {self.what}: {self.said}{'; ' if self.todo else ''}{self.todo}"


def passed(what: str, said: str) -> PreflightFinding:
    """Nothing to be done."""
    return PreflightFinding(Grade.PASS, what, said)


def warned(what: str, said: str, todo: str = "") -> PreflightFinding:
    """A run may work."""
    return PreflightFinding(Grade.WARN, what, said, todo)


def failed(what: str, said: str, todo: str = "") -> PreflightFinding:
    """A run cannot work."""
    return PreflightFinding(Grade.FAIL, what, said, todo)


def failures(findings: Iterable[PreflightFinding]) -> list[PreflightFinding]:
    """Those that are FAIL."""
    return [finding for finding in findings if finding.grade is Grade.FAIL]
