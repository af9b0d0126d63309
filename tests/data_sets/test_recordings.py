"""Recordings opened as a data set."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

from policies.data.dataset import (
    ACTION,
    FORCE,
    INTERVENTION,
    STATE,
    TIP,
    DatasetError,
    Feature,
    Switches,
)
from policies.data.opening import open_dataset
from policies.data.windows import Windows, WindowSpec
from runtime.messages import CameraInfo
from runtime.object_point import object_point
from runtime.recording.reader import Episode
from tests.export.synthetic import Made, write_run

HEAD = "observation.images.head"
DEPTH_HEAD = "observation.depth.head"
MASK_HEAD = "observation.masks.head"
EVERYTHING = Switches(use_depth=True, use_force=True, use_mask=True)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    write_run(folder, Made(masks=True), Made(seed=1, label="failure", task="another"), Made(label="none"))
    return folder


def rows(*numbers: int) -> Any:
    return np.array(numbers, np.int64)


def test_a_run_is_a_data_set_in_the_robots_units(run: Path) -> None:
    dataset = open_dataset(run, EVERYTHING)
    assert (dataset.format, dataset.rate_hz, dataset.left_out) == ("mcap", 30.0, {})
    assert [(e.number, e.task, e.label) for e in dataset.episodes] == [
        (0, "put the cube into the tray", "success"),
        (1, "another", "failure"),
        (2, "put the cube into the tray", ""),
    ]
    joints = dataset.features[STATE].names
    assert joints == ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
    assert dataset.features[STATE] == Feature((6,), "float32", "rad", joints)
    assert dataset.features[FORCE] == Feature((2,), "float32", "N")
    assert dataset.features[DEPTH_HEAD] == Feature((48, 64), "float32", "m")
    assert dataset.features[MASK_HEAD] == Feature((48, 64), "uint8", "mask")
    assert "observation.masks.wrist" not in dataset.features
    assert dataset.about["units"] == {"convention": "rad"}


def test_rows_are_those_of_an_export(run: Path) -> None:
    """The same resampling: row for row what `policies.data.sampled` gives, in any order, with repeats."""
    from policies.data.recorded import describe
    from policies.data.sampled import sample
    from policies.data.sampling import SamplingOptions

    episode = open_dataset(run, EVERYTHING).episodes[0]
    ref = describe(run / "episodes" / "episode_000000.mcap")
    assert ref is not None
    sampled = sample(ref, SamplingOptions())
    with sampled.recording as recording:
        order = rows(7, 3, 3, len(sampled) - 1)
        assert episode.length == len(sampled)
        np.testing.assert_array_equal(episode.read(STATE, order), sampled.position[order].astype("f4"))
        np.testing.assert_array_equal(episode.read(ACTION, order), sampled.action[order].astype("f4"))
        colors, depths, masks = (
            list(each)
            for each in (sampled.colors("head"), sampled.depth_images("head"), sampled.mask_images("head"))
        )
        for place, row in enumerate(order.tolist()):
            np.testing.assert_array_equal(episode.read(HEAD, order)[place], colors[row])
            metres = depths[row] * np.float32(0.001)
            np.testing.assert_array_equal(episode.read(DEPTH_HEAD, order)[place], metres)
            np.testing.assert_array_equal(episode.read(MASK_HEAD, order)[place], masks[row])
        assert recording.path == ref.path


def test_a_rate_of_ones_own(run: Path) -> None:
    slow, fast = open_dataset(run, rate_hz=10), open_dataset(run, rate_hz=30)
    assert slow.rate_hz == 10
    np.testing.assert_array_equal(
        slow.episodes[0].read(STATE, rows(0, 1, 2)), fast.episodes[0].read(STATE, rows(0, 3, 6))
    )


def test_nothing_that_is_off_is_decoded(run: Path) -> None:
    counted = {"color": 0, "depth": 0, "mask": 0}

    def count(name: str) -> Any:
        real = getattr(Episode, name)

        def counting(self: Episode, *given: Any) -> Any:
            counted[name] += 1
            return real(self, *given)

        return mock.patch.object(Episode, name, counting)

    spec = {STATE: (0,), HEAD: (-1, 0), ACTION: tuple(range(8))}
    with count("color"), count("depth"), count("mask"):
        windows = Windows(open_dataset(run, Switches(cameras=("head",))), WindowSpec(spec))
        assert counted == {"color": 0, "depth": 0, "mask": 0}
        sample = windows[5]
        assert counted == {"color": 2, "depth": 0, "mask": 0}
    assert set(sample) == {name + end for name in spec for end in ("", "_is_pad")}
    asked: list[str] = []
    real = Episode.columns
    with mock.patch.object(Episode, "columns", lambda self, topic: asked.append(topic) or real(self, topic)):
        open_dataset(run)
    assert "/force" not in asked
    assert "/ticks" in asked


def test_there_is_no_tip_without_masks(tmp_path: Path) -> None:
    """What is looked for without masks is refused."""
    write_run(tmp_path / "run", Made(masks=False))
    with pytest.raises(
        DatasetError, match="use_language_tip, and the recordings have no camera with tracked"
    ):
        open_dataset(tmp_path / "run", Switches(use_language_tip=True))


def test_the_tip_is_a_feature(run: Path) -> None:
    pose = np.eye(4)
    real = Episode.camera_info

    def calibrated(self: Episode, name: str) -> CameraInfo:
        info = real(self, name)
        return CameraInfo(name, info.intrinsics, info.depth_scale_m, pose)

    with mock.patch.object(Episode, "camera_info", calibrated):
        dataset = open_dataset(run, Switches(use_language_tip=True, use_mask=True, use_depth=True))
    episode, every = dataset.episodes[0], np.arange(dataset.episodes[0].length)
    tips, masks = (episode.read(name, every) for name in (TIP, MASK_HEAD))
    seen = masks.any(axis=(1, 2))
    assert seen.any()
    with Episode(run / "episodes" / "episode_000000.mcap") as recording:
        info = calibrated(recording, "head")
        for row in np.flatnonzero(seen):
            mask = int(episode.shown[MASK_HEAD][row])
            depth = 2 * mask  # every second picture has a mask, which is of its own depth
            point = object_point(recording.depth("head", depth), recording.mask("head", mask), info)
            assert point is not None
            np.testing.assert_allclose(tips[row], point.base_m, atol=1e-6)
    assert np.isnan(dataset.episodes[1].read(TIP, rows(0))).all(), "an episode without masks"
    assert dataset.statistics(TIP).count == seen.sum()


def test_a_damaged_episode_costs_itself_alone(run: Path) -> None:
    file = run / "episodes" / "episode_000001.mcap"
    file.write_bytes(file.read_bytes()[:2000])
    dataset = open_dataset(run)
    assert [episode.label for episode in dataset.episodes] == ["success", ""]
    (name, why), *_ = dataset.left_out.items()
    assert name == "run/episode_000001.mcap"
    assert "not finished (cut off)" in why


def test_an_episode_of_another_robot_is_left_out(tmp_path: Path) -> None:
    write_run(tmp_path / "run", Made(wrist=(16, 16)), Made(), Made(discarded=True), Made())
    dataset = open_dataset(tmp_path / "run")
    assert len(dataset.episodes) == 2
    assert dataset.left_out == {
        "run/episode_000000.mcap": "not like the others: camera wrist: 40x32 against 16x16",
        "run/episode_000002.mcap": "discarded",
    }


@pytest.mark.parametrize(
    ("switches", "made", "message"),
    [
        (Switches(cameras=("nose",)), Made(), "no camera 'nose' was recorded; there is: head, wrist"),
        (Switches(use_force=True), Made(force=0), "use_force, and the recordings have no force sensor"),
        (
            Switches(use_mask=True),
            Made(),
            "use_mask, and the recordings have no tracked masks; switch it off",
        ),
        (Switches(use_depth=True), Made(head_depth=False), "use_depth, and the recordings have no depth"),
    ],
)
def test_a_switch_without_effect_is_refused(
    tmp_path: Path, switches: Switches, made: Made, message: str
) -> None:
    write_run(tmp_path / "run", made)
    with pytest.raises(DatasetError, match=message):
        open_dataset(tmp_path / "run", switches)


def test_what_is_no_data_set_is_said(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="there is no such file or folder; expected a recording"):
        open_dataset(tmp_path / "none")
    with pytest.raises(DatasetError, match="no data set; expected a recording"):
        open_dataset(tmp_path)


def test_runs_side_by_side_and_the_link_to_the_newest(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_run(tmp_path / "runs" / name, Made())
    (tmp_path / "runs" / "latest").symlink_to("b")
    names = [episode.name for episode in open_dataset(tmp_path / "runs").episodes]
    assert names == ["a/episode_000000.mcap", "b/episode_000000.mcap"]


def test_who_drove_is_marked(tmp_path: Path) -> None:
    write_run(tmp_path / "run", Made(pilots=lambda tick: 2 if 10 <= tick < 20 else 1))
    episode = open_dataset(tmp_path / "run").episodes[0]
    marked = np.flatnonzero(episode.read(INTERVENTION, np.arange(episode.length)))
    np.testing.assert_array_equal(marked, np.arange(10, 20))


def test_it_crosses_to_another_process(run: Path) -> None:
    dataset = open_dataset(run, EVERYTHING)
    before = dataset.episodes[0].read(HEAD, rows(4))
    again = pickle.loads(pickle.dumps(dataset))  # noqa: S301 - its own
    np.testing.assert_array_equal(again.episodes[0].read(HEAD, rows(4)), before)
    dataset.close()
    np.testing.assert_array_equal(dataset.episodes[0].read(HEAD, rows(4)), before)


def test_the_fingerprint_is_of_the_rows(run: Path, tmp_path: Path) -> None:
    write_run(
        tmp_path / "same", Made(masks=True), Made(seed=1, label="failure", task="another"), Made(label="none")
    )
    one, same = open_dataset(run), open_dataset(tmp_path / "same")
    assert one.fingerprint() == same.fingerprint()
    assert one.only([0, 1]).fingerprint() != one.fingerprint()
    assert one.only([2, 0]).episodes[0].label == ""


def test_statistics_name_the_row_that_is_no_number(run: Path) -> None:
    dataset = open_dataset(run)
    values = dataset.episodes[1].vectors[STATE]
    stats = dataset.statistics(STATE)
    every = np.concatenate([e.read(STATE, np.arange(e.length)) for e in dataset.episodes]).astype("f8")
    np.testing.assert_allclose(stats.mean, every.mean(axis=0))
    np.testing.assert_allclose(stats.std, every.std(axis=0))
    assert stats.count == len(every)
    values[3] = np.nan
    told = r"observation.state of run/episode_000001.mcap is not a finite number at row 3"
    with pytest.raises(DatasetError, match=told):
        dataset.only([0, 1, 2]).statistics(STATE)
