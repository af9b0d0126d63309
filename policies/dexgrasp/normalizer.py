"""The controller's linear normaliser: ``params_dict.<field>.{scale, offset, input_stats.*}`` in its files."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from loguru import logger
from torch import Tensor, nn

from runtime.messages import Floats

RANGE_EPS = 1e-4
"""A dimension that varies less than this is only shifted."""
RANGE_SHARE = 0.05
"""A dimension that varies less than this share of the widest one is scaled as if it varied so much: else the
noise of a joint that hardly moves would be all of the network's range."""


class LinearNormalizer(nn.Module):
    """``normalised = x * scale + offset`` per field; fields come from the file or from `fit`."""

    def __init__(self) -> None:
        super().__init__()
        self.params_dict = nn.ParameterDict()

    def _load_from_state_dict(self, state_dict: Mapping[str, Tensor], prefix: str, *rest: object) -> None:
        del rest
        device = next((held.device for held in self.parameters()), None)
        self.params_dict = nn.ParameterDict()
        start = prefix + "params_dict."
        for key, value in state_dict.items():
            if key.startswith(start):
                self._put(key[len(start) :].split("."), value.to(device))

    def _put(self, path: list[str], value: Tensor) -> None:
        place = self.params_dict
        for name in path[:-1]:
            if name not in place:
                place[name] = nn.ParameterDict()
            place = place[name]
        place[path[-1]] = nn.Parameter(value.clone(), requires_grad=False)

    def __contains__(self, field: str) -> bool:
        return field in self.params_dict

    def size(self, field: str) -> int:
        """Number of dimensions of `field`."""
        return int(self.params_dict[field]["scale"].shape[0])

    def seen(self, field: str) -> tuple[Floats, Floats] | None:
        """Mean and standard deviation ``[D]`` of what `field` was fitted to, if the file says them."""
        held = self.params_dict[field]
        if "input_stats" not in held or not {"mean", "std"} <= set(held["input_stats"].keys()):
            return None
        return tuple(held["input_stats"][name].detach().double().numpy() for name in ("mean", "std"))

    def set(self, field: str, scale: Tensor, offset: Tensor) -> None:
        """Set a field by hand."""
        self._put([field, "scale"], scale)
        self._put([field, "offset"], offset)

    def fit(self, field: str, data: Tensor) -> None:
        """Map the range of ``data[K, D]`` to -1..1, per dimension."""
        flat = data.reshape(-1, data.shape[-1]).float()
        self.fit_range(field, flat.min(0).values, flat.max(0).values, flat.mean(0), flat.std(0))

    def fit_range(self, field: str, low: Tensor, high: Tensor, mean: Tensor, std: Tensor) -> None:
        """The same of data whose range, mean and deviation are known, ``[D]`` each, float32."""
        span = high - low
        still, least = span < RANGE_EPS, RANGE_SHARE * float(span.max())
        widened = ~still & (span < least)
        if bool(widened.any()):
            which = ", ".join(f"{i} ({span[i]:.2g})" for i in torch.nonzero(widened).flatten().tolist())
            logger.warning(
                "{}: dimensions that hardly vary are scaled as by a range of {:.2g}: {}", field, least, which
            )
        scale = 2.0 / torch.where(still, torch.full_like(span, 2.0), span.clamp(min=least))
        offset = torch.where(still, -low, -scale * (low + high) / 2)
        self.set(field, scale, offset)
        for name, value in (("min", low), ("max", high), ("mean", mean), ("std", std)):
            self._put([field, "input_stats", name], value)

    def normalize(self, field: str, x: Tensor) -> Tensor:
        """To the network's units."""
        params = self.params_dict[field]
        return x * params["scale"] + params["offset"]  # type: ignore[no-any-return]

    def unnormalize(self, field: str, x: Tensor) -> Tensor:
        """Back."""
        params = self.params_dict[field]
        return (x - params["offset"]) / params["scale"]  # type: ignore[no-any-return]
