"""Replay buffers of DexGraspVLA and UMI, read by zarr itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from dexrun.export import umi_zarr
from dexrun.export.errors import ExportError
from dexrun.export.job import ExportResult
from drivers.arms import describe
from planner.perception.naming import named_by
from planner.scene_reader.select import label
from planner.scene_reader.vision import read
from policies.mapping import ImageRule, fit_image
from tests.export.synthetic import RANGES, Made, Truth

TABLE = Path(__file__).parents[1] / "planner" / "rendered" / "head_17.png"
Run = Callable[..., tuple[Path, list[Truth]]]
Export = Callable[..., tuple[Path, ExportResult]]


def symmetric(rows: Any) -> Any:
    ranges = np.array(RANGES)
    return ((np.asarray(rows) - ranges.mean(axis=1)) / (ranges[:, 1] - ranges[:, 0]) * 2).astype(np.float32)


def every(truth: Truth, name: str, rows: int) -> Any:
    return np.stack(truth.values[name][:: 3 if name == "position" else 1])[:rows]


def test_dexgrasp_gives_back_the_recording(run: Run, exported: Export, zarr_group: Any) -> None:
    folder, truths = run(Made(seconds=0.5, masks=True), Made(seconds=0.3, masks=True, seed=1))
    target, _ = exported(folder, "dexgrasp-zarr", missing_mask="refuse")
    root = zarr_group(target)
    assert root["meta/episode_ends"][:].tolist() == [16, 26]
    assert root["data/rgbm"].shape == (26, 48, 64, 4)
    assert root["data/right_cam_img"].shape == (26, 32, 40, 3)
    assert {str(root[f"data/{key}"].dtype) for key in ("action", "right_state")} == {"float32"}
    start = 0
    for truth, rows in zip(truths, (16, 10), strict=True):
        part = slice(start, start + rows)
        assert (root["data/action"][part] == symmetric(every(truth, "sent", rows))).all()
        assert (root["data/right_state"][part] == symmetric(every(truth, "position", rows))).all()
        assert (root["data/rgbm"][part][..., :3] == every(truth, "head color", rows)[..., ::-1]).all()
        assert (root["data/right_cam_img"][part] == every(truth, "wrist color", rows)[..., ::-1]).all()
        masks = np.stack(truth.values["mask"])[np.arange(rows) // 2]
        assert (root["data/rgbm"][part][..., 3] == masks).all()
        start += rows
    assert np.abs(root["data/action"][:]).max() <= 1.0
    assert root.attrs["channel_order"] == "BGR"


def test_without_masks_the_fourth_channel_says_so_or_nothing_is_exported(
    run: Run, exported: Export, zarr_group: Any
) -> None:
    folder, _ = run(Made(seconds=0.2))
    with pytest.raises(ExportError, match="no tracked masks were recorded"):
        exported(folder, "dexgrasp-zarr", missing_mask="refuse")
    target, _ = exported(folder, "dexgrasp-zarr", missing_mask="zeros")
    root = zarr_group(target)
    assert not root["data/rgbm"][:][..., 3].any()
    assert root.attrs["masks"] == "1 episodes: empty: none were recorded"


def a_table(rng: Any, size: tuple[int, int], row: int) -> Any:
    """A rendered table; the camera turns a little from picture to picture."""
    return np.roll(cv2.imread(str(TABLE))[..., ::-1], row, axis=1)


def test_without_masks_the_tasks_object_is_marked_and_tracked(
    run: Run, exported: Export, zarr_group: Any
) -> None:
    size = cv2.imread(str(TABLE)).shape[:2]
    thing = next(t for t in read(cv2.imread(str(TABLE))[..., ::-1].copy()).on_table)
    made = Made(
        seconds=0.2,
        head=size,
        wrist=size,
        head_depth=False,
        picture=a_table,
        task=f"pick up the {label(thing)}",
    )
    folder, _ = run(made)
    target, _ = exported(folder, "dexgrasp-zarr", missing_mask="track")
    root = zarr_group(target)
    masks = root["data/rgbm"][:][..., 3]
    x1, y1, x2, y2 = (int(v) for v in thing.box)
    for row, mask in enumerate(masks):
        ys, xs = np.nonzero(mask)
        assert len(xs) > 0.4 * (x2 - x1) * (y2 - y1)
        assert abs(xs.mean() - row - (x1 + x2) / 2) < 4
        assert abs(ys.mean() - (y1 + y2) / 2) < 4
    assert root.attrs["masks"] == "1 episodes: tracked when exporting"


@pytest.mark.parametrize(
    ("task", "fits"),
    [
        ("put the cube in the tray", lambda each: each.shape == "cube"),
        ("clear the table", lambda each: True),
        ("put everything but the {other} in the tray", None),
    ],
)
def test_a_task_that_several_objects_fit_masks_none_of_them(
    run: Run, exported: Export, task: str, fits: Any
) -> None:
    things = read(cv2.imread(str(TABLE))[..., ::-1].copy()).on_table
    task = task.format(other=label(things[0]))
    named = named_by(cv2.imread(str(TABLE))[..., ::-1].copy(), task)
    assert len(named) > 1
    if fits is not None:
        assert set(named) == {each for each in things if fits(each)}
    size = cv2.imread(str(TABLE)).shape[:2]
    made = Made(seconds=0.2, head=size, wrist=(32, 40), head_depth=False, picture=a_table_or_noise, task=task)
    folder, _ = run(made)
    with pytest.raises(ExportError, match=f"{len(named)} things fit .*; a task names one"):
        exported(folder, "dexgrasp-zarr", missing_mask="track")


def a_table_or_noise(rng: Any, size: tuple[int, int], row: int) -> Any:
    return a_table(rng, size, row) if size[0] > 100 else rng.integers(0, 255, (*size, 3), np.uint8)


def test_where_the_object_goes_is_not_what_it_is() -> None:
    image = cv2.imread(str(TABLE))[..., ::-1].copy()
    things = read(image).on_table
    one, other = things[0], next(each for each in things if each.color != things[0].color)
    assert named_by(image, f"put the {label(one)} into the {other.color} tray") == [one]


def test_an_object_that_nobody_sees_is_said(run: Run, exported: Export) -> None:
    folder, _ = run(Made(seconds=0.2, task="pick up the blue whale"))
    with pytest.raises(ExportError, match=r"no mask of the object: .*whale"):
        exported(folder, "dexgrasp-zarr", missing_mask="track")


def test_dexgrasp_needs_two_cameras(run: Run, exported: Export) -> None:
    folder, _ = run(Made(seconds=0.2, wrist=None))
    with pytest.raises(ExportError, match="needs a camera for right_cam_img"):
        exported(folder, "dexgrasp-zarr")


def test_umi_has_poses_by_forward_kinematics(run: Run, exported: Export, zarr_group: Any) -> None:
    folder, truths = run(Made(seconds=0.5), Made(seconds=0.3, seed=1))
    target, _ = exported(folder, "umi-zarr", to="out.zarr.zip", image_size=24)
    root = zarr_group(target)
    assert root["meta/episode_ends"][:].tolist() == [16, 26]
    joints = np.concatenate([every(truth, "position", n) for truth, n in zip(truths, (16, 10), strict=True)])
    model, jaws = describe().model(), describe().jaws
    poses = np.stack([model.fk(q) for q in joints])
    assert (root["data/robot0_eef_pos"][:] == poses[:, :3, 3].astype(np.float32)).all()
    for vector, pose in zip(root["data/robot0_eef_rot_axis_angle"][:], poses, strict=True):
        assert np.allclose(rotation(vector), pose[:3, :3], atol=1e-5)
    widths = [[jaws.gap_m(q[-1])] for q in joints]
    assert (root["data/robot0_gripper_width"][:] == np.array(widths, np.float32)).all()
    starts, ends = root["data/robot0_demo_start_pose"][:], root["data/robot0_demo_end_pose"][:]
    assert np.allclose(starts[:16, :3], poses[0, :3, 3])
    assert np.allclose(ends[16:, :3], poses[-1, :3, 3])
    rule = ImageRule(width=24, height=24, resize="crop", interpolation="area")
    for number, camera in enumerate(("wrist", "head")):
        images = root[f"data/camera{number}_rgb"][:16]
        wanted = [fit_image(image, rule) for image in truths[0].values[f"{camera} color"][:16]]
        assert (images == np.stack(wanted)).all()


def rotation(vector: Any) -> Any:
    """Rodrigues' formula."""
    angle = np.linalg.norm(vector)
    x, y, z = vector / max(angle, 1e-12)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def test_axis_angles_hold_at_half_a_turn_and_at_none() -> None:
    turn = np.diag([-1.0, 1.0, -1.0])
    assert np.allclose(umi_zarr.axis_angles(np.stack([np.eye(3), turn])), [[0, 0, 0], [0, np.pi, 0]])


def test_umi_needs_an_arm_that_it_knows(run: Run, exported: Export) -> None:
    folder, _ = run(Made(seconds=0.2, joints=("a", "b", "gripper")))
    with pytest.raises(ExportError, match="recorded joints a, b, gripper are not those of the arm 'so100'"):
        exported(folder, "umi-zarr")


@pytest.mark.parametrize("name", ["dexgrasp-zarr", "umi-zarr"])
def test_zarr_2_reads_the_same(run: Run, exported: Export, reader: Any, zarr_group: Any, name: str) -> None:
    folder, _ = run(Made(seconds=0.2))
    target, _ = exported(folder, name, to="x.zarr.zip" if name == "umi-zarr" else "x.zarr", image_size=16)
    got = reader(".venv-zarr2", "read_zarr2.py", target)
    assert str(got["version"]).startswith("2.")
    root = zarr_group(target)
    for key in got.files:
        if key != "version":
            assert (got[key] == root[key][:]).all()
