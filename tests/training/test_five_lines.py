"""From nothing to a policy that runs: the five lines that docs/training.md begins with, in small."""

from __future__ import annotations

from pathlib import Path

import pytest

from dexrun.__main__ import main
from tests.dexrun.rig import ROOT

SMALL = {
    "chunk": 10,
    "hidden": 32,
    "feedforward": 32,
    "heads": 4,
    "encoder_layers": 1,
    "latent": 4,
    "base_width": 8,
}


@pytest.mark.slow
def test_five_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("config.toml", "docs"):
        (tmp_path / name).symlink_to(ROOT / name)
    shape = [word for key, value in SMALL.items() for word in (f"--policy.shape.{key}", str(value))]
    assert main(["collect", "--episodes", "2", "--to", "data/pick"]) == 0
    assert main(["data", "check", "data/pick"]) in (0, 1)
    example = ["--config", "docs/examples/train-act.toml", "--steps", "20", "--workers", "0"]
    assert main(["train", *example, *shape]) == 0
    assert main(["eval", "--policy", "outputs/pick/last", "--scenes", "1", "--engine", "fast"]) in (0, 1)
    stepped = ["--realtime.clock", "stepped", "--grasp.time_limit_s", "10"]
    code = main(["--config", "config.toml", "--policy.checkpoint", "outputs/pick/last", *stepped])
    assert code in (0, 1)  # twenty steps clear no table
    assert (tmp_path / "runs/latest/summary.json").is_file()
