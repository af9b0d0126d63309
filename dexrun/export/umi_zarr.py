"""UMI's data sets: a replay buffer in one ``.zarr.zip``.

``data/robot0_eef_pos`` (m) and ``robot0_eef_rot_axis_angle`` (rad) float32 ``[K, 3]``: the grasp frame in the
arm's base frame by forward kinematics; ``robot0_gripper_width`` (m) float32 ``[K, 1]``;
``robot0_demo_start_pose`` and ``_end_pose`` float64 ``[K, 6]``; ``cameraN_rgb`` uint8 ``[K, S, S, 3]``, RGB,
the wrist camera first; ``meta/episode_ends`` int64. There is no action: UMI takes the poses to come.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dexrun.export import zarr_v2
from dexrun.export.errors import ExportError
from dexrun.export.job import ExportPlan, Slot, report_of
from dexrun.export.options import ExportOptions
from dexrun.export.target import RESULT
from dexrun.export.zarr_v2 import ZarrArray
from drivers.arms.choice import recorded
from policies.data.piloted import intervention
from policies.data.recorded import DatasetShape, EpisodeRef
from policies.data.sampled import Sampled
from policies.mapping import ImageRule, fit_image
from runtime.arm_model import ModelError
from runtime.body import RobotDescription
from runtime.messages import Floats
from runtime.table_model import MeshesMissingError

STORE = "store"


class UmiZarr:
    """The format."""

    name = "umi-zarr"
    file = True
    appends = False
    force = False

    def cameras(self, shape: DatasetShape, options: ExportOptions) -> Sequence[str]:
        return _cameras(shape, options)

    def depth(self, options: ExportOptions) -> bool:
        return False

    def tasks(self, ref: EpisodeRef, options: ExportOptions) -> tuple[str, ...]:
        robot = description(ref)
        if len(robot.layout.grippers) != 1 or robot.arms:
            raise ExportError(f"{ref.name}: {self.name} needs one arm with one gripper")
        cameras = _cameras(ref.shape, options)
        if not cameras:
            raise ExportError(f"{ref.name}: {self.name} needs at least one camera")
        return ("rows", *(f"image:{number}" for number in range(len(cameras))))

    def start(self, plan: ExportPlan) -> None:
        shape, options = plan.slots[0].ref.shape, plan.options
        ends = np.cumsum([slot.length for slot in plan.slots]).astype(np.int64)
        about = {
            "cameras": {f"camera{n}_rgb": name for n, name in enumerate(_cameras(shape, options))},
            "fps": options.fps,
            "units": "metres, radians of a rotation vector, metres between the jaws",
            "dexrun": report_of(plan),
        }
        zarr_v2.replay_buffer(plan.folder / STORE, about, ends)
        for number in range(len(_cameras(shape, options))):
            _images(plan, number).write_metadata()

    def work(self, task: str, sampled: Sampled, slot: Slot, plan: ExportPlan, prepared: Any) -> Any:
        if task == "rows":
            found = low_dimensional(sampled.position, description(slot.ref))
            return found | intervention(sampled.intervention)
        number = int(task.removeprefix("image:"))
        edge = plan.options.image_size
        rule = ImageRule(width=edge, height=edge, resize="crop", interpolation="area")
        array = _images(plan, number)
        camera = _cameras(slot.ref.shape, plan.options)[number]
        for row, image in enumerate(sampled.colors(camera), slot.start):
            array.write_chunk(row, fit_image(image, rule)[None])
        return None

    def finish(self, plan: ExportPlan, prepared: Any, results: Sequence[Mapping[str, Any]]) -> None:
        store = plan.folder / STORE
        for key in results[0]["rows"]:
            values = np.concatenate([result["rows"][key] for result in results])
            zarr_v2.whole(store / "data" / key, values)
        pack(store, plan.folder / RESULT)


def _cameras(shape: DatasetShape, options: ExportOptions) -> list[str]:
    wrist = shape.wrist(options)
    others = [name for name in shape.chosen(options) if name != wrist]
    return [wrist, *others] if wrist else others


def _images(plan: ExportPlan, number: int) -> ZarrArray:
    edge = plan.options.image_size
    path = plan.folder / STORE / "data" / f"camera{number}_rgb"
    return zarr_v2.images(path, plan.rows, (edge, edge, 3))


def description(ref: EpisodeRef) -> RobotDescription:
    """The robot, for its kinematics.

    Raises:
        ExportError: its model is not here, or is another one by now.
    """
    try:
        return recorded(json.loads(ref.shape.robot))
    except (ModelError, MeshesMissingError) as error:
        raise ExportError(f"{ref.name}: {error}") from None


def low_dimensional(position: Floats, robot: RobotDescription) -> dict[str, Any]:
    """UMI's arrays of one episode from its joint positions ``[T, D]``."""
    from runtime.jaws import measured_jaws

    model = robot.model()
    (gripper,) = model.grippers
    jaws = robot.jaws or measured_jaws(model)
    poses = np.stack([model.fk(q) for q in position])
    vectors = np.concatenate([poses[:, :3, 3], axis_angles(poses[:, :3, :3])], axis=1)
    widths = np.array([[jaws.gap_m(float(q[gripper]))] for q in position])
    return {
        "robot0_eef_pos": vectors[:, :3].astype(np.float32),
        "robot0_eef_rot_axis_angle": vectors[:, 3:].astype(np.float32),
        "robot0_gripper_width": widths.astype(np.float32),
        "robot0_demo_start_pose": np.repeat(vectors[:1], len(vectors), axis=0),
        "robot0_demo_end_pose": np.repeat(vectors[-1:], len(vectors), axis=0),
    }


def axis_angles(rotations: Floats) -> Floats:
    """Rotation vectors ``[T, 3]`` of matrices ``[T, 3, 3]``: the axis times the angle, 0 to pi."""
    from scipy.spatial.transform import Rotation

    return np.asarray(Rotation.from_matrix(rotations).as_rotvec())


def pack(store: Path, archive: Path) -> None:
    """A directory store as a zip, members not compressed again."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED, allowZip64=True) as out:
        for path in sorted(p for p in store.rglob("*") if p.is_file()):
            out.write(path, path.relative_to(store).as_posix())
            path.unlink()
