"""A training on a CUDA device; without one, every test here is skipped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dexrun.config.load import load
from policies.act.policy import ActPolicy
from tests.dexrun.rig import ROOT
from tests.training.rig import held, options, trained
from tests.training.test_acting import ROBOT, observation

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("workers", [0, 1])
def test_it_goes_on_from_its_checkpoint_and_runs_here_and_there(
    tmp_path: Path, precision: str, workers: int
) -> None:
    dataset = held()
    more: Any = {"device": "auto", "precision": precision, "workers": workers}
    whole = trained(options(tmp_path / "whole", **more), dataset)
    asked = iter([False, False, True])
    first = trained(options(tmp_path / "cut", **more), dataset, stopped=lambda: next(asked))
    second = trained(options(tmp_path / "cut", **more), dataset, resume=True)
    assert (first.step, second.step) == (3, 6)
    assert first.losses + second.losses == pytest.approx(whole.losses, rel=1e-2)
    answers = []
    for device in ("cpu", "cuda"):
        arguments = ["--config", str(ROOT / "config.toml"), "--policy.device", device]
        table: Any = load([*arguments, "--policy.checkpoint", str(tmp_path / "cut/last")], {}).policy
        policy = ActPolicy(table, ROBOT)
        policy.warm_up()
        answers.append(policy.infer(observation(dataset, 0, 0)).rows)
        policy.close()
    np.testing.assert_allclose(answers[1], answers[0], atol=5e-3)
