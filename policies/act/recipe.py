"""How ACT is trained: the original's loss, optimiser groups and defaults (Zhao et al., arXiv 2304.13705)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own custom
from loguru import logger
from torch import Tensor, nn

from policies.act.load import STATS, STATS_PREFIX, ActStats, load_act
from policies.act.model import ActModel
from policies.act.options import ActOptions, ActShape, ActTraining
from policies.checkpoint import check_fit, read_state, write_safetensors
from policies.data.dataset import ACTION, FORCE, IMAGES, STATE, TIP, Dataset, DatasetError, Switches
from policies.data.windows import WindowSpec
from policies.entries import THOUGHT_AGE, TIP_ENTRIES
from policies.training.recipe import Samples
from policies.training.said import cameras_of, entries_of, units_of
from policies.training.thoughts import drawn, instants
from runtime.interfaces import PolicyError
from runtime.messages import Floats

if TYPE_CHECKING:
    from policies.data.dataset import Feature

_STATES = (STATE, FORCE, TIP)
"""What makes its state, in this order, where the data set has it; the tip last (`_known`)."""
LEAST_STD = 1e-2
"""The original's: an entry that hardly varies is divided by it."""
_TORCHVISIONS = ("fc.",)
"""In torchvision's file of a ResNet-18, and not in the network."""


class ActNetwork(nn.Module):
    """ACT with its data set's statistics, as one file holds them."""

    def __init__(self, model: ActModel, stats: ActStats, cameras: Sequence[str], dropout: float) -> None:
        super().__init__()
        model.set_dropout(dropout)
        self.model = model
        self.pictures = tuple(IMAGES + camera for camera in cameras)
        for name in STATS:
            self.register_buffer(name, torch.from_numpy(getattr(stats, name)))

    def normalised(self, kind: str, values: Tensor) -> Tensor:
        """``[..., n]`` of ``qpos`` or ``action`` as the network has it, in float32."""
        mean, std = getattr(self, f"{kind}_mean"), getattr(self, f"{kind}_std")
        return cast("Tensor", ((values - mean) / std).float())

    def tensors(self) -> dict[str, Tensor]:
        """By the names that `policies.act.load` reads."""
        stats = {STATS_PREFIX + name: getattr(self, name) for name in STATS}
        return {**self.model.state_dict(), **stats}


