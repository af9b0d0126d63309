"""How SmolVLA is trained (Shukor et al., arXiv 2506.01844): LeRobot's loss, optimiser and normaliser."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from policies.data.dataset import (
    ACTION,
    DEPTH,
    FORCE,
    IMAGES,
    STATE,
    TIP,
    Dataset,
    DatasetError,
    Statistics,
    Switches,
)
from policies.data.windows import IS_PAD, WindowSpec
from policies.lerobot.processor_files import write_json
from policies.lerobot.smolvla import fitted
from policies.lerobot.smolvla_network import SmolVla
from policies.smolvla.beginning import Beginning, beginning
from policies.smolvla.extras import ExtraInputs, load_extras, save_extras
from policies.smolvla.flow import drawn_times, filled, flow_error, mean_of_real
from policies.smolvla.options import SmolVlaInputs, SmolVlaOptions, SmolVlaTraining
from policies.smolvla.parts import choose
from policies.smolvla.write import Trained, write_folder
from policies.training.adapters import merged
from policies.training.prefixes import given_rows
from policies.training.recipe import Samples
from policies.training.said import cameras_of, units_of
from policies.training.texts import ASKED, NONE, WordColumn, WordedDataset, tasks
from runtime.interfaces import PolicyError
from runtime.messages import Floats

LEAST_STD = 1e-2
"""What an entry that hardly varies is divided by, as ACT's here."""
EPS = 1e-8
"""What LeRobot's normaliser adds to a deviation."""


class SmolVlaInTraining(nn.Module):
    """A network, inputs beyond LeRobot's, and how its data set is scaled."""

    def __init__(
        self, network: SmolVla, extras: ExtraInputs | None, scaling: Mapping[str, Statistics]
    ) -> None:
        super().__init__()
        self.network, self.extras = network, extras
        for name, found in scaling.items():
            self.register_buffer(f"{name}_mean", torch.from_numpy(found.mean).float())
            self.register_buffer(f"{name}_std", torch.from_numpy(_wide(found)).float())

    def normalised(self, name: str, values: Tensor) -> Tensor:
        """``[..., n]`` of ``state`` or ``action`` as the network has it, float32, filled up with zeros."""
        mean, std = (cast("Tensor", getattr(self, f"{name}_{each}")) for each in ("mean", "std"))
        shape = self.network.shape
        size = shape.state_size if name == "state" else shape.action_size
        return filled((values.float() - mean) / (std + EPS), size)


