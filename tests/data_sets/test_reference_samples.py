"""DexGraspVLA's and UMI's training samples, number for number what the reference implementations give.

``data/umi_samples.npz`` and ``data/dexgrasp_samples.npz`` hold made-up replay buffers and what the reference
made of them: ``SequenceSampler`` and ``UmiDataset`` of real-stanford/universal_manipulation_interface (its
noise on the start pose taken out), ``SequenceSampler``, ``get_val_mask``, ``downsample_mask`` and
``LinearNormalizer`` of real-stanford/diffusion_policy, which DexGraspVLA has too, its pictures by the same
calls of ``torch.nn.functional.interpolate``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dexrun.export import zarr_v2
from dexrun.export.umi_zarr import pack
from policies.data.dataset import ACTION, DatasetError, Switches
from policies.data.mask_images import MaskImageSpec, MaskImageWindows
from policies.data.opening import open_dataset
from policies.data.scaling import limits
from policies.data.splitting import at_most, held_back
from policies.data.umi import UmiSpec, UmiWindows
from policies.data.zarr_store import ZarrRows

DATA = Path(__file__).parent / "data"


@pytest.fixture(scope="module")
def umi() -> Any:
    return np.load(DATA / "umi_samples.npz")


@pytest.fixture(scope="module")
def dexgrasp() -> Any:
    return np.load(DATA / "dexgrasp_samples.npz")


def store(folder: Path, ends: Any, **arrays: Any) -> Path:
    zarr_v2.replay_buffer(folder, {}, ends.astype(np.int64))
    for name, values in arrays.items():
        if values.dtype == np.uint8:
            array = zarr_v2.images(folder / "data" / name, len(values), values.shape[1:])
            array.write_metadata()
            array.write(values)
        else:
            zarr_v2.whole(folder / "data" / name, values)
    return folder


def umi_store(folder: Path, umi: Any) -> Path:
    arrays = {
        "robot0_eef_pos": umi["pos"],
        "robot0_eef_rot_axis_angle": umi["rot"],
        "robot0_gripper_width": umi["width"],
        "robot0_demo_start_pose": umi["start"],
        "camera0_rgb": umi["rgb"],
    }
    pack(store(folder, umi["ends"], **arrays), folder.with_suffix(".zarr.zip"))
    return folder.with_suffix(".zarr.zip")


@pytest.mark.parametrize(
    ("case", "spec"),
    [
        ("plain", UmiSpec(down=3)),
        ("late", UmiSpec(down=2, pose_latency=(0.125 - 0.0001) * 30, width_latency=(0.125 - 0.02) * 30)),
    ],
)
def test_umis_samples(tmp_path: Path, umi: Any, case: str, spec: UmiSpec) -> None:
    windows = UmiWindows(open_dataset(umi_store(tmp_path / "set", umi)), spec)
    assert len(windows) == umi[f"{case}_count"]
    for place, index in enumerate(umi[f"{case}_index"].tolist()):
        sample = windows[index]
        np.testing.assert_array_equal(sample.pop("camera0"), umi[f"{case}_camera0_rgb"][place])
        for name, values in sample.items():
            assert values.dtype == np.float32
            np.testing.assert_allclose(values, umi[f"{case}_{name}"][place], atol=2e-6, err_msg=name)
    with pytest.raises(DatasetError, match="a sample needs 151 rows, the longest of 3 episodes has 75"):
        UmiWindows(windows.windows.dataset, UmiSpec(down=10))


def test_umis_scaling_leaves_rotations_alone(tmp_path: Path, umi: Any) -> None:
    windows = UmiWindows(open_dataset(umi_store(tmp_path / "set", umi)))
    scaling = windows.scalings()["action"]
    assert scaling.scale[3:9].tolist() == [1.0] * 6
    every = np.concatenate([windows[i]["action"] for i in range(len(windows))])
    scaled = scaling.apply(every)
    for column in (0, 1, 2, 9):
        assert scaled[:, column].min() == pytest.approx(-1, abs=1e-5)
        assert scaled[:, column].max() == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(scaling.undo(scaled), every, atol=1e-6)


@pytest.mark.parametrize(
    ("case", "spec"),
    [
        ("public", MaskImageSpec(horizon=12, pad_after=11, size=18)),
        ("two", MaskImageSpec(horizon=12, n_obs_steps=2, pad_before=1, pad_after=10, size=18)),
    ],
)
def test_dexgrasps_samples(tmp_path: Path, dexgrasp: Any, case: str, spec: MaskImageSpec) -> None:
    arrays = {name: dexgrasp[name] for name in ("rgbm", "right_cam_img", "right_state", "action")}
    dataset = open_dataset(store(tmp_path / "set", dexgrasp["ends"], **arrays), Switches(use_mask=True))
    windows = MaskImageWindows(dataset, spec)
    assert len(windows) == dexgrasp[f"{case}_count"]
    for place, index in enumerate(dexgrasp[f"{case}_index"].tolist()):
        sample = windows[index]
        for name in ("right_state", "action"):
            np.testing.assert_array_equal(sample[name], dexgrasp[f"{case}_{name}"][place])
        for name in ("rgbm", "right_cam_img"):
            expected = dexgrasp[f"{case}_{name}"][place]
            np.testing.assert_allclose(sample[name], expected, atol=1e-6, err_msg=f"{name} of sample {index}")
    np.testing.assert_array_equal(sample["rgbm"][:, 3], dexgrasp[f"{case}_rgbm"][-1][:, 3])
    scaling = limits(dataset.statistics(ACTION))
    np.testing.assert_allclose(scaling.scale, dexgrasp["scale"], rtol=1e-5)
    np.testing.assert_allclose(scaling.offset, dexgrasp["offset"], atol=1e-5)


def test_the_episodes_that_are_held_back(umi: Any, dexgrasp: Any) -> None:
    np.testing.assert_array_equal(held_back(3, 0.4), umi["held"])
    np.testing.assert_array_equal(held_back(20, 0.15), dexgrasp["held"])
    np.testing.assert_array_equal(at_most(~held_back(20, 0.15), 7), dexgrasp["kept"])
    assert not held_back(5, 0.0).any()


def test_a_buffer_is_nothing_but_references(
    tmp_path: Path, dexgrasp: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No chunk of a picture is read until a sample is asked for, and then those of its rows."""
    arrays = {name: dexgrasp[name] for name in ("rgbm", "right_cam_img", "right_state", "action")}
    folder, read = store(tmp_path / "set", dexgrasp["ends"], **arrays), []
    real = ZarrRows._chunk

    def counting(self: ZarrRows, number: int, at: tuple[int, ...]) -> Any:
        read.append((self.name, number))
        return real(self, number, at)

    monkeypatch.setattr(ZarrRows, "_chunk", counting)
    windows = MaskImageWindows(open_dataset(folder, Switches(use_mask=True)), MaskImageSpec(size=18))
    assert {name for name, _ in read} <= {"meta/episode_ends"}
    windows[20]
    pictures = [each for each in read if each[0] in ("data/rgbm", "data/right_cam_img")]
    assert set(pictures) == {("data/rgbm", 20), ("data/right_cam_img", 20)}


def test_a_camera_with_masks_is_needed(tmp_path: Path, dexgrasp: Any) -> None:
    arrays = {name: dexgrasp[name] for name in ("rgbm", "right_cam_img", "right_state", "action")}
    dataset = open_dataset(store(tmp_path / "set", dexgrasp["ends"], **arrays))
    with pytest.raises(DatasetError, match=r"a camera with masks .* there is: head, wrist, with masks: none"):
        MaskImageWindows(dataset)
    with pytest.raises(DatasetError, match="its states are no poses; expected a UMI replay buffer"):
        UmiWindows(dataset)
