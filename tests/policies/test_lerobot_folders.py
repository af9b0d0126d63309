"""LeRobot's folders against LeRobot 0.4.4, and folders that cannot run."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import load_file, save_file  # noqa: E402

from policies.lerobot.config import LerobotFolderConfig  # noqa: E402
from policies.lerobot.policy import FolderPolicy  # noqa: E402
from policies.process_start import as_given  # noqa: E402
from runtime.blends import blend_from  # noqa: E402
from runtime.horizon import Horizon  # noqa: E402
from runtime.interfaces import PolicyError  # noqa: E402
from runtime.messages import ActionChunk, CameraInfo, Frame, Intrinsics  # noqa: E402
from runtime.parts import PolicyTable  # noqa: E402
from tests.policies.lerobot_rig import ROBOT, Played, played  # noqa: E402

CLOSE = 1e-5
"""In the network's own units, which are some 20 degrees."""


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def act(tmp_path: Path) -> Played:
    return played("act", tmp_path)


def followed(fixture: Played, policy: FolderPolicy) -> Any:
    """What a loop executes that waits for every chunk, in the folder's units."""
    options = policy._options
    horizon, rows = Horizon(6, blend_from(options)), []
    for step in range(fixture.said["steps"]):
        if not len(horizon) or options.request_below == 1:
            chunk = policy.infer(fixture.at(step, policy.spec.history_steps)).rows
            chunk = chunk[: options.execute_steps or None]
            assert horizon.splice(ActionChunk(chunk, step, 0)).verdict == "spliced"
        rows.append(horizon.take())
    return fixture.units.to_policy(np.stack(rows))


@pytest.mark.parametrize(
    "name", ["act", "act_ensemble", "act_other", "diffusion", "diffusion_other", "smolvla"]
)
def test_chunks_and_an_episode_are_lerobots(name: str, tmp_path: Path) -> None:
    fixture = played(name, tmp_path)
    policy = fixture.policy()
    width = policy._normaliser.action.factor.numpy()
    for step, chunk in fixture.chunks():
        rows = policy.infer(fixture.at(step, policy.spec.history_steps)).rows
        assert np.abs((fixture.units.to_policy(rows) - chunk) / width).max() < CLOSE
    known = fixture.known["selected"].numpy()
    assert np.abs((followed(fixture, fixture.policy()) - known) / width).max() < CLOSE


@pytest.mark.parametrize("name", ["act", "diffusion", "smolvla"])
def test_a_joint_that_is_not_a_number_moves_nothing(name: str, tmp_path: Path) -> None:
    fixture = played(name, tmp_path)
    policy, seen = fixture.policy(), fixture.at(0)
    position = seen.arm.position.copy()
    position[2] = np.nan
    lost = replace(seen, arm=replace(seen.arm, position=position))
    assert np.isnan(policy.infer(lost).rows).all(axis=0).any()  # such rows are refused, and the arm holds
    assert np.isfinite(policy.infer(seen).rows).all()


