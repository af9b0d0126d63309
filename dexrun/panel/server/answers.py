"""Which page asked for what, until the run has answered."""

from __future__ import annotations

from loguru import logger

from dexrun.panel.link import AttachedRun
from dexrun.panel.server.mail import PageMail

_MOST = 256


class Answers:
    """The event loop's."""

    def __init__(self) -> None:
        self._expected: dict[int, tuple[PageMail, int]] = {}
        self._run: AttachedRun | None = None
        self._next = -1

    def of_run(self, run: AttachedRun) -> None:
        """Answers come from this run from now on.

        Raises:
            NoRunError: it has gone.
        """
        self._expected = {}
        self._run = run
        self._next, _ = run.answers_since(-1)

    def expect(self, number: int, page: PageMail, asked: int) -> None:
        """The run knows as `number` what `page` calls `asked`."""
        if len(self._expected) >= _MOST:  # of a run that does not answer any more
            del self._expected[next(iter(self._expected))]
        self._expected[number] = (page, asked)

    def deliver(self) -> None:
        """Hand out what the run has answered.

        Raises:
            NoRunError: it has gone.
        """
        if self._run is None:
            return
        try:
            self._next, answered = self._run.answers_since(self._next)
        except ValueError as error:  # one that makes no sense; what comes after it is heard
            logger.warning("an answer of the run is not understood: {}", error)
            self._next, answered = self._run.answers_since(-1)
        for each in answered:
            expected = self._expected.pop(each["id"], None)
            if expected is not None:
                page, asked = expected
                page.answer(asked, ok=bool(each["ok"]), error=str(each["error"]))

    def lost(self, reason: str) -> None:
        """The run has gone: what it has not answered, it never will."""
        for page, asked in self._expected.values():
            page.answer(asked, ok=False, error=reason)
        self._expected, self._run = {}, None
