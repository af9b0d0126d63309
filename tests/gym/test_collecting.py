"""Demonstrations as files: whole or not at all, gone on with, corrected by the demonstrator."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from dexrun.collecting.command import _same, main
from dexrun.collecting.correction import Correction, CorrectionOptions
from dexrun.collecting.disturbance import NoiseOptions, Unsteady, Wander
from dexrun.collecting.jobs import SceneJob, clean, scenes_from, whole_episodes
from dexrun.collecting.scenes import CollectOptions, Collector, scene_of
from dexrun.exit_codes import BAD_CONFIGURATION
from dexrun.gym.asking import Pace
from dexrun.gym.defaults import default_settings, lighter
from drivers.world.config import ObjectOptions
from policies.data.dataset import ACTION, TIP, Switches
from policies.data.mcap import McapEpisode
from policies.data.opening import open_dataset
from policies.data.tips import tips_of
from runtime.interfaces import PolicySpec
from runtime.messages import Floats, Observation, PolicyAnswer
from runtime.pilot import Pilot
from runtime.recording.reader import Episode
from runtime.safety import SafetyStage

SETTINGS = lighter(default_settings())


class Drifting:
    """A learner that knows nothing: it wanders off, ten rows a second."""

    spec = PolicySpec("drifting", 16, 6, cameras=("head",), masks=("head",), rate_hz=10.0, tip=True)

    def __init__(self) -> None:
        self.told: list[tuple[int, Floats]] = []

    def warm_up(self) -> None: ...

    def reset(self) -> None: ...

    def statistics(self) -> dict[str, int]:
        return {}

    def close(self) -> None: ...

    def infer(self, observation: Observation) -> PolicyAnswer:
        assert observation.tip is not None
        self.told.append((observation.masks["head"].stamp_ns, observation.tip.point_m))
        away = np.outer(np.arange(1, 17), [-0.03, 0.03, -0.02, 0.01, 0.01, 0.01])
        return PolicyAnswer(observation.arm.position + away)


DRIFTING = Drifting()


@pytest.fixture(scope="module")
def corrected_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An attempt that was begun by a policy which knows nothing."""
    folder = tmp_path_factory.mktemp("corrected")
    cube = ObjectOptions(shape="cube", color="red", size_m=(0.026, 0.026, 0.026), x_m=0.21, y_m=-0.05)
    placed = SETTINGS.world.model_copy(update={"placed": (cube,)})
    collector = Collector(SETTINGS.model_copy(update={"world": placed}), CollectOptions(oversample=1))
    options = CorrectionOptions(checkpoint=folder, beta=0.0, longest_s=1.5)
    collector._correction = Correction(
        collector._engine, options, DRIFTING, Pace(), collector._expert, collector._every
    )
    (found,) = collector.scene(4, 0, folder)
    assert found.label == "success"
    with Episode(folder / "episode_000000.mcap") as episode:
        about = [sample.values for sample in episode.samples("/events")][1]
        assert about["taken_over"] == "no grasp within 1.5 s"
    return folder


@pytest.fixture(scope="module")
def corrected(corrected_folder: Path) -> dict[str, Floats]:
    """Its ticks."""
    with Episode(corrected_folder / "episode_000000.mcap") as episode:
        return episode.columns("/ticks")


def test_a_data_set_of_it_has_the_demonstrators_answers_as_its_actions(
    corrected_folder: Path, corrected: dict[str, Floats]
) -> None:
    dataset = open_dataset(corrected_folder, Switches())
    try:
        (episode,) = dataset.episodes
        actions = episode.read(ACTION, np.arange(episode.length))
        assert dataset.about["action"] == "requested"
    finally:
        dataset.close()
    asked, done = (corrected[name] for name in ("requested", "clipped"))
    drove = corrected["pilot"] == Pilot.POLICY
    assert np.abs(asked[drove] - done[drove]).max() > 0.02
    far = [np.abs(asked - row).max(axis=1).min() for row in actions.astype(np.float64)]
    assert max(far) < 1e-6


def test_what_a_policy_was_told_of_the_object_is_what_the_data_set_holds(corrected_folder: Path) -> None:
    """As it was recorded, and as it is worked out from recordings without it; and it is where the cube is."""
    dataset = open_dataset(corrected_folder, Switches(use_language_tip=True))
    try:
        (episode,) = dataset.episodes
        assert isinstance(episode, McapEpisode)
        tips = episode.read(TIP, np.arange(episode.length))
        assert dataset.about["tip_camera"] == "head"
        shown = {"head": episode.shown["observation.masks.head"]}
    finally:
        dataset.close()
    with Episode(corrected_folder / "episode_000000.mcap") as recording:
        stamps, points = recording.stamps("/tip/head"), recording.array("/tip/head", "point")
        assert stamps.tolist() == recording.stamps("/mask/head").tolist()
        topics = {**recording.topics, "/tip/head": 0}
        with mock.patch.object(Episode, "topics", topics):
            worked_out = tips_of(recording, {"head": recording.camera_info("head")}, shown)
    np.testing.assert_allclose(tips, worked_out, atol=1e-7)
    assert np.abs(tips[0] - [0.21, -0.05, 0.026]).max() < 0.008
    stamp, told = DRIFTING.told[-1]
    assert stamp > stamps[0]
    newest = points[np.searchsorted(stamps, stamp, side="right") - 1]
    assert np.abs(told - newest).max() < 0.0005, "asked between two pictures that were recorded"


