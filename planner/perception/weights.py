"""A model's folder as ``save_pretrained`` leaves it: what kind it is, and how large; nothing is loaded."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

from runtime.interfaces import PerceptionError

_LONGEST_HEADER = 100_000_000
"""Bytes; what safetensors itself allows."""


@dataclass(frozen=True)
class ModelFolder:
    """A local folder with ``config.json`` and ``*.safetensors``; nothing is ever fetched.

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
        path = path.expanduser()
        told = f"{key} = {str(path)!r}"
        if not path.is_dir():
            raise PerceptionError(
                f"{told}: no such folder; give one with config.json and model.safetensors in it: nothing is "
                "downloaded"
            )
        try:
            config = json.loads((path / "config.json").read_bytes())
        except OSError as error:
            raise PerceptionError(f"{told}: config.json cannot be read: {error.strerror or error}") from None
        except ValueError:
            raise PerceptionError(f"{told}: config.json is not JSON") from None
        kind = str(config.get("model_type", "")) if isinstance(config, dict) else ""
        if kind not in kinds:
            known = ", ".join(sorted(kinds))
            raise PerceptionError(f"{told}: a model of type {kind!r} is no {what}; known types are {known}")
        folder = cls(key, path, kind, config)
        if not folder.files:
            raise PerceptionError(f"{told}: there is no .safetensors file in it")
        return folder

    @cached_property
    def files(self) -> tuple[Path, ...]:
        """The files with the weights."""
        return tuple(sorted(self.path.glob("model*.safetensors")))

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
                header: dict[str, Any] = json.loads(stream.read(size) if size < _LONGEST_HEADER else b"")
            ends = [each["data_offsets"][1] for name, each in header.items() if name != "__metadata__"]
            if 8 + size + max(ends, default=0) != file.stat().st_size:
                raise ValueError("cut off")
            return sum(prod(each["shape"]) for name, each in header.items() if name != "__metadata__")
        except OSError as error:
            raise PerceptionError(f"{self.key}: {file} cannot be read: {error.strerror or error}") from None
        except (ValueError, KeyError, TypeError, AttributeError, IndexError):
            raise PerceptionError(f"{self.key}: {file} is no whole safetensors file") from None

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
