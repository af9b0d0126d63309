"""What is trained on: the data set, as the recipe takes it, and which of its samples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from policies.data.dataset import Dataset
from policies.data.opening import open_dataset
from policies.data.windows import Windows
from policies.training.in_memory import InMemoryDataset
from policies.training.options import TrainingOptions
from policies.training.picking import Picked, pick
from policies.training.recipe import Recipe

CACHE = "cache"
"""Folder in the training's own that a recipe may fill."""


@dataclass(frozen=True, slots=True)
class Material:
    """Everything that is constant about what is trained on."""

    dataset: Dataset
    windows: Windows
    picked: Picked
    in_memory: bool


def open_material(
    options: TrainingOptions, recipe: Recipe, dataset: Dataset | None, tell: Callable[[str], None]
) -> Material:
    """Open the data set that `options` name, unless `dataset` is it.

    Raises:
        DatasetError: it cannot be read, or the policy cannot be trained on it.
    """
    if dataset is None:
        switches = recipe.reads(options.switches.switches())
        dataset = open_dataset(options.data, switches, rate_hz=options.rate_hz or None)
    dataset = recipe.prepare(dataset, options.to / CACHE)
    spec = recipe.windows(dataset)
    kept = InMemoryDataset(dataset, spec.rows) if options.cache else dataset
    windows = Windows(kept, spec)
    picked = pick(windows, options.pick, options.validation, options.seed)
    tell(_said(dataset, windows, picked))
    return Material(kept, windows, picked, options.cache)


def _said(dataset: Dataset, windows: Windows, picked: Picked) -> str:
    failed = f", {picked.failures} that failed left out (pick.failures)" if picked.failures else ""
    left_out = f", {len(dataset.left_out)} cannot be used" if dataset.left_out else ""
    short = f", {len(windows.too_short)} too short for one sample" if windows.too_short else ""
    return (
        f"{dataset.path}: {len(picked.train)} samples of {picked.episodes} episodes"
        f", {len(picked.held_back)} of {picked.held_back_episodes} held back for validation"
        f"{failed}{left_out}{short}"
    )
