"""A policy's ``checkpoint`` that is a folder of `dexrun train`: its ``policy.json`` says how it runs.

What it says stands below whatever a person gave, on the command line, in the environment or in the file; but
for the policy's type, which stands where the checkpoint was named: ``--policy.checkpoint FOLDER`` runs that
policy although the file has another one. Of the file's table then only what all policies have is left, for
the rest is about the other one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dexrun.config.sources import ConfigError, Path_
from runtime.input_file import parse_json, read_small
from runtime.options import Options
from runtime.parts import PolicyTable
from runtime.plugins import PartError

POLICY, WEIGHTS = "policy.json", "model.safetensors"
TABLES: tuple[Path_, ...] = (
    *(("policy", *half) for half in ((), ("slow",), ("fast",))),
    *(("serve", "policy", *half) for half in ((), ("slow",), ("fast",))),
)
"""Where a policy may be configured."""
KEY = "checkpoint"

Sources = Mapping[str, Mapping[Path_, str]]
"""What was given outside the file: by source, by key path; the first source counts first."""


def with_checkpoints(tables: dict[str, Any], given: Sources, file: str) -> tuple[dict[str, Any], Sources]:
    """`tables`, merged of `file` and `given`, with what their checkpoints' folders say.

    Returns them, and which keys each folder gave.

    Raises:
        ConfigError: a folder is none that runs, or is of another policy than the same source says.
    """
    said: dict[str, Mapping[Path_, str]] = {}
    for at in TABLES:
        table = _at(tables, at)
        if table is None or not isinstance(table.get(KEY), str) or not table[KEY]:
            continue
        order = [*given, file]
        ranks = {
            key: next((i for i, source in enumerate(order) if _gives(given, source, (*at, key))), len(given))
            for key in table
        }
        filled, keys = _filled(table, ranks, order, ".".join(at))
        tables = _replaced(tables, at, filled)
        if keys:
            said[str(Path(table[KEY]) / POLICY)] = {(*at, *key): "" for key in keys}
    return tables, said


def _at(tables: Mapping[str, Any], path: Path_) -> dict[str, Any] | None:
    here: Any = tables
    for key in path:
        here = here.get(key) if isinstance(here, Mapping) else None
    return here if isinstance(here, dict) else None


def _replaced(tables: Mapping[str, Any], path: Path_, table: Any) -> dict[str, Any]:
    inner = table if len(path) == 1 else _replaced(tables[path[0]], path[1:], table)
    return {**tables, path[0]: inner}


def _gives(given: Sources, source: str, path: Path_) -> bool:
    return any(each == path[: len(each)] for each in given.get(source, {}))


def _filled(
    table: dict[str, Any], ranks: Mapping[str, int], order: Sequence[str], name: str
) -> tuple[dict[str, Any], list[Path_]]:
    """The table with what its checkpoint's folder says, and which keys that were."""
    folder, key = Path(table[KEY]), f"{order[ranks[KEY]]}: {name}.{KEY} = {table[KEY]!r}"
    if not (folder / POLICY).is_file():
        _no_folder(table, folder, key, name)
        return table, []
    kind, said = _read(folder / POLICY)
    weights = folder.resolve() / WEIGHTS
    if not weights.is_file():
        raise ConfigError(f"{key}: there is no {WEIGHTS} in it")
    other = table.get("type", said["type"])
    if other != said["type"]:
        if ranks["type"] <= ranks[KEY]:
            raise ConfigError(
                f"{key}: it is of a policy of type {said['type']!r}, and {name}.type is {other!r}"
            )
        common = PolicyTable.model_fields.keys() - {"type", *kind.said_by_checkpoint}
        table = {k: v for k, v in table.items() if k != "type" and (ranks[k] <= ranks[KEY] or k in common)}
    filled, keys = _merged(kind, table, said)
    return {**filled, KEY: str(weights)}, keys


def _no_folder(table: Mapping[str, Any], folder: Path, key: str, name: str) -> None:
    """What is no such folder may be whatever else the policy's own table takes.

    Raises:
        ConfigError: it is a training's, or the table takes nothing else.
    """
    if (folder / "last" / POLICY).is_file():
        raise ConfigError(f"{key}: a training's folder; give {folder / 'last'} or one of its checkpoints")
    type_ = table.get("type", "geometric")
    try:
        takes = KEY in PolicyTable.of(type_).model_fields
    except (PartError, TypeError):
        return  # said when the table is made
    if not takes:
        raise ConfigError(
            f"{key}: no checkpoint's folder (it has no {POLICY}), and {name}.type = {type_!r} takes no other"
        )


def _read(path: Path) -> tuple[type[PolicyTable], dict[str, Any]]:
    """Whose table ``policy.json`` is of, and what it says.

    Raises:
        ConfigError: it is none, or says what is not a checkpoint's to say.
    """
    try:
        said = parse_json(read_small(path))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    if not isinstance(said, dict) or not isinstance(said.get("type"), str):
        raise ConfigError(f"{path}: no table with the policy's type")
    try:
        kind = PolicyTable.of(said["type"])
    except PartError as error:
        raise ConfigError(f"{path}: type = {said['type']!r}: {error}") from None
    if not kind.said_by_checkpoint:
        raise ConfigError(f"{path}: a policy of type {said['type']!r} has no checkpoint's folder")
    for key in said:
        if key != "type" and key not in kind.said_by_checkpoint:
            known = ", ".join(kind.said_by_checkpoint)
            raise ConfigError(f"{path}: {key} is not a checkpoint's to say; it may say type, {known}")
    return kind, said


def _merged(
    kind: type[Options], table: Mapping[str, Any], said: Mapping[str, Any]
) -> tuple[dict[str, Any], list[Path_]]:
    """`table`, filled up with what is `said`; tables of options key by key, anything else as a whole."""
    filled = dict(table)
    keys: list[Path_] = []
    for key, value in said.items():
        mine = filled.get(key)
        inner: Any = kind.model_fields[key].annotation if key in kind.model_fields else None
        if key not in filled:
            filled[key] = value
            keys.append((key,))
        elif isinstance(inner, type) and issubclass(inner, Options) and isinstance(mine, dict):
            filled[key], below = _merged(inner, mine, value if isinstance(value, dict) else {})
            keys += [(key, *path) for path in below]
    return filled, keys