def test_each_row_says_who_drove_and_the_hand_over_is_no_jump(corrected: dict[str, Floats]) -> None:
    pilot = corrected["pilot"]
    (change,) = np.flatnonzero(np.diff(pilot))
    assert set(pilot[: change + 1]) == {Pilot.POLICY}
    assert set(pilot[change + 1 :]) == {Pilot.PERSON}
    steps = np.abs(np.diff(corrected["clipped"], axis=0)).max(axis=1)
    assert steps[change : change + 3].max() < 0.02
    assert corrected["clips"].max() == 0


def test_while_the_policy_drives_the_demonstrators_answer_is_what_is_learnt(
    corrected: dict[str, Floats],
) -> None:
    policy = corrected["pilot"] == Pilot.POLICY
    wrong = np.abs(corrected["requested"] - corrected["clipped"])[policy].max(axis=1)
    assert wrong.mean() > 0.01
    right = np.abs(corrected["requested"] - corrected["clipped"])[~policy].max(axis=1)
    assert right.max() < 1e-9


def test_a_killed_run_leaves_nothing_half_and_is_gone_on_with(tmp_path: Path) -> None:
    scene = SceneJob(seed=3, first=5, objects=2)
    (tmp_path / "episode_000005.mcap").touch()
    (tmp_path / "episode_000006.mcap.open").touch()
    assert clean(tmp_path) == 1
    assert whole_episodes(tmp_path, scene) is None  # its last is not there: the scene is made again


def test_a_folder_is_gone_on_with_as_it_was_begun(tmp_path: Path) -> None:
    options, settings = CollectOptions(), SETTINGS
    _same(tmp_path, options, settings, 3)
    _same(tmp_path, options, settings, 3)
    assert json.loads((tmp_path / "config.json").read_text())["export"]["action"] == "requested"
    with pytest.raises(ValueError, match="collected with another noise"):
        _same(tmp_path, CollectOptions(noise=0.5), settings, 3)


def test_every_object_of_every_scene_has_a_number_of_its_own() -> None:
    scenes = scenes_from(SETTINGS, CollectOptions(), 40)
    found = [next(scenes) for _ in range(4)]
    assert [each.seed for each in found] == [40, 41, 42, 43]
    assert [b.first - a.first for a, b in pairwise(found)] == [each.objects for each in found[:-1]]


def test_a_share_of_the_scenes_looks_otherwise_and_lies_alike() -> None:
    options = CollectOptions(looks=0.5)
    varied = [scene_of(SETTINGS.world, seed, options).look.vary for seed in range(40)]
    assert 10 < sum(varied) < 30
    assert set(varied) == {0.0, 1.0}
    assert scene_of(SETTINGS.world, 0, CollectOptions()).look.vary == 0.0


def test_noise_wanders_within_its_size_and_is_less_near_the_table() -> None:
    noise = NoiseOptions(shoves_per_s=0.0)
    far, near = (Wander(noise, 30.0, 6, range(5), (1, 2)) for _ in range(2))
    high = np.array([far.next(0.3) for _ in range(900)])
    low = np.array([near.next(0.0) for _ in range(900)])
    assert high[:, :5].std() == pytest.approx(noise.wander_rad, rel=0.35)
    assert np.allclose(low, noise.near_share * high)
    assert not high[:, 5].any()
    assert np.abs(np.diff(high, axis=0)).max() < 0.03


def test_what_is_asked_for_stays_what_it_was(engine_stage: SafetyStage) -> None:
    unsteady = Unsteady(engine_stage)
    present = np.array(
        engine_stage.limits.lower + 0.5 * (engine_stage.limits.upper - engine_stage.limits.lower)
    )
    unsteady.offset = np.full(6, 0.01)
    asked = present.copy()
    result = unsteady.apply(asked, present, present, None, None, 1 / 30)
    assert np.array_equal(asked, present)
    assert not np.array_equal(result.target, present)


@pytest.fixture(scope="module")
def engine_stage() -> SafetyStage:
    from drivers.arms import describe

    return SafetyStage(SETTINGS.safety, describe().model())


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--episodes", "0"], "--episodes 0: 1 or more"),
        (["--episodes", "1", "--width", "4"], "width = 4"),
        (["--episodes", "1", "--looks", "2"], "looks = 2"),
        (["--episodes", "1", "--config", "nowhere.toml"], "nowhere.toml"),
        (["--episodes", "1", "--dagger", "nowhere"], "nowhere"),
    ],
)
def test_what_cannot_be_collected_is_said_in_one_line(
    given: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*given, "--to", str(tmp_path / "out")]) == BAD_CONFIGURATION
    told = capsys.readouterr().err
    assert said in told
    assert told.startswith("dexrun collect: ")
    assert told.count("\n") == 1
    assert not (tmp_path / "out").exists()
