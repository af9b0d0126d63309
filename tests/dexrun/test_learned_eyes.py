"""Grasp mode with models that see, with tiny random weights: whatever they say, the arm moves safely."""

from __future__ import annotations

from pathlib import Path

import pytest

from dexrun.exit_codes import NOT_DONE, OK
from tests.dexrun.rig import assert_tame, perform
from tests.perception.tiny_sam2 import tiny_folder
from tests.planner.tiny_detectors import grounding_dino

pytest.importorskip("transformers")


def test_an_arm_that_sees_by_random_weights_is_tame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The detector's box, SAM 2's mask and its tracking; colours where they give nothing."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    dino, sam2 = grounding_dino(tmp_path / "dino", queries=1), tiny_folder(tmp_path / "sam2")
    stage = perform(
        tmp_path / "runs",
        perception__detector__type="grounding_dino",
        perception__detector__path=str(dino),
        perception__segmenter__type="sam2",
        perception__segmenter__path=str(sam2),
        perception__tracker__type="sam2",
        perception__tracker__path=str(sam2),
        perception__fallback="color",
        grasp__time_limit_s="4",
        grasp__attempt_timeout_s="2",
    )
    assert stage.code in (OK, NOT_DONE), stage.summary["stop_reason"]
    assert_tame(stage.up)
    assert stage.summary["attempts"]
    log = (stage.folder / "log.txt").read_text(encoding="utf-8")
    assert "perception: the red cube" in log  # the detector's box, not the planner's
    assert "Traceback" not in log
