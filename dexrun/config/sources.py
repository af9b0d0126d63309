"""Command line over environment over file over default, each saying where a value came from."""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from runtime.input_file import read_small
from runtime.masking import masked

ENV_PREFIX = "DEXRUN_"
SECRETS = ("_API_KEY", "_TOKEN")
"""Variables that end so hold secrets: they are read where they are needed, and are no configuration."""
FLAGS = ("config", "check", "plugins", "version", "help")
"""Options that are no keys."""
COMMANDS = ("train",)
"""Commands with a configuration of their own; its variables begin with their name."""
ALIASES = {
    "prompt": ("planner", "prompt"),
    "task": ("recording", "task"),
    "view": ("panel", "view"),
    "episodes": ("recording", "episodes"),
}
"""Short names on the command line."""

_LONGEST = 120

Path_ = tuple[str, ...]


class ConfigError(Exception):
    """The configuration cannot be used. One line for each thing that is wrong, no credentials in it."""

    def __init__(self, message: str) -> None:
        super().__init__(masked(message))


def parse_arguments(arguments: Sequence[str]) -> tuple[Path, dict[Path_, str]]:
    """Split ``--config FILE --a.b value --c=value`` into the file and the overrides by key path.

    Raises:
        ConfigError: an argument is not of that form.
    """
    config = Path("config.toml")
    overrides: dict[Path_, str] = {}
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            raise ConfigError(f"unexpected argument {word!r}; options look like --world.seed 7")
        name, equals, value = word[2:].partition("=")
        if not equals:
            if not rest:
                close = difflib.get_close_matches(name, FLAGS, n=1)
                meant = f"; did you mean --{close[0]}?" if close and name not in FLAGS else ""
                raise ConfigError(f"--{name} needs a value{meant}")
            value = rest.pop(0)
        if name == "config":
            config = Path(value)
        else:
            overrides[ALIASES.get(name) or tuple(name.replace("-", "_").split("."))] = value
    return config, overrides


def read_file(path: Path) -> dict[str, Any]:
    """The configuration file as nested tables. A byte order mark, which some editors put first, is skipped.

    Raises:
        ConfigError: it is missing, or is not TOML.
    """
    try:
        data = read_small(path)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; --config names the configuration to use") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    except ValueError as error:
        raise ConfigError(f"{path}: {error}: no configuration") from None
    try:
        return _toml(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    except ValueError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None


def _toml(text: str) -> dict[str, Any]:
    """`text` as tables.

    Raises:
        ValueError: it is not TOML, nested too deeply, or has a number of too many digits.
    """
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def read_environment(environment: Mapping[str, str] | None = None, command: str = "") -> dict[Path_, str]:
    """``DEXRUN_WORLD__SEED=7`` as ``{("world", "seed"): "7"}``.

    Of a `command` with a configuration of its own, ``DEXRUN_TRAIN__STEPS=20`` as ``{("steps",): "20"}``, and
    nothing else; those are not among a run's.
    """
    source = os.environ if environment is None else environment
    found: dict[Path_, str] = {}
    for name, value in source.items():
        if not name.startswith(ENV_PREFIX) or name.endswith(SECRETS):
            continue
        first, *rest = name[len(ENV_PREFIX) :].lower().split("__")
        if first in COMMANDS and rest:
            found |= {tuple(rest): value} if first == command else {}
        elif not command:
            found[(first, *rest)] = value
    return found


def merge(table: dict[str, Any], values: Mapping[Path_, str], source: str) -> dict[str, Any]:
    """`table` with `values`, given by `source`, set at their paths (new dictionaries along the way).

    Raises:
        ConfigError: a path goes through something that is not a table.
    """
    merged = dict(table)
    for path, text in values.items():
        here = merged
        for depth, key in enumerate(path[:-1]):
            below = here.get(key, {})
            if not isinstance(below, dict):
                raise ConfigError(f"{source}: {'.'.join(path)}: {'.'.join(path[: depth + 1])} is not a table")
            here[key] = dict(below)
            here = here[key]
        here[path[-1]] = _structured(text, path, source)
    return merged


def _structured(text: str, path: Path_, source: str) -> Any:
    """Arrays and inline tables are written as in TOML; everything else is left to the model."""
    if text[:1] not in {"[", "{"}:
        return text
    try:
        return _toml(f"value = {text}")["value"]
    except ValueError as error:
        raise ConfigError(
            f"{source}: {'.'.join(path)} = {shortened(text)}: not a TOML value: {error}"
        ) from None


def shortened(text: str) -> str:
    """`text`, or its beginning where it is too long for a line."""
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def suggestion(name: str, known: Sequence[str]) -> str:
    """What may have been meant by `name`."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(sorted(known)) or 'none'}"
