"""LeRobot's folders as fixtures: what it wrote but for the weights, which follow from their names."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from drivers.arms.so100 import JOINT_NAMES, JOINT_RANGES_RAD
from policies.lerobot.config import LerobotFolderConfig
from policies.lerobot.policy import FolderPolicy
from runtime.joints import JointLayout
from runtime.messages import ArmState, Floats, Frame, Observation, Snapshot
from runtime.units import JointUnits, UnitMap, calibrated, joint_units
from tests.remote.interop.drawn_weights import drawn, pictures, states

DATA = Path(__file__).parent / "data" / "lerobot"
SEED = 5
"""Of the noise, and of what is seen, on both sides."""
_TURN = {"range_min": 900, "range_max": 3300, "drive_mode": 0}
ROBOT = calibrated(
    JointLayout(JOINT_NAMES, np.array(JOINT_RANGES_RAD), (5,)),
    {name: {**_TURN, "middle_rad": 0.1 * index} for index, name in enumerate(JOINT_NAMES)},
)
"""An arm whose calibration is not its model."""
NAMES = {"front": "head", "wrist": "wrist", "top": "head"}
"""The robot's cameras, by the data set's."""


@dataclass(frozen=True)
class Played:
    """An episode, and what LeRobot made of it.

    Attributes:
        said: how the folder was made. known: LeRobot's answers.
    """

    folder: Path
    said: Mapping[str, Any]
    known: Mapping[str, torch.Tensor]
    units: JointUnits

    def policy(self, **keys: Any) -> FolderPolicy:
        """Warm, with cameras by the robot's names."""
        cameras = {NAMES[name]: name for name in self.said["cameras"]}
        given = {"seed": SEED, "units": "lerobot_degrees", "keys": {"cameras": cameras}, **keys}
        if "vlm" in self.said:
            given = {"vlm": str(DATA / self.said["vlm"]), **given}
        made = FolderPolicy(LerobotFolderConfig(path=str(self.folder), **given), ROBOT, {})
        made.warm_up()
        return made

    def at(self, step: int, history: int = 1) -> Observation:
        """What is seen at `step`, with the instants before it."""
        arm, frames = self._instant(step)
        first = max(0, step - history + 1)
        earlier = tuple(Snapshot(at, *self._instant(at)) for at in range(first, step))
        said = self.said.get("task", "")
        return Observation(step, 0, step, arm, frames, history=earlier, instruction=said)

    def _instant(self, step: int) -> tuple[ArmState, dict[str, Frame]]:
        height, width = self.said["size"]
        zeros, count = np.zeros(6), self.said["steps"]
        position = self.units.to_robot(states(SEED, count, 6)[step].astype(float))
        seen = {
            NAMES[name]: pictures(SEED + index, count, height, width)[step]
            for index, name in enumerate(self.said["cameras"])
        }
        frames = {name: Frame(name, step, picture) for name, picture in seen.items()}
        return ArmState(step, position, zeros, zeros), frames

    def chunks(self) -> Iterator[tuple[int, Floats]]:
        """LeRobot's, and at which step."""
        for step, chunk in zip(self.known["called"], self.known["chunks"], strict=True):
            yield int(step), chunk.double().numpy()


def played(name: str, folder: Path, convention: Any = "lerobot_degrees") -> Played:
    """The fixture `name`, written whole into `folder`."""
    made = folder / name
    shutil.copytree(DATA / name, made)
    said = json.loads((made / "said.json").read_text())
    shapes = json.loads((made / "shapes.json").read_text())
    save_file(
        {key: torch.from_numpy(drawn(key, shape)) for key, shape in shapes.items()},
        made / "model.safetensors",
    )
    units = joint_units(ROBOT, UnitMap(convention=convention))
    return Played(made, said, load_file(made / "known.safetensors"), units)
