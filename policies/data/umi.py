"""UMI's training samples: poses relative to the present one, of a UMI replay buffer.

Rules of its ``SequenceSampler`` and ``UmiDataset``: pictures of the rows before, every so many, the first one
repeated; poses and widths at the moments the pictures really show, between rows where latency asks for it
(linear, rotations on the sphere); the action is the poses to come, beginning with the present one. Rotations
are the first two rows of the matrix. A sample whose action would pass the end is none.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from policies.data.dataset import IMAGES, STATE, Array, Dataset, DatasetError, RowNumbers, Statistics
from policies.data.scaling import RANGE_EPS, Scaling, limits, side_by_side, unscaled
from policies.data.windows import Windows, WindowSpec
from runtime.messages import Floats

_POSE = 7
_START_NOISE = 0.05
"""Metres and radians: of the episode's first pose, so that a policy does not rely on it."""


@dataclass(frozen=True, slots=True)
class UmiSpec:
    """Which rows a sample has; the defaults are the public configuration's.

    Attributes:
        image_horizon, state_horizon: observations. action_horizon: poses to come. down: rows from one to the
            next, of all three.
        pose_latency, width_latency: rows by which pictures are later than poses and widths; fractions of rows
            are in between. The public configuration sets its rate to 0, and with it these.
        images: the cameras; none named: all.
    """

    image_horizon: int = 2
    state_horizon: int = 2
    action_horizon: int = 16
    down: int = 3
    pose_latency: float = 0.0
    width_latency: float = 0.0
    images: tuple[str, ...] = ()


class UmiWindows:
    """Samples by UMI's names, float32: ``<camera>`` ``[n, 3, H, W]`` 0 to 1, ``robot0_eef_pos`` ``[n, 3]``,
    ``robot0_eef_rot_axis_angle`` ``[n, 6]``, ``robot0_gripper_width`` ``[n, 1]``,
    ``robot0_eef_rot_axis_angle_wrt_start`` ``[n, 6]`` and ``action`` ``[T, 10]``.
    """

    def __init__(
        self, dataset: Dataset, spec: UmiSpec | None = None, noise: np.random.Generator | None = None
    ) -> None:
        """Count them. `noise` moves the first pose of the episode; without, it is as it was.

        Raises:
            DatasetError: the data set has no poses, or every episode is shorter than the action.
        """
        self.spec = spec = spec or UmiSpec()
        state = dataset.features.get(STATE)
        if state is None or state.shape != (_POSE,) or not state.names[3:4] == ("rx",):
            raise DatasetError(f"{dataset.path}: its states are no poses; expected a UMI replay buffer")
        seen = tuple(name.removeprefix(IMAGES) for name in dataset.features if name.startswith(IMAGES))
        self.images = spec.images or seen
        ahead = (spec.action_horizon - 1) * spec.down
        self._rows = np.arange(0, ahead + 1, spec.down)
        self._noise = noise
        self.windows = Windows(dataset, WindowSpec({STATE: (0,)}, last=-ahead))

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int) -> dict[str, Array]:
        number, row = self.windows.place(index)
        episode = self.windows.dataset.episodes[number]
        shown = _before(row, self.spec.image_horizon, self.spec.down)
        out = {
            name: np.moveaxis(episode.read(f"{IMAGES}{name}", shown), -1, 1) / np.float32(255)
            for name in self.images
        }
        poses = episode.read(STATE, np.arange(episode.length)).astype(np.float64)
        return {**out, **self.numbers(poses, row)}

    def numbers(self, poses: Floats, row: int) -> dict[str, Array]:
        """Everything but pictures, at `row` of an episode of `poses` ``[T, 7]``."""
        spec, steps = self.spec, np.arange(self.spec.state_horizon)[::-1] * self.spec.down
        seen = _between(poses[:, :6], row - steps + spec.pose_latency)
        width = _between(poses[:, 6:], row - steps + spec.width_latency)
        start = poses[0, :6]
        if self._noise is not None:
            start = start + self._noise.normal(scale=_START_NOISE, size=6)
        matrices = _matrices(seen.astype(np.float32))
        here = np.linalg.inv(matrices[-1])
        action = poses[row + self._rows].astype(np.float32)
        to_come = here @ _matrices(action[:, :6])
        since = np.linalg.inv(_matrices(start.astype(np.float32)[None])[0]) @ matrices
        relative = here @ matrices
        return {
            "robot0_eef_pos": _flat(relative)[:, :3],
            "robot0_eef_rot_axis_angle": _flat(relative)[:, 3:],
            "robot0_gripper_width": width.astype(np.float32),
            "robot0_eef_rot_axis_angle_wrt_start": _flat(since)[:, 3:],
            "action": np.concatenate([_flat(to_come), action[:, 6:]], axis=1),
        }

    def scalings(self) -> dict[str, Scaling]:
        """By name: positions and widths onto -1 to 1 over all samples, rotations as they are."""
        found: dict[str, list[Array]] = {}
        for episode in self.windows.dataset.episodes:
            poses = episode.read(STATE, np.arange(episode.length)).astype(np.float64)
            for row in range(max(0, episode.length - int(self._rows[-1]))):
                for name, values in self.numbers(poses, row).items():
                    found.setdefault(name, []).append(values)
        every = {name: np.concatenate(parts).astype(np.float64) for name, parts in found.items()}
        ranges = {name: _range(every[name]) for name in ("robot0_eef_pos", "robot0_gripper_width")}
        action = every["action"]
        rotations = [name for name in every if "rot" in name]
        return {
            **ranges,
            **{name: unscaled(6) for name in rotations},
            "action": side_by_side(_range(action[:, :3]), unscaled(6), _range(action[:, 9:])),
        }


def _before(row: int, count: int, down: int) -> RowNumbers:
    """`row` and those before it, `down` apart; where the episode has not begun, the first of them."""
    rows = row - np.arange(count)[::-1] * down
    return np.where(rows < 0, row % down, rows)


def _range(values: Floats) -> Scaling:
    low, high = values.min(axis=0), values.max(axis=0)
    return limits(Statistics(values.mean(axis=0), values.std(axis=0), low, high, len(values)), RANGE_EPS)


def _between(values: Floats, rows: Array) -> Floats:
    """Poses ``[n, 6]`` or widths ``[n, 1]`` at `rows`, which may be fractions, within the episode."""
    from scipy.spatial.transform import Rotation, Slerp

    at = np.clip(rows.astype(np.float32), 0, len(values) - 1)
    before = np.minimum(at.astype(np.int64), max(0, len(values) - 2))
    share = (at - before)[:, None]
    out = values[before] * (1 - share) + values[np.minimum(before + 1, len(values) - 1)] * share
    if values.shape[1] == 6 and share.any():
        turns = Rotation.from_rotvec(values[:, 3:])
        out[:, 3:] = Slerp(np.arange(len(values)), turns)(at).as_rotvec()
    return np.asarray(out)


def _matrices(poses: Array) -> Array:
    """``[n, 4, 4]`` of positions and rotation vectors ``[n, 6]``, in their precision."""
    from scipy.spatial.transform import Rotation

    out = np.zeros((len(poses), 4, 4), poses.dtype)
    out[:, :3, 3] = poses[:, :3]
    out[:, :3, :3] = Rotation.from_rotvec(poses[:, 3:]).as_matrix()
    out[:, 3, 3] = 1
    return out


def _flat(matrices: Array) -> Array:
    """Position and the matrix's first two rows, ``[n, 9]``."""
    return np.concatenate([matrices[:, :3, 3], matrices[:, :2, :3].reshape(len(matrices), 6)], axis=1)
