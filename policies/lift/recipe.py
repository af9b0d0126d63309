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
from policies.lift.load import WEIGHTS, save_lift
from policies.lift.model import LiftModel
from policies.lift.numbers import FORCE_NUMBERS, targets
from policies.lift.options import LiftOptions
from policies.lift.prepared import CROP, DONE, NUMBERS, PreparedDataset, prepared
from policies.training.recipe import Batch
from runtime.options import Options

_WHOLE = 1e-6


class LiftRecipeOptions(Options):
    """``[recipe]`` of the lift policy.

    Attributes:
        choice_weight, done_weight: of the cross-entropies that tell which hypothesis to take, and when an
            attempt is done, beside the error of the chunk.
        others_share: of the error that all hypotheses are held against, so that none is left behind.
        blind_share: of the samples, for which there is no force sensor, so that the policy does without one.
    """

    choice_weight: float = Field(default=0.1, gt=0)
    done_weight: float = Field(default=0.1, gt=0)
    others_share: float = Field(default=0.02, ge=0, lt=1)
    blind_share: float = Field(default=0.1, ge=0, lt=1)


class LiftRecipe:
    """A chunk, chosen among a few, and whether the attempt is done.

    Args:
        table: camera, rate, shape; demonstrations' rows at ``rate_hz`` become a chunk.
        given: what ``[recipe]`` holds.
    """

    def __init__(self, table: LiftOptions, given: Mapping[str, Any]) -> None:
        self._table = table
        self._options = LiftRecipeOptions.model_validate(given)

    def defaults(self) -> Mapping[str, Any]:
        """Of the training: batches of 256, a cosine, and an average of the weights that forgets slowly."""
        return {
            "batch": 256,
            "optimizer": {"lr": 1e-3, "weight_decay": 1e-4},
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

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Mapping[str, Tensor | float]]:
        """Absolute error of the nearest hypothesis, and cross-entropies of which that is and of the end."""
        # a trainer's wrapper hides the methods; what is wrapped is the network
        network = cast("LiftModel", getattr(model, "module", model))
        rows, choice, end = model(self._some_blind(batch[NUMBERS][:, 0]), batch[CROP][:, 0])
        off = (rows - network.normalised(self._relative(batch))[:, None]).abs().mean(dim=(2, 3))
        nearest = off.detach().argmin(dim=1)
        share = self._options.others_share
        error = (1 - share) * off.gather(1, nearest[:, None]).mean() + share * off.mean()
        chosen = nn.functional.cross_entropy(choice, nearest)
        done = nn.functional.binary_cross_entropy_with_logits(end, batch[DONE][:, 0])
        options = self._options
        parts = {"l1": error.detach(), "choice": chosen.detach(), "done": done.detach()}
        return error + options.choice_weight * chosen + options.done_weight * done, parts

    def _some_blind(self, numbers: Tensor) -> Tensor:
        """`numbers` with a share of them as they are where nothing feels a force."""
        blind = torch.rand(len(numbers), 1, device=numbers.device) < self._options.blind_share
        hidden = torch.zeros_like(numbers, dtype=torch.bool)
        hidden[:, -FORCE_NUMBERS:] = blind
        return numbers.masked_fill(hidden, 0.0)

    def _relative(self, batch: Batch) -> Tensor:
        rows, state, gripper = batch[ACTION], batch[STATE], self._table.shape.gripper
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
