"""SmolVLA out of a data set: LeRobot's loss, what is trained, and a folder that runs here and there."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("peft")

from loguru import logger  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

from dexrun.config.load import load  # noqa: E402
from dexrun.data.convert import main as convert  # noqa: E402
from dexrun.evaluation.asked import candidates_of  # noqa: E402
from dexrun.serve.command import policy_maker  # noqa: E402
from policies.data.dataset import ACTION, DEPTH, FORCE, TIP, DatasetError, Switches  # noqa: E402
from policies.lerobot.config import LerobotFolderConfig  # noqa: E402
from policies.lerobot.policy import FolderPolicy  # noqa: E402
from policies.smolvla.config import SmolVlaConfig  # noqa: E402
from policies.smolvla.extras import ExtraInputs, sized  # noqa: E402
from policies.smolvla.options import SmolVlaInputs  # noqa: E402
from policies.smolvla.policy import SmolVlaPolicy  # noqa: E402
from policies.training.accelerating import make_schedule  # noqa: E402
from policies.training.options import ScheduleOptions  # noqa: E402
from runtime.interfaces import PolicyError  # noqa: E402
from runtime.messages import CameraInfo, Intrinsics, Observation, Tip  # noqa: E402
from tests.dexrun.rig import ROOT  # noqa: E402
from tests.training.rig import HeldDataset, held, trained  # noqa: E402
from tests.training.smolvla_small import SHAPE, settings, with_everything  # noqa: E402
from tests.training.test_acting import ROBOT, observation  # noqa: E402

SIZE = (24, 40)
EXTRAS = {"use_depth": True, "use_force": True, "use_language_tip": True}
SCALE = 0.001
HEAD = {"head": CameraInfo("head", Intrinsics(40, 24, 30.0, 30.0, 20.0, 12.0), SCALE, np.eye(4))}


def table_of(folder: Path, *words: str) -> Any:
    given = ["--config", str(ROOT / "config.toml"), "--policy.checkpoint", str(folder), *words]
    return load(given, {}).policy


def run(folder: Path, *words: str) -> SmolVlaPolicy:
    policy = SmolVlaPolicy(table_of(folder, *words), ROBOT, HEAD)
    policy.warm_up()
    return policy


def weights(folder: Path) -> dict[str, Any]:
    return dict(load_file(folder / "model.safetensors"))


def changed(one: dict[str, Any], two: dict[str, Any]) -> set[str]:
    assert one.keys() == two.keys()
    return {name for name in one if not torch.equal(one[name], two[name])}


# --- what it learns


def test_a_few_windows_are_learned_and_its_folder_runs_with_no_further_key(tmp_path: Path) -> None:
    dataset = held(2, 8, SIZE)
    rate = {"name": "cosine", "warmup_steps": 10}
    given = settings(tmp_path, steps=250, batch=16, save_every=250, log_every=250, schedule=rate)
    end = trained(given, dataset)
    assert np.mean(end.losses[-20:]) < 0.2 * np.mean(end.losses[:5])
    table = table_of(tmp_path / "last")
    assert (table.type, table.rate_hz, table.units.convention) == ("smolvla", 10.0, "rad")
    policy = run(tmp_path / "last")
    assert policy.spec.cameras == ("head",)
    errors = [
        policy.infer(observation(dataset, number, 1)).rows - dataset.episodes[number].arrays[ACTION][1:7]
        for number in range(2)
    ]
    swapped = [
        policy.infer(observation(dataset, number, 1)).rows - dataset.episodes[1 - number].arrays[ACTION][1:7]
        for number in range(2)
    ]
    assert np.abs(errors).mean() < 0.7 * np.abs(swapped).mean()


def test_a_training_that_was_ended_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    dataset = held(2, 8, SIZE)
    recipe = {"shape": SHAPE, "stage": "lora", "lora_rank": 2, "lora_dropout": 0.1, "rtc_delay": 3}
    whole = trained(settings(tmp_path / "whole", steps=4, recipe=recipe), dataset)
    asked = iter([False, True])
    ended = trained(
        settings(tmp_path / "ended", steps=4, recipe=recipe), dataset, stopped=lambda: next(asked)
    )
    assert (ended.step, ended.finished) == (2, False)
    again = trained(settings(tmp_path / "ended", steps=4, recipe=recipe), dataset, resume=True)
    assert (*ended.losses, *again.losses) == whole.losses
    assert not changed(weights(whole.checkpoint), weights(again.checkpoint))


def test_it_is_trained_in_bfloat16_with_float32_weights(tmp_path: Path) -> None:
    end = trained(settings(tmp_path, precision="bfloat16"), held(2, 8, SIZE))
    assert np.isfinite(end.losses).all()
    assert {value.dtype for value in weights(end.checkpoint).values()} == {torch.float32}


def test_the_cameras_are_those_that_the_table_names(tmp_path: Path) -> None:
    recipe = SmolVlaConfig(keys={"cameras": {"left": "observation.images.head"}}).recipe({"shape": SHAPE})
    assert recipe.reads(Switches()).cameras == ("head",)
    assert "observation.images.head" in recipe.windows(recipe.prepare(held(2, 8, SIZE), tmp_path)).rows


def test_the_rate_is_lerobots() -> None:
    """Its formula at steps of warm-up, of the cosine, after its end; and of a training that is shorter."""
    options = ScheduleOptions(name="cosine_to_end", warmup_steps=1000, decay_steps=30_000, end_lr=2.5e-6)
    for steps, known in (
        (40_000, {0: 1e-4 / 1001, 500: 5.005e-5, 15_000: 5.125e-5, 30_000: 2.5e-6, 39_000: 2.5e-6}),
        (3000, {0: 1e-4 / 101, 1500: 5.125e-5, 3000: 2.5e-6}),
    ):
        optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1e-4)
        schedule = make_schedule(optimizer, options, steps)
        for step, rate in known.items():
            assert 1e-4 * schedule.lr_lambdas[0](step) == pytest.approx(rate, rel=1e-3)


@pytest.mark.parametrize("given", [{"name": "cosine_to_end"}, {"decay_steps": 5}, {"end_lr": 0.1}])
def test_a_schedule_with_half_of_its_keys_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"is for schedule\.name"):
        ScheduleOptions(**given)


# --- what is trained

JOINS = ("state_proj", "action_in_proj", "action_out_proj", "action_time_mlp")


@pytest.mark.parametrize("stage", ["expert", "lora", "all"])
def test_a_stage_changes_what_it_says(tmp_path: Path, stage: str) -> None:
    dataset = held(2, 8, SIZE)
    before = trained(settings(tmp_path / "a", steps=1), dataset).checkpoint
    recipe = {"stage": stage, "lora_rank": 2, "lora_in": ["expert", "language"]}
    policy = {"type": "smolvla", "checkpoint": str(before)}
    after = trained(settings(tmp_path / "b", policy=policy, recipe=recipe), dataset).checkpoint
    new = {name.removeprefix("model.") for name in changed(weights(before), weights(after))}
    assert {"state_proj.weight", "action_out_proj.bias"} <= new
    others = {name for name in new if not name.startswith(JOINS)}
    of_vlm = {name for name in others if name.startswith("vlm_with_expert.vlm.")}
    if stage == "expert":
        assert others
        assert not of_vlm
    elif stage == "lora":
        assert {name.rpartition(".self_attn.")[2] for name in others} == {"q_proj.weight", "v_proj.weight"}
        assert of_vlm
        assert len(of_vlm) < len(others)
    else:
        assert "vlm_with_expert.vlm.model.connector.modality_projection.proj.weight" in of_vlm
        frozen = ("vision_model", "text_model.norm", "text_model.layers.2.", "lm_head")
        assert not [name for name in of_vlm if any(each in name for each in frozen)]


def test_adapters_that_are_merged_answer_as_they_do_beside_the_weights(tmp_path: Path) -> None:
    from policies.smolvla.recipe import SmolVlaInTraining
    from policies.training.adapters import merged

    dataset = held(2, 8, SIZE)
    recipe = SmolVlaConfig().recipe({"shape": SHAPE, "stage": "lora", "lora_in": ["expert", "vision"]})
    model = recipe.build(recipe.prepare(dataset, tmp_path))
    assert isinstance(model, SmolVlaInTraining)
    trained_ones = {name for name, each in model.named_parameters() if each.requires_grad}
    assert all(".lora_" in n or n.removeprefix("network.").startswith(JOINS) for n in trained_ones)
    assert any("vision_model" in name for name in trained_ones)
    torch.manual_seed(1)
    for name, value in model.named_parameters():
        if ".lora_B" in name:
            torch.nn.init.normal_(value, std=0.3)
    plain = SmolVlaConfig().recipe({"shape": SHAPE})
    other = plain.build(plain.prepare(dataset, tmp_path))
    before = {name: value.clone() for name, value in other.network.state_dict().items()}
    other.network.load_state_dict(merged(model.network, model.network.state_dict()))
    pixels, words, state = torch.rand(1, 1, 3, 32, 32), torch.tensor([[5, 6]]), torch.rand(1, 8)
    noise = torch.rand(1, 6, 8)

    def chunk(network: Any) -> Any:
        with torch.no_grad():
            return network.eval().sample(network.read(pixels, words, None, state), noise)

    torch.testing.assert_close(chunk(other.network), chunk(model.network), rtol=0, atol=1e-5)
    other.network.load_state_dict(before)
    assert (chunk(other.network) - chunk(model.network)).abs().max() > 1e-3


# --- rows that are given


def test_rows_that_it_was_trained_to_go_on_from_come_back_as_they_are(tmp_path: Path) -> None:
    dataset = held(2, 8, SIZE)
    trained(settings(tmp_path, steps=2, recipe={"shape": SHAPE, "rtc_delay": 3}), dataset)
    assert table_of(tmp_path / "last").trained_delay == 3
    seen = observation(dataset, 0, 1)
    free = run(tmp_path / "last", "--policy.blend", "rtc").infer(seen).rows
    committed = free[:5] + 0.1

    def answer(frozen: int, *words: str) -> Any:
        policy = run(tmp_path / "last", "--policy.blend", "rtc", *words)
        return policy.infer(replace(seen, committed=committed, frozen_steps=frozen)).rows

    given = answer(3)
    np.testing.assert_allclose(given[:3], committed[:3], atol=1e-5)
    assert np.abs(given[3:] - free[3:]).max() > 1e-6  # what follows knows of them
    np.testing.assert_allclose(answer(0), free, atol=1e-6)
    guided = answer(3, "--policy.rtc", "guidance")
    assert np.abs(guided[:3] - committed[:3]).max() > 1e-4
    np.testing.assert_array_equal(answer(4), answer(4, "--policy.rtc", "guidance"))  # more than it knows
    policy = run(tmp_path / "last", "--policy.blend", "rtc")
    bound = replace(seen, committed=committed)
    both = policy.infer_batch([replace(bound, frozen_steps=2), replace(bound, frozen_steps=4), seen])
    np.testing.assert_allclose(both[0].rows[:2], committed[:2], atol=1e-5)
    assert np.abs(both[1].rows[:4] - committed[:4]).max() > 1e-4
    none = run(tmp_path / "last", "--policy.blend", "rtc", "--policy.rtc", "none")
    assert not none.spec.takes_prefix


def test_that_more_rows_are_under_way_than_it_was_trained_for_is_said_once(tmp_path: Path) -> None:
    dataset = held(2, 8, SIZE)
    trained(settings(tmp_path, steps=1, recipe={"shape": SHAPE, "rtc_delay": 2}), dataset)
    policy = run(tmp_path / "last", "--policy.blend", "rtc")
    seen = replace(observation(dataset, 0, 1), committed=np.zeros((4, 6)))
    said: list[str] = []
    sink = logger.add(lambda message: said.append(message.record["message"]), level="WARNING")
    try:
        for frozen in (2, 3, 3):
            policy.infer(replace(seen, frozen_steps=frozen))
    finally:
        logger.remove(sink)
    (line,) = said
    assert line.startswith("policy: 3 rows will have been executed when a chunk arrives, and it was trained")


def test_given_rows_are_the_first_and_each_number_of_them_comes() -> None:
    from policies.training.prefixes import given_rows

    given = given_rows(200, 6, 3, torch.device("cpu"))
    assert given is not None
    assert set(given.sum(dim=1).tolist()) == {0, 1, 2, 3}
    assert bool((given.int().diff(dim=1) <= 0).all())
    assert given_rows(4, 6, 0, torch.device("cpu")) is None


# --- inputs that LeRobot has not


def measured(dataset: HeldDataset, number: int, row: int) -> Observation:
    seen, arrays = observation(dataset, number, row), dataset.episodes[number].arrays
    depth = np.round(arrays[DEPTH + "head"][row] / SCALE).astype(np.uint16)
    there = arrays[TIP][row].astype(float)
    tip = Tip(there, there, there, 1) if np.isfinite(there).all() else None
    frames = {"head": replace(seen.frames["head"], depth=depth)}
    return replace(seen, frames=frames, force_n=arrays[FORCE][row].astype(float), tip=tip)


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, HeldDataset]:
    """A folder with every input."""
    folder, dataset = tmp_path_factory.mktemp("everything"), with_everything()
    end = trained(settings(folder, steps=3, switches=EXTRAS, optimizer={"lr": 1e-2}), dataset)
    assert np.isfinite(end.losses).all()
    return folder / "last", dataset


def test_every_input_beyond_lerobots_counts(everything: tuple[Path, HeldDataset]) -> None:
    folder, dataset = everything
    table = table_of(folder)
    assert table.inputs == SmolVlaInputs(depth=("head",), force=3, tip_camera="head")
    needs = {(need.key, need.depth, need.mask) for need in table.needs_cameras()}
    assert {("inputs.depth", True, False), ("inputs.tip_camera", True, True)} <= needs
    policy = run(folder)
    assert (policy.spec.tip, policy.spec.masks) == (True, ("head",))
    seen = measured(dataset, 1, 2)

    def rows(seen: Observation) -> Any:
        return run(folder).infer(seen).rows

    known = rows(seen)
    np.testing.assert_array_equal(rows(seen), known)
    frame = seen.frames["head"]
    assert frame.depth is not None
    farther = replace(frame, depth=frame.depth * 2)
    moved = Tip(*[np.array([0.3, 0.3, 0.1])] * 3, 1)
    for other in (
        replace(seen, frames={"head": farther}),
        replace(seen, force_n=np.array([5.0, 0.0, 0.0])),
        replace(seen, tip=moved),
        replace(seen, tip=None),
    ):
        assert np.abs(rows(other) - known).max() > 1e-6
    for lacking, told in (
        (replace(seen, force_n=None), "feels 3 channels of force, and the observation has 0"),
        (replace(seen, frames={"head": replace(frame, depth=None)}), "no depth of camera 'head'"),
    ):
        with pytest.raises(PolicyError, match=told):
            policy.infer(lacking)
    blind = SmolVlaPolicy(table, ROBOT, {})
    blind.warm_up()
    with pytest.raises(PolicyError, match="nobody says how many metres a step of camera 'head'"):
        blind.infer(seen)


def test_depth_is_metres_as_in_the_data_set(everything: tuple[Path, HeldDataset]) -> None:
    folder, dataset = everything
    policy = run(folder)
    arrays = dataset.episodes[1].arrays
    live = policy._beyond([measured(dataset, 1, 2)])
    kept = sized(torch.from_numpy(arrays[DEPTH + "head"][2:3]), (96, 128))
    torch.testing.assert_close(live[DEPTH + "head"], kept, rtol=0, atol=SCALE)
    np.testing.assert_allclose(live[FORCE][0], arrays[FORCE][2], rtol=1e-6)
    np.testing.assert_allclose(live[TIP][0], arrays[TIP][2], rtol=1e-6)
    assert torch.isnan(policy._beyond([measured(dataset, 0, 0)])[TIP]).all()


def test_what_was_not_seen_yet_is_a_number_of_its_own() -> None:
    extras = ExtraInputs(SmolVlaInputs(tip_camera="head"), 8)
    extras.fit("tip", torch.tensor([0.1, 0.2, 0.3]), torch.ones(3))
    unseen, mean = (extras({TIP: torch.tensor([each])}) for each in ([float("nan")] * 3, [0.1, 0.2, 0.3]))
    assert torch.isfinite(unseen).all()
    assert not torch.allclose(unseen, mean)


def test_lerobots_files_stay_lerobots_and_a_folder_with_more_says_so(
    everything: tuple[Path, HeldDataset], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, dataset = everything
    plain = trained(settings(tmp_path / "plain", steps=1), held(4, 8, SIZE)).checkpoint
    assert weights(plain).keys() == weights(folder).keys()
    assert not (plain / "extras.safetensors").exists()
    kind = json.loads((folder / "config.json").read_text())["type"]
    assert kind == "smolvla with inputs that LeRobot has not: depth, force, language tip"
    assert convert([str(folder), str(tmp_path / "out"), "--lerobot"]) == 2
    assert "it has inputs that LeRobot has not: depth, force, language tip" in capsys.readouterr().err
    with pytest.raises(PolicyError, match=r"give it as policy\.checkpoint, without policy\.type"):
        FolderPolicy(LerobotFolderConfig(path=str(folder)), ROBOT, {})
    with pytest.raises(PolicyError, match=r"beyond LeRobot's are depth.*policy\.inputs says none"):
        SmolVlaPolicy(SmolVlaConfig(checkpoint=str(folder)), ROBOT, HEAD)
    (folder / "extras.safetensors").rename(tmp_path / "away")
    try:
        with pytest.raises(PolicyError, match=r"extras\.safetensors: not there"):
            run(folder)
    finally:
        (tmp_path / "away").rename(folder / "extras.safetensors")
    more = {"type": "smolvla", "checkpoint": str(folder), "inputs": table_of(folder).inputs.model_dump()}
    with pytest.raises(PolicyError, match=r"has the inputs depth, .* switch them on"):
        trained(settings(tmp_path / "more", policy=more, recipe={}), held(2, 8, SIZE))
    begun = trained(
        settings(tmp_path / "more", steps=1, policy=more, recipe={}, optimizer={"lr": 1e-9}), dataset
    )
    torch.testing.assert_close(
        load_file(begun.checkpoint / "extras.safetensors"), dict(load_file(folder / "extras.safetensors"))
    )


def test_what_is_off_is_not_read_and_what_has_no_input_is_refused(tmp_path: Path) -> None:
    recipe = SmolVlaConfig().recipe({"shape": SHAPE})
    assert recipe.reads(Switches()) == Switches()
    assert recipe.reads(Switches(use_force=True, use_depth=True)) == Switches(use_force=True, use_depth=True)
    with pytest.raises(PolicyError, match=r"switches\.use_mask: smolvla has no input for it"):
        recipe.reads(Switches(use_mask=True))
    plain = held(2, 8, SIZE)
    asked = recipe.windows(recipe.prepare(plain, tmp_path)).rows
    assert not {DEPTH + "head", FORCE, TIP} & asked.keys()


# --- its folder, for LeRobot


def test_it_is_lerobots_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = held(2, 8, SIZE)
    trained(settings(tmp_path / "a", recipe={"shape": SHAPE, "stage": "lora"}), dataset)
    target = tmp_path / "pretrained_model"
    assert convert([str(tmp_path / "a/last"), str(target), "--lerobot"]) == 0
    told = capsys.readouterr().out
    assert f"{target}: a SmolVLA for LeRobot, 1 cameras, 6 rows; its numbers are rad" in told
    assert not (target / "policy.json").exists()
    own = run(tmp_path / "a/last").infer(observation(dataset, 0, 1)).rows
    there = FolderPolicy(LerobotFolderConfig(path=str(target)), ROBOT, {})
    there.warm_up()
    np.testing.assert_array_equal(there.infer(observation(dataset, 0, 1)).rows, own)
    assert not any(".lora_" in name or ".base_layer." in name for name in weights(target))
    assert convert([str(tmp_path / "a/last"), str(target), "--lerobot"]) == 2
    assert "is there already" in capsys.readouterr().err


def test_an_evaluation_takes_it_with_what_it_says(everything: tuple[Path, HeldDataset]) -> None:
    (candidate,) = candidates_of([str(everything[0])])
    assert candidate.words == ("--policy.checkpoint", str(everything[0].absolute()))


def test_a_server_takes_it_with_what_it_says(everything: tuple[Path, HeldDataset]) -> None:
    """The simulated camera's depth is known there, by a step of its own."""
    folder, dataset = everything
    given = ["--config", str(ROOT / "config.toml"), "--policy.checkpoint", str(folder)]
    policy = policy_maker(load(given, {}))()
    policy.warm_up()
    seen = measured(dataset, 1, 2)
    rows = policy.infer(seen).rows
    assert rows.shape == (6, 6)
    assert np.isfinite(rows).all()
    policy.close()


