"""The loop: its checkpoints are whole, a training goes on as if nothing had happened, trouble is one line."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._utils import ExceptionWrapper

from policies.act.recipe import ActRecipe
from policies.checkpoint import CheckpointError
from policies.data.dataset import ACTION, DatasetError
from policies.data.windows import Windows, WindowSpec
from policies.training.loading import said_in_worker
from policies.training.trouble import TrainingError
from tests.training.rig import TINY, held, options, trained

HARD = {
    "ema": {"enabled": True},
    "schedule": {"name": "cosine", "warmup_steps": 2},
    "accumulate": 2,
    "optimizer": {"lr": 1e-3, "clip": 1.0},
}


def test_a_checkpoint_is_whole(tmp_path: Path) -> None:
    told: list[str] = []
    end = trained(options(tmp_path), told=told)
    assert (end.step, end.finished) == (6, True)
    assert end.checkpoint == tmp_path / "checkpoints" / "000006"
    assert (tmp_path / "last").resolve() == end.checkpoint
    assert (tmp_path / "best" / "policy.json").is_file()
    names = {path.name for path in end.checkpoint.iterdir()}
    assert names == {"model.safetensors", "policy.json", "dexrun.json", "training.json", "training_state"}
    about = json.loads((end.checkpoint / "dexrun.json").read_text())
    assert about["units"] == {"convention": "rad"}
    assert about["data"]["fingerprint"] == "1f"
    assert about["features"][ACTION]["names"][0] == "shoulder_pan"
    # only the newest can be gone on from
    assert not (tmp_path / "checkpoints/000003/training_state").exists()
    assert told[0].startswith("data/held: 108 samples of 9 episodes, 12 of 1 held back for validation")
    assert told[1].startswith("step 1/6, loss ")
    with (tmp_path / "figures.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == list("123456")
    assert [bool(row["validation_loss"]) for row in rows] == [False, False, True, False, False, True]
    assert float(rows[0]["train/l1"]) > 0


@pytest.mark.parametrize("more", [{}, HARD], ids=["plain", "hard"])
def test_a_training_goes_on_bit_for_bit(tmp_path: Path, more: Any) -> None:
    whole = trained(options(tmp_path / "whole", **more))
    asked = iter([False, False, True])
    first = trained(options(tmp_path / "cut", **more), stopped=lambda: next(asked))
    assert (first.step, first.finished) == (3, False)
    second = trained(options(tmp_path / "cut", **more), resume=True)
    assert first.losses + second.losses == whole.losses
    weights = [
        torch.load(end.checkpoint / "training_state/state.pt", weights_only=True)["parts"]
        for end in (whole, second)
    ]
    for name, value in weights[0]["model"].items():
        assert torch.equal(value, weights[1]["model"][name]), name
    with (tmp_path / "cut/figures.csv").open() as file:
        assert [row["step"] for row in csv.DictReader(file)] == list("123456")


def test_what_goes_on_is_the_same_training(tmp_path: Path) -> None:
    trained(options(tmp_path, steps=3))
    with pytest.raises(CheckpointError, match=r"holds a training; --resume .* goes on with it"):
        trained(options(tmp_path))
    with pytest.raises(CheckpointError, match="began with another batch, seed; give another --to"):
        trained(options(tmp_path, batch=2, seed=5), resume=True)
    other = held()
    other.print = "2e"
    with pytest.raises(CheckpointError, match=r"not the data that .*000003 began with"):
        trained(options(tmp_path), other, resume=True)
    assert other.closed
    with pytest.raises(CheckpointError, match="has had all of its 3 steps; --steps 6 makes them more"):
        trained(options(tmp_path, steps=3), resume=True)
    with pytest.raises(CheckpointError, match="no training to go on with"):
        trained(options(tmp_path / "none"), resume=True)


def test_the_best_is_by_validation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    losses = iter([3.0, 1.0, 2.0])
    monkeypatch.setattr("policies.training.trainer._Training._validated", lambda self: next(losses))
    trained(options(tmp_path, save_every=2))
    assert (tmp_path / "best").resolve().name == "000004"
    assert (tmp_path / "last").resolve().name == "000006"


def test_what_an_average_is_of_is_saved_and_validated(tmp_path: Path) -> None:
    plain = trained(options(tmp_path / "plain"))
    average = trained(options(tmp_path / "average", ema={"enabled": True}))
    assert plain.losses == average.losses  # it is looked at and not trained with
    files = [(end.checkpoint / "model.safetensors").read_bytes() for end in (plain, average)]
    assert files[0] != files[1]


def test_a_loss_that_is_no_number_ends_it_and_saves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss = ActRecipe.loss
    calls = iter(range(100))

    def wrong(self: ActRecipe, *given: Any) -> Any:
        made, parts = loss(self, *given)
        return (made * float("nan") if next(calls) == 5 else made), parts

    monkeypatch.setattr(ActRecipe, "loss", wrong)
    # the third step of four batches, for the validation after the second has one, too
    with pytest.raises(TrainingError) as caught:
        trained(options(tmp_path, save_every=2, validation={"share": 0}, accumulate=1))
    assert str(caught.value).startswith("the loss of step 6 is not a finite number (l1 ")
    assert "lower optimizer.lr (0.001), or bound the gradient with optimizer.clip (0)" in str(caught.value)
    assert (tmp_path / "last").resolve().name == "000004"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), "--batch 2 --accumulate 2 is the same training"),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
            "out of memory at step 1",
        ),
        (
            RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."),
            "lower workers (0), batch (4)",
        ),
        (RuntimeError("unable to allocate shared memory(shm) for file"), "make /dev/shm larger"),
    ],
)
def test_memory_is_one_line_with_what_to_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    def fail(*_: Any) -> Any:
        raise error

    monkeypatch.setattr(ActRecipe, "loss", fail)
    with pytest.raises(TrainingError) as caught:
        trained(options(tmp_path))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_data_that_does_not_fit_is_one_line_before_anything(tmp_path: Path) -> None:
    dataset = held()
    dataset.features = {k: v for k, v in dataset.features.items() if k != ACTION}
    with pytest.raises(DatasetError, match=r"data/held: no 'action' in it, which act needs"):
        trained(options(tmp_path), dataset)
    given = {"type": "act", "shape": TINY, "cameras": ["wrist"]}
    with pytest.raises(DatasetError, match=r"no camera 'wrist' in it \(policy.cameras\); it has: head"):
        trained(options(tmp_path, policy=given))


def test_damage_is_told_by_the_loop_and_by_a_worker_alike(tmp_path: Path) -> None:
    def damaged() -> Any:
        dataset = held()
        del dataset.episodes[4].arrays["observation.images.head"]
        return dataset

    said = r"^episode 4: no observation\.images\.head$"
    with pytest.raises(TrainingError, match=said):
        trained(options(tmp_path, batch=120), damaged())
    try:  # as torch hands it on
        Windows(damaged(), WindowSpec({"observation.images.head": (0,)})).batch(range(120))
    except DatasetError:
        wrapped = ExceptionWrapper(where="in DataLoader worker process 0")
    with pytest.raises(DatasetError) as caught:
        wrapped.reraise()
    assert re.match(said, str(said_in_worker(caught.value)))


def test_a_worker_reads_what_the_loop_would(tmp_path: Path) -> None:
    here = trained(options(tmp_path / "here", steps=3))
    there = trained(options(tmp_path / "there", steps=3, workers=1, cache=True))
    assert here.losses == there.losses
