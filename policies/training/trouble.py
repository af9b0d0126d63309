"""What ends a training, in one line with what to change."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from policies.training.options import TrainingOptions

_NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")
_NO_SHARED_MEMORY = ("shared memory", "bus error", "no space left on device")


class TrainingError(Exception):
    """A training cannot go on. One line: what happened, and what to change."""


@contextmanager
def explained(options: TrainingOptions, step: int) -> Iterator[None]:
    """What torch raises where memory or a worker's end is what it means.

    Raises:
        TrainingError: instead of it.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError):
        raise TrainingError(_too_large(options, step)) from None
    except RuntimeError as error:
        said = str(error).lower()
        if any(each in said for each in _NO_SHARED_MEMORY):
            raise TrainingError(
                f"the shared memory of {options.workers} workers is full at step {step + 1}: lower workers, "
                "or batch, or make /dev/shm larger (docker run --shm-size)"
            ) from None
        if any(each in said for each in _NO_MEMORY):
            raise TrainingError(_too_large(options, step)) from None
        if "dataloader worker" in said:
            raise TrainingError(
                f"a process that reads data was killed at step {step + 1}, for memory as a rule: lower "
                f"workers ({options.workers}), batch ({options.batch}): {' '.join(str(error).split())[:99]}"
            ) from None
        raise


def _too_large(options: TrainingOptions, step: int) -> str:
    half, twice = max(1, options.batch // 2), options.accumulate * 2
    smaller = f"--batch {half} --accumulate {twice} is the same training" if options.batch > 1 else ""
    rest = "a smaller picture or network, or precision = 'bfloat16'"
    return f"out of memory at step {step + 1} with batch = {options.batch}: " + (
        f"{smaller}; else {rest}" if smaller else rest
    )
