"""Every format that dexrun exports, opened where it lies: the same rows, whatever they are stored as."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

from policies.data.dataset import ACTION, FORCE, INTERVENTION, STATE, DatasetError, Switches
from policies.data.film import Film
from policies.data.opening import open_dataset
from policies.data.windows import Windows, WindowSpec
from runtime.units import UnitMap
from tests.export.synthetic import RANGES, Made

HEAD, WRIST = "observation.images.head", "observation.images.wrist"
DEPTH_HEAD, MASK_HEAD = "observation.depth.head", "observation.masks.head"
TWO = (Made(seconds=0.7, masks=True), Made(seconds=0.5, task="another", seed=1, masks=True, label="none"))

Run = Callable[..., Any]
Export = Callable[..., Any]


def rows(*numbers: int) -> Any:
    return np.array(numbers, np.int64)


def psnr(one: Any, other: Any) -> float:
    return float(10 * np.log10(255**2 / np.mean((one.astype(float) - other.astype(float)) ** 2)))


def degrees(values: Any) -> Any:
    out = np.degrees(1) * (values - np.array(RANGES).mean(axis=1))
    out[..., -1] = values[..., -1] * 100
    return out


@pytest.mark.parametrize("name", ["lerobot-v3", "lerobot-v2.1"])
def test_lerobot(run: Run, exported: Export, name: str) -> None:
    """Rows in degrees, pictures out of video in any order, depth in metres, tasks and labels."""
    folder, _ = run(*TWO)
    target, _ = exported(folder, name, depth="both")
    switches = Switches(use_depth=True, use_force=True)
    dataset, truth = open_dataset(target, switches), open_dataset(folder, switches)
    assert (dataset.format, dataset.rate_hz, dataset.left_out) == (name, 30.0, {})
    assert dataset.features[STATE].unit == "lerobot_degrees"
    assert dataset.features[STATE].names == truth.features[STATE].names
    assert set(dataset.features) == set(truth.features) - {INTERVENTION}
    for got, expected in zip(dataset.episodes, truth.episodes, strict=True):
        assert (got.length, got.task, got.label) == (expected.length, expected.task, expected.label)
        order = rows(9, 2, 3, 3, 4, got.length - 1, 0)
        for feature in (STATE, ACTION):
            np.testing.assert_allclose(
                got.read(feature, order), degrees(expected.read(feature, order).astype("f8")), atol=2e-3
            )
        np.testing.assert_array_equal(got.read(FORCE, order), expected.read(FORCE, order))
        for feature in (HEAD, WRIST):
            for one, other in zip(got.read(feature, order), expected.read(feature, order), strict=True):
                assert psnr(one, other) > 30
        np.testing.assert_allclose(got.read(DEPTH_HEAD, order), expected.read(DEPTH_HEAD, order), atol=1e-6)
    assert pickle.loads(pickle.dumps(dataset)).episodes[0].read(HEAD, rows(3)).shape == (1, 48, 64, 3)  # noqa: S301


def test_lerobots_depth_video_becomes_metres(run: Run, exported: Export) -> None:
    folder, _ = run(Made(seconds=0.5))
    target, _ = exported(folder, "lerobot-v3", depth="video")
    switches, order = Switches(use_depth=True), rows(1, 8)
    got = open_dataset(target, switches).episodes[0].read(DEPTH_HEAD, order)
    truth = open_dataset(folder, switches).episodes[0].read(DEPTH_HEAD, order)
    assert got.dtype == np.float32
    assert ((got == 0) == (truth == 0)).all(), "where there was no reading there is none"
    assert np.abs(got - truth).max() < 1e-3, "half of one of 4096 codes"


def test_dexgrasps_buffer(run: Run, exported: Export) -> None:
    folder, _ = run(*TWO)
    target, _ = exported(folder, "dexgrasp-zarr")
    dataset, truth = (open_dataset(path, Switches(use_mask=True)) for path in (target, folder))
    assert (dataset.format, dataset.features[STATE].unit) == ("dexgrasp-zarr", "symmetric")
    for got, expected in zip(dataset.episodes, truth.episodes, strict=True):
        assert (got.length, got.task, got.label) == (expected.length, expected.task, expected.label)
        order = rows(5, 1, 1, got.length - 1)
        for feature in (HEAD, WRIST, MASK_HEAD):
            np.testing.assert_array_equal(got.read(feature, order), expected.read(feature, order))
        low, high = np.array(RANGES).T
        scaled = (expected.read(STATE, order) - low) / (high - low) * 2 - 1
        np.testing.assert_allclose(got.read(STATE, order), scaled, atol=1e-5)


def test_umis_zip(run: Run, exported: Export) -> None:
    folder, _ = run(*TWO)
    target, _ = exported(folder, "umi-zarr", to="umi.zarr.zip", image_size=32)
    dataset = pickle.loads(pickle.dumps(open_dataset(target)))  # noqa: S301
    truth = open_dataset(folder)
    assert (dataset.format, dataset.features[WRIST].shape) == ("umi-zarr", (32, 32, 3))
    assert [e.length for e in dataset.episodes] == [e.length for e in truth.episodes]
    episode = dataset.episodes[1]
    values = episode.read(STATE, rows(0, 3))
    assert values.shape == (2, 7)
    np.testing.assert_array_equal(values, episode.read(ACTION, rows(0, 3)))
    assert episode.read(WRIST, rows(4, 2)).shape == (2, 32, 32, 3)


@pytest.mark.parametrize("name", ["act-hdf5", "dexvla-hdf5"])
def test_hdf5(run: Run, exported: Export, name: str) -> None:
    folder, _ = run(*TWO)
    target, _ = exported(folder, name)
    dataset, truth = open_dataset(target), open_dataset(folder)
    assert (dataset.format, dataset.rate_hz, dataset.features[STATE].unit) == (name, 30.0, "rad")
    for got, expected in zip(dataset.episodes, truth.episodes, strict=True):
        assert (got.length, got.task, got.label) == (expected.length, expected.task, expected.label)
        order = rows(7, 0, got.length - 1)
        for feature in (STATE, ACTION, HEAD, WRIST):
            np.testing.assert_array_equal(got.read(feature, order), expected.read(feature, order))


def test_of_a_real_arms_files_of_others_the_action_before_is_taken(tmp_path: Path) -> None:
    """As the loaders of ACT and DexVLA take it."""
    import cv2
    import h5py

    picture = np.full((8, 8, 3), 90, np.uint8)
    encoded = cv2.imencode(".jpg", picture)[1]
    for number, sim in enumerate((False, True)):
        with h5py.File(tmp_path / f"episode_{number}.hdf5", "w") as root:
            root.attrs["sim"] = sim
            root["action"] = np.arange(5.0)[:, None]
            root["observations/qpos"] = np.arange(5.0)[:, None]
            root["observations/images/top"] = np.stack([np.ravel(encoded)] * 5)
    real, simulated = open_dataset(tmp_path).episodes
    assert real.read(ACTION, rows(0, 1, 4)).ravel().tolist() == [0, 0, 3]
    assert simulated.read(ACTION, rows(0, 1, 4)).ravel().tolist() == [0, 1, 4]
    assert np.abs(real.read("observation.images.top", rows(2)).astype(int) - 90).max() <= 2


def test_rows_are_taken_at_a_rate_that_divides_theirs(run: Run, exported: Export) -> None:
    folder, _ = run(*TWO)
    target, _ = exported(folder, "act-hdf5")
    whole, third = open_dataset(target), open_dataset(target, rate_hz=10)
    assert [e.length for e in third.episodes] == [-(-e.length // 3) for e in whole.episodes]
    np.testing.assert_array_equal(
        third.episodes[1].read(STATE, rows(0, 2)), whole.episodes[1].read(STATE, rows(0, 6))
    )
    assert third.only([1]).episodes[0].task == "another"
    with pytest.raises(DatasetError, match=r"a rate of 20 Hz cannot be had of them, 30, 15, 10\.\.\. Hz can"):
        open_dataset(target, rate_hz=20)


def test_a_run_of_pictures_is_decoded_once(run: Run, exported: Export) -> None:
    """Random rows cost a seek each; rows behind one another none but the first."""
    folder, _ = run(Made(seconds=0.7))
    target, _ = exported(folder, "lerobot-v3")
    decoded = 0
    real = Film._frame

    def count(self: Film, *given: Any) -> Any:
        nonlocal decoded
        decoded += 1
        return real(self, *given)

    spec = {STATE: (0,), HEAD: (-2, -1, 0), ACTION: tuple(range(8))}
    with mock.patch.object(Film, "_frame", count):
        windows = Windows(open_dataset(target, Switches(cameras=("head",))), WindowSpec(spec))
        assert decoded == 0
        windows[6]
        assert decoded == 3
        windows[0]
        assert decoded == 4, "the first row alone, although it is shown three times"


# --- bad data


@pytest.fixture
def lerobot(run: Run, exported: Export) -> Path:
    folder, _ = run(*TWO)
    target, _ = exported(folder, "lerobot-v2.1")
    return Path(target)


def test_a_truncated_video_is_named(lerobot: Path) -> None:
    film = lerobot / "videos/chunk-000/observation.images.head/episode_000001.mp4"
    data = film.read_bytes()
    film.write_bytes(data[: len(data) // 2])
    dataset = open_dataset(lerobot)
    dataset.episodes[0].read(HEAD, rows(0))
    with pytest.raises(DatasetError, match=r"episode_000001.mp4: no video, or cut off"):
        dataset.episodes[1].read(HEAD, rows(0))


def test_a_video_that_ends_early_is_named(run: Run, exported: Export) -> None:
    long, short = (
        exported(run(Made(seconds=s), name=n)[0], "lerobot-v3", n + "-set")[0]
        for s, n in ((0.7, "a"), (0.4, "b"))
    )
    file = "videos/observation.images.head/chunk-000/file-000.mp4"
    (long / file).write_bytes((short / file).read_bytes())
    with pytest.raises(DatasetError, match=r"file-000.mp4: no picture at 0.667 s \(it ends before\)"):
        open_dataset(long).episodes[0].read(HEAD, rows(20))


def test_a_missing_file_costs_its_episode_alone(lerobot: Path) -> None:
    (lerobot / "data/chunk-000/episode_000000.parquet").unlink()
    dataset = open_dataset(lerobot)
    assert [e.task for e in dataset.episodes] == ["another"]
    assert list(dataset.left_out.values()) == ["'data/chunk-000/episode_000000.parquet' is no file in it"]


def change(path: Path, **changes: Any) -> None:
    info = json.loads((path / "meta/info.json").read_text())
    info["features"][STATE].update(changes)
    (path / "meta/info.json").write_text(json.dumps(info))


def test_a_shape_that_is_not_what_it_says_is_named(lerobot: Path) -> None:
    change(lerobot, shape=[7], names=None)
    with pytest.raises(DatasetError, match=r"observation.state is \[6\], and info.json says \[7\]"):
        open_dataset(lerobot).episodes[0].read(STATE, rows(0))


def test_a_missing_key_is_named(lerobot: Path) -> None:
    info = json.loads((lerobot / "meta/info.json").read_text())
    del info["features"][ACTION]
    (lerobot / "meta/info.json").write_text(json.dumps(info))
    with pytest.raises(DatasetError, match=r"there is no action; the data set has observation.state"):
        open_dataset(lerobot)


def test_colour_that_paints_depth_is_no_depth(lerobot: Path) -> None:
    """As a depth image that was put into a video as colour: neither depth nor a camera."""
    info = json.loads((lerobot / "meta/info.json").read_text())
    features = info["features"]
    features["observation.images.head_depth"] = dict(features[HEAD])
    (lerobot / "meta/info.json").write_text(json.dumps(info))
    assert "observation.images.head_depth" not in open_dataset(lerobot).features
    with pytest.raises(DatasetError, match="use_depth, and the data set has no depth of one channel"):
        open_dataset(lerobot, Switches(use_depth=True))


def test_a_damaged_chunk_is_named(run: Run, exported: Export) -> None:
    folder, _ = run(Made(seconds=0.5))
    target, _ = exported(folder, "dexgrasp-zarr")
    (target / "data/rgbm/3.0.0.0").write_bytes(b"\0" * 40)
    episode = open_dataset(target).episodes[0]
    episode.read(HEAD, rows(2))
    with pytest.raises(DatasetError, match=r"data/rgbm/3.0.0.0 is damaged"):
        episode.read(HEAD, rows(3))
    (target / "data/action/.zarray").unlink()
    with pytest.raises(
        DatasetError, match="there is no data/action; there is: rgbm, right_cam_img, right_st"
    ):
        open_dataset(target)


def test_units_are_what_the_export_said(run: Run, exported: Export) -> None:
    folder, _ = run(Made(seconds=0.5))
    target, _ = exported(folder, "lerobot-v3", units=UnitMap())
    assert open_dataset(target).features[ACTION].unit == "rad"
