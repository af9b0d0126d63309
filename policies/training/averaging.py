"""A moving average of the weights, by diffusers."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from policies.training.options import EmaOptions


class Average:
    """Of a network's weights that are trained."""

    def __init__(self, model: nn.Module, options: EmaOptions) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # diffusers warns about its own dependencies
            from diffusers.training_utils import EMAModel
        self._trained = [each for each in model.parameters() if each.requires_grad]
        self._ema: Any = EMAModel(
            self._trained,
            decay=options.max_decay,
            use_ema_warmup=True,
            inv_gamma=options.inv_gamma,
            power=options.power,
        )

    def step(self) -> None:
        """After a step of the optimiser."""
        self._ema.step(self._trained)

    @contextmanager
    def put_in(self) -> Iterator[None]:
        """Within, the network has the average."""
        self._ema.store(self._trained)
        self._ema.copy_to(self._trained)
        try:
            yield
        finally:
            self._ema.restore(self._trained)

    def state_dict(self) -> dict[str, Any]:
        """For a training that goes on."""
        return dict(self._ema.state_dict())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with it."""
        self._ema.load_state_dict(state)
        self._ema.to(device=self._trained[0].device)
