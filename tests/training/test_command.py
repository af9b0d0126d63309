"""``dexrun train``: where a key comes from, what is refused, how it goes on and ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dexrun.__main__ import main
from dexrun.config.load import load
from dexrun.config.sources import ConfigError
from dexrun.training.configuring import load_training
from policies.training.options import TrainingOptions
from policies.training.trainer import TrainingEnd
from policies.training.trouble import TrainingError
from tests.dexrun.rig import ROOT
from tests.training.rig import options, trained

EXAMPLE = str(ROOT / "docs/examples/train-act.toml")


def refused(*arguments: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_training(["--config", EXAMPLE, *arguments], {})
    return str(caught.value)


def own(folder: Path, text: str) -> str:
    (folder / "own.toml").write_text(text)
    return str(folder / "own.toml")


def test_command_line_over_environment_over_file_over_the_authors(tmp_path: Path) -> None:
    file = own(tmp_path, 'data = "d"\nto = "o"\nsteps = 10\nseed = 1\n[policy]\ntype = "act"\n')
    arguments = ["--config", file, "--steps", "30", "--optimizer.weight_decay", "0"]
    made = load_training(
        arguments, {"DEXRUN_TRAIN__STEPS": "20", "DEXRUN_TRAIN__SEED": "2", "DEXRUN_MODE": "x"}
    )
    assert (made.steps, made.seed) == (30, 2)
    assert (made.optimizer.lr, made.optimizer.weight_decay) == (1e-5, 0)  # ACT's; the table's own is 1e-4
    assert made.optimizer.betas == (0.9, 0.999)


def test_a_trainings_variables_are_no_runs() -> None:
    assert load(["--config", str(ROOT / "config.toml")], {"DEXRUN_TRAIN__STEPS": "20"}).mode == "grasp"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--stepz", "3"], "command line: stepz: unknown key; did you mean 'steps'?"),
        (["--steps", "0"], "command line: steps = '0': input should be greater than or equal to 1"),
        (["--optimizer.lrr", "1"], "command line: optimizer.lrr: unknown key; did you mean 'lr'?"),
        (["--recipe.kl", "1"], "command line: recipe.kl: unknown key"),
        (["--recipe.kl_weight", "-1"], "command line: recipe.kl_weight = '-1': input should be greater"),
        (
            ["--policy.shape.hidden", "3"],
            "command line: policy.shape.hidden = '3': input should be a multiple",
        ),
        (["--schedule.name", "cosin"], "command line: schedule.name = 'cosin': input should be 'constant', "),
        (["--schedule.step_rules", "1:10,0.1"], "step_rules is for schedule.name = 'piecewise_constant'"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], told: str) -> None:
    line = refused(*arguments)
    assert told in line
    assert len(line.splitlines()) == 1


def run(monkeypatch: pytest.MonkeyPatch, ends: Any) -> list[TrainingOptions]:
    """`main` trains as `ends` says."""
    asked: list[TrainingOptions] = []

    def train(given: TrainingOptions, **_: Any) -> TrainingEnd:
        asked.append(given)
        if isinstance(ends, Exception):
            raise ends
        return TrainingEnd(ends, ends >= given.steps, given.to / "checkpoints/000005", (1.0,))

    monkeypatch.setattr("policies.training.trainer.train", train)
    return asked


def test_exit_codes(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["train", "--config", EXAMPLE, "--steps", "5"]
    run(monkeypatch, 5)
    assert main(arguments) == 0
    assert "run with --policy.checkpoint outputs/pick/last" in capsys.readouterr().out
    run(monkeypatch, 4)
    assert main(arguments) == 1
    assert "stopped after step 4 of 5" in capsys.readouterr().out
    run(monkeypatch, TrainingError("the loss is none"))
    assert main(arguments) == 3
    assert capsys.readouterr().err == "dexrun train: the loss is none\n"
    assert main(["train", "--steps", "5"]) == 2
    assert "give the training's configuration" in capsys.readouterr().err
    assert main(["train", "--config", "none.toml"]) == 2
    assert main(["train", "--help"]) == 0


def test_what_cannot_be_trained_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = own(tmp_path, 'data = "d"\nto = "o"\n[policy]\ntype = "geometric"\n')
    assert main(["train", "--config", file]) == 2
    assert capsys.readouterr().err == "dexrun train: policy type 'geometric' cannot be trained here\n"


def test_a_training_goes_on_by_its_folder_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained(options(tmp_path / "before", steps=3))
    (tmp_path / "before").rename(tmp_path / "moved")
    asked = run(monkeypatch, 9)
    for folder in ("moved", "moved/last", "moved/checkpoints/000003"):
        assert main(["train", "--resume", str(tmp_path / folder), "--steps", "9"]) == 0
        made = asked.pop()
        assert made.to == tmp_path / "moved"
        assert (made.steps, made.batch) == (9, 4)
        before = json.loads((tmp_path / "moved/last/training.json").read_text())
        now = made.model_dump(mode="json")
        assert {key for key in now if now[key] != before[key]} == {"to", "steps"}


def test_what_cannot_go_on_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trained(options(tmp_path / "out"))
    assert main(["train", "--resume", str(tmp_path / "out/checkpoints/000003")]) == 2
    assert "a training goes on from its newest checkpoint, last" in capsys.readouterr().err
    assert main(["train", "--resume", str(tmp_path / "none")]) == 2
    assert "no training.json in it" in capsys.readouterr().err
