"""What a network of a folder is to the policy around it, whichever kind it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import torch
from pydantic import ValidationError
from torch import Tensor

from policies.lerobot.folder import Folder
from runtime.options import Options


class FileSaid(Options):
    """What a JSON file says, not a person's table: a number or a truth is one there, and no text."""


Said = TypeVar("Said", bound=FileSaid)


@dataclass(frozen=True, slots=True)
class CommittedRows:
    """Rows that will be executed whatever the network says (``rtc``).

    Attributes:
        rows: ``[B, chunk, action]``, normalised. weights: ``[B, chunk, 1]``, how much each counts, 0 to 1.
        frozen: ``[B]``, how many will have been executed when the chunk arrives.
    """

    rows: Tensor
    weights: Tensor
    frozen: Tensor


@dataclass(frozen=True, slots=True)
class NetworkInput:
    """What a chunk is made from, all on the network's device.

    Attributes:
        vectors: by the network's names, ``[B, steps, n]``, normalised, the newest step last.
        pictures: by the network's names in its order, ``[B, steps, 3, H, W]``, normalised.
        instructions: ``[B]``.
        noise: where random numbers come from, on the CPU.
        committed: what to go on from.
        beyond: inputs that LeRobot's networks have not, by name; as measured.
    """

    vectors: Mapping[str, Tensor]
    pictures: Mapping[str, Tensor]
    instructions: tuple[str, ...]
    noise: torch.Generator
    committed: CommittedRows | None = None
    beyond: Mapping[str, Tensor] = field(default_factory=dict)


class ChunkNetwork(Protocol):
    """A network with its weights.

    Attributes:
        rows: of a chunk. history: instants that it looks at, the present one included.
        takes_prefix: whether `NetworkInput.committed` has an effect.
    """

    rows: int
    history: int
    takes_prefix: bool

    def place(self, device: torch.device, precision: str) -> None:
        """Move to where it computes.

        Raises:
            PolicyError: it cannot.
        """

    def pack(self, *, guided: bool, int8: bool) -> None:
        """Make what it has ready for inference where it lies, once.

        Args:
            guided: committed rows may steer it by gradients.
            int8: round large layers to 8 bits, where it can.
        """

    def chunk(self, seen: NetworkInput) -> Tensor:
        """``[B, rows, action]``, normalised, float32."""


def said(folder: Folder, kind: type[Said]) -> Said:
    """What of the folder's configuration `kind` has fields for; the rest is about training.

    Raises:
        FolderError: a value cannot be.
    """
    given: dict[str, Any] = {name: folder.config[name] for name in kind.model_fields if name in folder.config}
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        why = first["msg"].removeprefix("Value error, ")
        shown = f"{key} = {given.get(str(first['loc'][0]))!r:.80}: " if key else ""
        raise folder.error(f"config.json: {shown}{why}") from None