class ActRecipe:
    """`policies.training.recipe.Recipe` of ACT."""

    def __init__(self, table: ActOptions, training: ActTraining) -> None:
        self._table, self._training = table, training

    def defaults(self) -> Mapping[str, Any]:
        """The original's."""
        return {
            "batch": 8,
            "steps": 100_000,
            "optimizer": {"lr": 1e-5, "weight_decay": 1e-4},
            "schedule": {"name": "constant"},
        }

    def reads(self, switches: Switches) -> Switches:
        """The cameras of the policy's table.

        Raises:
            PolicyError: ACT has no input for what is switched on.
        """
        for key in ("use_depth", "use_mask"):
            if getattr(switches, key):
                raise PolicyError(
                    f"switches.{key}: act has no input for it; it takes cameras, joints, force and the tip"
                )
        given = self._table.cameras if "cameras" in self._table.model_fields_set else ()
        if given and switches.use_language_tip:
            given = tuple(dict.fromkeys((*given, self._table.keys.tip_camera)))
        return replace(switches, cameras=switches.cameras or given)

    def prepare(self, dataset: Dataset, cache: Path) -> Dataset:
        """Nothing is computed beforehand: the backbone is trained, too."""
        del cache
        return dataset

    def windows(self, dataset: Dataset) -> WindowSpec:
        """One observation, and a chunk of actions from its row on."""
        self._size(dataset)
        rows: dict[str, tuple[int, ...]] = dict.fromkeys(self._vectors(dataset), (0,))
        if self._thinks(dataset):
            rows[TIP] = instants(self._training.thought_age_s, dataset.rate_hz)
        rows |= {IMAGES + camera: (0,) for camera in self._cameras(dataset)}
        return WindowSpec({**rows, ACTION: tuple(range(self._table.shape.chunk))})

    def build(self, dataset: Dataset) -> ActNetwork:
        """ACT of the data set's sizes; the weights of the table's checkpoint, if it has one."""
        shape = self._shape(dataset)
        if self._table.checkpoint:
            model, stats = load_act(self._table)
            _check_same_sizes(self._table.checkpoint, model.shape, shape)
            return ActNetwork(model, stats, self._cameras(dataset), self._training.dropout)
        model = ActModel(shape)
        for parameter in model.transformer.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
        if self._training.backbone:
            _load_backbone(model, Path(self._training.backbone))
        else:
            logger.info("act: recipe.backbone names no ImageNet weights; the ResNet begins with nothing")
        return ActNetwork(model, self._stats(dataset), self._cameras(dataset), self._training.dropout)

    def loss(self, model: nn.Module, batch: Samples) -> tuple[Tensor, Mapping[str, Tensor]]:
        """L1 of the actions, and the latent's divergence times ``kl_weight``."""
        assert isinstance(model, ActNetwork)  # noqa: S101 - for the type checker
        state = torch.cat(self._state(batch, training=model.training), dim=1)
        made = model.model.loss(
            _known(model.normalised("qpos", state), batch[TIP].shape[-1] if TIP in batch else 0),
            self._images([batch[name][:, 0] for name in model.pictures]),
            model.normalised("action", batch[ACTION].double()),
            batch[f"{ACTION}_is_pad"],
            self._training.kl_weight,
        )
        return made.loss, {"l1": made.l1.detach(), "kl": made.kl.detach()}

    def _state(self, batch: Samples, *, training: bool) -> list[Tensor]:
        """Its parts ``[B, n]``, the tip last; of a thought it is drawn, and its age comes before it."""
        parts = [batch[name][:, 0].double() for name in _STATES if name in batch and name != TIP]
        if TIP not in batch:
            return parts
        if not self._training.thought_age_s:
            return [*parts, batch[TIP][:, 0].double()]
        tip, pad = batch[TIP].double(), batch[f"{TIP}_is_pad"]
        longest = batch[TIP].shape[1] - 1
        rate_hz = longest / self._training.thought_age_s
        drawn_tip, age_s = drawn(tip, pad, rate_hz, random=training)
        return [*parts, age_s, drawn_tip]

    def groups(self, model: nn.Module) -> Sequence[Mapping[str, Any]]:
        """The backbone has a learning rate of its own."""
        named = list(model.named_parameters())
        backbone = [p for name, p in named if ".backbones." in name]
        rest = [p for name, p in named if ".backbones." not in name]
        own = {} if self._training.backbone_lr is None else {"lr": self._training.backbone_lr}
        return [{"params": rest}, {"params": backbone, **own}]

    def save(self, model: nn.Module, dataset: Dataset, folder: Path) -> None:
        """Weights with statistics, and the table that runs them."""
        assert isinstance(model, ActNetwork)  # noqa: S101 - for the type checker
        write_safetensors(folder / "model.safetensors", model.tensors(), {"format": "pt", "kind": "act"})
        table = self._table
        said: dict[str, Any] = {
            "type": table.type,
            "rate_hz": dataset.rate_hz,
            "cameras": self._cameras(dataset),
            "image_width": self._size(dataset)[1],
            "image_height": self._size(dataset)[0],
            "keys": self._keys(dataset),
            "shape": model.model.shape.model_dump(mode="json"),
        }
        units = table.units.said() if "units" in table.model_fields_set else units_of(dataset)
        if units is not None:
            said["units"] = units
        (folder / "policy.json").write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")

    # --- of the data set

    def _cameras(self, dataset: Dataset) -> list[str]:
        given = self._table.cameras if "cameras" in self._table.model_fields_set else None
        return cameras_of(dataset, given, self._table.type)

    def _vectors(self, dataset: Dataset) -> list[str]:
        for name in (STATE, ACTION):
            if name not in dataset.features:
                raise DatasetError(f"{dataset.path}: no {name!r} in it, which act needs")
        return [name for name in _STATES if name in dataset.features]

    def _thinks(self, dataset: Dataset) -> bool:
        """Whether where the object is is a slow half's thought.

        Raises:
            DatasetError: it is to be, and the data set does not say where the object is.
        """
        if self._training.thought_age_s and TIP not in dataset.features:
            raise DatasetError(
                f"{dataset.path}: recipe.thought_age_s = {self._training.thought_age_s:g}: the thought is "
                f"where the object is, and there is no {TIP!r}; switches.use_language_tip reads it"
            )
        return self._training.thought_age_s > 0

    def _size(self, dataset: Dataset) -> tuple[int, int]:
        """Height and width of the network's pictures."""
        given = self._table.model_fields_set
        if {"image_width", "image_height"} <= given:
            return self._table.image_height, self._table.image_width
        sizes = {camera: dataset.features[IMAGES + camera].shape[:2] for camera in self._cameras(dataset)}
        if len(set(sizes.values())) > 1:
            shown = ", ".join(f"{camera} {w}x{h}" for camera, (h, w) in sizes.items())
            raise DatasetError(
                f"{dataset.path}: its cameras have pictures of several sizes ({shown}); give "
                "policy.image_width and policy.image_height, which all are brought to"
            )
        height, width = next(iter(sizes.values()))
        return height, width

    def _shape(self, dataset: Dataset) -> ActShape:
        features: list[Feature] = [dataset.features[name] for name in self._vectors(dataset)]
        found = {
            "state_size": sum(feature.shape[0] for feature in features) + self._thinks(dataset),
            "action_size": dataset.features[ACTION].shape[0],
            "norm": "frozen_batch" if self._training.backbone else "group",
        }
        return ActShape.model_validate({**self._table.shape.model_dump(), **found})

    def _stats(self, dataset: Dataset) -> ActStats:
        held = [dataset.statistics(name) for name in self._vectors(dataset)]
        action = dataset.statistics(ACTION)
        means, stds = [each.mean for each in held], [each.std for each in held]
        if self._thinks(dataset):  # uniformly drawn
            longest_s = self._training.thought_age_s
            means.insert(-1, np.array([longest_s / 2]))
            stds.insert(-1, np.array([longest_s / np.sqrt(12)]))
        return ActStats(
            np.concatenate(means).astype(float),
            _wide(np.concatenate(stds)),
            action.mean.astype(float),
            _wide(action.std),
        )

    def _keys(self, dataset: Dataset) -> dict[str, Any]:
        """Which entries make the state and the action, as the data set names them."""
        if "keys" in self._table.model_fields_set:
            return self._table.keys.model_dump(mode="json", exclude_unset=True)
        keys: dict[str, Any] = {}
        state, action, names = entries_of(dataset, STATE), entries_of(dataset, ACTION), dataset.features
        more = [f"force.{i}" for i in range(dataset.features[FORCE].shape[0])] if FORCE in names else []
        if self._thinks(dataset):
            more += [THOUGHT_AGE, *(f"thought.{i}" for i in range(len(TIP_ENTRIES)))]
        elif TIP in names:
            more += TIP_ENTRIES
            keys["tip_camera"] = dataset.about.get("tip_camera", self._table.keys.tip_camera)
        if state:
            keys["state"] = {"state": [*state, *more]}
        elif more:
            raise DatasetError(f"{dataset.path}: its state does not name its joints; give policy.keys.state")
        return {**keys, "action": {"action": list(action)}} if action else keys

    def _images(self, views: list[Tensor]) -> Tensor:
        """``[B, cameras, 3, H, W]`` in 0..1, channels last in memory, of ``[B, H, W, 3]`` each."""
        size = (self._table.image_height, self._table.image_width)
        if "image_width" in self._table.model_fields_set and any(view.shape[1:3] != size for view in views):
            return torch.stack([_resized(view, size) for view in views], dim=1)
        stacked = torch.stack(views, dim=1)
        return stacked.permute(0, 1, 4, 2, 3).float() / 255