# --- what does not fit


@pytest.mark.parametrize(
    ("recipe", "policy", "told"),
    [
        ({"vlm": "none"}, {}, "none: no such folder; a local one is needed"),
        (
            {"shape": {**SHAPE, "vlm_layers": 5}},
            {},
            r"recipe\.shape: its sizes are of no SmolVLA: vlm_layers 5",
        ),
        ({"shape": {**SHAPE, "action_size": 4}}, {}, r"its action has 6 entries, and the network takes 4"),
        ({"shape": {"vlm_layers": 2}}, {"checkpoint": "a"}, r"its vlm_layers is 3, and recipe\.shape"),
        ({"rtc_delay": 20}, {"checkpoint": "a"}, r"its chunks have 6 rows, and recipe\.rtc_delay = 20"),
        ({"vlm": "x"}, {"checkpoint": "a"}, r"recipe\.vlm has no effect: policy\.checkpoint has"),
    ],
)
def test_what_does_not_fit_is_one_line(
    tmp_path: Path, recipe: dict[str, Any], policy: dict[str, Any], told: str
) -> None:
    dataset = held(2, 8, SIZE)
    given = {"type": "smolvla", **policy}
    if policy:
        given["checkpoint"] = str(trained(settings(tmp_path / "a", steps=1), dataset).checkpoint)
    whole = {"shape": SHAPE, **recipe} if not policy else recipe
    with pytest.raises((PolicyError, DatasetError), match=told) as caught:
        trained(settings(tmp_path / "b", policy=given, recipe=whole), dataset)
    assert "\n" not in str(caught.value)


