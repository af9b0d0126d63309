"""The DexGraspVLA controller as a policy of the runtime."""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own custom
from torch import Tensor, nn

from policies.accelerate import Replay, Upload, compile_each, open_device, place, set_threads
from policies.checkpoint import CheckpointError
from policies.ddim import Prefix
from policies.dexgrasp.controller import ACTION, Controller, ControllerInput
from policies.dexgrasp.load import load_controller, random_controller
from policies.dexgrasp.options import DexGraspOptions
from policies.linear import pack_all
from policies.mapping import ObservationMap
from policies.said_units import agreed_units, check_statistics
from runtime.interfaces import PolicyError, PolicySpec
from runtime.joints import JointLayout
from runtime.messages import ColorImage, Floats, Mask, Observation, PolicyAnswer
from runtime.rtc import pad_committed, prefix_weights

Committed = tuple[Floats, int]
"""Committed rows in the policy's units, and how many of them will have been executed."""


class DexGraspPolicy:
    """`runtime.interfaces.Policy`. Reading the checkpoint happens here, moving it to the device in `warm_up`.

    Raises:
        PolicyError: checkpoint, device, or key map do not fit the robot; one line.
    """

    def __init__(self, config: DexGraspOptions, robot: JointLayout) -> None:
        self._config = config
        self._device = open_device(config.device)
        self._map = ObservationMap(config.keys, agreed_units(config.units, config.checkpoint), robot)
        self._controller = _controller(config)
        shape = self._controller.shape
        _check_sizes(config.checkpoint, self._map, shape.state_size, shape.action_size)
        if (seen := self._controller.normalizer.seen(ACTION)) is not None:
            check_statistics(config.checkpoint, self._map, "action", *seen)
        sides = ((config.head_camera, shape.head), (config.wrist_camera, shape.wrist))
        looks = [camera for camera, backbone in sides if backbone is not None]
        masked = looks[:1] if shape.head is not None else []
        self.spec = PolicySpec(
            name="dexgrasp",
            chunk_steps=shape.horizon,
            joints=len(robot.names),
            cameras=tuple(dict.fromkeys((*looks, *config.keys.tracked))),
            masks=tuple(dict.fromkeys((*masked, *config.keys.tracked))),
            end_effector=self._map.wants_poses,
            tip=config.keys.wants_tip,
            thought=config.keys.thought_size,
            takes_prefix=config.rtc != "none",
        )
        self._history: collections.deque[ControllerInput] = collections.deque(maxlen=shape.observation_steps)
        self._upload = Upload(self._device)
        self._noise = torch.Generator().manual_seed(config.seed)
        self._free = Replay(self._predict, self._device, config.cuda_graphs)
        self._bound = Replay(self._predict, self._device, config.cuda_graphs and config.rtc == "inpaint")

    @property
    def controller(self) -> Controller:
        """The network."""
        return self._controller

    def warm_up(self) -> None:
        """Move the network to its device and run it once, with and without a prefix."""
        set_threads(self._config.threads)
        place(self._controller.obs_encoder, self._device, self._config.precision)
        place(self._controller.model, self._device, self._config.precision)
        self._controller.normalizer.to(self._device)  # stays in float32
        self._controller.eval()
        self._controller.obs_encoder.share_backbones()
        self._controller.forget_time_tokens()
        pack_all(self._controller.obs_encoder)
        if self._config.rtc != "guidance":  # which needs gradients, and packed layers have none
            pack_all(self._controller.model)
        if self._config.compile:
            compile_each(_blocks(self._controller))
        shape = self._controller.shape
        side = (64, 64)
        color, mask = np.zeros((*side, 3), np.uint8), np.zeros(side, np.uint8)
        made = self._input(color, mask, color, np.zeros(shape.state_size))
        try:
            self._run([made], [None])
            if self.spec.takes_prefix:
                self._run([made], [(np.zeros((1, shape.action_size)), 0)])
        except (torch.OutOfMemoryError, MemoryError) as error:
            raise PolicyError(f"out of memory on {self._device} for one chunk of dexgrasp") from error
        self._noise.manual_seed(self._config.seed)

    def infer(self, observation: Observation) -> PolicyAnswer:
        """Rows ``[horizon, D]`` in the robot's units.

        Raises:
            PolicyError: a camera, mask or state entry is missing from the observation.
        """
        self._history.append(self._observe(observation))
        return self._chunks([observation], [self._stacked()])[0]

    def infer_batch(self, observations: Sequence[Observation]) -> list[PolicyAnswer]:
        """Rows ``[horizon, D]`` for each observation, in one pass for those with a committed prefix and one
        for those without. A network that looks at earlier observations answers one by one.

        Raises:
            PolicyError: as `infer`.
        """
        if self._controller.shape.observation_steps > 1:
            return [self.infer(observation) for observation in observations]
        made = [self._observe(observation, at) for at, observation in enumerate(observations)]
        return self._chunks(observations, made)

    def _chunks(self, observations: Sequence[Observation], made: list[ControllerInput]) -> list[PolicyAnswer]:
        chunks = self._run(made, [self._committed(observation) for observation in observations])
        return [
            PolicyAnswer(self._map.actions_to_robot(self._map.split_action(rows), observation.arm.position))
            for rows, observation in zip(chunks, observations, strict=True)
        ]

    def _committed(self, observation: Observation) -> Committed | None:
        if not observation.committed.size or self._config.rtc == "none":
            return None
        rows = self._map.rows_to_policy(observation.committed, observation.arm.position)
        return rows, observation.frozen_steps

    def reset(self) -> None:
        """Forget earlier observations."""
        self._history.clear()

    def statistics(self) -> Mapping[str, int]:
        """It counts nothing of its own."""
        return {}

    def close(self) -> None:
        """Release device memory."""
        self._history.clear()
        self._controller.forget_time_tokens()
        for replay in (self._free, self._bound):
            replay.forget()
        if self._device.type == "cuda":
            self._controller.to("cpu")
            torch.cuda.empty_cache()

    # --- one observation

    def _observe(self, observation: Observation, at: int = 0) -> ControllerInput:
        shape = self._controller.shape
        head = wrist = None
        mask = None
        if shape.head is not None:
            head = _color(observation, self._config.head_camera)
            mask = _mask(observation, self._config.head_camera)
        if shape.wrist is not None:
            wrist = _color(observation, self._config.wrist_camera)
        state = np.concatenate(list(self._map.state_vectors(observation).values()))
        return self._input(head, mask, wrist, state, at)

    def _input(
        self, head: ColorImage | None, mask: Mask | None, wrist: ColorImage | None, state: Floats, at: int = 0
    ) -> ControllerInput:
        """One observation as tensors with batch and time of 1; images are resized on the device.

        `at` is its place in a batch: what is still on its way to the device must stay as it is.
        """
        shape = self._controller.shape
        head_in = wrist_in = None
        if shape.head is not None and head is not None and mask is not None:
            plane = F.interpolate(
                self._upload(f"mask {at}", mask)[None, None].float(), size=(shape.image_size,) * 2
            )
            head_in = torch.cat((self._image(f"head {at}", head), (plane > 0.5).float()), dim=1)[None]
        if shape.wrist is not None and wrist is not None:
            wrist_in = self._image(f"wrist {at}", wrist)[None]
        vector = self._upload(f"state {at}", state.astype(np.float32))[None, None]
        return ControllerInput(head_in, wrist_in, vector)

    def _image(self, key: str, image: ColorImage) -> Tensor:
        """``[1, 3, S, S]`` in 0..1, resized as in training: bilinear, no antialiasing."""
        size = (self._controller.shape.image_size,) * 2
        pixels = self._upload(key, image).permute(2, 0, 1)[None].float()
        if self._config.image_order == "bgr":
            pixels = pixels.flip(1)
        return F.interpolate(pixels / 255.0, size=size, mode="bilinear", align_corners=False)

    def _stacked(self) -> ControllerInput:
        """The last observations along time, the first repeated where there are too few yet."""
        short = self._controller.shape.observation_steps - len(self._history)
        steps = [self._history[0]] * short + list(self._history)
        if len(steps) == 1:
            return steps[0]
        return ControllerInput(
            _along_time([s.head for s in steps]),
            _along_time([s.wrist for s in steps]),
            torch.cat([s.state for s in steps], dim=1),
        )

    # --- chunks

    def _run(self, made: list[ControllerInput], committed: list[Committed | None]) -> list[Floats]:
        """A chunk of the network's for each of `made`, and what each is to go on from."""
        shape = self._controller.shape
        size = (1, shape.horizon, shape.action_size)
        noise = [torch.randn(size, generator=self._noise) for _ in made]
        chunks: dict[int, Floats] = {}
        for bound in (False, True):
            chosen = [i for i, rows in enumerate(committed) if (rows is not None) is bound]
            if not chosen:
                continue
            inputs = _batched([made[i] for i in chosen])
            prefixes = [rows for i in chosen if (rows := committed[i]) is not None]
            inputs += self._prefix_tensors(prefixes) if prefixes else []
            found = self._call(bound, torch.cat([noise[i] for i in chosen]).to(self._device), inputs)
            chunks |= dict(zip(chosen, found.double().cpu().numpy(), strict=True))
        return [chunks[i] for i in range(len(made))]

    def _call(self, bound: bool, noise: Tensor, inputs: list[Tensor]) -> Tensor:
        if len(noise) > 1:  # the graphs are for one
            return self._predict(noise, *inputs)
        return (self._bound if bound else self._free)(noise, *inputs)

    def _prefix_tensors(self, committed: list[Committed]) -> list[Tensor]:
        horizon = self._controller.shape.horizon
        weights = np.stack([prefix_weights(horizon, frozen, rows.shape[0]) for rows, frozen in committed])
        padded = np.stack([pad_committed(rows, horizon) for rows, _ in committed])
        actions = torch.from_numpy(padded).float().to(self._device)
        normalised = self._controller.normalizer.normalize(ACTION, actions)
        return [normalised, torch.from_numpy(weights).float()[..., None].to(self._device)]

    def _predict(self, noise: Tensor, state: Tensor, *rest: Tensor) -> Tensor:
        """All tensors in, the chunk out, so that a graph can hold it."""
        shape = self._controller.shape
        tensors = list(rest)
        head = tensors.pop(0) if shape.head is not None else None
        wrist = tensors.pop(0) if shape.wrist is not None else None
        prefix = Prefix(tensors[0], tensors[1], self._config.rtc == "guidance") if tensors else None
        return self._controller.predict_action(ControllerInput(head, wrist, state), noise, prefix)


