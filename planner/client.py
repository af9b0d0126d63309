"""The planner: seven questions to a vision-language model, each answered by a typed reply or `PlannerError`.

The HTTP exchange, picture compression and base64 run on a thread of their own; on the control loop a call
only awaits. Time is the clock's: on a stepped clock the exchange is real while simulated time stands still,
and its outcome then arrives `PlannerConfig.simulated_latency_s` later.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

from planner import prompts, replies
from planner.background import BackgroundLoop
from planner.config import PlannerConfig
from planner.errors import PlannerError
from planner.exchange import Asker, ExchangeLog, Parse
from planner.images import Picture
from planner.statistics import PlannerStatistics
from planner.transport import Transport
from runtime.clock import Clock
from runtime.messages import ColorImage
from runtime.teardown import boxed

if TYPE_CHECKING:
    from planner.scene_reader.server import SceneReader

T = TypeVar("T")

_CLOSE_S = 2.0
"""Wall time that saying goodbye to the server may take."""


class Planner:
    """Asks. Use as ``async with Planner(config, clock) as planner`` or with `open` and `aclose`.

    Args:
        config: the `[planner]` table. Without a `base_url` the embedded scene reader is started.
        clock: the process's clock.
        log: is told of every exchange, on the loop; must return at once.

    Every task raises `PlannerError` once its retries are used up or its deadline has passed. Cancelling a
    task ends its exchange. Tasks may run concurrently.
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
        self._asker = Asker(self._config, self._clock, background, transport, self._statistics, self._log)

    async def _start(self) -> Transport:
        """On the background loop."""
        import cv2  # noqa: F401 - here, rather than when the first picture is compressed

        if self._config.base_url is None:
            from planner.scene_reader.server import SceneReader

            self.scene_reader = SceneReader(self._config.scene_reader)
            try:
                await self.scene_reader.start()
            except OSError as error:
                where = f"planner.scene_reader.port = {self._config.scene_reader.port}"
                detail = f"cannot listen there: {os.strerror(error.errno or 0).lower()}; 0 takes a free port"
                raise PlannerError("start", "unreachable", detail, where) from error
            self.where = self.scene_reader.base_url
        key = os.environ.get(self._config.api_key_env) if self._config.base_url is not None else None
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

    def statistics(self) -> dict[str, object]:
        """The ``planner`` part of ``summary.json``."""
        return self._statistics.summary()

    # --- the seven tasks

    async def classify_user_prompt(self, prompt: str) -> replies.PromptClass:
        """Whether `prompt` names objects (Type I) or is abstract (Type II)."""
        text = prompts.classify_user_prompt(prompt)
        return await self._ask("classify_user_prompt", text, (), lambda r, _: replies.parse_prompt_class(r))

    async def decompose_user_prompt(self, prompt: str, head: ColorImage) -> replies.Decomposition:
        """The objects that `prompt` means, each with its position, in grasping order."""
        text = prompts.decompose_user_prompt(prompt)
        parse = replies.parse_decomposition
        return await self._ask("decompose_user_prompt", text, (head,), lambda r, _: parse(r))

    async def generate_instruction(self, head: ColorImage, avoid: Sequence[str] = ()) -> replies.Proposal:
        """The next object to grasp, none of `avoid` if it can be helped."""
        text = prompts.generate_instruction(avoid)
        parse = replies.parse_instruction
        return await self._ask("generate_instruction", text, (head,), lambda r, _: parse(r))

    async def mark_bounding_box(self, instruction: str, head: ColorImage) -> replies.BoundingBox:
        """Where `instruction`'s object is, in pixels of `head` as it was given.

        Raises:
            PlannerError: also with kind ``no_object`` if the model says that it is not there.
        """
        task, text = "mark_bounding_box", prompts.mark_bounding_box(instruction)
        box = await self._ask(task, text, (head,), self._parse_box)
        if box is None:
            detail = f"nothing in the picture fits {instruction!r}"
            self._statistics.errors += 1
            raise PlannerError(task, "no_object", detail, self.where)
        return self._to_frame(box, head)

    async def check_grasp_success(
        self, head: ColorImage, wrist: ColorImage | None = None, instruction: str = ""
    ) -> replies.Verdict:
        """Whether the gripper holds an object, by the head and, where there is one, the wrist camera."""
        images = (head,) if wrist is None else (head, wrist)
        text = prompts.check_grasp_success(instruction, len(images))
        parse = replies.parse_conclusion
        return await self._ask("check_grasp_success", text, images, lambda r, _: parse(r))

    async def check_instruction_complete(self, instruction: str, head: ColorImage) -> replies.Verdict:
        """Whether `instruction`'s object has left the table."""
        text = prompts.check_instruction_complete(instruction)
        parse = replies.parse_verdict
        return await self._ask("check_instruction_complete", text, (head,), lambda r, _: parse(r))

    async def check_user_prompt_complete(self, head: ColorImage) -> replies.Verdict:
        """Whether the table is empty; otherwise `reason` names what is left."""
        text = prompts.check_user_prompt_complete()
        parse = replies.parse_verdict
        return await self._ask("check_user_prompt_complete", text, (head,), lambda r, _: parse(r))

    def _parse_box(self, text: str, pictures: Sequence[Picture]) -> replies.BoundingBox | None:
        """In the units in which the model counts."""
        per_mille = self._config.box_units == "per_mille"
        size = (1000, 1000) if per_mille else (pictures[0].width, pictures[0].height)
        box = replies.parse_bounding_box(text, *size)
        if box is None:
            return None
        x1, y1, x2, y2 = box.bbox_2d
        w, h = size
        return box.model_copy(update={"bbox_2d": (x1 / w, y1 / h, x2 / w, y2 / h)})

    def _to_frame(self, box: replies.BoundingBox, head: ColorImage) -> replies.BoundingBox:
        """From fractions of the picture to pixels of the frame it was made from."""
        height, width = head.shape[:2]
        x1, y1, x2, y2 = box.bbox_2d
        return box.model_copy(update={"bbox_2d": (x1 * width, y1 * height, x2 * width, y2 * height)})

    async def _ask(self, task: str, prompt: str, images: Sequence[ColorImage], parse: Parse[T]) -> T:
        if self._asker is None:
            raise PlannerError(task, "closed", "the planner is not open", self.where)
        return await self._asker.ask(task, prompt, images, parse)
