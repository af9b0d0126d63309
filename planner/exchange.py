"""One exchange with the server: laid out and sent elsewhere, delivered when it is due, and logged."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from planner import prompts
from planner.background import BackgroundClosedError, BackgroundLoop
from planner.completion import Completion, FailedExchange
from planner.config import PlannerConfig
from planner.errors import PlannerError
from planner.images import Picture, encode
from planner.questions.question import Canvas, Question
from planner.questions.reply import Reply
from planner.statistics import PlannerStatistics
from planner.transport import Message, Transport
from runtime.clock import NS_PER_S, Clock
from runtime.masking import masked, without_secrets
from runtime.messages import ColorImage

R = TypeVar("R", bound=Reply)
U = TypeVar("U")


@dataclass(frozen=True, slots=True)
class Exchange:
    """One question and what came of it, for the run's folder. Holds no secret.

    Attributes:
        task: the question's.
        attempt: 0 for the first exchange of a call, 1 for the next, and so on.
        model: as named to the server; empty if it was not known yet.
        prompt: the text sent last.
        images: the JPEGs sent with it.
        reply: the text that came back, or ``None``.
        error: ``"kind: detail"`` if the exchange gave nothing usable.
        asked_ns: when it began, and `latency_s` how long it took, by the clock.
    """

    task: str
    attempt: int
    model: str
    prompt: str
    images: tuple[bytes, ...]
    reply: str | None
    error: str | None
    asked_ns: int
    latency_s: float


ExchangeLog = Callable[[Exchange], None]


@dataclass
class Conversation(Generic[R]):
    """A question and what was said about it so far.

    Attributes:
        asked: the text sent last.
        waited_s: how long it has waited because the server asked it to.
    """

    question: Question[R]
    images: Sequence[ColorImage]
    asked: str
    pictures: tuple[Picture, ...]
    canvases: tuple[Canvas, ...]
    messages: list[Message]
    deadline_ns: int
    attempts: int = 0
    waited_s: float = 0.0


class Exchanges:
    """With one server. Its coroutines run on the control loop and do nothing there but wait.

    Attributes:
        server: its address, for people.
    """

    def __init__(
        self,
        config: PlannerConfig,
        clock: Clock,
        background: BackgroundLoop,
        transport: Transport,
        statistics: PlannerStatistics,
        log: ExchangeLog | None,
    ) -> None:
        self._config = config
        self._clock = clock
        self._background = background
        self._transport = transport
        self.server = masked(transport.base_url)
        self._statistics = statistics
        self._log = log

    def failed(self, task: str, kind: str, detail: str) -> PlannerError:
        """The error to raise, counted."""
        self._statistics.errors += 1
        return PlannerError(task, kind, detail, self._transport.base_url)

    async def lay_out(
        self, task: str, text: str, images: Sequence[ColorImage]
    ) -> tuple[tuple[Picture, ...], list[Message]]:
        """`text` with `images` as the messages that a conversation begins with, and the pictures in them."""
        system: Message = {"role": "system", "content": prompts.system(self._config.arm_location)}
        pictures, content = await self._elsewhere(task, self._encoded(text, images))
        return pictures, [system, content]

    async def deliver(self, call: Conversation[Any], asked_ns: int) -> Completion | FailedExchange:
        """The exchange, and its outcome at the time at which it is due."""
        limit_ns = min(asked_ns + round(self._config.timeout_s * NS_PER_S), call.deadline_ns)
        limit_s = (limit_ns - asked_ns) / NS_PER_S
        outcome: Completion | FailedExchange = FailedExchange(
            "timeout", "the task's deadline has passed", again=False
        )
        if limit_s <= 0:
            return outcome
        outcome = await self._elsewhere(call.question.task, self._transport.ask(call.messages, limit_s))
        if isinstance(outcome, FailedExchange) and outcome.kind == "timeout":
            await self._clock.sleep_until_ns(limit_ns)
            return outcome
        latency_s = outcome.extra_latency_s + (self._config.simulated_latency_s if self._clock.stepped else 0)
        due_ns = asked_ns + round(latency_s * NS_PER_S)
        if due_ns > limit_ns:
            await self._clock.sleep_until_ns(limit_ns)
            return FailedExchange("timeout", f"no answer within {limit_s:.1f} s", again=True)
        if due_ns > self._clock.now_ns():
            await self._clock.sleep_until_ns(due_ns)
        return outcome

    def report(
        self, call: Conversation[Any], asked_ns: int, outcome: Completion | FailedExchange, error: str | None
    ) -> None:
        """Log an exchange that began at `asked_ns`; `error` says why nothing could be made of its outcome."""
        if self._log is None:
            return
        self._log(
            Exchange(
                task=call.question.task,
                attempt=call.attempts,
                model=without_secrets(self._transport.model or ""),
                prompt=without_secrets(call.asked),
                images=tuple(each.jpeg for each in call.pictures),
                reply=outcome.text if isinstance(outcome, Completion) else None,
                error=error,
                asked_ns=asked_ns,
                latency_s=(self._clock.now_ns() - asked_ns) / NS_PER_S,
            )
        )

    async def _encoded(self, text: str, images: Sequence[ColorImage]) -> tuple[tuple[Picture, ...], Message]:
        """On the background loop."""
        config = self._config
        pictures = tuple(encode(image, config.jpeg_quality, config.image_max_px) for image in images)
        parts: list[Message] = [{"type": "text", "text": text}]
        parts += [{"type": "image_url", "image_url": {"url": each.data_url()}} for each in pictures]
        return pictures, {"role": "user", "content": parts}

    async def _elsewhere(self, task: str, work: Coroutine[Any, Any, U]) -> U:
        """Run `work` on the background loop while simulated time stands still."""
        try:
            with self._clock.hold():
                return await self._background.call(work)
        except BackgroundClosedError:
            raise self.failed(task, "closed", "the planner was closed") from None
