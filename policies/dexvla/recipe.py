"""How DexVLA is trained (Wen et al., arXiv 2502.05855): its authors' loss, normaliser, pictures, stages."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from policies.checkpoint import CheckpointError, write_safetensors
from policies.data.dataset import ACTION, IMAGES, STATE, Dataset, DatasetError, Switches
from policies.data.windows import IS_PAD, WindowSpec
from policies.dexvla.load import (
    DexVlaStats,
    LoadedDexVla,
    begun_with,
    begun_with_nothing,
    load_dexvla,
    load_head,
    stats_from,
)
from policies.dexvla.network import DexVla, public_name
from policies.dexvla.options import DexVlaOptions, DexVlaTraining
from policies.dexvla.pictures import cropped, patches, varied
from policies.dexvla.prompts import Prompts, normalised
from policies.dexvla.words import DexVlaWords, byte_words, words_of
from policies.training.adapters import add_adapters, merged
from policies.training.recipe import Samples
from policies.training.said import cameras_of, entries_of, units_of
from policies.training.texts import ASKED, NONE, SAID, WordColumn, WordedDataset, substeps, tasks
from runtime.interfaces import PolicyError

LEAST_STD, MARGIN = 1e-2, 1e-4
"""The public code's: least deviation that a state is divided by; what widens the range of actions."""
_NO_ADAPTERS = ("lm_head", "merger")
"""Of the language model's linear layers, those that have none, as in the public code."""
_CPU = torch.device("cpu")


class DexVlaInTraining(nn.Module):
    """A network, and how its data set is scaled."""

    def __init__(self, network: DexVla, stats: DexVlaStats) -> None:
        super().__init__()
        self.network = network
        self.stats = stats
        for name, value in stats.tensors().items():
            self.register_buffer(name.replace(".", "_"), value.float())


