"""The planner's log on a disk that is full."""

from __future__ import annotations

from pathlib import Path

import pytest
from loguru import logger

from dexrun.modes.planner_log import PlannerLog
from planner.exchange import Exchange


def test_a_full_disk_costs_the_log_and_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device", str(path))

    said: list[str] = []
    sink = logger.add(said.append, format="{message}")
    monkeypatch.setattr(Path, "write_bytes", full)
    log = PlannerLog(tmp_path)
    for attempt in range(3):
        log.record(Exchange("task", attempt, "model", "prompt", (b"jpeg",), "reply", None, 0, 0.1))
    log.close()
    logger.remove(sink)
    assert len(said) == 1
    assert "exchanges.jsonl cannot be written any more: No space left on device" in said[0]
