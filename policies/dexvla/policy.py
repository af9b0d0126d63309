"""DexVLA as a policy of the runtime: before each chunk it says what it does next."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from policies.accelerate import Upload, compile_each, open_device, place, set_threads
from policies.ddim import Prefix
from policies.dexvla.load import DexVlaStats, LoadedDexVla, begun_with_nothing, load_dexvla
from policies.dexvla.network import DexVlaReading
from policies.dexvla.options import DexVlaOptions
from policies.dexvla.pictures import cropped, patches
from policies.dexvla.prompts import Prompts, normalised
from policies.linear import pack_all
from policies.mapping import ObservationMap
from policies.said_units import agreed_units, check_sizes, check_statistics
from runtime.interfaces import PolicyError, PolicySpec
from runtime.joints import JointLayout
from runtime.messages import ColorImage, Floats, Observation, PolicyAnswer
from runtime.rtc import pad_committed, prefix_weights


class DexVlaPolicy:
    """`runtime.interfaces.Policy`. Reading the checkpoint happens here, moving it to the device in `warm_up`.

    Raises:
        PolicyError: checkpoint, statistics, device, or key map do not fit the robot; one line.
    """

    def __init__(self, config: DexVlaOptions, robot: JointLayout) -> None:
        if not config.cameras:
            raise PolicyError("policy.cameras is empty; dexvla needs at least one camera")
        self._config = config
        self._device = open_device(config.device)
        self._map = ObservationMap(config.keys, agreed_units(config.units, config.checkpoint), robot)
        loaded = _loaded(config, self._device)
        self._network, self._stats, self._words = loaded.network, loaded.stats, loaded.words
        head = self._network.shape.head
        where = config.checkpoint or "policy.shape"
        check_sizes(where, self._map, head.state_size, head.action_size)
        if config.checkpoint:
            stats = self._stats
            check_statistics(config.checkpoint, self._map, "state", stats.qpos_mean, stats.qpos_std)
            check_statistics(config.checkpoint, self._map, "action", stats.action_mean, stats.action_std)
        self._prompts = Prompts(self._words, self._network, len(config.cameras))
        self._upload = Upload(self._device)
        self._noise = torch.Generator().manual_seed(config.seed)
        self._warm = False
        self.spec = PolicySpec(
            "dexvla",
            head.chunk,
            joints=len(robot.names),
            cameras=tuple(dict.fromkeys((*config.cameras, *config.keys.tracked))),
            masks=config.keys.tracked,
            end_effector=self._map.wants_poses,
            tip=config.keys.wants_tip,
            thought=config.keys.thought_size,
            takes_prefix=config.rtc != "none",
            latent=self._network.width,
        )

    def warm_up(self) -> None:
        """Move the network to its device and run it once."""
        set_threads(self._config.threads)
        try:
            place(self._network, self._device, self._config.precision)
            pack_all(self._network.policy_head)
            if self._config.compile:
                compile_each(self._network.policy_head.blocks)
            self._warm = True
            size = self._network.shape
            blank = [np.zeros((size.image_height, size.image_width, 3), np.uint8)] * len(self._config.cameras)
            reading = self._read(blank, "Wait.", 2)
            self._chunk(reading, np.zeros(size.head.state_size), None)
        except (torch.OutOfMemoryError, MemoryError) as error:
            raise PolicyError(f"out of memory on {self._device} for one chunk of dexvla") from error
        self._noise.manual_seed(self._config.seed)

    def infer(self, observation: Observation) -> PolicyAnswer:
        """Rows ``[chunk, D]`` in the robot's units, what the model said before them, and the vector ``[C]``
        that they were made from.

        Raises:
            PolicyError: a camera or state entry is missing from the observation.
        """
        if not self._warm:
            raise PolicyError("dexvla: asked before warm_up")
        images = [self._image(observation, camera) for camera in self._config.cameras]
        reading = self._read(images, observation.instruction, self._config.longest_reasoning)
        state = np.concatenate(list(self._map.state_vectors(observation).values()))
        rows = self._chunk(reading, state, self._prefix(observation))
        acted = self._map.actions_to_robot(self._map.split_action(rows), observation.arm.position)
        latent = reading.condition[0].float().cpu().numpy()
        return PolicyAnswer(acted, reasoning=self._words.reasoning(reading.said), latent=latent)

    def _image(self, observation: Observation, camera: str) -> ColorImage:
        frame = observation.frames.get(camera)
        if frame is None:
            raise PolicyError(f"dexvla: no frame of camera {camera!r} in the observation")
        return frame.color if self._config.image_order == "rgb" else frame.color[..., ::-1]

    @torch.inference_mode()
    def _read(self, images: list[ColorImage], instruction: str, longest: int) -> DexVlaReading:
        size = self._prompts.size
        seen = [self._upload(f"camera {place}", image)[None] for place, image in enumerate(images)]
        pixels = patches(torch.cat([cropped(each, size, middle=True) for each in seen]), size)
        return self._network.read(self._prompts.one(instruction, pixels), self._words.end, longest)

    @torch.inference_mode()
    def _chunk(self, reading: DexVlaReading, state: Floats, prefix: Prefix | None) -> Floats:
        """A chunk ``[T, A]`` in the data set's units."""
        head, stats = self._network.policy_head, self._stats
        felt = ((state - stats.qpos_mean) / stats.qpos_std).astype(np.float32)
        about = head.about(reading.condition, self._upload("state", felt)[None])
        shape = head.shape
        noise = torch.randn((1, shape.chunk, shape.action_size), generator=self._noise)
        rows = head.sample(about, noise.to(self._device), prefix)[0].double().cpu().numpy()
        return np.asarray((rows + 1) / 2 * (stats.action_max - stats.action_min) + stats.action_min)

    def _prefix(self, observation: Observation) -> Prefix | None:
        """What is committed, as the head has it."""
        if not observation.committed.size or self._config.rtc == "none":
            return None
        rows = self._map.rows_to_policy(observation.committed, observation.arm.position)
        chunk = self._network.shape.head.chunk
        low, high = (torch.from_numpy(each) for each in (self._stats.action_min, self._stats.action_max))
        actions = normalised(torch.from_numpy(pad_committed(rows, chunk)), low, high)
        weights = torch.from_numpy(prefix_weights(chunk, observation.frozen_steps, len(rows)))
        return Prefix(self._on_device(actions)[None], self._on_device(weights)[:, None])

    def _on_device(self, values: Tensor) -> Tensor:
        return values.float().to(self._device)

    def reset(self) -> None:
        """Nothing is kept between chunks."""

    def statistics(self) -> Mapping[str, int]:
        """It counts nothing of its own."""
        return {}

    def close(self) -> None:
        """Release device memory."""
        self._warm = False
        if self._device.type == "cuda":
            self._network.to("cpu")
            torch.cuda.empty_cache()


def _loaded(config: DexVlaOptions, device: torch.device) -> LoadedDexVla:
    if config.checkpoint:
        return load_dexvla(Path(config.checkpoint), config.shape, config.precision, device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network, words = begun_with_nothing(config.shape)
    state, action = config.shape.head.state_size, config.shape.head.action_size
    zeros, ones = np.zeros, np.ones
    stats = DexVlaStats(zeros(state), ones(state), -ones(action), ones(action), zeros(action), ones(action))
    return LoadedDexVla(network, stats, words)
