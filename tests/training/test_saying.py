"""DexVLA out of a data set: both its losses fall, and its folder runs with no further key."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from dexrun.__main__ import main  # noqa: E402
from dexrun.config.load import load  # noqa: E402
from policies.data.dataset import ACTION, Array, Switches, substeps_at  # noqa: E402
from policies.data.opening import open_dataset  # noqa: E402
from policies.dexvla.policy import DexVlaPolicy  # noqa: E402
from runtime.interfaces import PolicyError  # noqa: E402
from runtime.recording.reader import Episode  # noqa: E402
from tests.dexrun.rig import ROOT, play  # noqa: E402
from tests.policies.dexvla_small import SMALL  # noqa: E402
from tests.training.rig import HeldDataset, HeldEpisode, held, options, trained  # noqa: E402
from tests.training.test_acting import ROBOT, observation  # noqa: E402

GO, STOP = "Reach.", "Close."
EXAMPLE = "docs/examples/train-dexvla.toml"


class SpokenHeld(HeldEpisode):
    def substeps(self, rows: Array) -> list[str]:
        return [GO if row < self.length // 2 else STOP for row in rows.tolist()]


def spoken() -> HeldDataset:
    dataset = held(4, 8, (32, 32))
    dataset.episodes = [SpokenHeld(each.number, each.arrays) for each in dataset.episodes]
    return dataset


def settings(to: Path, **changes: Any) -> Any:
    given = {
        "steps": 2,
        "batch": 4,
        "validation": {"share": 0},
        "optimizer": {"lr": 3e-3, "clip": 1.0},
        "precision": "float32",
        "policy": {"type": "dexvla", "shape": SMALL},
        "recipe": {"augment": False},
    }
    return options(to, **{**given, **changes})


def table_of(folder: Path) -> Any:
    arguments = ["--config", str(ROOT / "config.toml"), "--policy.checkpoint", str(folder / "last")]
    return load(arguments, {}).policy


def figures(folder: Path) -> list[dict[str, float]]:
    with (folder / "figures.csv").open() as file:
        return [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]


def test_both_losses_fall_and_its_folder_runs(tmp_path: Path) -> None:
    dataset = spoken()
    trained(settings(tmp_path, steps=30, save_every=30, log_every=10), dataset)
    first, *_, last = figures(tmp_path)
    assert last["train/action"] < 0.7 * first["train/action"]
    assert last["train/language"] < 0.5 * first["train/language"]
    table = table_of(tmp_path)
    assert (table.type, table.rate_hz, table.cameras, table.units.convention) == (
        "dexvla",
        10,
        ("head",),
        "rad",
    )
    policy = DexVlaPolicy(table.model_copy(update={"longest_reasoning": 40}), ROBOT)
    policy.warm_up()
    answer = policy.infer(observation(dataset, 0, 1))
    assert answer.rows.shape == (4, 6)
    statistics = dataset.statistics(ACTION)
    assert (answer.rows >= statistics.minimum - 2e-4).all()
    assert (answer.rows <= statistics.maximum + 2e-4).all()
    assert answer.reasoning.isprintable()
    assert answer.reasoning == policy.infer(observation(dataset, 0, 1)).reasoning  # greedy


@pytest.mark.parametrize("stage", ["head", "lora"])
def test_a_stage_changes_what_it_says_and_goes_on_from_the_one_before(tmp_path: Path, stage: str) -> None:
    dataset = spoken()
    policy = {"type": "dexvla", "shape": SMALL}
    recipe = {"stage": stage, "lora_rank": 2, "lora_alpha": 4, "augment": True, "save_memory": True}
    before = trained(settings(tmp_path / "a", policy=policy), dataset).checkpoint / "model.safetensors"
    policy = {**policy, "checkpoint": str(before), "shape": table_of(tmp_path / "a").shape.model_dump()}
    after = trained(settings(tmp_path / "b", policy=policy, recipe=recipe), dataset).checkpoint
    from safetensors.torch import load_file

    one, two = load_file(before), load_file(after / "model.safetensors")
    assert one.keys() == two.keys()
    changed = {name for name in one if not torch.equal(one[name], two[name])}
    of_vlm = {name for name in changed if name.startswith(("model.", "visual.", "lm_head"))}
    assert "policy_head.pos_embed" in changed
    assert "reasoning_film.scale_fc.weight" in changed
    if stage == "head":
        assert not of_vlm
    else:
        assert "model.layers.0.self_attn.q_proj.weight" in of_vlm
        assert "visual.blocks.0.attn.qkv.weight" in of_vlm
        assert not {name for name in of_vlm if "norm" in name or "merger" in name or "embed_tokens" in name}


def test_what_it_has_no_input_for_is_refused() -> None:
    from policies.dexvla.config import DexVlaConfig

    recipe = DexVlaConfig(cameras=("head",)).recipe({})
    assert recipe.reads(Switches()).cameras == ("head",)
    with pytest.raises(PolicyError, match="use_force: dexvla has no input for it"):
        recipe.reads(Switches(use_force=True))


def hdf5(folder: Path, rows: int = 12) -> Path:
    """A small set as DexVLA's own tools write it."""
    import h5py

    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(3):
        start, goal = np.zeros(6), random.uniform(-0.4, 0.4, 6)
        start[5], goal[5] = 0.1, 0.9
        path = start + (goal - start) * np.linspace(0, 1, rows + 1)[:, None]
        with h5py.File(folder / f"episode_{number}.hdf5", "w") as root:
            root.attrs["sim"] = True
            root["action"], root["observations/qpos"] = path[1:], path[:-1]
            root["observations/qvel"] = np.zeros((rows, 6))
            for camera in ("head", "wrist"):
                pictures = random.integers(0, 100, (2, 60, 80, 3), np.uint8) + np.uint8([[[[0]]], [[[150]]]])
                root[f"observations/images/{camera}"] = np.repeat(pictures, rows // 2, axis=0)
            root["language_raw"] = [b"pick the cube"]
            root["substep_reasonings"] = [(GO if row < rows // 2 else STOP).encode() for row in range(rows)]
    return folder


def test_the_sub_steps_of_its_own_data_sets_are_read(tmp_path: Path) -> None:
    dataset = open_dataset(hdf5(tmp_path / "data"), rate_hz=25.0)  # every second row
    assert dataset.format == "dexvla-hdf5"
    assert substeps_at(dataset.episodes[1], np.array([5, 0, 2, 3])) == [STOP, GO, GO, STOP]
    assert dataset.episodes[0].task == "pick the cube"


def inline(value: Any) -> str:
    """As the command line takes a table."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {inline(each)}" for key, each in value.items()) + "}"
    return json.dumps(value)


@pytest.mark.slow
def test_two_hundred_steps_and_a_run_in_grasp_mode_that_says_what_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("config.toml", "docs"):
        (tmp_path / name).symlink_to(ROOT / name)
    head = {**SMALL["head"], "chunk": 20}
    given = {
        "data": str(hdf5(tmp_path / "data")),
        "to": "outputs/small",
        "steps": 200, "batch": 8, "log_every": 20, "save_every": 200, "workers": 0, "cache": True,
        "precision": "float32", "recipe.vlm": "", "recipe.save_memory": False, "optimizer.lr": 3e-3,
        "policy.units": "rad",
        "policy.shape.vlm": inline(SMALL["vlm"]),
        "policy.shape.image_width": 56, "policy.shape.image_height": 56,
        **{f"policy.shape.head.{key}": value for key, value in head.items()},
    }  # fmt: skip
    words = [word for key, value in given.items() for word in (f"--{key}", str(value))]
    assert main(["train", "--config", EXAMPLE, *words]) == 0
    first, *_, last = figures(tmp_path / "outputs/small")
    assert last["step"] == 200
    assert last["train/action"] < 0.6 * first["train/action"]
    assert last["train/language"] < 0.1 * first["train/language"]
    capsys.readouterr()
    code, summary = play(
        tmp_path / "runs",
        policy__type="dexvla",
        policy__checkpoint="outputs/small/last",
        policy__longest_reasoning="48",
        grasp__time_limit_s="6",
        terminal__style="lines",
    )
    assert (code, summary["outcome"]) == (1, "incomplete")
    assert summary["policy"]["failures"] == {}
    assert summary["policy"]["chunks"] >= 2
    assert summary["missed_ticks"] == 0
    assert summary["clips"].get("force", 0) == 0
    told = capsys.readouterr().out
    (file,) = (tmp_path / "runs").glob("2*/episodes/*.mcap")
    with Episode(file) as episode:
        topic = next(name for name in episode.topics if "chunk" in name)
        said = [sample.values["reasoning"] for sample in episode.samples(topic)]
    assert len(said) == summary["policy"]["chunks"]
    assert any(said)
    assert any(f" | {each}\n" in told for each in said if each)