def _controller(config: DexGraspOptions) -> Controller:
    if config.checkpoint:
        return load_controller(Path(config.checkpoint), config.shape)
    return random_controller(config.shape, config.seed)


def _check_sizes(checkpoint: str, mapped: ObservationMap, state_size: int, action_size: int) -> None:
    if (mapped.state_size, mapped.action_size) != (state_size, action_size):
        raise CheckpointError(
            f"{checkpoint or 'policy.shape'}: takes a state of {state_size} and gives actions of "
            f"{action_size}; policy.keys make {mapped.state_size} and {mapped.action_size} of the robot's "
            f"{len(mapped.robot.names)} joints (fill up with 'zero' in state, 'skip' in action)"
        )


def _blocks(controller: Controller) -> list[nn.Module]:
    encoder = controller.obs_encoder
    made = list(controller.model.blocks)
    for side in ("dino_head", "dino_wrist"):
        if hasattr(encoder, side):
            made += list(getattr(encoder, side).blocks)
    return made


def _batched(made: list[ControllerInput]) -> list[Tensor]:
    """State, and the images that there are, each as one batch."""
    parts: list[list[Tensor | None]] = [
        [m.state for m in made],
        [m.head for m in made],
        [m.wrist for m in made],
    ]
    held = [[tensor for tensor in part if tensor is not None] for part in parts]
    return [part[0] if len(part) == 1 else torch.cat(part) for part in held if part]


def _along_time(images: list[Tensor | None]) -> Tensor | None:
    held = [image for image in images if image is not None]
    return torch.cat(held, dim=1) if held else None


def _color(observation: Observation, camera: str) -> ColorImage:
    frame = observation.frames.get(camera)
    if frame is None:
        raise PolicyError(f"dexgrasp: no frame of camera {camera!r} in the observation")
    return frame.color


def _mask(observation: Observation, camera: str) -> Mask:
    tracked = observation.masks.get(camera)
    if tracked is None:
        raise PolicyError(f"dexgrasp: no mask of the object in camera {camera!r}")
    return tracked.mask
