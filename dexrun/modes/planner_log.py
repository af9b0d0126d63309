"""The planner's exchanges in the run's folder: one JSON line each, pictures beside it."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING

from loguru import logger

from dexrun.shown import picture_name
from runtime.masking import without_secrets

if TYPE_CHECKING:
    from planner.exchange import Exchange


class PlannerLog:
    """Writes on a thread of its own; `record` only queues.

    Files: ``planner/exchanges.jsonl``, ``planner/NNNN-TASK-K.jpg``.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "planner"
        self._folder.mkdir()
        self._queue: SimpleQueue[Exchange | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._main, name="planner-log", daemon=True)
        self._thread.start()

    def record(self, exchange: Exchange) -> None:
        """Keep `exchange`. Returns at once."""
        self._queue.put(exchange)

    def close(self) -> None:
        """Write what is queued, and end."""
        self._queue.put(None)
        self._thread.join()

    def _main(self) -> None:
        try:
            self._write()
        except OSError as error:  # a full disk, which is no reason to end a run
            where, why = self._folder / "exchanges.jsonl", error.strerror or error
            logger.error("{} cannot be written any more: {}", where, why)

    def _write(self) -> None:
        with (self._folder / "exchanges.jsonl").open("w", encoding="utf-8") as lines:
            number = 0
            while (exchange := self._queue.get()) is not None:
                images = []
                for index, jpeg in enumerate(exchange.images):
                    name = picture_name(number, exchange.task, index)
                    (self._folder / name).write_bytes(jpeg)
                    images.append(name)
                line = {
                    "task": exchange.task,
                    "attempt": exchange.attempt,
                    "model": exchange.model,
                    "asked_ns": exchange.asked_ns,
                    "latency_s": exchange.latency_s,
                    "prompt": exchange.prompt,
                    "reply": exchange.reply,
                    "error": exchange.error,
                    "images": images,
                }
                lines.write(without_secrets(json.dumps(line, ensure_ascii=False)) + "\n")
                lines.flush()
                number += 1
