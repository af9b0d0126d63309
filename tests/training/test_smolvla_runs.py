"""SmolVLA from collected demonstrations to a run: all of its inputs, by the commands that a person gives."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("peft")

from dexrun.__main__ import main
from tests.dexrun.rig import ROOT, play
from tests.training.smolvla_small import SHAPE, VLM
from tests.training.test_saying import figures, inline


@pytest.mark.slow
def test_a_hundred_steps_of_demonstrations_and_a_run_in_grasp_mode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("config.toml", "docs"):
        (tmp_path / name).symlink_to(ROOT / name)
    assert main(["collect", "--episodes", "2", "--to", "data", "--width", "64", "--height", "48"]) == 0
    given = {
        "data": "data",
        "to": "outputs/small",
        "rate_hz": 10,
        "steps": 120, "batch": 8, "log_every": 20, "save_every": 120, "workers": 0, "cache": True,
        "precision": "float32", "optimizer.lr": 3e-3, "validation.share": 0,
        "policy.checkpoint": "", "policy.vlm": "",
        "recipe.shape.vlm": inline(VLM), "recipe.shape.vlm_layers": 3, "recipe.shape.chunk": 12,
        "recipe.shape.state_size": SHAPE["state_size"], "recipe.shape.action_size": SHAPE["action_size"],
        "recipe.rtc_delay": 6,
        "switches.use_depth": True, "switches.use_force": True, "switches.use_language_tip": True,
    }  # fmt: skip
    words = [word for key, value in given.items() for word in (f"--{key}", str(value))]
    assert main(["train", "--config", "docs/examples/train-smolvla.toml", *words]) == 0
    first, *_, last = figures(tmp_path / "outputs/small")
    assert last["step"] == 120
    assert last["train/flow"] < 0.7 * first["train/flow"]
    code, summary = play(
        tmp_path / "runs",
        policy__type="smolvla",
        policy__checkpoint="outputs/small/last",
        policy__blend="rtc",
        grasp__time_limit_s="6",
    )
    assert (code, summary["outcome"]) == (1, "incomplete")
    assert summary["policy"]["failures"] == {}
    assert summary["policy"]["chunks"] >= 2
    assert summary["missed_ticks"] == 0
    assert summary["clips"].get("force", 0) == 0
