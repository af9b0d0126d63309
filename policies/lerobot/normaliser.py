"""How a folder's numbers are normalised: one affine map for each feature, by LeRobot's own formulas."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from policies.checkpoint import CheckpointError, State
from policies.lerobot.folder import ACTION, Folder, FolderError, Normalising
from policies.lerobot.weights import read_small_tensors

_ENDS = {"MIN_MAX": ("min", "max"), "QUANTILES": ("q01", "q99"), "QUANTILE10": ("q10", "q90")}
"""Normalising that become -1 and 1."""
_SPREAD = ("mean", "std")


@dataclass(frozen=True, slots=True)
class Affine:
    """Of one feature: ``(x - offset) / divisor + shift`` into the network, and
    ``(x - shift) * factor + offset`` out of it.

    Attributes:
        offset, divisor, factor: ``[n]``, or ``[3, 1, 1]`` of pictures; float32.
        shift: what `offset` becomes.
    """

    offset: Tensor
    divisor: Tensor
    factor: Tensor
    shift: float = 0.0

    def inward(self, x: Tensor) -> Tensor:
        """Into the network."""
        return (x - self.offset) / self.divisor + self.shift

    def again(self, x: Tensor) -> Tensor:
        """Back into the network what came out of it."""
        return (x - self.offset) / self.factor + self.shift

    def outward(self, x: Tensor) -> Tensor:
        """And back."""
        return (x - self.shift) * self.factor + self.offset

    def to(self, device: torch.device) -> Affine:
        """The same on `device`."""
        return Affine(self.offset.to(device), self.divisor.to(device), self.factor.to(device), self.shift)


NONE = Affine(torch.zeros(1), torch.ones(1), torch.ones(1))
"""Where a folder does not normalise."""


@dataclass(frozen=True, slots=True)
class Normaliser:
    """Of all features.

    Attributes:
        inputs: by the network's names. action: of its answer.
        seen: what the statistics tell of `observation.state` and `action`: lowest and highest, ``[2, n]``,
            or the mean and a deviation to both sides; without those that are not told.
    """

    inputs: Mapping[str, Affine]
    action: Affine
    seen: Mapping[str, Tensor]

    @classmethod
    def of(cls, folder: Folder, inside: State) -> Normaliser:
        """The folder's; `inside` are the tensors among its weights.

        Raises:
            FolderError: statistics are missing, of another size, or not finite.
        """
        try:
            told = _told(folder, folder.inward, inside, "normalize_inputs")
            of_action = _told(folder, folder.outward, inside, "unnormalize_outputs")
        except CheckpointError as error:
            raise folder.error(str(error)) from None
        inputs = {
            name: _scaling(folder, folder.inward, name, feature.kind, feature.shape, told)
            for name, feature in folder.inputs.items()
        }
        action = _scaling(folder, folder.outward, ACTION, "ACTION", folder.action.shape, of_action)
        both = {**told, ACTION: of_action.get(ACTION, {})}
        seen = {name: _ends(folder, name, both[name]) for name in both}
        return cls(inputs, action, {name: ends for name, ends in seen.items() if ends is not None})

    def to(self, device: torch.device) -> Normaliser:
        """The same on `device`."""
        inputs = {name: scaling.to(device) for name, scaling in self.inputs.items()}
        return Normaliser(inputs, self.action.to(device), self.seen)


Told = Mapping[str, Mapping[str, Tensor]]
"""By feature, by name of the statistic."""


def _told(folder: Folder, statistics: Normalising, inside: State, prefix: str) -> Told:
    found: dict[str, dict[str, Tensor]] = {}
    if folder.inside:
        names = {name.replace(".", "_"): name for name in (*folder.inputs, ACTION)}
        start = f"{prefix}.buffer_"
        for key, value in inside.items():
            if key.startswith(start):
                feature, _, statistic = key.removeprefix(start).rpartition(".")
                found.setdefault(names.get(feature, feature), {})[statistic] = value.float()
    elif statistics.file is not None:
        for key, value in read_small_tensors(statistics.file).items():
            feature, _, statistic = key.rpartition(".")
            found.setdefault(feature, {})[statistic] = value.float()
    return {name: found[name] for name in found if name in statistics.features}


def _scaling(
    folder: Folder, statistics: Normalising, name: str, kind: str, shape: tuple[int, ...], told: Told
) -> Affine:
    mode = statistics.modes.get(kind, "IDENTITY")
    if mode == "IDENTITY":
        return NONE
    if name not in told:
        if folder.inside:
            raise folder.error(
                f"{folder.weights.name}: no statistics of {name!r} in it, which {mode} asks for"
            )
        return NONE  # as LeRobot does
    names = _SPREAD if mode == "MEAN_STD" else _ENDS[mode]
    first, second = (_checked(folder, name, each, told[name].get(each), shape) for each in names)
    if mode == "MEAN_STD":
        return Affine(first, _positive(folder, name, second + statistics.eps), second)
    width = second - first
    if folder.inside:
        return Affine(first, (width + statistics.eps) / 2, width / 2, -1.0)
    width = torch.where(width == 0, torch.tensor(statistics.eps), width)
    return Affine(first, _positive(folder, name, width / 2), width / 2, -1.0)


def _checked(
    folder: Folder, name: str, statistic: str, value: Tensor | None, shape: tuple[int, ...]
) -> Tensor:
    wanted = (3, 1, 1) if len(shape) == 3 else shape
    if value is None:
        raise folder.error(f"no {statistic} of {name!r} among its statistics, by which it is normalised")
    if value.numel() != wanted[0]:
        raise folder.error(f"{statistic} of {name!r} has shape {list(value.shape)}; expected {list(wanted)}")
    if not bool(value.isfinite().all()):
        raise folder.error(f"{statistic} of {name!r} is not finite: the folder was saved without statistics")
    return value.reshape(wanted)


def _positive(folder: Folder, name: str, divisor: Tensor) -> Tensor:
    if not bool((divisor > 0).all()):
        raise folder.error(f"statistics of {name!r}: an entry cannot be divided by")
    return divisor


def _ends(folder: Folder, name: str, told: Mapping[str, Tensor]) -> Tensor | None:
    for first, second in (("min", "max"), ("mean", "std")):
        if first in told and second in told:
            one, other = told[first].flatten(), told[second].flatten()
            if one.shape != other.shape:
                raise folder.error(f"{first} and {second} of {name!r} are of different sizes")
            return torch.stack([one, other] if first == "min" else [one - other, one + other])
    return None


__all__ = ["NONE", "Affine", "FolderError", "Normaliser"]