def _known(state: Tensor, tip: int) -> Tensor:
    """`state` ``[B, S]``, normalised; of an object that was not seen yet, the last `tip` are 0, the mean."""
    rest, last = torch.split(state, [state.shape[1] - tip, tip], dim=1)
    return torch.cat([rest, torch.where(last.isnan(), 0.0, last)], dim=1)


def _resized(view: Tensor, size: tuple[int, int]) -> Tensor:
    pixels = view.permute(0, 3, 1, 2).float() / 255
    return F.interpolate(pixels, size=size, mode="bilinear", align_corners=False)


def _wide(std: Floats) -> Floats:
    return np.asarray(np.maximum(std.astype(float), LEAST_STD))


def _load_backbone(model: ActModel, path: Path) -> None:
    """Torchvision's ResNet-18 (``resnet18-f37072fd.pth``, or the same as safetensors)."""
    state = {
        name: value
        for name, value in read_state(path).items()
        if not name.startswith(_TORCHVISIONS) and not name.endswith("num_batches_tracked")
    }
    check_fit(str(path), state, model.resnet.state_dict())
    model.resnet.load_state_dict(state)


def _check_same_sizes(checkpoint: str, found: ActShape, wanted: ActShape) -> None:
    for key in ("state_size", "action_size", "chunk"):
        have, want = getattr(found, key), getattr(wanted, key)
        if have != want:
            raise PolicyError(
                f"{checkpoint}: its {key} is {have}, and the data set and policy.shape make {want}"
            )