class SmolVlaRecipe:
    """`policies.training.recipe.Recipe` of SmolVLA."""

    def __init__(self, table: SmolVlaOptions, training: SmolVlaTraining) -> None:
        self._table, self._training = table, training
        self._begun: Beginning | None = None
        self._head: Tensor | None = None
        self._seen: tuple[str, ...] = ()
        self._inputs = SmolVlaInputs()

    def defaults(self) -> Mapping[str, Any]:
        """LeRobot's, with the batch and the steps of its own guide."""
        return {
            "batch": 64,
            "steps": 20_000,
            "optimizer": {"lr": 1e-4, "weight_decay": 1e-10, "betas": [0.9, 0.95], "eps": 1e-8, "clip": 10.0},
            "schedule": {
                "name": "cosine_to_end",
                "warmup_steps": 1000,
                "decay_steps": 30_000,
                "end_lr": 2.5e-6,
            },
        }

    def reads(self, switches: Switches) -> Switches:
        """The cameras of the policy's table.

        Raises:
            PolicyError: it has no input for what is switched on.
        """
        if switches.use_mask:
            raise PolicyError(
                "switches.use_mask: smolvla has no input for it; it takes cameras, depth, joints, force, the "
                "tip and words"
            )
        given = self._named
        if given and switches.use_language_tip:
            given = tuple(dict.fromkeys((*given, self._tip_camera)))
        return replace(switches, cameras=switches.cameras or given)

    def prepare(self, dataset: Dataset, cache: Path) -> Dataset:
        """With the words of every episode's task.

        Raises:
            PolicyError: what it begins with cannot be used.
        """
        self._begun = beginning(self._table, self._training, cache)
        return WordedDataset(dataset, {ASKED: WordColumn(tasks, self._begun.words.of)})

    def windows(self, dataset: Dataset) -> WindowSpec:
        """One observation, what is asked, and a chunk of actions from its row on."""
        for name in (STATE, ACTION):
            if name not in dataset.features:
                raise DatasetError(f"{dataset.path}: no {name!r} in it, which smolvla needs")
        self._seen = tuple(self._cameras(dataset))
        self._inputs = self._beyond(dataset)
        names = [STATE, ASKED, *(IMAGES + camera for camera in self._seen)]
        names += [DEPTH + camera for camera in self._inputs.depth]
        names += [name for name in (FORCE, TIP) if name in dataset.features]
        chunk = tuple(range(self._beginning.shape.chunk))
        return WindowSpec({**dict.fromkeys(names, (0,)), ACTION: chunk})

    def build(self, dataset: Dataset) -> SmolVlaInTraining:
        """A network of the data set's sizes, beginning with what the table and the recipe name.

        What is not trained in this stage is frozen.
        """
        begun = self._beginning
        scaling = {"state": dataset.statistics(STATE), "action": dataset.statistics(ACTION)}
        for name, most in (("state", begun.shape.state_size), ("action", begun.shape.action_size)):
            if (size := len(scaling[name].mean)) > most:
                raise DatasetError(
                    f"{dataset.path}: its {name} has {size} entries, and the network takes {most} "
                    f"(recipe.shape.{name}_size)"
                )
        network, self._head = begun.make()
        network.train()
        choose(network, self._training)
        return SmolVlaInTraining(network, self._extras(dataset, network), scaling)

    def loss(self, model: nn.Module, batch: Samples) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The flow's error on rows that there are, and that are not given."""
        assert isinstance(model, SmolVlaInTraining)  # noqa: S101 - for the type checker
        network = model.network
        words = batch[ASKED][:, 0]
        more = None if model.extras is None else model.extras(self._measured(batch))
        reading = network.read(
            self._pictures(batch, network),
            words.clamp(min=0),
            words != NONE,
            model.normalised("state", batch[STATE][:, 0]),
            more,
        )
        actions = model.normalised("action", batch[ACTION])
        count, rows = actions.shape[:2]
        times = drawn_times(count, actions.device)
        given = given_rows(count, rows, self._training.rtc_delay, actions.device)
        error = flow_error(network, reading, actions, torch.randn_like(actions), times, given)
        real = ~batch[ACTION + IS_PAD]
        asked = real if given is None else real & ~given
        loss = mean_of_real(error, batch[ACTION].shape[-1], asked)
        return loss, {"flow": loss.detach()}

    def groups(self, model: nn.Module) -> Sequence[Mapping[str, Any]]:
        """What is trained in this stage, in one group."""
        return [{"params": [each for each in model.parameters() if each.requires_grad]}]

    def save(self, model: nn.Module, dataset: Dataset, folder: Path) -> None:
        """LeRobot's folder, the extras' weights, and the table that runs them."""
        assert isinstance(model, SmolVlaInTraining)  # noqa: S101 - for the type checker
        assert self._head is not None  # noqa: S101 - made with the network
        sizes = {camera: dataset.features[IMAGES + camera].shape[:2] for camera in self._seen}
        trained = Trained(
            self._beginning,
            merged(model.network, model.network.state_dict()),
            self._head,
            {camera: (height, width) for camera, (height, width) in sizes.items()},
            dataset.features[STATE].shape[0],
            dataset.features[ACTION].shape[0],
            {**_told(STATE, dataset), **_told(ACTION, dataset)},
            self._inputs.names,
        )
        write_folder(trained, folder)
        if model.extras is not None:
            save_extras(model.extras, folder)
        write_json(folder / "policy.json", self._table_of(dataset))

    def _table_of(self, dataset: Dataset) -> dict[str, Any]:
        table = self._table
        said: dict[str, Any] = {"type": table.type, "rate_hz": dataset.rate_hz}
        if self._training.rtc_delay:
            said["trained_delay"] = self._training.rtc_delay
        if self._inputs.names:
            said["inputs"] = self._inputs.model_dump(mode="json")
        if "keys" in table.model_fields_set:
            said["keys"] = table.keys.model_dump(mode="json", exclude_unset=True)
        units = table.units.said() if "units" in table.model_fields_set else units_of(dataset)
        return said if units is None else {**said, "units": units}

    # --- what it begins with

    @property
    def _beginning(self) -> Beginning:
        assert self._begun is not None  # noqa: S101 - the trainer prepares first
        return self._begun

    def _extras(self, dataset: Dataset, network: SmolVla) -> ExtraInputs | None:
        inputs, folder = self._inputs, self._beginning.folder
        before = folder.beyond if folder is not None else ()
        if not set(before) <= set(inputs.names):
            raise PolicyError(
                f"policy.checkpoint: it has the inputs {', '.join(before)}, and [switches] reads "
                f"{', '.join(inputs.names) or 'none of them'}; switch them on"
            )
        if not inputs.names:
            return None
        width = network.state_proj.out_features
        extras = ExtraInputs(inputs, width)
        if folder is not None and before:
            begun = load_extras(folder.path, self._table.inputs, width).state_dict()
            own = extras.state_dict()
            if other := sorted(n for n, value in begun.items() if n in own and own[n].shape != value.shape):
                raise folder.error(f"its {other[0]} is of another size than the data set's")
            extras.load_state_dict(begun, strict=False)
        for name, feature in (("force", FORCE), ("tip", TIP)):
            if hasattr(extras, name):
                found = dataset.statistics(feature)
                extras.fit(name, torch.from_numpy(found.mean), torch.from_numpy(_wide(found)))
        return extras

    # --- of the data set

    @property
    def _tip_camera(self) -> str:
        return self._table.inputs.tip_camera or self._table.keys.tip_camera

    def _cameras(self, dataset: Dataset) -> list[str]:
        return cameras_of(dataset, self._named or None, self._table.type)

    @property
    def _named(self) -> tuple[str, ...]:
        """The data set's cameras that the table names."""
        return tuple(name.removeprefix(IMAGES) for name in self._table.keys.cameras.values())

    def _beyond(self, dataset: Dataset) -> SmolVlaInputs:
        """What of the data set LeRobot's network has no input for, as the switches read it."""
        features = dataset.features
        depth = tuple(camera for camera in self._seen if DEPTH + camera in features)
        tip = str(dataset.about.get("tip_camera") or self._tip_camera) if TIP in features else ""
        return SmolVlaInputs(
            depth=depth,
            depth_width=self._training.depth_width,
            depth_height=self._training.depth_height,
            force=features[FORCE].shape[0] if FORCE in features else 0,
            tip_camera=tip,
        )

    def _measured(self, batch: Samples) -> dict[str, Tensor]:
        names = [DEPTH + camera for camera in self._inputs.depth]
        return {name: batch[name][:, 0] for name in (*names, FORCE, TIP) if name in batch}

    def _pictures(self, batch: Samples, network: SmolVla) -> Tensor:
        """``[B, cameras, 3, side, side]`` in -1..1."""
        side = network.shape.vlm["vision_config"]["image_size"]
        views = [batch[IMAGES + camera][:, 0] for camera in self._seen]
        return torch.stack([fitted(view.permute(0, 3, 1, 2).float() / 255, side) for view in views], dim=1)


def _wide(found: Statistics) -> Floats:
    return np.asarray(np.maximum(found.std.astype(float), LEAST_STD))


def _told(name: str, dataset: Dataset) -> dict[str, Tensor]:
    """Statistics by which LeRobot normalises, and by which it is seen whose numbers they are."""
    found = dataset.statistics(name)
    held = {"mean": found.mean, "std": _wide(found), "min": found.minimum, "max": found.maximum}
    return {f"{name}.{each}": torch.from_numpy(np.asarray(value, float)) for each, value in held.items()}
