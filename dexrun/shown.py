"""What people are shown of a run beside its numbers: masks and the planner's answers, as they come."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from runtime.latest import Latest
from runtime.messages import TrackedMask

if TYPE_CHECKING:
    from planner.exchange import Exchange

_QUESTIONS = 20
_LONG = 2000
"""Characters of a question or an answer that are shown."""


def _untracked(camera: str) -> TrackedMask | None:
    """Nothing is tracked."""
    del camera
    return None


class Shown:
    """Filled in by whoever opens perception and planner; read on any thread.

    Attributes:
        tracked: the newest mask in a camera.
    """

    def __init__(self) -> None:
        self.tracked: Callable[[str], TrackedMask | None] = _untracked
        self._asked: Latest[tuple[dict[str, Any], ...]] = Latest()
        self._count = 0

    def exchange(self, exchange: Exchange) -> None:
        """The planner was asked and has answered; told in the order in which the exchanges are written.

        On one thread, the planner's.
        """
        said = {
            "id": self._count,
            "question": exchange.task,
            "answer": (exchange.reply or "")[:_LONG],
            "latency_s": round(exchange.latency_s, 3),
            "error": exchange.error,
            "files": [picture_name(self._count, exchange.task, k) for k in range(len(exchange.images))],
        }
        self._count += 1
        self._asked.post((*self.questions(), said)[-_QUESTIONS:])

    def questions(self) -> tuple[dict[str, Any], ...]:
        """The last 20: ``{id, question, answer, latency_s, error, files}``, the files in ``planner/``."""
        return self._asked.newest() or ()


def picture_name(number: int, task: str, index: int) -> str:
    """What picture `index` of exchange `number` is called in the run's ``planner/``."""
    return f"{number:04d}-{task}-{index}.jpg"