@pytest.mark.parametrize("noise_scheduler", ["DDPM", "DDIM"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_diffusion_that_goes_to_infinity_moves_nothing(
    value: float, noise_scheduler: str, tmp_path: Path
) -> None:
    fixture = played("diffusion", tmp_path)
    policy = fixture.policy(noise_scheduler=noise_scheduler)
    with torch.no_grad():
        list(policy._network.unet.parameters())[-1][2] = value
    assert np.isnan(policy.infer(fixture.at(0, 2)).rows[:, 2]).all()


def test_an_object_that_was_not_seen_yet_is_where_it_was_on_average(act: Played) -> None:
    entries = ("shoulder_pan", "shoulder_lift", "elbow_flex", "tip.x", "tip.y", "tip.z")
    policy = act.policy(keys={"cameras": {"head": "front", "wrist": "wrist"}, "state": {"state": entries}})
    assert np.isfinite(policy.infer(act.at(0)).rows).all()


def test_it_looks_at_all_that_it_is_shown(act: Played) -> None:
    policy, seen = act.policy(), act.at(0)
    base = policy.infer(seen).rows
    for camera in ("head", "wrist"):
        dark = {**seen.frames, camera: Frame(camera, 0, np.zeros((64, 96, 3), np.uint8))}
        changed = policy.infer(type(seen)(0, 0, 0, seen.arm, dark)).rows
        assert np.abs(changed - base).max() > 1e-4
    other = policy.infer(type(seen)(0, 0, 0, act.at(3).arm, seen.frames)).rows
    assert np.abs(other - base).max() > 1e-4


def test_a_diffusion_policy_looks_back_and_repeats_with_its_seed(tmp_path: Path) -> None:
    fixture = played("diffusion", tmp_path)
    policy = fixture.policy(rate_hz=10)
    assert (policy.spec.history_steps, policy.spec.history_stride_s) == (2, 0.1)
    known = policy.infer(fixture.at(4, 2)).rows
    np.testing.assert_array_equal(fixture.policy(rate_hz=10).infer(fixture.at(4, 2)).rows, known)
    for other in (fixture.policy(seed=6), fixture.policy(noise_scheduler="DDIM")):
        assert np.abs(other.infer(fixture.at(4, 2)).rows - known).max() > 1e-3
    assert np.abs(fixture.policy().infer(fixture.at(4, 1)).rows - known).max() > 1e-5
    several = fixture.policy().infer_batch([fixture.at(4, 2), fixture.at(2, 2)])
    assert [answer.rows.shape for answer in several] == [(3, 6), (3, 6)]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"horizon": 6}, r"horizon 6 is no multiple of 2 for each of down_dims"),
        ({"n_action_steps": 8}, r"n_action_steps 8 is more than horizon 8 leaves after n_obs_steps 2"),
        ({"crop_shape": [90, 90]}, r"crop_shape \[90, 90\] is larger than its pictures"),
        ({"crop_shape": [10**9, 1]}, r"a picture of \[1000000000, 1\]"),
        ({"down_dims": [10**7, 10**7]}, r"config\.json: down_dims \[10000000, 10000000\]: give"),
        ({"n_groups": 5}, r"its diffusion cannot be made: num_channels .* must be divisible"),
        ({"noise_scheduler_type": "DPM"}, r"noise_scheduler_type = 'DPM': Input should be 'DDPM' or 'DDIM'"),
        ({"num_inference_steps": 50}, r"50 inference steps; it was trained with 20"),
    ],
)
def test_a_diffusion_policy_that_cannot_run_is_told_in_a_line(
    tmp_path: Path, change: dict[str, Any], told: str
) -> None:
    fixture = played("diffusion", tmp_path)
    edited(fixture.folder, CONFIG, with_keys(**change))
    with pytest.raises(PolicyError, match=told) as caught:
        fixture.policy()
    assert "\n" not in str(caught.value)


def test_keys_without_an_effect_are_refused(act: Played) -> None:
    for keys in ({"inference_steps": 5}, {"noise_scheduler": "DDIM"}):
        with pytest.raises(PolicyError, match=f"policy.{next(iter(keys))} has no effect"):
            act.policy(**keys)


def test_how_its_chunks_are_played_is_the_folders_unless_a_person_says_it(tmp_path: Path) -> None:
    def table(name: str, **given: Any) -> LerobotFolderConfig:
        return LerobotFolderConfig(path=str(played(name, tmp_path / str(len(given))).folder), **given)

    assert table("act").execute_steps == 4
    ensemble = table("act_ensemble")
    assert (ensemble.blend, ensemble.ensemble_decay, ensemble.request_below) == ("temporal_ensemble", 0.05, 1)
    assert table("act_ensemble", blend="latest").request_below == 0.5


def test_statistics_among_the_weights_as_before_0_4(act: Played) -> None:
    known = act.policy().infer(act.at(0)).rows
    state = load_file(act.folder / "model.safetensors")
    for file in act.folder.glob("policy_*_step_*"):
        prefix = "normalize_inputs" if "preprocessor" in file.name else "unnormalize_outputs"
        for key, value in load_file(file).items():
            feature, _, statistic = key.rpartition(".")
            if statistic in ("mean", "std"):
                state[f"{prefix}.buffer_{feature.replace('.', '_')}.{statistic}"] = value
    for file in act.folder.glob("policy_*"):
        file.unlink()
    save_file(state, act.folder / "model.safetensors")
    np.testing.assert_allclose(act.policy().infer(act.at(0)).rows, known, rtol=0, atol=1e-7)
    for key in [key for key in state if "buffer_action" in key]:
        state[key] = torch.full_like(state[key], torch.inf)
    save_file(state, act.folder / "model.safetensors")
    with pytest.raises(PolicyError, match=r"'action' is not finite: the folder was saved without statistics"):
        act.policy()


