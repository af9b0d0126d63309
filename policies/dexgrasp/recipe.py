"""How the DexGraspVLA controller is trained: its authors' loss, optimiser groups and schedule."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from policies.checkpoint import CheckpointError, check_fit, read_state, write_safetensors
from policies.data.dataset import ACTION, IMAGES, MASKS, STATE, Dataset, DatasetError, Switches
from policies.data.umi import UmiSpec
from policies.data.windows import WindowSpec
from policies.dexgrasp.controller import Controller
from policies.dexgrasp.features import FEATURES, FeaturesDataset, features_file
from policies.dexgrasp.load import load_controller
from policies.dexgrasp.options import ControllerShape, DexGraspOptions, DexGraspTraining
from policies.dexgrasp.pictures import resized, resized_mask
from policies.dexgrasp.umi import UmiDataset, entries, holds_poses, tensors
from policies.dexgrasp.vit import BACKBONES, DinoVit
from policies.training.augment import color_jitter
from policies.training.recipe import Samples
from policies.training.said import entries_of, units_of
from runtime.interfaces import PolicyError

JITTER = {"brightness": 0.3, "contrast": 0.3, "saturation": 0.3, "hue": 0.1}
_TESTS_ONLY = "tiny"
_WEIGHTS = "https://dl.fbaipublicfiles.com/dinov2/dinov2_{0}/dinov2_{0}_pretrain.pth"


class DexGraspRecipe:
    """`policies.training.recipe.Recipe` of the controller."""

    def __init__(self, table: DexGraspOptions, training: DexGraspTraining) -> None:
        self._table, self._training = table, training

    def defaults(self) -> Mapping[str, Any]:
        """Its authors', on each of their eight GPUs."""
        return {
            "batch": 48,
            "precision": "bfloat16",
            "optimizer": {"lr": 1e-4, "weight_decay": 1e-4, "betas": [0.95, 0.999], "clip": 0.5},
            "schedule": {"name": "cosine", "warmup_steps": 2000},
        }

    def reads(self, switches: Switches) -> Switches:
        """The controller's cameras, and the mask of what it is to grasp.

        Raises:
            PolicyError: it has no input for what is switched on.
        """
        for key in ("use_depth", "use_force", "use_language_tip"):
            if getattr(switches, key):
                raise PolicyError(
                    f"switches.{key}: dexgrasp has no input for it; it takes cameras, mask and joints"
                )
        mask = self._table.shape.head is not None
        return replace(switches, cameras=tuple(self._sides().values()), use_mask=mask)

    def prepare(self, dataset: Dataset, cache: Path) -> Dataset:
        """With `cache_features`, what the backbones say of each frame."""
        poses = holds_poses(dataset)
        if poses and self._table.shape.head is not None:
            raise DatasetError(
                f"{dataset.path}: poses of one camera's gripper (UMI): give policy.shape.head = 'none'"
            )
        files = {}
        for side, camera in self._sides().items() if self._training.cache_features else ():
            self._needs(dataset, IMAGES + camera)
            vit, size = self._backbone(side), self._table.shape.image_size
            files[FEATURES + camera] = features_file(dataset, camera, vit, size, cache)
        if files:
            dataset = FeaturesDataset(dataset, files)
        if not poses:
            return dataset
        pictures = [self._pictures + camera for camera in self._sides().values()]
        for name in pictures:
            self._needs(dataset, name)
        shape, given = self._table.shape, self._training
        seen = shape.observation_steps
        spec = UmiSpec(seen, seen, shape.horizon, given.down, given.pose_latency, given.width_latency)
        return UmiDataset(dataset, spec, pictures)

    def windows(self, dataset: Dataset) -> WindowSpec:
        """The last observations, and the horizon's actions from the newest on; the ends are repeated."""
        shape = self._table.shape
        seen = tuple(range(1 - shape.observation_steps, 1))
        names = [STATE, *(self._pictures + camera for camera in self._sides().values())]
        if shape.head is not None:
            names.append(MASKS + self._table.head_camera)
        for name in (*names, ACTION):
            self._needs(dataset, name)
        if isinstance(dataset, UmiDataset):
            return WindowSpec(dict.fromkeys((*names, ACTION), (0,)), last=-dataset.ahead)
        return WindowSpec({**dict.fromkeys(names, seen), ACTION: tuple(range(shape.horizon))})

    def build(self, dataset: Dataset) -> Controller:
        """A controller of the data set's sizes, its backbones frozen."""
        found = {
            "state_size": dataset.features[STATE].shape[-1],
            "action_size": dataset.features[ACTION].shape[-1],
        }
        shape = ControllerShape.model_validate({**self._table.shape.model_dump(), **found})
        if self._table.checkpoint:
            controller = load_controller(Path(self._table.checkpoint), shape)
            _check_same_sizes(self._table.checkpoint, controller.shape, shape)
        else:
            controller = Controller(shape)
            for side in self._sides():
                own = getattr(controller.obs_encoder, f"dino_{side}")
                own.load_state_dict(self._backbone(side).state_dict())
            _fit(controller, dataset)
        for side in self._sides():
            getattr(controller.obs_encoder, f"dino_{side}").requires_grad_(False)
        return controller

    def loss(self, model: nn.Module, batch: Samples) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The error of the predicted noise."""
        assert isinstance(model, Controller)  # noqa: S101 - for the type checker
        if batch[STATE].dim() == 4:  # rows that are whole samples
            batch = {name: rows[:, 0] for name, rows in batch.items()}
        side, encoder = model.shape.image_size, model.obs_encoder
        said: dict[str, Tensor] = {}
        for name, camera in self._sides().items():
            seen = batch[self._pictures + camera].flatten(0, 1)
            if self._training.cache_features:
                said[name] = seen.float()
                continue
            images = resized(seen, side)
            if self._training.jitter and model.training:
                images = color_jitter(images, **JITTER)
            with torch.no_grad():
                said[name] = getattr(encoder, f"dino_{name}")(encoder.normalized(images))
        mask = None
        if "head" in said:
            mask = resized_mask(batch[MASKS + self._table.head_camera].flatten(0, 1), side)
        tokens = encoder.fuse(said.get("head"), mask, said.get("wrist"), batch[STATE].float())
        return model.loss_of(tokens, batch[ACTION].float()), {}

    def groups(self, model: nn.Module) -> Sequence[Mapping[str, Any]]:
        """Weights decay; biases, norms and the like do not."""
        trained = [each for each in model.parameters() if each.requires_grad]
        return [
            {"params": [each for each in trained if each.dim() >= 2]},
            {"params": [each for each in trained if each.dim() < 2], "weight_decay": 0.0},
        ]

    def save(self, model: nn.Module, dataset: Dataset, folder: Path) -> None:
        """Weights, backbones and normaliser included, and the table that runs them."""
        assert isinstance(model, Controller)  # noqa: S101 - for the type checker
        metadata = {"format": "pt", "kind": "dexgrasp"}
        write_safetensors(folder / "model.safetensors", model.state_dict(), metadata)
        table = self._table
        said: dict[str, Any] = {
            "type": table.type,
            "rate_hz": dataset.rate_hz,
            "image_order": "rgb",
            "head_camera": table.head_camera,
            "wrist_camera": table.wrist_camera,
            "keys": self._keys(dataset),
            "shape": model.shape.model_dump(mode="json"),
        }
        units = table.units.said() if "units" in table.model_fields_set else units_of(dataset)
        if units is not None:
            said["units"] = units
        (folder / "policy.json").write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")

    # --- of the table and the data set

    @property
    def _pictures(self) -> str:
        return FEATURES if self._training.cache_features else IMAGES

    def _sides(self) -> dict[str, str]:
        """The cameras that there are, by what the network calls them."""
        table = self._table
        both = {"head": table.head_camera, "wrist": table.wrist_camera}
        return {side: camera for side, camera in both.items() if getattr(table.shape, side) is not None}

    def _needs(self, dataset: Dataset, name: str) -> None:
        if name not in dataset.features:
            has = ", ".join(dataset.features)
            raise DatasetError(f"{dataset.path}: no {name!r} in it, which dexgrasp needs; it has {has}")

    def _backbone(self, side: str) -> DinoVit:
        """A frozen backbone, the same every time.

        Raises:
            PolicyError: no file is given. CheckpointError: it does not fit.
        """
        kind: str = getattr(self._table.shape, side)
        path = getattr(self._training, f"{side}_backbone")
        if not path and not kind.startswith(_TESTS_ONLY):
            raise PolicyError(
                f"recipe.{side}_backbone is not given: the file of DINOv2's {kind} ({_WEIGHTS.format(kind)})"
            )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            vit = DinoVit(BACKBONES[kind], self._table.shape.position_grid)
        if path:
            state = read_state(Path(path))
            check_fit(path, state, vit.state_dict())
            vit.load_state_dict(state)
        return vit

    def _keys(self, dataset: Dataset) -> dict[str, Any]:
        if isinstance(dataset, UmiDataset):
            return entries()
        if "keys" in self._table.model_fields_set:
            return self._table.keys.model_dump(mode="json", exclude_unset=True)
        pairs = {"state": entries_of(dataset, STATE), "action": entries_of(dataset, ACTION)}
        return {kind: {kind: list(entries)} for kind, entries in pairs.items() if entries}


def _fit(controller: Controller, dataset: Dataset) -> None:
    """The normaliser of actions: their range onto -1 to 1; of poses, without the rotations."""
    if isinstance(dataset, UmiDataset):
        controller.normalizer.set(ACTION, *tensors(dataset.scaling()))
        return
    actions = dataset.statistics(ACTION)
    found = (actions.minimum, actions.maximum, actions.mean, actions.std)
    controller.normalizer.fit_range(ACTION, *(torch.from_numpy(each).float() for each in found))


def _check_same_sizes(checkpoint: str, found: ControllerShape, wanted: ControllerShape) -> None:
    for key in ("head", "wrist", "image_size", "state_size", "action_size", "horizon", "observation_steps"):
        have, want = getattr(found, key), getattr(wanted, key)
        if have != want:
            raise CheckpointError(
                f"{checkpoint}: its {key} is {have}, and the data set and policy.shape make {want}"
            )
