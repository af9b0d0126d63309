"""Tiny random networks through the whole simulated grasp mode: the arm moves safely; no success expected."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.dexrun.rig import play

TINY: dict[str, dict[str, str]] = {
    "dexgrasp": {
        "policy__shape__head": "tiny14",
        "policy__shape__wrist": "tiny14",
        "policy__shape__image_size": "28",
        "policy__shape__position_grid": "2",
        "policy__shape__state_size": "6",
        "policy__shape__action_size": "6",
        "policy__shape__horizon": "32",
        "policy__shape__layers": "1",
        "policy__shape__heads": "2",
        "policy__shape__mask_layers": "1",
        "policy__shape__mask_heads": "2",
        "policy__blend": "rtc",
    },
    "act": {
        "policy__shape__state_size": "6",
        "policy__shape__action_size": "6",
        "policy__shape__chunk": "40",
        "policy__shape__hidden": "16",
        "policy__shape__feedforward": "16",
        "policy__shape__heads": "2",
        "policy__shape__encoder_layers": "1",
        "policy__shape__base_width": "4",
        "policy__image_width": "96",
        "policy__image_height": "64",
        "policy__cameras": '["head", "wrist"]',
        "policy__blend": "temporal_ensemble",
    },
}
COMMON = {
    "policy__threads": "1",
    "policy__units": "symmetric",
    "grasp__time_limit_s": "6",
}


def run(folder: Path, kind: str, **more: str) -> tuple[int, dict[str, Any]]:
    return play(folder, policy__type=kind, **COMMON, **TINY[kind], **more)


@pytest.mark.parametrize("kind", [pytest.param("dexgrasp", marks=pytest.mark.slow), "act"])
def test_a_random_network_moves_the_arm_inside_its_limits(tmp_path: Path, kind: str) -> None:
    code, summary = run(tmp_path, kind)
    assert (code, summary["outcome"]) == (1, "incomplete")
    assert summary["stop_reason"] == "time limit of 6 s"
    assert summary["policy"]["chunks"] >= 2
    assert summary["policy"]["failures"] == {}
    assert summary["clips"].get("force", 0) == 0
    assert summary["missed_ticks"] == 0
    assert not summary["judge"]["success"]


def test_a_checkpoint_that_is_not_there_ends_the_run_before_anything_moves(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, summary = run(tmp_path, "dexgrasp", policy__checkpoint=str(tmp_path / "absent.ckpt"))
    said = capsys.readouterr()
    assert code in (2, 3)
    assert "absent.ckpt: no such file" in said.err + said.out + str(summary["stop_reason"])
    assert summary["ticks"] <= 1
