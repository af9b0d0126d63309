"""A folder of LeRobot's as a policy of the runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from loguru import logger
from torch import Tensor

from policies.accelerate import Upload, open_device, set_threads
from policies.checkpoint import State
from policies.entries import EntryKind
from policies.lerobot.folder import ACTION, STATE, Folder
from policies.lerobot.loading import Load, network_of
from policies.lerobot.matching import bound_to, looks_through
from policies.lerobot.network import CommittedRows, NetworkInput
from policies.lerobot.normaliser import Normaliser
from policies.lerobot.options import FolderOptions
from policies.lerobot.weights import read_small_tensors, shapes_in
from policies.mapping import ImageRule, ObservationMap, fit_image
from policies.said_units import agreed_units, units_beside
from runtime.interfaces import PolicyError, PolicySpec
from runtime.joints import JointLayout
from runtime.messages import CameraInfo, ColorImage, Floats, Observation, PolicyAnswer
from runtime.rtc import pad_committed, prefix_weights
from runtime.units import DEFAULT_LEROBOT, UnitMap

Committed = tuple[Floats, int]
"""Committed rows in the policy's units, and how many of them will have been executed."""


class FolderPolicy:
    """`runtime.interfaces.Policy`. The folder is read here; the network goes to its device in `warm_up`.

    Raises:
        PolicyError: the folder cannot be used, or does not fit the robot; one line, with what would.
    """

    def __init__(
        self,
        options: FolderOptions,
        robot: JointLayout,
        cameras: Mapping[str, CameraInfo],
        load: Load | None = None,
    ) -> None:
        """`load` reads the network; without it, it is one of LeRobot's, as the folder says."""
        self._options = options
        folder = self._folder = options.folder()
        load = load or network_of(folder, options)
        _check_effect(folder, options)
        self._device = open_device(options.device)
        self._views = looks_through(folder, options.keys)
        self._rules = {camera: _rule(folder, options, camera, name) for camera, name in self._views.items()}
        self._map = bound_to(folder, options.keys, _units(folder, options.units), robot)
        self._tips = {
            name: torch.tensor([entry.kind is EntryKind.TIP for entry in entries])
            for name, entries in self._map.state.items()
        }
        self._normaliser = Normaliser.of(folder, _statistics_inside(folder))
        _check_seen(folder, self._map, self._normaliser)
        self._network = load(folder, self._device)
        self._guides = self._network.takes_prefix and options.blend == "rtc"
        self._warn_of_shapes(cameras)
        self._upload = Upload(self._device)
        self._noise = torch.Generator().manual_seed(options.seed)
        self._warm = False
        self.spec = PolicySpec(
            f"lerobot {folder.kind}",
            self._network.rows,
            joints=len(robot.names),
            cameras=tuple(dict.fromkeys((*self._views, *options.keys.tracked))),
            masks=options.keys.tracked,
            end_effector=self._map.wants_poses,
            tip=options.keys.wants_tip,
            thought=options.keys.thought_size,
            takes_prefix=self._guides,
            history_steps=self._network.history,
            history_stride_s=1.0 / options.rate_hz,
        )

    def _warn_of_shapes(self, cameras: Mapping[str, CameraInfo]) -> None:
        for name, rule in self._rules.items():
            seen = cameras[name].intrinsics if name in cameras else None
            if seen is None or not rule.width or rule.resize != "stretch":
                continue
            if abs(seen.width * rule.height - seen.height * rule.width) > 0.01 * seen.width * rule.height:
                logger.warning(
                    "policy: pictures of camera {} are {}x{}, and {} was trained on {}x{}: they are "
                    'stretched; policy.keys.image.resize = "crop" or "pad" keeps their aspect ratio',
                    name,
                    seen.width,
                    seen.height,
                    self._folder.path.name,
                    rule.width,
                    rule.height,
                )

    def warm_up(self) -> None:
        """Move the network to its device and run it once."""
        set_threads(self._options.threads)
        self._network.place(self._device, self._options.held_in)
        self._network.pack(guided=self._guides, int8=self._options.precision == "int8")
        self._normaliser = self._normaliser.to(self._device)
        self._warm = True
        vectors = {
            name: np.zeros((1, self._network.history, size)) for name, size in self._folder.vectors.items()
        }
        views = {
            camera: [[np.zeros((rule.height or 48, rule.width or 64, 3), np.uint8)] * self._network.history]
            for camera, rule in self._rules.items()
        }
        beyond = self._beyond(())
        try:
            self._run(vectors, views, ("",), beyond=beyond)
            if self._guides:
                row: Committed = (np.zeros((1, self._map.action_size)), 0)
                self._run(vectors, views, ("",), [row], beyond)
        except (torch.OutOfMemoryError, MemoryError) as error:
            raise PolicyError(
                f"out of memory on {self._device} for one chunk of {self._folder.kind}"
            ) from error
        self._noise.manual_seed(self._options.seed)

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
        instants = [_instants(each, self._network.history) for each in observations]
        felt = [[self._map.state_vectors(one, np.nan) for one in each] for each in instants]
        vectors = {
            name: np.stack([np.stack([one[name] for one in each]) for each in felt])
            for name in self._folder.vectors
        }
        views = {
            camera: [[self._picture(camera, one) for one in each] for each in instants]
            for camera in self._views
        }
        said = tuple(self._map.instruction(each) for each in observations)
        committed = [self._committed(each) for each in observations]
        rows = self._run(vectors, views, said, committed, self._beyond(observations))
        return [
            PolicyAnswer(self._map.actions_to_robot({ACTION: row}, each.arm.position))
            for row, each in zip(rows, observations, strict=True)
        ]

    def _beyond(self, observations: Sequence[Observation]) -> Mapping[str, Tensor]:
        """Inputs that LeRobot's networks have not, by name, as measured; of no observation, as if of one that
        shows nothing.
        """
        del observations
        return {}

    def _committed(self, observation: Observation) -> Committed | None:
        if not (self._guides and observation.committed.size):
            return None
        return self._map.rows_to_policy(
            observation.committed, observation.arm.position
        ), observation.frozen_steps

    def _prefix(self, committed: Sequence[Committed | None]) -> CommittedRows | None:
        """Of a batch; one without committed rows has weights of 0."""
        if not any(committed):
            return None
        steps = self._network.rows
        each = [rows or (np.zeros((1, self._map.action_size)), 0) for rows in committed]
        padded = np.stack([pad_committed(rows, steps) for rows, _ in each]).astype(np.float32)
        weights = np.stack(
            [
                prefix_weights(steps, frozen, len(rows)) * (given is not None)
                for given, (rows, frozen) in zip(committed, each, strict=True)
            ]
        )
        scaled = self._normaliser.action.again(self._upload("committed", padded))
        frozen = np.array([0 if given is None else given[1] for given in committed])
        return CommittedRows(
            scaled,
            self._upload("weights", weights.astype(np.float32))[..., None],
            self._upload("frozen", frozen),
        )

    def _picture(self, camera: str, observation: Observation) -> ColorImage:
        frame = observation.frames.get(camera)
        if frame is None:
            raise PolicyError(f"{self.spec.name}: no frame of camera {camera!r} in the observation")
        return fit_image(frame.color, self._rules[camera])

    def _run(
        self,
        vectors: Mapping[str, Any],
        views: Mapping[str, Any],
        instructions: tuple[str, ...],
        committed: Sequence[Committed | None] = (),
        beyond: Mapping[str, Tensor] | None = None,
    ) -> Any:
        """``[B, chunk, action]`` in the policy's units, as `vectors` are, ``[B, steps, n]`` each; `views` are
        ``[B][steps]`` pictures each.
        """
        if not self._warm:
            raise PolicyError(f"{self.spec.name}: asked before warm_up")
        scaled = self._normaliser.inputs
        felt = {
            name: self._known(name, scaled[name].inward(self._upload(name, values.astype(np.float32))))
            for name, values in vectors.items()
        }
        shown = {
            name: scaled[name].inward(self._pixels(camera, views[camera]))
            for camera, name in self._views.items()
        }
        out = self._network.chunk(
            NetworkInput(felt, shown, instructions, self._noise, self._prefix(committed), beyond or {})
        )
        return self._normaliser.action.outward(out.float()).double().cpu().numpy()

    def _known(self, name: str, vectors: Tensor) -> Tensor:
        """``[..., n]`` as scaled, with an object that was not seen yet where it was on average, which is 0.
        What else is not a number stays none: rows that come of it are none either, and the arm holds.
        """
        unseen = torch.isnan(vectors) & self._tips[name].to(vectors.device)
        return vectors.masked_fill(unseen, 0.0)

    def _pixels(self, camera: str, views: Sequence[Sequence[ColorImage]]) -> Tensor:
        """``[B, steps, 3, H, W]`` in 0..1."""
        pixels = self._upload(camera, np.stack([np.stack(each) for each in views]))
        return pixels.permute(0, 1, 4, 2, 3).float() / 255

    def reset(self) -> None:
        """Nothing is kept between chunks: an observation brings its history, and the horizon its ensemble."""

    def statistics(self) -> Mapping[str, int]:
        """It counts nothing of its own."""
        return {}

    def close(self) -> None:
        """Release device memory."""
        self._warm = False
        if self._device.type == "cuda":
            self._network.place(torch.device("cpu"), "float32")
            torch.cuda.empty_cache()