def test_percentages_are_of_this_arms_calibration(act: Played) -> None:
    seen = act.at(0)
    degrees, percent = act.policy().infer(seen).rows, act.policy(units="lerobot_percent").infer(seen).rows
    assert np.abs(degrees - percent).max() > 0.02
    assert [need.camera for need in act.policy()._options.needs_cameras()] == ["head", "wrist"]


def test_units_that_its_statistics_cannot_be_of_are_refused(act: Played) -> None:
    with pytest.raises(
        PolicyError, match=r"statistics of its state: .* as rad is impossible .*policy\.units"
    ):
        act.policy(units="rad")


def test_what_nobody_says_is_said_once(act: Played, caplog_loguru: list[str]) -> None:
    wide = CameraInfo("head", Intrinsics(640, 640, 500, 500, 320, 320))
    table = LerobotFolderConfig(path=str(act.folder), keys={"cameras": {"head": "front", "wrist": "wrist"}})
    FolderPolicy(table, ROBOT, {"head": wide})
    units, stretched = caplog_loguru
    assert "they are taken for lerobot_degrees, LeRobot's default since 0.4: policy.units" in units
    assert "camera head are 640x640, and act was trained on 96x64: they are stretched" in stretched


@pytest.fixture
def caplog_loguru() -> Iterator[list[str]]:
    from loguru import logger

    said: list[str] = []
    handler = logger.add(lambda message: said.append(str(message)), level="WARNING", format="{message}")
    yield said
    logger.remove(handler)


def edited(folder: Path, file: str, change: Callable[[Any], Any]) -> None:
    held = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(change(held)))


def with_keys(**keys: Any) -> Callable[[Any], Any]:
    return lambda held: {**held, **keys}


CONFIG = "config.json"
STEP = {"registry_name": "delta_actions_processor", "config": {}}
OUTSIDE = {"registry_name": "normalizer_processor", "config": {}, "state_file": "../../secret.safetensors"}


@pytest.mark.parametrize(
    ("file", "change", "told"),
    [
        (CONFIG, with_keys(type="pi0"), r"a policy of type 'pi0'; those that run here are act, "),
        (CONFIG, lambda _: [], r"config\.json: no table in it"),
        (CONFIG, with_keys(input_features={}), r"config\.json: no input_features"),
        (CONFIG, with_keys(input_features={"x": 3}), r"'x' is 3; expected a type and a shape"),
        (
            CONFIG,
            with_keys(output_features={"action": {"type": "ACTION", "shape": [10**9]}}),
            r"'action' has shape \[1000000000\]; expected \[n\] up to 1024",
        ),
        (CONFIG, with_keys(dim_model=10**9), r"config\.json: dim_model = 1000000000: .* less than or equal"),
        (CONFIG, with_keys(dim_model=64), r"model\.safetensors: does not fit: other shapes: .* is \[6, 32\]"),
        (CONFIG, with_keys(n_heads=5), r"dim_model 32 is no multiple of n_heads 5"),
        (CONFIG, with_keys(vision_backbone="resnext"), r"vision_backbone = 'resnext': .* resnet18, resnet34"),
        (CONFIG, with_keys(n_encoder_layers=3), r"does not fit: missing encoder\.layers\.2\."),
        (CONFIG, with_keys(n_obs_steps=2), r"config\.json: n_obs_steps = 2: "),
        ("policy_preprocessor.json", with_keys(steps=[STEP]), r"its step 'delta_actions_processor' is none"),
        ("policy_preprocessor.json", with_keys(steps=[OUTSIDE]), r"in '\.\./\.\./secret\.safetensors'; exp"),
        ("policy_preprocessor.json", with_keys(steps=3), r"policy_preprocessor\.json: no list of steps"),
        ("policy_preprocessor.json", with_keys(steps=[{"config": ["x"]}]), r"not as LeRobot writes it: "),
    ],
)
def test_a_folder_that_cannot_run_is_told_in_a_line(
    act: Played, file: str, change: Callable[[Any], Any], told: str
) -> None:
    edited(act.folder, file, change)
    with pytest.raises(PolicyError, match=told) as caught:
        act.policy()
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"policy.path = {str(act.folder)!r}: ")


def test_a_lowest_and_a_highest_of_different_sizes(act: Played) -> None:
    (file,) = act.folder.glob("policy_preprocessor_step_*.safetensors")
    told = load_file(file)
    save_file({**told, "observation.images.wrist.max": torch.zeros(3, 2)}, file)
    with pytest.raises(PolicyError, match=r"of 'observation\.images\.wrist'"):
        act.policy()


