"""ACT's and DexVLA's data sets: an HDF5 file for each episode, ``episode_0.hdf5`` and so on.

Both: attribute ``sim``, ``/action`` and ``/observations/qpos``, ``/observations/qvel`` float64 ``[T, D]`` in
the robot's units (radians, gripper 0 to 1) unless configured, ``/observations/images/<camera>`` uint8
``[T, H, W, 3]``, RGB, a chunk for each image. DexVLA also: ``/language_raw`` ``(1,)``,
``/substep_reasonings`` ``(T,)`` and ``/observations/joint_positions``, without grippers.

Row `i` of the action is what was sent when row `i` was observed, in both. The loaders of ACT and DexVLA shift
the actions of files whose ``sim`` is false by one row; what they are given is the same.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dexrun.export import lerobot
from dexrun.export.errors import ExportError
from dexrun.export.job import ExportPlan, Slot, report_of
from dexrun.export.options import ExportOptions
from dexrun.export.reasonings import reasonings
from policies.data.recorded import DatasetShape, EpisodeRef
from policies.data.sampled import Sampled
from runtime.units import UnitMap

UNITS = UnitMap()
RESERVE = 16 << 20
"""Bytes of the disk that are left free."""


class ActHdf5:
    """ACT's."""

    name = "act-hdf5"
    file = False
    appends = False
    force = False
    language = False

    def cameras(self, shape: DatasetShape, options: ExportOptions) -> Sequence[str]:
        return shape.chosen(options)

    def depth(self, options: ExportOptions) -> bool:
        return False

    def tasks(self, ref: EpisodeRef, options: ExportOptions) -> tuple[str, ...]:
        ref.units(options.units or UNITS)
        if not ref.shape.chosen(options):
            raise ExportError(f"{ref.name}: {self.name} needs at least one camera")
        return ("file:",)

    def start(self, plan: ExportPlan) -> None:
        """Nothing."""

    def work(self, task: str, sampled: Sampled, slot: Slot, plan: ExportPlan, prepared: Any) -> None:
        import h5py

        check_room(plan.folder, 0)
        longest = max(other.length for other in plan.slots)
        rows = longest if plan.options.equal_length else slot.length
        with h5py.File(plan.folder / f"episode_{slot.number}.hdf5", "w") as root:
            root.attrs["sim"] = slot.ref.simulated
            root.attrs["units"] = (plan.options.units or UNITS).convention
            self._low_dimensional(root, sampled, slot, plan.options, rows)
            images = root["observations"].create_group("images")
            for camera in slot.ref.shape.chosen(plan.options):
                _write_images(images, camera, sampled, plan.options, rows)
            if self.language:
                _write_language(root, sampled, slot, rows)

    def _low_dimensional(
        self, root: Any, sampled: Sampled, slot: Slot, options: ExportOptions, rows: int
    ) -> None:
        units = slot.ref.units(options.units or UNITS)
        position = units.observed(sampled.position)
        observations = root.create_group("observations")
        root.create_dataset("action", data=padded(units.to_policy(sampled.action), rows))
        observations.create_dataset("qpos", data=padded(position, rows))
        observations.create_dataset("qvel", data=padded(units.rate_to_policy(sampled.velocity), rows))
        if sampled.intervention is not None:
            root.create_dataset("intervention", data=padded(sampled.intervention, rows))
        if self.language:
            observations.create_dataset(
                "joint_positions", data=padded(position[:, list(slot.ref.shape.layout.others)], rows)
            )

    def finish(self, plan: ExportPlan, prepared: Any, results: Sequence[Mapping[str, Any]]) -> None:
        units = (plan.options.units or UNITS).said()
        about = {"fps": plan.options.fps, "units": units, **report_of(plan)}
        lerobot.write_json(plan.folder / "dexrun.json", about)


class DexVlaHdf5(ActHdf5):
    """DexVLA's."""

    name = "dexvla-hdf5"
    language = True


def padded(values: NDArray[Any], rows: int) -> NDArray[Any]:
    """`values` with the last row repeated until there are `rows`."""
    missing = rows - len(values)
    return np.concatenate([values, np.repeat(values[-1:], missing, axis=0)]) if missing > 0 else values


def _write_images(group: Any, camera: str, sampled: Sampled, options: ExportOptions, rows: int) -> None:
    size = sampled.shape.cameras[camera]
    shape = (size.height, size.width, 3)
    kind = options.hdf5_compression
    settings: dict[str, Any] = {} if kind == "none" else {"compression": kind}
    if kind == "gzip":
        settings["compression_opts"] = 2
    data = group.create_dataset(camera, (rows, *shape), np.uint8, chunks=(1, *shape), **settings)
    image, row = np.zeros(shape, np.uint8), -1
    folder = Path(group.file.filename).parent
    for row, image in enumerate(sampled.colors(camera)):
        check_room(folder, image.nbytes)
        data[row] = image
    for more in range(row + 1, rows):
        check_room(folder, image.nbytes)
        data[more] = image


def check_room(folder: Path, needed: int) -> None:
    """Whether the disk has room for more.

    HDF5 crashes the process when a file is closed that it could not write, so the disk must not get full.

    Raises:
        OSError: ENOSPC.
    """
    status = os.statvfs(folder)
    if status.f_bavail * status.f_frsize < needed + RESERVE:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))


def _write_language(root: Any, sampled: Sampled, slot: Slot, rows: int) -> None:
    import h5py

    text = h5py.string_dtype("utf-8")
    found = reasonings(sampled)
    found += found[-1:] * (rows - len(found))
    root.create_dataset("language_raw", data=np.array([slot.ref.task], object), dtype=text)
    root.create_dataset("substep_reasonings", data=np.array(found, object), dtype=text)