def _check_effect(folder: Folder, options: FolderOptions) -> None:
    """Whether what is configured has an effect on a network of this kind.

    Raises:
        FolderError: it has none.
    """
    if options.inference_steps and folder.kind == "act":
        raise folder.error("policy.inference_steps has no effect: an ACT makes its chunk at once")
    if options.precision == "int8" and folder.kind != "smolvla":
        raise folder.error(f"policy.precision = 'int8' has no effect: it is a {folder.kind}")
    if options.precision == "int8" and not options.device.startswith("cpu"):
        raise folder.error("policy.precision = 'int8' is for device = 'cpu'; 'bfloat16' is fast on a GPU")
    if options.vlm and folder.kind != "smolvla":
        raise folder.error(f"policy.vlm has no effect: it is a {folder.kind}")
    if options.blend == "rtc" and folder.kind != "smolvla":
        raise folder.error(f"policy.blend = 'rtc': a {folder.kind} does not go on from committed rows")
    if options.keys.instruction_tip and folder.kind != "smolvla":
        raise folder.error(f"policy.keys.instruction_tip has no effect: a {folder.kind} reads nothing")


def _instants(observation: Observation, steps: int) -> list[Observation]:
    """The observation at each instant, the present last; where too few came, the first again."""
    earlier = [replace(observation, arm=one.arm, frames=one.frames) for one in observation.history]
    whole = [*earlier, observation][-steps:]
    return [whole[0]] * (steps - len(whole)) + whole


