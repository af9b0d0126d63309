"""The planner: questions to a vision-language model, each answered by its typed reply or `PlannerError`.

The HTTP exchange, picture compression and base64 run on a thread of their own; on the control loop a call
only awaits. Time is the clock's: on a stepped clock the exchange is real while simulated time stands still,
and its outcome then arrives `PlannerConfig.simulated_latency_s` later.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

from planner.asker import Asker
from planner.background import BackgroundLoop
from planner.config import PlannerConfig
from planner.errors import PlannerError
from planner.exchange import ExchangeLog, Exchanges
from planner.questions.question import Question, View
from planner.questions.reply import Reply
from planner.statistics import PlannerStatistics
from planner.transport import Transport
from runtime.clock import Clock
from runtime.masking import know_secrets_of, secret_of
from runtime.messages import ColorImage
from runtime.teardown import boxed

if TYPE_CHECKING:
    from planner.scene_reader.server import SceneReader

R = TypeVar("R", bound=Reply)

_CLOSE_S = 2.0
"""Wall time that saying goodbye to the server may take."""


class Planner:
    """Asks. Use as ``async with Planner(config, clock) as planner`` or with `open` and `aclose`.

    Args:
        config: the `[planner]` table. Without a `base_url` the embedded scene reader is started.
        clock: the process's clock.
        log: is told of every exchange, on the loop; must return at once.

    Cancelling `ask` ends its exchange. Questions may be asked concurrently.
    """

    def __init__(self, config: PlannerConfig, clock: Clock, log: ExchangeLog | None = None) -> None:
        self._config = config
        self._clock = clock
        self._log = log
        self._statistics = PlannerStatistics()
        self._background: BackgroundLoop | None = None
        self._transport: Transport | None = None
        self._asker: Asker | None = None
        self.scene_reader: SceneReader | None = None
        self.where = config.base_url or ""

    # --- life

    async def __aenter__(self) -> Planner:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def open(self) -> None:
        """Start the embedded reader if there is one, and build the HTTP client. Asks nothing yet.

        Raises:
            PlannerError: the embedded reader's port is in use.
        """
        background = self._background = BackgroundLoop("planner")
        try:
            with self._clock.hold():
                transport = await background.call(self._start())
        except BaseException:
            await self.aclose()
            raise
        config, clock, statistics = self._config, self._clock, self._statistics
        exchanges = Exchanges(config, clock, background, transport, statistics, self._log)
        self._asker = Asker(config, clock, statistics, exchanges)

    async def _start(self) -> Transport:
        """On the background loop."""
        import cv2  # noqa: F401 - here, rather than when the first picture is compressed

        if self._config.base_url is None:
            from planner.scene_reader.server import SceneReader

            key = secrets.token_urlsafe(24)
            self.scene_reader = SceneReader(self._config.scene_reader, key)
            try:
                await self.scene_reader.start()
            except OSError as error:
                where = f"planner.scene_reader.port = {self._config.scene_reader.port}"
                detail = f"cannot listen there: {os.strerror(error.errno or 0).lower()}; 0 takes a free port"
                raise PlannerError("start", "unreachable", detail, where) from error
            self.where = self.scene_reader.base_url
        else:
            key = secret_of(self._config.api_key_env)
        know_secrets_of(self.where)
        self._transport = Transport(self._config, self.where, key, simulated=self._clock.stepped)
        await self._transport.open()
        return self._transport

    async def aclose(self) -> None:
        """Close connections, server and thread. Idempotent; calls in flight end with kind ``closed``."""
        background, self._background, self._asker = self._background, None, None
        if background is None:
            return

        async def close() -> None:
            await background.call(self._stop())
            await background.close()

        with self._clock.hold():
            await boxed("the planner", 2 * _CLOSE_S, close)

    async def _stop(self) -> None:
        """On the background loop."""
        if self._transport is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CLOSE_S):
                    await self._transport.close()
        if self.scene_reader is not None:
            await self.scene_reader.close()

    async def ask(self, question: Question[R], pictures: Mapping[View, ColorImage] | None = None) -> R:
        """The model's reply to `question`.

        Args:
            question: what to ask.
            pictures: the newest of each camera, RGB uint8 ``[H, W, 3]``, which must not change until this
                returns; those that the question does not ask about are not sent.

        Raises:
            PlannerError: no usable reply came in spite of all retries, or the deadline has passed; of kind
                ``no_object`` if the model says that what was asked for is not in the picture.
            ValueError: a picture that the question needs is missing.
        """
        images = question.shown(pictures or {})
        if self._asker is None:
            raise PlannerError(question.task, "closed", "the planner is not open", self.where)
        return await self._asker.ask(question, images)

    def statistics(self) -> dict[str, object]:
        """The ``planner`` part of ``summary.json``."""
        return self._statistics.summary()
