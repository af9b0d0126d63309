"""Accelerate's, torch's and diffusers' parts, made as the configuration says."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.optim import Optimizer

from policies.training.options import OptimizerOptions, ScheduleOptions, TrainingOptions
from runtime.interfaces import PolicyError
from runtime.packages import need

if TYPE_CHECKING:
    from accelerate import Accelerator

_TRACKERS = {"tensorboard": "tensorboard", "wandb": "wandb", "trackio": "trackio"}
"""What each tracker but our own is imported as."""


def make_accelerator(options: TrainingOptions) -> Accelerator:
    """For the devices and processes that there are.

    Raises:
        PolicyError: a tracker is not installed, or the device cannot do what is asked; one line.
    """
    chosen = [name for name in options.trackers if name in _TRACKERS]
    for name in chosen:
        need(f"trackers: {name!r}", (_TRACKERS[name],), "train" if name == "tensorboard" else name)
    from accelerate import Accelerator, DistributedDataParallelKwargs
    from accelerate.utils import ProjectConfiguration

    try:
        return Accelerator(
            cpu=options.device == "cpu" or _several_on_cpu(),
            mixed_precision="bf16" if options.precision == "bfloat16" else "no",
            gradient_accumulation_steps=options.accumulate,
            log_with=list(chosen) or None,
            project_config=ProjectConfiguration(str(options.to), logging_dir=str(options.to / "tensorboard")),
            kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
        )
    except ValueError as error:
        raise PolicyError(" ".join(str(error).split())) from None


def _several_on_cpu() -> bool:
    """Whether a launcher has started several processes where there is no other device.

    Unless it is told so, Accelerate takes each of them for the only one: as many trainings of one folder.
    """
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and not torch.accelerator.is_available()


def make_optimizer(groups: Sequence[Mapping[str, Any]], options: OptimizerOptions) -> Optimizer:
    """AdamW over `groups`, fused into one pass over each weight."""
    return torch.optim.AdamW(
        [dict(group) for group in groups],
        lr=options.lr,
        weight_decay=options.weight_decay,
        betas=options.betas,
        eps=options.eps,
        fused=True,
    )


def make_schedule(optimizer: Optimizer, options: ScheduleOptions, steps: int) -> Any:
    """The schedule of the learning rate over `steps`, diffusers' but for ``cosine_to_end``.

    Raises:
        PolicyError: the step rules are none.
    """
    if options.name == "cosine_to_end":
        return _cosine_to_end(optimizer, options, steps)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # diffusers warns about its own dependencies
        from diffusers.optimization import get_scheduler
    try:
        return get_scheduler(
            options.name,
            optimizer,
            step_rules=options.step_rules or None,
            num_warmup_steps=options.warmup_steps,
            num_training_steps=steps,
            num_cycles=options.cycles,
            power=options.power,
        )
    except ValueError as error:
        raise PolicyError(f"schedule: {error}") from None


def _cosine_to_end(optimizer: Optimizer, options: ScheduleOptions, steps: int) -> Any:
    """Of openpi and LeRobot: linear from ``1 / (warm-up + 1)``, then the cosine that began at step 0."""
    decay = min(steps, options.decay_steps)
    warmup = options.warmup_steps * decay // options.decay_steps
    end = options.end_lr / float(optimizer.defaults["lr"])

    def share(step: int) -> float:
        if step < warmup:
            first = 1 / (warmup + 1)
            return first + (1 - first) * step / warmup
        return end + (1 - end) * 0.5 * (1 + math.cos(math.pi * min(step, decay) / decay))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, share)
