"""The configuration of a training: one model, frozen, saved with every checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from policies.data.dataset import Switches
from runtime.options import Options
from runtime.parts import PolicyTable

ScheduleName = Literal[
    "constant",
    "constant_with_warmup",
    "linear",
    "cosine",
    "cosine_with_restarts",
    "cosine_to_end",
    "polynomial",
    "piecewise_constant",
]
TrackerName = Literal["csv", "tensorboard", "wandb", "trackio"]
Share = Annotated[float, Field(ge=0, lt=1)]


class SwitchOptions(Options):
    """``[switches]``: what is read of the data set, and what the policy then has inputs for.

    Attributes:
        cameras: which; empty: those that the policy names, or all that there are.
        use_depth, use_force, use_language_tip, use_mask: whether those features are read.
    """

    cameras: tuple[str, ...] = ()
    use_depth: bool = False
    use_force: bool = False
    use_language_tip: bool = False
    use_mask: bool = False

    def switches(self) -> Switches:
        """As the data set takes them."""
        return Switches(**self.model_dump())


class PickOptions(Options):
    """``[pick]``: which samples are trained on, and how often.

    Attributes:
        failures: whether episodes that are labelled as failures are, too.
        driven_by: whose rows: ``anybody``, ``policy`` or ``person`` (the feature ``intervention``).
        person_weight: how much more often a row that a person drove is drawn than another.
    """

    failures: bool = False
    driven_by: Literal["anybody", "policy", "person"] = "anybody"
    person_weight: float = Field(default=1.0, gt=0, le=1000)


class OptimizerOptions(Options):
    """``[optimizer]``: AdamW. A recipe's groups may differ from it.

    Attributes:
        lr: learning rate.
        weight_decay, betas, eps: AdamW's.
        clip: longest gradient, as a norm; 0: as it is.
    """

    lr: float = Field(default=1e-4, gt=0)
    weight_decay: float = Field(default=1e-4, ge=0)
    betas: tuple[Share, Share] = (0.9, 0.999)
    eps: float = Field(default=1e-8, gt=0)
    clip: float = Field(default=0.0, ge=0)


class ScheduleOptions(Options):
    """``[schedule]``: of the learning rate, by `diffusers.optimization.get_scheduler`, and ``cosine_to_end``
    (openpi's, which LeRobot has): a cosine from the first step on down to a rate that then stays.

    Attributes:
        name: which.
        warmup_steps: steps in which it comes up from 0.
        decay_steps, end_lr: of ``cosine_to_end``: after how many steps it is down, and at which rate. A
            shorter training is down at its end, its warm-up shorter by as much.
        cycles: of the cosines with restarts.
        power: of the polynomial.
        step_rules: of the piecewise constant, such as ``1:10,0.1:20,0.01``.
    """

    name: ScheduleName = "constant"
    warmup_steps: int = Field(default=0, ge=0)
    decay_steps: int = Field(default=0, ge=0)
    end_lr: float = Field(default=0.0, ge=0)
    cycles: int = Field(default=1, ge=1)
    power: float = Field(default=1.0, gt=0)
    step_rules: str = ""

    @model_validator(mode="after")
    def _has_an_end(self) -> ScheduleOptions:
        if (self.name == "cosine_to_end") != bool(self.decay_steps):
            raise ValueError("decay_steps is for schedule.name = 'cosine_to_end', which needs it")
        if self.end_lr and self.name != "cosine_to_end":
            raise ValueError("end_lr is for schedule.name = 'cosine_to_end'")
        return self

    @model_validator(mode="after")
    def _has_rules(self) -> ScheduleOptions:
        if (self.name == "piecewise_constant") != bool(self.step_rules):
            raise ValueError("step_rules is for schedule.name = 'piecewise_constant', which needs it")
        return self


class EmaOptions(Options):
    """``[ema]``: a moving average of the weights, which then is what is validated and saved (diffusers').

    Attributes:
        enabled: whether there is one.
        inv_gamma, power: of its warm-up, ``1 - (1 + step / inv_gamma) ** -power``.
        max_decay: what it warms up to.
    """

    enabled: bool = False
    inv_gamma: float = Field(default=1.0, gt=0)
    power: float = Field(default=0.75, gt=0)
    max_decay: Share = 0.9999


class ValidationOptions(Options):
    """``[validation]``: on episodes that are not trained on; its loss says which checkpoint is ``best``.

    Attributes:
        share: of the episodes, at least one if it is above 0 and there are two.
        every: steps between; 0: with every checkpoint.
        batches: at most so many, spread over those episodes.
    """

    share: Share = 0.1
    every: int = Field(default=0, ge=0)
    batches: int = Field(default=20, ge=1)


class TrainingOptions(Options):
    """A training.

    Attributes:
        data: the data set, in any format that is read.
        to: folder of its checkpoints and figures.
        rate_hz: rows a second that are taken of it; 0: its own.
        steps: of the optimiser.
        batch: samples in a batch, on each device.
        accumulate: batches before the optimiser takes a step.
        seed: of weights, order, noise and split.
        device: ``auto`` takes a GPU where there is one.
        precision: ``bfloat16`` computes in it, with weights in float32.
        threads: torch's on the CPU; 0 leaves them alone.
        workers: processes that read the data; 0: the training does it itself.
        cache: keep all that is read of the data set in memory; for small ones.
        save_every, log_every: steps between checkpoints, and between figures.
        trackers: where figures go: a CSV file, TensorBoard, Weights & Biases, trackio.
        project: what the last two call it.
        switches, pick, optimizer, schedule, ema, validation: tables of their own.
        policy: what is trained; its ``checkpoint`` is what it begins with.
        recipe: the policy's own part (docs/training.md).
    """

    data: Path
    to: Path
    rate_hz: float = Field(default=0.0, ge=0, le=1000)
    steps: int = Field(default=100_000, ge=1)
    batch: int = Field(default=8, ge=1)
    accumulate: int = Field(default=1, ge=1)
    seed: int = Field(default=0, ge=0, lt=1 << 32)
    device: Literal["auto", "cpu"] = "auto"
    precision: Literal["float32", "bfloat16"] = "float32"
    threads: int = Field(default=0, ge=0)
    workers: int = Field(default=2, ge=0, le=256)
    cache: bool = False
    save_every: int = Field(default=5000, ge=1)
    log_every: int = Field(default=100, ge=1)
    trackers: tuple[TrackerName, ...] = ("csv", "tensorboard")
    project: str = Field(default="dexrun", min_length=1)
    switches: SwitchOptions = SwitchOptions()
    pick: PickOptions = PickOptions()
    optimizer: OptimizerOptions = OptimizerOptions()
    schedule: ScheduleOptions = ScheduleOptions()
    ema: EmaOptions = EmaOptions()
    validation: ValidationOptions = ValidationOptions()
    policy: PolicyTable
    recipe: dict[str, Any] = Field(default_factory=dict)


MAY_CHANGE = frozenset(
    (
        "data",
        "to",
        "steps",
        "device",
        "threads",
        "workers",
        "cache",
        "save_every",
        "log_every",
        "trackers",
        "project",
    )
)
"""Keys that a training which goes on may have otherwise than it began; the data set's rows are the same."""
