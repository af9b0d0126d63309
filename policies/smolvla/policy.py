"""SmolVLA as a policy of the runtime: LeRobot's folder, with what LeRobot's network has not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from loguru import logger
from torch import Tensor

from policies.data.dataset import DEPTH, FORCE, TIP
from policies.lerobot.folder import Folder
from policies.lerobot.network import ChunkNetwork
from policies.lerobot.policy import Committed, FolderPolicy
from policies.lerobot.smolvla import load_lerobot_smolvla
from policies.mapping import ImageRule, fit_plane
from policies.smolvla.extras import load_extras
from policies.smolvla.options import SmolVlaOptions
from runtime.interfaces import PolicyError
from runtime.joints import JointLayout
from runtime.messages import CameraInfo, Floats, Observation

_NOWHERE = np.full(3, np.nan)


class SmolVlaPolicy(FolderPolicy):
    """`runtime.interfaces.Policy`.

    Raises:
        PolicyError: the folder cannot be used, or does not fit the robot; one line, with what would.
    """

    def __init__(
        self, options: SmolVlaOptions, robot: JointLayout, cameras: Mapping[str, CameraInfo]
    ) -> None:
        self._table, self._inputs = options, options.inputs
        self._infos = cameras
        self._told = False
        self._depths = options.depth_cameras()
        self._size = ImageRule(width=self._inputs.depth_width, height=self._inputs.depth_height)
        super().__init__(options, robot, cameras, self._read)
        self._guides = self._guides and options.rtc != "none"
        tip = self._inputs.tip_camera
        self.spec = replace(
            self.spec,
            name="smolvla",
            takes_prefix=self._guides,
            tip=self.spec.tip or bool(tip),
            cameras=tuple(dict.fromkeys((*self.spec.cameras, *([tip] if tip else [])))),
            masks=tuple(dict.fromkeys((*self.spec.masks, *([tip] if tip else [])))),
        )

    def _read(self, folder: Folder, device: torch.device) -> ChunkNetwork:
        options, inputs = self._table, self._inputs
        if set(folder.beyond) != set(inputs.names):
            has, wants = (", ".join(each) or "none" for each in (folder.beyond, inputs.names))
            raise folder.error(
                f"its inputs beyond LeRobot's are {has}, and policy.inputs says {wants}; its policy.json "
                "says them: give the folder as policy.checkpoint, and leave policy.inputs out"
            )
        network = load_lerobot_smolvla(folder, device, options.held_in, options.inference_steps, options.vlm)
        network.given_rows = options.trained_delay if options.rtc == "prefix" else 0
        if inputs.names:
            network.beyond = load_extras(folder.path, inputs, network.network.state_proj.out_features)
        return network

    def _committed(self, observation: Observation) -> Committed | None:
        committed, known = super()._committed(observation), self._table.trained_delay
        if committed is not None and known and committed[1] > known and not self._told:
            self._told = self._table.rtc == "prefix"
            if self._told:
                logger.warning(
                    "policy: {} rows will have been executed when a chunk arrives, and it was trained to go "
                    "on from {}: such chunks are guided, which takes longer (recipe.rtc_delay)",
                    committed[1],
                    known,
                )
        return committed

    def _beyond(self, observations: Sequence[Observation]) -> Mapping[str, Tensor]:
        inputs, found = self._inputs, {}
        if not inputs.names:
            return {}
        for camera, name in self._depths.items():
            pictures = [self._metres(camera, each) for each in observations] or [self._blank]
            found[DEPTH + name] = self._upload(f"depth {camera}", np.stack(pictures))
        if inputs.force:
            forces = [self._force(each) for each in observations] or [np.zeros(inputs.force)]
            found[FORCE] = self._upload("force", np.stack(forces).astype(np.float32))
        if inputs.tip_camera:
            points = [_NOWHERE if each.tip is None else each.tip.point_m for each in observations]
            found[TIP] = self._upload("tip", np.stack(points or [_NOWHERE]).astype(np.float32))
        return found

    @property
    def _blank(self) -> Floats:
        return np.zeros((self._inputs.depth_height, self._inputs.depth_width), np.float32)

    def _metres(self, camera: str, observation: Observation) -> Floats:
        frame, info = observation.frames.get(camera), self._infos.get(camera)
        if frame is None or frame.depth is None:
            raise PolicyError(f"smolvla: no depth of camera {camera!r} in the observation")
        if info is None or not info.depth_scale_m:
            raise PolicyError(
                f"smolvla: nobody says how many metres a step of camera {camera!r}'s depth is; the robot's "
                "own process knows: run it there"
            )
        return np.asarray(fit_plane(frame.depth, self._size) * np.float32(info.depth_scale_m))

    def _force(self, observation: Observation) -> Floats:
        measured = observation.force_n
        have = 0 if measured is None else np.shape(measured)[0]
        if measured is None or have < self._inputs.force:
            raise PolicyError(
                f"smolvla: it feels {self._inputs.force} channels of force, and the observation has {have}"
            )
        return np.asarray(measured[: self._inputs.force], float)