def _rule(folder: Folder, options: FolderOptions, camera: str, name: str) -> ImageRule:
    """How a camera's picture comes to the folder's size; SmolVLA takes any, and keeps its aspect ratio."""
    rule = options.keys.rule_for(camera)
    if folder.kind == "smolvla":
        return rule
    height, width = folder.inputs[name].shape[1:]
    return rule.model_copy(update={"width": width, "height": height})


def _units(folder: Folder, configured: UnitMap) -> UnitMap:
    """Those that are configured, or that the folder says; else LeRobot's default when it was written."""
    if configured.model_fields_set or units_beside(folder.weights) is not None:
        return agreed_units(configured, str(folder.weights))
    convention = "lerobot_percent" if folder.inside else DEFAULT_LEROBOT
    logger.warning(
        "policy: nothing in {} says its units; they are taken for {}, LeRobot's default {} 0.4: "
        "policy.units says otherwise",
        folder.path,
        convention,
        "before" if folder.inside else "since",
    )
    return UnitMap(convention=convention)


def _statistics_inside(folder: Folder) -> State:
    if not folder.inside:
        return {}
    names = [name for name in shapes_in(folder.weights) if ".buffer_" in name]
    return read_small_tensors(folder.weights, names)


def _check_seen(folder: Folder, mapped: ObservationMap, normaliser: Normaliser) -> None:
    """Whether what the statistics tell can be of this robot in these units.

    Raises:
        FolderError: it cannot; both readings.
    """
    for kind, name in (("state", STATE), ("action", ACTION)):
        ends = normaliser.seen.get(name)
        if ends is None or (kind == "state" and list(folder.vectors) != [STATE]):
            continue
        low, high = ends.double().numpy()
        doubt = mapped.doubt(kind, low, high, spans=True)  # type: ignore[arg-type]
        if not doubt and kind == "action":
            doubt = mapped.doubt_of_changes(low, high)
        if doubt:
            raise folder.error(f"statistics of its {kind}: {doubt}; say which with policy.units")
