"""Means and rates since they were last asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from policies.training.figures import Figures
from runtime.clock import NS_PER_S, Clock


class Meter:
    """Sums of a training's batches; losses stay where they are until somebody looks."""

    def __init__(self, clock: Clock, step: int) -> None:
        self._clock = clock
        self._begun_ns, self._first_step = clock.now_ns(), step
        self._clear()

    def _clear(self) -> None:
        self._since_ns = self._clock.now_ns()
        self._losses: list[Tensor] = []
        self._parts: dict[str, list[Tensor | float]] = {}
        self._samples, self._waited_ns = 0, 0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Within, the training waits for data."""
        began = self._clock.now_ns()
        try:
            yield
        finally:
            self._waited_ns += self._clock.now_ns() - began

    def add(self, loss: Tensor, parts: Mapping[str, Tensor | float], samples: int) -> None:
        """A batch."""
        self._losses.append(loss)
        for name, value in parts.items():
            self._parts.setdefault(name, []).append(value.detach() if isinstance(value, Tensor) else value)
        self._samples += samples

    def step_loss(self, batches: int) -> float:
        """The mean of the newest `batches`."""
        return float(torch.stack([each.float() for each in self._losses[-batches:]]).mean())

    def parts_line(self) -> str:
        """The newest parts of the loss."""
        return (
            ", ".join(f"{name} {float(values[-1]):.4g}" for name, values in self._parts.items()) or "one part"
        )

    def figures(self, step: int, steps: int, lr: float, validation_loss: float | None) -> Figures:
        """Since they were last asked for; begins anew."""
        now = self._clock.now_ns()
        elapsed = max(now - self._since_ns, 1)
        each = (now - self._begun_ns) / max(step - self._first_step, 1) / NS_PER_S
        used, total = _gpu_gib()
        made = Figures(
            step=step,
            steps=steps,
            loss=self.step_loss(len(self._losses)) if self._losses else float("nan"),
            parts={name: _mean(values) for name, values in self._parts.items()},
            lr=lr,
            samples_s=self._samples * NS_PER_S / elapsed,
            data_share=self._waited_ns / elapsed,
            gpu_gib=used,
            gpu_total_gib=total,
            left_s=(steps - step) * each,
            validation_loss=validation_loss,
        )
        self._clear()
        return made


def _mean(values: list[Tensor | float]) -> float:
    return sum(float(value) for value in values) / len(values)


def _gpu_gib() -> tuple[float, float]:
    if not torch.cuda.is_available():
        return 0.0, 0.0
    total = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
    return torch.cuda.max_memory_allocated() / 2**30, total / 2**30
