"""How the lift policy is trained: `policies.training.recipe.Recipe`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from policies.data.dataset import ACTION, STATE, Dataset, DatasetError, Switches
from policies.data.windows import WindowSpec
from policies.lift.load import save_lift
from policies.lift.model import LiftModel
from policies.lift.numbers import FORCE_NUMBERS, targets
from policies.lift.options import SHIPPED, WEIGHTS, LiftOptions
from policies.lift.prepared import CROP, DONE, NUMBERS, PreparedDataset, prepared
from policies.training.recipe import Samples
from runtime.interfaces import PolicyError
from runtime.options import Options

_WHOLE = 1e-6


class LiftRecipeOptions(Options):
    """``[recipe]`` of the lift policy.

    Attributes:
        choice_weight, done_weight: of the cross-entropies that tell which hypothesis to take, and when an
            attempt is done, beside the error of the chunk.
        others_share: of the error that all hypotheses are held against, so that none is left behind.
        alike: hypotheses whose errors differ by this (in deviations) are about as good to take.
        off_rad: by how much, at random, the arm is taken to be off where the demonstrator's was.
        blind_share: of the samples, for which there is no force sensor, so that the policy does without one.
    """

    choice_weight: float = Field(default=0.1, gt=0)
    done_weight: float = Field(default=0.1, gt=0)
    others_share: float = Field(default=0.02, ge=0, lt=1)
    alike: float = Field(default=0.03, gt=0)
    off_rad: float = Field(default=0.01, ge=0, le=0.5)
    blind_share: float = Field(default=0.1, ge=0, lt=1)


class LiftRecipe:
    """A chunk, chosen among a few, and whether the attempt is done.

    Args:
        table: camera, rate, shape; demonstrations' rows at ``rate_hz`` become a chunk.
        given: what ``[recipe]`` holds.

    Raises:
        PolicyError: the table names weights to begin with.
    """

    def __init__(self, table: LiftOptions, given: Mapping[str, Any]) -> None:
        if table.checkpoint not in ("", SHIPPED):
            raise PolicyError(
                f"policy.checkpoint = {table.checkpoint!r}: a lift policy is trained from the beginning; "
                "leave it out"
            )
        self._table = table
        self._options = LiftRecipeOptions.model_validate(given)

    def defaults(self) -> Mapping[str, Any]:
        """Of the training: batches of 256, a cosine, and an average of the weights that forgets slowly."""
        return {
            "batch": 256,
            "optimizer": {"lr": 1e-3, "weight_decay": 1e-2, "clip": 1.0},
            "schedule": {"name": "cosine", "warmup_steps": 200},
            "ema": {"enabled": True},
        }

    def reads(self, switches: Switches) -> Switches:
        """Depth and mask of one camera, and force if it is looked at."""
        return replace(
            switches,
            cameras=(self._table.camera,),
            use_depth=True,
            use_mask=True,
            use_force=self._table.use_force,
        )

    def prepare(self, dataset: Dataset, cache: Path) -> Dataset:
        """What is seen of each picture in place of the picture.

        Raises:
            DatasetError: the data set lacks what that needs.
        """
        del cache
        return prepared(dataset, self._table)

    def windows(self, dataset: Dataset) -> WindowSpec:
        """One row of what is seen, and the actions of a chunk.

        Raises:
            DatasetError: its rows cannot be taken at the policy's rate.
        """
        every = dataset.rate_hz / self._table.rate_hz
        stride = round(every)
        if stride < 1 or abs(every - stride) > _WHOLE:
            raise DatasetError(
                f"{dataset.path}: {dataset.rate_hz:g} rows a second; policy.rate_hz must be that, a half, "
                f"a third..., and is {self._table.rate_hz:g}"
            )
        chunk = tuple(range(0, stride * self._table.shape.chunk, stride))
        return WindowSpec({NUMBERS: (0,), CROP: (0,), DONE: (0,), STATE: (0,), ACTION: chunk})

    def build(self, dataset: Dataset) -> nn.Module:
        """The network, normalised by all rows of `dataset`, which `prepare` made."""
        made, shape = cast("PreparedDataset", dataset), self._table.shape
        model = LiftModel(shape)
        offsets = np.array(self.windows(dataset).rows[ACTION])
        numbers, chunks = [], []
        for episode in made.held:
            rows = np.minimum(np.arange(episode.length)[:, None] + offsets, episode.length - 1)
            actions, state = (episode.vectors[name].astype(np.float64) for name in (ACTION, STATE))
            numbers.append(episode.vectors[NUMBERS])
            chunks.append(targets(shape, actions[rows], state))
        model.fit(torch.from_numpy(np.concatenate(numbers)), torch.from_numpy(np.concatenate(chunks)))
        return model

    def loss(self, model: nn.Module, batch: Samples) -> tuple[Tensor, Mapping[str, Tensor | float]]:
        """Absolute error of the nearest hypothesis, and cross-entropies of which that is and of the end."""
        # a trainer's wrapper hides the methods; what is wrapped is the network
        network = cast("LiftModel", getattr(model, "module", model))
        options, training = self._options, model.training
        numbers, state = batch[NUMBERS][:, 0], batch[STATE]
        if training:
            numbers, state = self._disturbed(numbers, state)
        rows, choice, end = model(numbers, batch[CROP][:, 0])
        goal = network.normalised(self._relative(batch[ACTION], state))
        off = (rows - goal[:, None]).abs().mean(dim=(2, 3))
        nearest = off.detach().argmin(dim=1)
        share = options.others_share
        error = (1 - share) * off.gather(1, nearest[:, None]).mean() + share * off.mean()
        # those that are about as near are about as good
        chosen = nn.functional.cross_entropy(choice, torch.softmax(-off.detach() / options.alike, dim=1))
        done = nn.functional.binary_cross_entropy_with_logits(end, batch[DONE][:, 0])
        parts = {"l1": error.detach(), "choice": chosen.detach(), "done": done.detach()}
        return error + options.choice_weight * chosen + options.done_weight * done, parts

    def _disturbed(self, numbers: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """`numbers` and `state` of arms that are a little off the demonstrator's, and have to go to the
        same places from there; of some of them, nothing feels a force.
        """
        options, joints = self._options, self._table.shape.joints
        off = options.off_rad * torch.randn(len(numbers), joints, device=numbers.device)
        off[:, self._table.shape.gripper] = 0.0
        out = numbers.clone()
        out[:, :joints] += off
        blind = torch.rand(len(numbers), device=numbers.device) < options.blind_share
        out[blind, -FORCE_NUMBERS:] = 0.0
        return out, state + off[:, None]

    def _relative(self, rows: Tensor, state: Tensor) -> Tensor:
        gripper = self._table.shape.gripper
        out = rows - state
        out[..., gripper] = rows[..., gripper]
        return out

    def groups(self, model: nn.Module) -> Sequence[Mapping[str, Any]]:
        """All parameters alike; biases and norms without weight decay."""
        named = list(model.named_parameters())
        return [
            {"params": [p for _, p in named if p.ndim > 1]},
            {"params": [p for _, p in named if p.ndim <= 1], "weight_decay": 0.0},
        ]

    def save(self, model: nn.Module, dataset: Dataset, folder: Path) -> None:
        """The weights, which say their own shape, and the table that runs them."""
        del dataset
        save_lift(cast("LiftModel", model), folder / WEIGHTS)
        said = self._table.model_dump(mode="json", include=set(self._table.said_by_checkpoint))
        table = {"type": "lift", **said}
        (folder / "policy.json").write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")
