"""The planner's client for a thread that waits for its answers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

from planner.client import Planner
from planner.config import PlannerConfig, VlmOptions
from planner.errors import PlannerError
from planner.questions.question import Question, View
from planner.questions.reply import Reply
from runtime.clock import RealClock
from runtime.messages import ColorImage

R = TypeVar("R", bound=Reply)
T = TypeVar("T")


class BlockingPlanner:
    """`planner.client.Planner` on the calling thread, which it blocks; a server answers in real time.

    Raises:
        PlannerError: from all calls but `interrupt` and `close`.
    """

    def __init__(self, options: VlmOptions) -> None:
        given = {key: getattr(options, key) for key in VlmOptions.model_fields}
        self._planner = Planner(PlannerConfig(**given), RealClock())
        self._runner: asyncio.Runner | None = None
        self._running: tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]] | None = None
        self._ended = False

    def open(self) -> None:
        """Start what is needed to ask. Idempotent."""
        if self._runner is None:
            self._runner = asyncio.Runner()
            self._run("open", self._planner.open())

    def ask(self, question: Question[R], pictures: Mapping[View, ColorImage]) -> R:
        """See `Planner.ask`."""
        self.open()
        return self._run(question.task, self._planner.ask(question, pictures))

    def _run(self, task: str, work: Coroutine[Any, Any, T]) -> T:
        assert self._runner is not None  # noqa: S101 - `open` made it

        async def known() -> T:
            current = asyncio.current_task()
            assert current is not None  # noqa: S101 - it is this one
            self._running = asyncio.get_running_loop(), current
            if self._ended:
                work.close()
                raise asyncio.CancelledError
            return await work

        try:
            return self._runner.run(known())
        except asyncio.CancelledError:
            raise PlannerError(task, "closed", "it was ended", self._planner.where) from None
        finally:
            self._running = None

    def interrupt(self) -> None:
        """End a running call, and every later one. From any thread."""
        self._ended = True
        running = self._running
        if running is not None:
            loop, task = running
            with contextlib.suppress(RuntimeError):  # it has come to its end meanwhile
                loop.call_soon_threadsafe(task.cancel)

    def statistics(self) -> Mapping[str, Any]:
        """See `Planner.statistics`."""
        return self._planner.statistics()

    def close(self) -> None:
        """Close connections, server and threads. Idempotent."""
        runner, self._runner = self._runner, None
        if runner is not None:
            with runner:
                runner.run(self._planner.aclose())