class DexVlaRecipe:
    """`policies.training.recipe.Recipe` of DexVLA."""

    def __init__(self, table: DexVlaOptions, training: DexVlaTraining) -> None:
        self._table, self._training = table, training
        self._words: DexVlaWords | None = None
        self._prompts: Prompts | None = None
        self._seen: tuple[str, ...] = ()

    def defaults(self) -> Mapping[str, Any]:
        """Its authors', of their second stage, on each of eight GPUs."""
        return {
            "batch": 12,
            "precision": "bfloat16",
            "optimizer": {"lr": 2e-5, "weight_decay": 0.0, "betas": [0.9, 0.98], "eps": 1e-7, "clip": 1.0},
            "schedule": {"name": "constant"},
        }

    def reads(self, switches: Switches) -> Switches:
        """The cameras of the policy's table.

        Raises:
            PolicyError: it has no input for what is switched on.
        """
        for key in ("use_depth", "use_mask", "use_force", "use_language_tip"):
            if getattr(switches, key):
                raise PolicyError(
                    f"switches.{key}: dexvla has no input for it; it takes cameras, joints and words"
                )
        given = self._table.cameras if "cameras" in self._table.model_fields_set else ()
        return replace(switches, cameras=switches.cameras or given)

    def prepare(self, dataset: Dataset, cache: Path) -> Dataset:
        """With the words of every row."""
        del cache
        words = self._known_words()
        asked, said = WordColumn(tasks, words.instruction), WordColumn(substeps, words.answer)
        return WordedDataset(dataset, {ASKED: asked, SAID: said})

    def windows(self, dataset: Dataset) -> WindowSpec:
        """One observation, what is asked and to be said there, and a chunk of actions from its row on."""
        for name in (STATE, ACTION):
            if name not in dataset.features:
                raise DatasetError(f"{dataset.path}: no {name!r} in it, which dexvla needs")
        names = (STATE, ASKED, SAID, *(IMAGES + camera for camera in self._cameras(dataset)))
        return WindowSpec({**dict.fromkeys(names, (0,)), ACTION: tuple(range(self._table.shape.head.chunk))})

    def build(self, dataset: Dataset) -> DexVlaInTraining:
        """A network of the data set's sizes, beginning with what the table and the recipe name.

        What is not trained in this stage is frozen.
        """
        begun = self._begun(dataset)
        network, training = begun.network, self._training
        self._seen = tuple(self._cameras(dataset))
        self._prompts = Prompts(begun.words, network, len(self._seen))
        if training.head:
            load_head(network, Path(training.head))
        if training.stage != "all":
            network.vlm.requires_grad_(False)
        if training.stage == "lora":
            lora = (training.lora_rank, training.lora_alpha, training.lora_dropout)
            add_adapters(network.vlm, lambda name: not any(each in name for each in _NO_ADAPTERS), *lora)
        if training.save_memory:
            network.vlm.activation_checkpointing_enable()
        return DexVlaInTraining(network, begun.stats)

    def loss(self, model: nn.Module, batch: Samples) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The head's and, by its weight, the language model's."""
        assert isinstance(model, DexVlaInTraining)  # noqa: S101 - for the type checker
        assert self._prompts is not None  # noqa: S101 - made with the network
        rows = [self._pictures(views, model.training) for views in zip(*self._views(batch), strict=True)]
        words = [[_there(batch[name][row, 0]) for name in (ASKED, SAID)] for row in range(len(rows))]
        prompt, said = self._prompts.batch(words, torch.stack(rows))
        low, high = cast("Tensor", model.stats_action_min), cast("Tensor", model.stats_action_max)
        mean, std = cast("Tensor", model.stats_qpos_mean), cast("Tensor", model.stats_qpos_std)
        made = model.network.loss(
            prompt,
            said,
            (batch[STATE][:, 0].float() - mean) / std,
            normalised(batch[ACTION].float(), low, high),
            batch[ACTION + IS_PAD],
            self._training.language_weight,
        )
        return made.loss, {"action": made.action.detach(), "language": made.language.detach()}

    def groups(self, model: nn.Module) -> Sequence[Mapping[str, Any]]:
        """What is trained in this stage, in one group."""
        return [{"params": [each for each in model.parameters() if each.requires_grad]}]

    def save(self, model: nn.Module, dataset: Dataset, folder: Path) -> None:
        """Weights under the public code's names with statistics, tokens, and the table that runs them."""
        assert isinstance(model, DexVlaInTraining)  # noqa: S101 - for the type checker
        weights = merged(model.network, model.network.public_state(), public_name)
        state = {**weights, **model.stats.tensors()}
        write_safetensors(folder / "model.safetensors", state, {"format": "pt", "kind": "dexvla"})
        self._known_words().save(folder)
        table = self._table
        said: dict[str, Any] = {
            "type": table.type,
            "rate_hz": dataset.rate_hz,
            "image_order": table.image_order,
            "cameras": self._cameras(dataset),
            "keys": self._keys(dataset),
            "shape": model.network.shape.model_dump(mode="json"),
        }
        units = table.units.said() if "units" in table.model_fields_set else units_of(dataset)
        if units is not None:
            said["units"] = units
        (folder / "policy.json").write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")

    # --- what it begins with

    def _known_words(self) -> DexVlaWords:
        if self._words is None:
            checkpoint = Path(self._table.checkpoint)
            if self._table.checkpoint:
                self._words = words_of(checkpoint if checkpoint.is_dir() else checkpoint.parent)
            else:
                self._words = words_of(Path(self._training.vlm)) if self._training.vlm else byte_words()
        return self._words

    def _begun(self, dataset: Dataset) -> LoadedDexVla:
        shape = self._table.shape
        sizes = {
            "state_size": dataset.features[STATE].shape[0],
            "action_size": dataset.features[ACTION].shape[0],
        }
        if self._table.checkpoint:
            if self._training.vlm:
                raise PolicyError(
                    "recipe.vlm has no effect: policy.checkpoint has a language model of its own"
                )
            begun = load_dexvla(Path(self._table.checkpoint), shape, "float32", _CPU)
            for key, size in {**sizes, "chunk": shape.head.chunk}.items():
                if (has := getattr(begun.network.shape.head, key)) != size:
                    raise CheckpointError(
                        f"{self._table.checkpoint}: its {key} is {has}, data set and policy.shape make {size}"
                    )
            return begun
        shape = shape.model_copy(update={"head": shape.head.model_copy(update=sizes)})
        network, words = (
            begun_with(Path(self._training.vlm), shape) if self._training.vlm else begun_with_nothing(shape)
        )
        return LoadedDexVla(network, _stats(dataset, network), words)

    # --- of the data set

    def _cameras(self, dataset: Dataset) -> list[str]:
        given = self._table.cameras if "cameras" in self._table.model_fields_set else None
        return cameras_of(dataset, given, self._table.type)

    def _views(self, batch: Samples) -> list[Tensor]:
        """``[B, H, W, 3]`` of each camera, in the order of the prompt."""
        return [batch[IMAGES + camera][:, 0] for camera in self._seen]

    def _pictures(self, views: Sequence[Tensor], training: bool) -> Tensor:
        """The patches ``[cameras, P, C]`` of one row's pictures, which are varied together."""
        assert self._prompts is not None  # noqa: S101 - made with the network
        size, varies = self._prompts.size, training and self._training.augment
        pixels = torch.cat([cropped(view[None], size, middle=not varies) for view in views])
        return patches(varied(pixels) if varies else pixels, size)

    def _keys(self, dataset: Dataset) -> dict[str, Any]:
        """Which entries make the state and the action, as the data set names them."""
        if "keys" in self._table.model_fields_set:
            return self._table.keys.model_dump(mode="json", exclude_unset=True)
        pairs = {"state": entries_of(dataset, STATE), "action": entries_of(dataset, ACTION)}
        return {kind: {kind: list(entries)} for kind, entries in pairs.items() if entries}


def _there(tokens: Tensor) -> list[int]:
    return cast("list[int]", tokens[tokens != NONE].tolist())


def _stats(dataset: Dataset, network: DexVla) -> DexVlaStats:
    state, action = dataset.statistics(STATE), dataset.statistics(ACTION)
    held = {
        "qpos_mean": state.mean,
        "qpos_std": np.maximum(state.std, LEAST_STD),
        "action_min": action.minimum - MARGIN,
        "action_max": action.maximum + MARGIN,
        "action_mean": action.mean,
        "action_std": np.maximum(action.std, LEAST_STD),
    }
    return stats_from(str(dataset.path), held, network.shape)
