"""A policy that knows one episode by heart: the recorded pose nearest to the arm's tells what comes next."""

from pathlib import Path

import numpy as np
from pydantic import Field

from runtime import (
    Observation,
    PolicyAnswer,
    PolicyContext,
    PolicyError,
    PolicySpec,
    PolicyStatus,
    PolicyTable,
)


class NearestPoseTable(PolicyTable):
    """The table ``[policy]`` with ``type = "nearest_pose"``.

    Attributes:
        episode: a file that ``dexrun export --format act-hdf5`` wrote.
        chunk_steps: rows of a chunk.
    """

    episode: Path
    chunk_steps: int = Field(default=30, ge=4, le=300)

    def build(self, context: PolicyContext) -> "NearestPose":
        return NearestPose(self, context)


class NearestPose:
    def __init__(self, table: NearestPoseTable, context: PolicyContext) -> None:
        import h5py  # what takes long to import is imported when it is needed

        try:
            with h5py.File(table.episode) as file:
                self._states, self._actions = file["observations/qpos"][:], file["action"][:]
        except (OSError, KeyError) as error:
            raise PolicyError(f"policy.episode = {str(table.episode)!r}: {error}") from None
        rows, joints = self._actions.shape
        if joints != context.joints.joints:
            raise PolicyError(f"policy.episode has {joints} joints, the robot {context.joints.joints}")
        self.spec = PolicySpec("nearest_pose", table.chunk_steps, joints, rate_hz=30.0, tells_end=True)
        self._here, self._last = 0, rows - 1

    def warm_up(self) -> None: ...

    def infer(self, observation: Observation) -> PolicyAnswer:
        ahead = self._states[self._here : self._here + 2 * self.spec.chunk_steps][::-1]  # a pause: its end
        self._here += len(ahead) - 1 - int(np.abs(ahead - observation.arm.position).sum(axis=1).argmin())
        which = np.minimum(np.arange(self._here, self._here + self.spec.chunk_steps), self._last)
        done = self._here == self._last
        return PolicyAnswer(self._actions[which], PolicyStatus.DONE if done else PolicyStatus.RUNNING)

    def reset(self) -> None:
        self._here = 0

    def statistics(self) -> dict[str, int]:
        return {"row": self._here}

    def close(self) -> None: ...
