"""ACT as a policy of the runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from policies.accelerate import Replay, Upload, compile_each, open_device, place, set_threads
from policies.act.load import load_act, random_act
from policies.act.model import ActModel
from policies.act.options import ActOptions
from policies.entries import EntryKind
from policies.linear import pack_all
from policies.mapping import ObservationMap, fit_image
from policies.said_units import agreed_units, check_sizes, check_statistics
from runtime.interfaces import PolicyError, PolicySpec
from runtime.joints import JointLayout
from runtime.messages import ColorImage, Floats, Observation, PolicyAnswer


class ActInference:
    """A network made ready for inference: batch norms and image normalisation folded, constants kept."""

    def __init__(self, model: ActModel, device: torch.device, precision: str, *, pack: bool = True) -> None:
        self._model = model
        self._backbone = model.on_pixels()
        place(model, device, precision)
        place(self._backbone, device, precision)
        if pack:
            pack_all(model)
        self._dtype = model.query_embed.weight.dtype
        with torch.no_grad():
            layer = model.transformer.decoder.first
            self._queries = layer.queries(model.query_embed.weight[None])

    def compile(self) -> None:
        """Compile the parts that are called."""
        compile_each([self._backbone, *self._model.transformer.encoder.layers])

    @torch.inference_mode()
    def __call__(self, state: Tensor, images: Tensor) -> Tensor:
        """``state[B, S]``, normalised, and ``images[B, cameras, H, W, 3]`` uint8 to ``[B, chunk, A]``."""
        batch, cameras = images.shape[:2]
        maps = self._backbone(images.flatten(0, 1))
        maps = maps.view(batch, cameras, *maps.shape[1:])
        actions, _ = self._model.decode(state.to(self._dtype), maps, None, self._queries)
        return actions.float()


def known_state(normalised: Floats, tip: NDArray[np.bool_]) -> NDArray[np.float32]:
    """States ``[B, S]``; one whose object was not seen yet has the mean of those of the training, which is 0.

    Args:
        normalised: the states.
        tip: ``[S]`` which entries say where the object is. What else is not a number stays none: rows that
            come of it are none either, and the arm holds.
    """
    return np.asarray(np.where(tip & np.isnan(normalised), 0.0, normalised), np.float32)


class ActPolicy:
    """`runtime.interfaces.Policy`. Reading the checkpoint happens here, moving it to the device in `warm_up`.

    Raises:
        PolicyError: checkpoint, statistics, device, or key map do not fit the robot; one line.
    """

    def __init__(self, config: ActOptions, robot: JointLayout) -> None:
        if not config.cameras:
            raise PolicyError("policy.cameras is empty; ACT needs at least one camera")
        self._config = config
        self._device = open_device(config.device)
        units = agreed_units(config.units, config.checkpoint)
        self._map = ObservationMap(config.keys, units, robot)
        model, stats = load_act(config) if config.checkpoint else random_act(config.shape, config.seed)
        shape = model.shape
        where = config.checkpoint or "policy.shape"
        check_sizes(where, self._map, shape.state_size, shape.action_size)
        self._model = model
        self._stats = stats
        entries = [entry for key in self._map.state.values() for entry in key]
        self._tip = np.array([entry.kind is EntryKind.TIP for entry in entries])
        if config.checkpoint:
            check_statistics(config.checkpoint, self._map, "state", stats.qpos_mean, stats.qpos_std)
            check_statistics(config.checkpoint, self._map, "action", stats.action_mean, stats.action_std)
        size = {"width": config.image_width, "height": config.image_height}
        self._rules = {
            camera: config.keys.rule_for(camera).model_copy(update=size) for camera in config.cameras
        }
        self._upload = Upload(self._device)
        self._network: ActInference | None = None
        self._replay: Replay | None = None
        self.spec = PolicySpec(
            "act",
            shape.chunk,
            joints=len(robot.names),
            cameras=tuple(dict.fromkeys((*config.cameras, *config.keys.tracked))),
            masks=config.keys.tracked,
            end_effector=self._map.wants_poses,
            tip=config.keys.wants_tip,
            thought=config.keys.thought_size,
        )

    def warm_up(self) -> None:
        """Move the network to its device and run it once."""
        set_threads(self._config.threads)
        network = ActInference(self._model, self._device, self._config.precision)
        if self._config.compile:
            network.compile()
        self._network, self._replay = network, Replay(network, self._device, self._config.cuda_graphs)
        size = (self._config.image_height, self._config.image_width, 3)
        blank = {camera: np.zeros(size, np.uint8) for camera in self._config.cameras}
        try:
            self._run(np.zeros((1, self._model.shape.state_size)), [blank])
        except (torch.OutOfMemoryError, MemoryError) as error:
            raise PolicyError(f"out of memory on {self._device} for one chunk of act") from error

    def infer(self, observation: Observation) -> PolicyAnswer:
        """Rows ``[chunk, D]`` in the robot's units.

        Raises:
            PolicyError: a camera or state entry is missing from the observation.
        """
        return self.infer_batch([observation])[0]

    def infer_batch(self, observations: Sequence[Observation]) -> list[PolicyAnswer]:
        """An answer of ``[chunk, D]`` rows for each observation, in one pass.

        Raises:
            PolicyError: as `infer`.
        """
        states = [np.concatenate(list(self._map.state_vectors(o, np.nan).values())) for o in observations]
        rows = self._run(np.stack(states), [self._images(o) for o in observations])
        return [
            PolicyAnswer(self._map.actions_to_robot(self._map.split_action(r), o.arm.position))
            for r, o in zip(rows, observations, strict=True)
        ]

    def _images(self, observation: Observation) -> dict[str, ColorImage]:
        images: dict[str, ColorImage] = {}
        for camera in self._config.cameras:
            frame = observation.frames.get(camera)
            if frame is None:
                raise PolicyError(f"act: no frame of camera {camera!r} in the observation")
            images[camera] = fit_image(frame.color, self._rules[camera])
        return images

    def _run(self, states: Floats, images: Sequence[dict[str, ColorImage]]) -> Floats:
        """``states[B, S]`` and the images of each of the batch to ``[B, chunk, A]``."""
        if self._network is None or self._replay is None:
            raise PolicyError("act: asked before warm_up")
        normalised = known_state((states - self._stats.qpos_mean) / self._stats.qpos_std, self._tip)
        cameras = self._config.cameras
        # a name for each of the batch: what is still on its way to the device must stay as it is
        one_each = [[self._upload(f"{c} {i}", each[c]) for c in cameras] for i, each in enumerate(images)]
        stacked = torch.stack([torch.stack(views) for views in one_each])
        run = self._replay if len(states) == 1 else self._network  # the graph is for one
        out = run(self._upload("states", normalised), stacked).double().cpu().numpy()
        return out * self._stats.action_std + self._stats.action_mean

    def reset(self) -> None:
        """Nothing is kept between chunks; temporal ensembling is the horizon's."""

    def statistics(self) -> Mapping[str, int]:
        """It counts nothing of its own."""
        return {}

    def close(self) -> None:
        """Release device memory."""
        self._network = self._replay = None
        if self._device.type == "cuda":
            self._model.to("cpu")
            torch.cuda.empty_cache()
