"""An ACT of `dexrun train` as a folder of LeRobot's: the same chunks, by the networks of either name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from dexrun.data.convert import main  # noqa: E402
from policies.act.config import ActConfig  # noqa: E402
from policies.act.load import random_act, stats_state  # noqa: E402
from policies.act.options import ActShape  # noqa: E402
from policies.act.policy import ActPolicy  # noqa: E402
from policies.checkpoint import write_safetensors  # noqa: E402
from policies.lerobot.config import LerobotFolderConfig  # noqa: E402
from policies.lerobot.policy import FolderPolicy  # noqa: E402
from runtime.messages import ArmState, Frame, Observation  # noqa: E402
from tests.policies.lerobot_rig import ROBOT  # noqa: E402

SHAPE = {"state_size": 6, "action_size": 6, "chunk": 5, "hidden": 32, "feedforward": 48, "heads": 4}
SIZE = (64, 96)


def checkpoint(folder: Path, **shape: Any) -> Path:
    """A folder as `dexrun train` leaves it."""
    folder.mkdir()
    whole = ActShape.model_validate({**SHAPE, "encoder_layers": 2, "latent": 8, **shape})
    model, stats = random_act(whole, 3)
    stats.qpos_mean[:5] = np.linspace(-20, 20, 5)
    stats.qpos_std[:] = stats.action_std[:] = 15
    stats.qpos_mean[5] = stats.action_mean[5] = 50
    write_safetensors(folder / "model.safetensors", {**model.state_dict(), **stats_state(stats)}, {})
    said = {"type": "act", "cameras": ["head", "wrist"], "image_width": SIZE[1], "image_height": SIZE[0]}
    (folder / "policy.json").write_text(json.dumps({**said, "shape": whole.model_dump(mode="json")}))
    (folder / "dexrun.json").write_text(json.dumps({"units": {"convention": "lerobot_degrees"}}))
    return folder


def seen() -> Observation:
    rng, zeros = np.random.default_rng(0), np.zeros(6)
    frames = {
        name: Frame(name, 0, rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8)) for name in ("head", "wrist")
    }
    return Observation(0, 0, 0, ArmState(0, np.full(6, 0.4), zeros, zeros), frames)


def test_it_answers_as_before(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = checkpoint(tmp_path / "last"), tmp_path / "pretrained_model"
    assert main([str(source), str(target), "--lerobot"]) == 0
    assert capsys.readouterr().out == f"{target}: an ACT for LeRobot, 2 cameras, 5 rows\n"
    own = ActConfig.model_validate(
        {
            "checkpoint": str(source / "model.safetensors"),
            "shape": {"heads": 4},
            "cameras": ["head", "wrist"],
            "image_width": SIZE[1],
            "image_height": SIZE[0],
        }
    )
    before, after = ActPolicy(own, ROBOT), FolderPolicy(LerobotFolderConfig(path=str(target)), ROBOT, {})
    for policy in (before, after):
        policy.warm_up()
    assert after.spec.cameras == ("head", "wrist")
    np.testing.assert_allclose(after.infer(seen()).rows, before.infer(seen()).rows, rtol=0, atol=2e-6)
    assert main([str(source), str(target), "--lerobot"]) == 2
    assert capsys.readouterr().err == f"dexrun: {target}: is there already; give another name\n"


def test_what_lerobot_has_no_network_for_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, shape, told in (
        (
            "group",
            {"norm": "group", "base_width": 16},
            "its ResNet has group norms, and LeRobot's",
        ),
        ("narrow", {"base_width": 8}, "its ResNet begins with 8 channels, LeRobot's with 64"),
    ):
        source = checkpoint(tmp_path / name, **shape)
        assert main([str(source), str(tmp_path / "out"), "--lerobot"]) == 2
        assert told in capsys.readouterr().err
    (source / "policy.json").write_text('{"type": "lift"}')
    assert main([str(source), str(tmp_path / "out"), "--lerobot"]) == 2
    assert "a policy of type 'lift'; written for LeRobot are those of type act" in capsys.readouterr().err
    assert main([str(tmp_path / "none"), str(tmp_path / "out"), "--lerobot"]) == 2
    assert not (tmp_path / "out").exists()
