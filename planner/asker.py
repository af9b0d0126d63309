"""From a question to a typed reply: retries, backoff, the deadline, and one second chance for bad form."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from loguru import logger

from planner.box_text import box_of
from planner.box_units import SHOWN, BoxUnits, shown
from planner.completion import FailedExchange
from planner.config import PlannerConfig
from planner.exchange import Conversation, Exchanges
from planner.images import Picture
from planner.questions.mark import Mark
from planner.questions.question import Canvas, Question
from planner.questions.reply import Reply
from planner.reply_text import ReplyError, plain
from planner.statistics import PlannerStatistics
from planner.transport import Message
from runtime.clock import NS_PER_S, Clock
from runtime.messages import ColorImage

R = TypeVar("R", bound=Reply)

_MANY_PICTURES = re.compile(
    r"at most \d+ (?:images?|\w{0,10}multi-?modal)|(?:only|maximum of|more than) (?:one|\d+) images?"
    r"|too many images",
    re.IGNORECASE,
)
"""As vLLM, which takes one picture at a time where nothing else is configured, and others say so."""
_TOLD_S = 2.0
"""A wait that is told; shorter ones are within what an answer takes."""


@dataclass(frozen=True, slots=True)
class _Unreadable:
    """A reply that came and cannot be used."""

    text: str
    reason: str
    hint: str = ""


@dataclass(frozen=True)
class _FindBoxUnits(Mark):
    """Where the object of a drawn picture is, which is known."""

    task = "find_box_units"


class Asker:
    """Asks one server. Its coroutines run on the control loop and do nothing there but wait and parse."""

    def __init__(
        self, config: PlannerConfig, clock: Clock, statistics: PlannerStatistics, exchanges: Exchanges
    ) -> None:
        self._config = config
        self._clock = clock
        self._statistics = statistics
        self._exchanges = exchanges
        self._units = BoxUnits("pixels" if config.base_url is None else config.box_units)
        self._not_before_ns = clock.now_ns()
        self._refusal = ""
        self._few_pictures = False

    async def ask(self, question: Question[R], images: Sequence[ColorImage]) -> R:
        """The reply to `question` about `images`.

        Raises:
            PlannerError: after the retries, at the deadline, or because what was asked for is not there.
        """
        start_ns = self._clock.now_ns()
        self._statistics.calls += 1
        try:
            deadline_ns = start_ns + round(self._config.deadline_s * NS_PER_S)
            images = images[: len(question.views)] if self._few_pictures else images
            call = Conversation(question, images, "", (), (), [], deadline_ns)
            await self._begin(call)
            if question.locates and self._units.to_be_shown():
                await self._find_box_units(call)
            reply = await self._converse(call)
            if reply is None:
                raise self._exchanges.failed(question.task, "no_object", question.not_there())
            return reply
        finally:
            self._statistics.latency((self._clock.now_ns() - start_ns) / NS_PER_S)

    async def _begin(self, call: Conversation[Any]) -> None:
        """Put the question, with the call's images."""
        text = call.question.text(len(call.images))
        pictures, messages = await self._exchanges.lay_out(call.question.task, text, call.images)
        call.asked, call.pictures, call.messages = text, pictures, messages
        call.canvases = tuple(map(self._canvas, pictures, call.images))

    async def _asked_with_fewer(self, call: Conversation[Any], outcome: FailedExchange) -> bool:
        """Whether the server takes fewer pictures than it was shown, and can be asked with those needed."""
        needed = len(call.question.views)
        if not 400 <= _status(outcome) < 500 or not _MANY_PICTURES.search(outcome.detail):
            return False
        if len(call.images) <= needed:
            return False
        told = "planner: {} takes no {} pictures at once: it gets {}"
        logger.warning(told, self._exchanges.server, len(call.images), needed)
        self._few_pictures, call.images = True, call.images[:needed]
        await self._begin(call)
        return True

    def _canvas(self, picture: Picture, image: ColorImage) -> Canvas:
        return Canvas(picture.width, picture.height, image.shape[1], image.shape[0], self._units)

    async def _find_box_units(self, call: Conversation[Any]) -> None:
        """One exchange about a drawn picture as large as that of `call`; nothing depends on its success."""
        width, height = call.pictures[0].width, call.pictures[0].height
        question = _FindBoxUnits(SHOWN)
        text = question.text(1)
        pictures, messages = await self._exchanges.lay_out(question.task, text, [shown(width, height)])
        probe = Conversation(question, (), text, pictures, (), messages, call.deadline_ns)
        asked_ns = self._clock.now_ns()
        if asked_ns < self._not_before_ns:
            return
        outcome = await self._exchanges.deliver(probe, asked_ns)
        error = None
        if isinstance(outcome, FailedExchange):
            self._heed(outcome)
            error = f"{outcome.kind}: {outcome.detail}"
        else:
            try:
                self._units.learn(box_of(plain(outcome.text))[0], width, height)
            except ReplyError as unreadable:
                error = f"malformed: {unreadable}"
        self._exchanges.report(probe, asked_ns, outcome, error)

    async def _converse(self, call: Conversation[R]) -> R | None:
        """Ask, and once more with the reason if the reply cannot be read."""
        reason = hint = ""
        for last in (False, True):
            outcome = await self._exchange(call)
            if not isinstance(outcome, _Unreadable):
                return outcome
            reason, hint = outcome.reason, f"; {outcome.hint}" if outcome.hint else ""
            if not last:
                call.asked = call.question.ask_again(reason)
                _answer(call.messages, outcome.text, call.asked)
                self._statistics.retries += 1
        raise self._exchanges.failed(call.question.task, "malformed", f"asked twice; {reason}{hint}")

    async def _exchange(self, call: Conversation[R]) -> R | _Unreadable | None:
        """One reply, over as many exchanges as retries and deadline allow."""
        backoff_s = self._config.backoff_s
        tries = 0
        while True:
            await self._let_server_rest(call)
            outcome = await self._once(call)
            if not isinstance(outcome, FailedExchange):
                return outcome
            if await self._asked_with_fewer(call, outcome):
                self._statistics.retries += 1
                continue
            tries += 1
            self._heed(outcome)
            resume_ns = self._clock.now_ns() + round(backoff_s * NS_PER_S)
            late = resume_ns >= call.deadline_ns and not outcome.wait_s
            if not outcome.again or tries > self._config.retries or late:
                told = f"{outcome.detail} ({_times(tries)})"
                raise self._exchanges.failed(call.question.task, outcome.kind, told)
            self._statistics.retries += 1
            if outcome.wait_s < backoff_s:
                await self._clock.sleep_until_ns(resume_ns)
            backoff_s = min(2 * backoff_s, self._config.backoff_max_s)

    def _heed(self, failed: FailedExchange) -> None:
        """Note until when the server does not want to be asked."""
        if failed.wait_s > 0:
            self._refusal = failed.kind
            self._not_before_ns = self._clock.now_ns() + round(failed.wait_s * NS_PER_S)

    async def _let_server_rest(self, call: Conversation[Any]) -> None:
        """Wait as long as the server has asked for; that time is not the call's.

        Raises:
            PlannerError: it is more than `wait_max_s`.
        """
        left_s = (self._not_before_ns - self._clock.now_ns()) / NS_PER_S
        if left_s <= 0:
            return
        most_s = self._config.wait_max_s
        if call.waited_s + left_s > most_s:
            detail = f"the server asks to wait {left_s:.0f} s, more than planner.wait_max_s = {most_s:g}"
            raise self._exchanges.failed(call.question.task, self._refusal, detail)
        if left_s >= _TOLD_S:
            told = "planner: {} asks to wait ({}): waiting {:.0f} s"
            logger.warning(told, self._exchanges.server, self._refusal, left_s)
        call.waited_s += left_s
        call.deadline_ns += self._not_before_ns - self._clock.now_ns()
        await self._clock.sleep_until_ns(self._not_before_ns)

    async def _once(self, call: Conversation[R]) -> R | _Unreadable | FailedExchange | None:
        asked_ns = self._clock.now_ns()
        outcome = await self._exchanges.deliver(call, asked_ns)
        result: R | _Unreadable | FailedExchange | None
        error: str | None = None
        if isinstance(outcome, FailedExchange):
            result, error = outcome, f"{outcome.kind}: {outcome.detail}"
            if outcome.kind == "malformed":
                result = _Unreadable("", outcome.detail)
            self._statistics.fault(outcome.kind)
        else:
            try:
                result = call.question.parse(outcome.text, call.canvases)
            except ReplyError as unreadable:
                error = f"malformed: {unreadable}"
                result = _Unreadable(outcome.text, str(unreadable), unreadable.hint)
                self._statistics.fault("malformed")
        self._exchanges.report(call, asked_ns, outcome, error)
        call.attempts += 1
        return result


def _status(failed: FailedExchange) -> int:
    """The HTTP status that an exchange failed with; 0 if it was something else."""
    return int(failed.kind.removeprefix("http_")) if failed.kind.startswith("http_") else 0


def _answer(messages: list[Message], reply: str, text: str) -> None:
    """Go on with `text` after `reply`; after none within the question, since roles may have to alternate."""
    if reply:
        messages += [{"role": "assistant", "content": reply}, {"role": "user", "content": text}]
    else:
        asked = messages[-1]
        messages[-1] = {**asked, "content": [*asked["content"], {"type": "text", "text": text}]}


def _times(tries: int) -> str:
    return "asked once" if tries == 1 else f"asked {tries} times"