def test_files_that_are_none(act: Played) -> None:
    for name, held in (("config.json", b"{" * 3000), ("config.json", b"[" * 2_000_000)):
        kept = (act.folder / name).read_bytes()
        (act.folder / name).write_bytes(held)
        with pytest.raises(PolicyError, match=r"config\.json: "):
            act.policy()
        (act.folder / name).write_bytes(kept)
    weights = act.folder / "model.safetensors"
    for held in (b"", b"\x80\x04.", weights.read_bytes()[:-4], b"\xff" * 64):
        weights.write_bytes(held)
        with pytest.raises(PolicyError, match="no whole safetensors file"):
            act.policy()
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    weights.write_bytes(pointer)
    with pytest.raises(PolicyError, match="is a pointer of Git LFS, not the file itself"):
        act.policy()
    before = act.folder / "policy_preprocessor.json"
    kept = before.read_bytes()
    before.write_bytes(pointer)
    with pytest.raises(PolicyError, match=r"policy_preprocessor\.json: a pointer of Git LFS"):
        act.policy()
    before.write_bytes(kept)
    weights.unlink()
    with pytest.raises(PolicyError, match=r"there is no model\.safetensors in it"):
        act.policy()


def test_where_the_folder_is_is_said(act: Played, tmp_path: Path) -> None:
    inner = tmp_path / "out" / "checkpoints" / "last" / "pretrained_model"
    inner.mkdir(parents=True)
    (inner / "config.json").write_text("{}")
    for path, told in (
        (tmp_path / "out", f"; give {inner}"),
        (tmp_path / "none", "no such folder; give LeRobot's pretrained_model: nothing is fetched"),
    ):
        with pytest.raises(PolicyError, match=told):
            LerobotFolderConfig(path=str(path)).needs_cameras()


def test_a_robot_that_does_not_fit_is_told_what_to_write(act: Played) -> None:
    table = LerobotFolderConfig(path=str(act.folder))
    assert [need.camera for need in table.needs_cameras()] == ["front", "wrist"]
    told = table.other_cameras(["head", "wrist"])
    assert told.endswith(
        'write policy.keys.cameras = { head = "front", wrist = "wrist" }, as they correspond'
    )
    assert table.other_cameras(["head"]).endswith("looks through front, wrist, which are 2 cameras")
    for keys, wrong in (
        ({"cameras": {"head": "top", "wrist": "wrist"}}, "its cameras are front, wrist"),
        ({"cameras": {"head": "front"}}, "has none for its camera 'wrist'"),
        ({"cameras": {"head": "front", "wrist": "front"}}, "'front' twice"),
        (
            {"state": {"state": ["gripper"]}},
            r'has 6 entries, and .* make 1 .* write, .*"observation.state" = \["s',
        ),
        ({"action": {"joints": []}}, "its only action is called 'action'"),
        ({"state": {"velocity": []}}, "it takes observation.state"),
    ):
        with pytest.raises(PolicyError, match=wrong):
            act.policy(keys={"cameras": {"head": "front", "wrist": "wrist"}, **keys})


def test_what_nobody_gave_is_not_given_to_a_process_either(act: Played) -> None:
    cameras = {"cameras": {"head": "front", "wrist": "wrist"}}
    table = LerobotFolderConfig(path=str(act.folder), worker="process", keys=cameras)
    there: Any = PolicyTable.model_validate(json.loads(json.dumps(as_given(table))))
    assert there == table
    assert there.units.model_fields_set == set()
    assert there.keys.model_fields_set == {"cameras"}


def test_names_in_dexrun_json_give_the_order_and_the_units(act: Played) -> None:
    known = act.policy().infer(act.at(0)).rows
    names = [f"{name}.pos" for name in ROBOT.names]
    features = {"observation.state": {"names": names[::-1]}, "action": {"names": names[::-1]}}
    about = {"units": {"convention": "lerobot_degrees"}, "features": features}
    (act.folder / "dexrun.json").write_text(json.dumps(about))
    policy = act.policy(units={})
    assert [entry.text for entry in policy._map.action["action"]] == list(ROBOT.names)[::-1]
    assert np.abs(policy.infer(act.at(0)).rows - known).max() > 0.05
    with pytest.raises(PolicyError, match=r"policy\.units is rad, and .*dexrun\.json says"):
        act.policy(units="rad")
