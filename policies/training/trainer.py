"""The loop: batches in, steps of the optimiser, checkpoints and figures out. One for every policy."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from policies.checkpoint import CheckpointError
from policies.data.dataset import Dataset, DatasetError
from policies.training.accelerating import make_accelerator, make_optimizer, make_schedule
from policies.training.averaging import Average
from policies.training.batches import Batches
from policies.training.checkpoints import (
    ABOUT,
    STATE,
    TRAINING,
    CheckpointFolders,
    read_training,
    write_json,
)
from policies.training.figures import Figures, FiguresFile
from policies.training.loading import loader, said_in_worker
from policies.training.material import Material, open_material
from policies.training.meter import Meter
from policies.training.options import MAY_CHANGE, TrainingOptions
from policies.training.picking import spread
from policies.training.recipe import Recipe, Samples
from policies.training.said import described
from policies.training.state import Stateful, load_random, load_state, save_random, save_state
from policies.training.trouble import TrainingError, explained
from runtime.clock import Clock
from runtime.input_file import parse_json, read_small

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass(frozen=True, slots=True)
class TrainingEnd:
    """How it ended.

    Attributes:
        step: steps that were taken. finished: whether they are all.
        checkpoint: the newest.
        losses: of each step since it began or went on.
    """

    step: int
    finished: bool
    checkpoint: Path
    losses: tuple[float, ...]


def train(
    options: TrainingOptions,
    *,
    clock: Clock,
    tell: Callable[[str], None],
    stopped: Callable[[], bool] = lambda: False,
    resume: bool = False,
    dataset: Dataset | None = None,
) -> TrainingEnd:
    """Train as `options` say, until the last step or until `stopped`, which is then saved.

    Args:
        options: the whole configuration.
        clock: for figures.
        tell: takes lines for a person.
        stopped: whether to end early, asked after every step.
        resume: go on from the newest checkpoint in ``options.to``; without it there must be none.
        dataset: taken instead of what ``options.data`` names.

    Raises:
        PolicyError, DatasetError: the policy, the data set or the folder cannot be used; nothing was trained.
        TrainingError: the training cannot go on; the newest checkpoint is as it was.
    """
    if options.threads:
        torch.set_num_threads(options.threads)
    accelerator = make_accelerator(options)
    writes = accelerator.is_main_process
    folders = CheckpointFolders(options.to, writes=writes)
    told = tell if writes else _to_nobody
    try:
        if folders.last is not None and not resume:
            raise CheckpointError(
                f"{options.to}: holds a training; --resume {options.to} goes on with it, or give another --to"
            )
        recipe: Recipe = options.policy.recipe(options.recipe)
        with accelerator.main_process_first():  # what a recipe computes once is there for the others
            material = open_material(options, recipe, dataset, told)
        try:
            training = _Training(options, recipe, material, folders, accelerator, clock, told)
            return training.run(stopped, resume=resume)
        finally:
            material.dataset.close()
    finally:
        folders.close()


def _to_nobody(line: str) -> None:
    """What the first process says the others need not."""


class _Step(nn.Module):
    """What runs on each device: a batch in, its loss out."""

    def __init__(self, recipe: Recipe, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self._recipe = recipe

    def forward(self, batch: Samples) -> tuple[Tensor, Mapping[str, Tensor | float]]:
        return self._recipe.loss(self.model, batch)


class _Training:
    """One training, set up."""

    def __init__(
        self,
        options: TrainingOptions,
        recipe: Recipe,
        material: Material,
        folders: CheckpointFolders,
        accelerator: Accelerator,
        clock: Clock,
        tell: Callable[[str], None],
    ) -> None:
        self._options, self._recipe, self._material, self._folders = options, recipe, material, folders
        self._clock, self._tell = clock, tell
        self._accelerator = accelerator
        torch.manual_seed(options.seed)
        self._model = recipe.build(material.dataset)
        optimizer = make_optimizer(recipe.groups(self._model), options.optimizer)
        self._schedule: Any = make_schedule(optimizer, options.schedule, options.steps)
        self._plain = _Step(recipe, self._model)
        self._step_module, self._optimizer = self._accelerator.prepare(self._plain, optimizer)
        self._average = Average(self._model, options.ema) if options.ema.enabled else None
        torch.manual_seed(options.seed + self._accelerator.process_index)
        self._step, self._best = 0, float("inf")
        self._losses: list[float] = []
        self._described = described(material.dataset)
        self._held_back: DataLoader[Any] | None = None

    # --- the loop

    def run(self, stopped: Callable[[], bool], *, resume: bool) -> TrainingEnd:
        """Until the end."""
        if resume:
            self._go_on()
        file = FiguresFile(self._options.to, self._step) if self._writes_csv else None
        self._begin_trackers()
        if (processes := self._accelerator.num_processes) > 1:
            each = self._options.batch
            self._tell(f"{processes} processes with batches of {each}: {processes * each} samples a step")
        batches = self._batches()
        meter = Meter(self._clock, self._step)
        try:
            while self._step < self._options.steps:
                self._one_step(batches, meter)
                self._after_step(meter, file, ended := self._ended(stopped))
                if ended:
                    break
        finally:
            self._accelerator.end_training()
        newest = self._folders.last
        assert newest is not None  # noqa: S101 - the last step, and the one it was stopped at, are saved
        return TrainingEnd(self._step, self._step >= self._options.steps, newest, tuple(self._losses))

    def _batches(self) -> Iterator[Samples]:
        options, material, accelerator = self._options, self._material, self._accelerator
        batches = Batches(
            material.picked.train,
            material.picked.weights,
            options.batch,
            options.seed,
            start=self._step * options.accumulate,
            process=accelerator.process_index,
            processes=accelerator.num_processes,
        )
        pinned = accelerator.device.type == "cuda"
        made = loader(material.windows, batches, options.workers, in_memory=material.in_memory, pinned=pinned)
        return iter(made)

    def _one_step(self, batches: Iterator[Samples], meter: Meter) -> None:
        """One step of the optimiser."""
        options, accelerator = self._options, self._accelerator
        with explained(options, self._step):
            for _ in range(options.accumulate):
                with meter.waiting():
                    batch = self._next(batches)
                with accelerator.accumulate(self._step_module):
                    loss, parts = self._step_module(batch)
                    accelerator.backward(loss)
                    meter.add(*self._of_all(loss.detach(), parts), options.batch * accelerator.num_processes)
                    if accelerator.sync_gradients:
                        self._losses.append(self._checked(meter))
                        if options.optimizer.clip:
                            accelerator.clip_grad_norm_(self._model.parameters(), options.optimizer.clip)
                    self._optimizer.step()
                    self._optimizer.zero_grad()
            self._schedule.step()
            if self._average is not None:
                self._average.step()
        self._step += 1

    def _of_all(
        self, loss: Tensor, parts: Mapping[str, Tensor | float]
    ) -> tuple[Tensor, Mapping[str, Tensor | float]]:
        """Means over all processes: each has had rows of its own, and all stop at a loss that is none."""
        if self._accelerator.num_processes == 1:
            return loss, parts
        own = [
            torch.as_tensor(value, device=loss.device).detach().float() for value in (loss, *parts.values())
        ]
        means = self._accelerator.reduce(torch.stack(own), reduction="mean")
        return means[0], dict(zip(parts, means[1:], strict=True))

    def _next(self, batches: Iterator[Samples]) -> Samples:
        try:
            batch = next(batches)
        except DatasetError as error:
            raise TrainingError(str(said_in_worker(error))) from None
        device = self._accelerator.device
        return {name: value.to(device, non_blocking=True) for name, value in batch.items()}

    def _checked(self, meter: Meter) -> float:
        """The step's loss.

        Raises:
            TrainingError: it is no number.
        """
        loss = meter.step_loss(self._options.accumulate)
        if loss != loss or loss in (float("inf"), -float("inf")):
            lr, clip = self._options.optimizer.lr, self._options.optimizer.clip
            raise TrainingError(
                f"the loss of step {self._step + 1} is not a finite number ({meter.parts_line()}): lower "
                f"optimizer.lr ({lr:g}), or bound the gradient with optimizer.clip ({clip:g}); nothing of it "
                "was saved"
            )
        return loss

    def _ended(self, stopped: Callable[[], bool]) -> bool:
        """Whether anybody was told to stop, in any of the processes."""
        if self._accelerator.num_processes == 1:
            return stopped()
        if stopped():
            self._accelerator.set_trigger()
        return bool(self._accelerator.check_trigger())

    def _after_step(self, meter: Meter, file: FiguresFile | None, ended: bool) -> None:
        options, step = self._options, self._step
        last = ended or step == options.steps
        saves = last or step % options.save_every == 0
        every = options.validation.every
        validation = self._validated() if (saves or (every and step % every == 0)) else None
        if saves or step % options.log_every == 0 or validation is not None:
            self._show(meter.figures(step, options.steps, self._schedule.get_last_lr()[0], validation), file)
        if saves:
            self._save(validation)

    # --- figures

    @property
    def _writes_csv(self) -> bool:
        return "csv" in self._options.trackers and self._accelerator.is_main_process

    def _begin_trackers(self) -> None:
        if self._accelerator.log_with:
            self._accelerator.init_trackers(self._options.project)  # the configuration is in every checkpoint

    def _show(self, figures: Figures, file: FiguresFile | None) -> None:
        self._tell(figures.line())
        if file is not None:
            file.add(figures.values())
        if self._accelerator.log_with:
            self._accelerator.log(figures.values(), step=figures.step)

    @torch.no_grad()
    def _validated(self) -> float | None:
        """The loss of the episodes that are held back, with the same noise every time."""
        if not len(self._material.picked.held_back) or not self._accelerator.is_main_process:
            return None
        devices = [self._accelerator.device] if self._accelerator.device.type == "cuda" else []
        total, count = 0.0, 0
        self._model.eval()
        try:
            with (
                torch.random.fork_rng(devices=devices),
                self._averaged(),
                explained(self._options, self._step),
            ):
                torch.manual_seed(self._options.seed)
                for batch in self._validation_batches():
                    size = len(next(iter(batch.values())))
                    loss, _ = self._plain(self._next(iter([batch])))
                    total, count = total + float(loss) * size, count + size
        finally:
            self._model.train()
        return total / count

    def _validation_batches(self) -> DataLoader[Any]:
        if self._held_back is None:
            options, size = self._options, self._options.batch
            samples = spread(self._material.picked.held_back, options.validation.batches * size).tolist()
            batches = [samples[at : at + size] for at in range(0, len(samples), size)]
            workers, in_memory = min(options.workers, 1), self._material.in_memory
            self._held_back = loader(
                self._material.windows, batches, workers, in_memory=in_memory, pinned=False
            )
        return self._held_back

    # --- checkpoints

    def _averaged(self) -> AbstractContextManager[None]:
        return contextlib.nullcontext() if self._average is None else self._average.put_in()

    @property
    def _parts(self) -> dict[str, Stateful]:
        parts: dict[str, Stateful] = {
            "model": self._model,
            "optimizer": self._optimizer,
            "schedule": self._schedule,
        }
        return parts if self._average is None else {**parts, "average": self._average}

    def _save(self, validation: float | None) -> None:
        """A checkpoint; without validation the newest is the best.

        Every process has random numbers of its own, which are not those of the first: they are as a training
        with so many processes would begin.
        """
        if self._accelerator.is_main_process:
            best = validation is None or validation <= self._best
            if validation is not None:
                self._best = min(self._best, validation)
            try:
                folder = self._folders.write(self._step, lambda to: self._fill(to, validation))
            except CheckpointError as error:
                raise TrainingError(str(error)) from None
            if best:
                self._folders.mark_best(folder)
        self._accelerator.wait_for_everyone()

    def _fill(self, folder: Path, validation: float | None) -> None:
        with self._averaged():
            self._recipe.save(self._model, self._material.dataset, folder)
        write_json(folder / TRAINING, self._options.model_dump(mode="json"))
        outcome = {"step": self._step, "loss": self._losses[-1], "validation_loss": validation}
        write_json(folder / ABOUT, {**self._described, "training": outcome})
        (folder / STATE).mkdir()
        save_state(folder / STATE, self._parts, {"step": self._step, "best": self._best})
        save_random(folder / STATE, self._accelerator.process_index)

    def _go_on(self) -> None:
        newest = self._folders.last
        if newest is None:
            raise CheckpointError(
                f"{self._options.to}: no training to go on with: no {STATE} of a checkpoint in it"
            )
        self._check_same(newest)
        place = load_state(newest / STATE, self._parts)
        load_random(newest / STATE, self._accelerator.process_index)
        self._step, self._best = int(place["step"]), float(place["best"])
        if self._step >= self._options.steps:
            raise CheckpointError(
                f"{newest}: has had all of its {self._step} steps; --steps {2 * self._step} makes them more"
            )
        self._tell(f"goes on from {newest} with step {self._step + 1}")

    def _check_same(self, newest: Path) -> None:
        """That what was configured, and the data set, are those that it began with."""
        now, before = self._options.model_dump(mode="json"), read_training(newest)
        others = sorted(k for k in now if k not in MAY_CHANGE and now[k] != before.get(k))
        if others:
            raise CheckpointError(
                f"{newest}: began with another {', '.join(others)}; give another --to for that"
            )
        try:
            about = parse_json(read_small(newest / ABOUT, 1 << 24))
            same = about["data"]["fingerprint"] == self._described["data"]["fingerprint"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{newest / ABOUT}: cannot be read: {error}") from None
        if not same:
            raise CheckpointError(
                f"{self._options.data}: not the data that {newest} began with; give another --to, and "
                f"--policy.checkpoint {newest} to begin with its weights"
            )
