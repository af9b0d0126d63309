"""What a policy brings to be trained: its recipe.

The trainer (`policies.training.trainer`) owns the loop, the optimiser's steps, checkpoints and figures. The
recipe says what is particular to the policy: which rows it looks at, its network, its loss, and what a robot
needs of the result.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor, nn

    from policies.data.dataset import Dataset, Switches
    from policies.data.windows import WindowSpec

Samples = Mapping[str, "Tensor"]
"""By feature ``[B, n, *shape]`` (n: rows of the window), and ``<feature>_is_pad`` ``[B, n]`` of bools."""


class Recipe(Protocol):
    """How one policy is trained, made by its table: ``[policy]`` of the training's configuration.

    What of it is the recipe's own is in the table ``[recipe]``.
    """

    def defaults(self) -> Mapping[str, Any]:
        """Keys of the training's configuration as the policy's authors had them, where nobody says another.

        Nested tables: ``{"batch": 8, "optimizer": {"lr": 1e-5}}``.
        """

    def reads(self, switches: Switches) -> Switches:
        """`switches`, as a person gave them, with what the policy cannot do without."""

    def prepare(self, dataset: Dataset, cache: Path) -> Dataset:
        """`dataset` with what is computed once and not for every sample; called before all below.

        What is in the folder `cache`, which need not exist, is kept from training to training.

        Raises:
            DatasetError: it has not what the policy needs.
        """

    def windows(self, dataset: Dataset) -> WindowSpec:
        """Which rows of which features one sample has.

        Raises:
            DatasetError: the data set has not what the policy needs; what it lacks, and what it has.
        """

    def build(self, dataset: Dataset) -> nn.Module:
        """The network with its normaliser from the data set's statistics, on the CPU, seeded by the caller.

        Its parameters and buffers are all that a checkpoint holds of it.
        """

    def loss(self, model: nn.Module, batch: Samples) -> tuple[Tensor, Mapping[str, Tensor | float]]:
        """The loss of a batch, a scalar, and its parts by name for the figures: detached, or numbers."""

    def groups(self, model: nn.Module) -> Sequence[Mapping[str, Any]]:
        """The optimiser's parameter groups (``params`` and what differs from the defaults: ``lr``...)."""

    def save(self, model: nn.Module, dataset: Dataset, folder: Path) -> None:
        """Write what a robot needs to run it into `folder`: ``model.safetensors`` and ``policy.json``.

        ``policy.json`` is the ``[policy]`` table that runs it, without the checkpoint's own path: type,
        cameras, keys, units, rate, shape. The trainer adds the rest (`policies.training.checkpoints`).
        """
