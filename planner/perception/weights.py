"""A model's folder as ``save_pretrained`` leaves it: what kind it is, and how large; nothing is loaded."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

from planner.perception.local_files import is_file, is_folder, located, parsed, read_json
from runtime.input_file import as_found
from runtime.interfaces import PerceptionError

_LONGEST_HEADER = 100_000_000
"""Bytes; what safetensors itself allows."""
_MOST_IN_A_BYTE = 2
"""Numbers of the smallest kind that safetensors knows, four bits."""
_WHOLE, _INDEX = "model.safetensors", "model.safetensors.index.json"


@dataclass(frozen=True)
class ModelFolder:
    """A local folder with ``config.json`` and weights in safetensors; nothing is ever fetched.

    Attributes:
        key: which key of the configuration named it; messages begin with it.
        path: the folder. kind: ``model_type`` of its configuration.
        config: all of its configuration.
    """

    key: str
    path: Path
    kind: str
    config: Mapping[str, Any]

    @classmethod
    def open(cls, key: str, path: Path, kinds: Collection[str], what: str) -> ModelFolder:
        """The folder at `path`, seen to hold `what`, a model whose type is one of `kinds`.

        Raises:
            PerceptionError: it is not there, or holds something else; one line.
        """
        path = located(path, f"{key} = {str(path)!r}")
        told = f"{key} = {str(path)!r}"
        if not is_folder(path):
            raise PerceptionError(
                f"{told}: no such folder; give one with config.json and model.safetensors in it: nothing is "
                "downloaded"
            )
        try:
            config = read_json(path / "config.json", told)
        except FileNotFoundError as error:
            raise PerceptionError(f"{told}: config.json cannot be read: {error.strerror}") from None
        kind = str(config.get("model_type", "")) if isinstance(config, dict) else ""
        if kind not in kinds:
            known = ", ".join(sorted(kinds))
            raise PerceptionError(f"{told}: a model of type {kind!r} is no {what}; known types are {known}")
        folder = cls(key, path, kind, config)
        _ = folder.files
        return folder

    @cached_property
    def files(self) -> tuple[Path, ...]:
        """The files with the weights: those that `transformers` loads, whatever else lies beside them.

        Raises:
            PerceptionError: there are none, or the index says which in a way of its own.
        """
        told = f"{self.key} = {str(self.path)!r}"
        if other := self.config.get("transformers_weights"):
            raise PerceptionError(f"{told}: its weights are to be in {_WHOLE}, not in {str(other)[:100]!r}")
        if is_file(self.path / _WHOLE):
            return (self.path / _WHOLE,)
        try:
            index = read_json(self.path / _INDEX, told)
        except FileNotFoundError:
            raise PerceptionError(f"{told}: there is no {_WHOLE} in it, and no {_INDEX}") from None
        shards = index.get("weight_map") if isinstance(index, dict) else None
        names = set(map(str, shards.values())) if isinstance(shards, dict) else set()
        if not names or any(name != Path(name).name for name in names):
            raise PerceptionError(f"{told}: {_INDEX} lists no files of this folder")
        return tuple(self.path / name for name in sorted(names))

    @cached_property
    def parameters(self) -> int:
        """How many numbers the weights are, by the headers of their files.

        Raises:
            PerceptionError: a header cannot be read.
        """
        return sum(map(self._numbers, self.files))

    def _numbers(self, file: Path) -> int:
        try:
            with file.open("rb") as stream:
                size = int.from_bytes(stream.read(8), "little")
                header: dict[str, Any] = parsed(stream.read(size) if size < _LONGEST_HEADER else b"")
            ends = [each["data_offsets"][1] for name, each in header.items() if name != "__metadata__"]
            held = max(ends, default=0)
            if 8 + size + held != file.stat().st_size:
                raise ValueError("cut off")
            shapes = [each["shape"] for name, each in header.items() if name != "__metadata__"]
            if not all(type(side) is int and side >= 0 for shape in shapes for side in shape):
                raise ValueError("no sizes")
            if (numbers := sum(map(prod, shapes))) > _MOST_IN_A_BYTE * held:
                raise ValueError("more numbers than bytes for them")
            return numbers
        except OSError as error:
            raise PerceptionError(f"{self.key}: {file} cannot be read: {error.strerror or error}") from None
        except (ValueError, KeyError, TypeError, AttributeError, IndexError):
            found = as_found(file, "no whole safetensors file")
            raise PerceptionError(f"{self.key}: {file} is {found}") from None

    def check_fits(self, item_bytes: int, free: int, device: str) -> None:
        """Whether the weights fit into `free` bytes of `device`, at `item_bytes` a number.

        Raises:
            PerceptionError: they do not; the line has both numbers.
        """
        need = self.parameters * item_bytes
        if need > free:
            raise PerceptionError(
                f"{self.key} = {str(self.path)!r}: its {self.parameters / 1e6:.1f} million weights need "
                f"{need / 2**30:.2f} GiB of {device}, where {free / 2**30:.2f} GiB are free"
            )