def test_recipes_that_ask_for_nothing_are_refused() -> None:
    for given, told in (
        ({"shape": SHAPE, "rtc_delay": 6}, "some have to be asked for"),
        ({"stage": "lora", "lora_in": []}, "lora_in is empty"),
    ):
        with pytest.raises(ValueError, match=told):
            SmolVlaConfig().recipe(given)


def test_a_language_models_folder_is_begun_with(tmp_path: Path) -> None:
    from safetensors.torch import save_file
    from transformers import SmolVLMConfig, SmolVLMForConditionalGeneration

    from policies.smolvla.beginning import write_byte_vlm

    place = tmp_path / "vlm"
    sizes = settings(tmp_path).recipe["shape"]["vlm"]
    write_byte_vlm(place, sizes)
    torch.manual_seed(5)
    vlm = SmolVLMForConditionalGeneration(SmolVLMConfig(**sizes)).state_dict()
    save_file({name: value.contiguous().clone() for name, value in vlm.items()}, place / "model.safetensors")
    shape = {key: value for key, value in SHAPE.items() if key != "vlm"}
    end = trained(settings(tmp_path / "a", recipe={"shape": shape, "vlm": str(place)}), held(2, 8, SIZE))
    written = weights(end.checkpoint)
    for name in (
        "lm_head.weight",
        "model.text_model.layers.1.mlp.up_proj.weight",
        "model.vision_model.post_layernorm.weight",
    ):
        assert torch.equal(written[f"model.vlm_with_expert.vlm.{name}"], vlm[name])
    assert json.loads((end.checkpoint / "config.json").read_text())["vlm_model_name"] == str(place)
    (place / "tokenizer.json").unlink()
    with pytest.raises(PolicyError, match=r"there is no tokenizer\.json in it, the language model's own"):
        trained(settings(tmp_path / "b", recipe={"shape": shape, "vlm": str(place)}), held(2, 8, SIZE))
