"""The only way to settings: command line over environment over file over default.

Whatever is wrong is said in one line per mistake: which key, which value, where it came from, what would be
accepted.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from dexrun.config.checkpoint_folders import with_checkpoints
from dexrun.config.checks import check
from dexrun.config.earlier import lerobot_servers, times_of_stalls
from dexrun.config.errors import explain
from dexrun.config.settings import Settings
from dexrun.config.sources import (
    ALIASES,
    FLAGS,
    ConfigError,
    Path_,
    merge,
    parse_arguments,
    read_environment,
    read_file,
    suggestion,
)
from runtime.masking import know_secrets_of, masked, secret_of
from runtime.units import translated

__all__ = ["ConfigError", "build", "dump", "load", "load_tables"]

_RENAMED = (
    ("grasp", "home", "home_rad"),
    ("teleop", "center", "center_rad"),
    ("arm", "acceleration", "acceleration_100ticks_s2"),
    ("leader", "acceleration", "acceleration_100ticks_s2"),
    ("policy", "control_rate_hz", "rate_hz"),
    ("serve.policy", "control_rate_hz", "rate_hz"),
)
"""Table, key, and what recordings made since call it."""
_WITH_UNITS = ("policy", "serve", "serve.policy", "export")
"""Tables with `units`, which had two keys before there was `convention`."""

Tables = TypeVar("Tables", bound=BaseModel)


def load(arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> Settings:
    """Read command line, environment and file.

    Raises:
        ConfigError: something cannot be used; one line for each mistake.
    """
    file, overrides = parse_arguments(arguments)
    _first_words(overrides)
    variables = read_environment(environment)
    given: dict[str, Mapping[Path_, str]] = {"command line": overrides, "environment": variables}
    tables = merge(read_file(file), variables, "environment")
    tables = lerobot_servers(merge(tables, overrides, "command line"))
    tables, said = with_checkpoints(tables, given, str(file))
    given |= said
    settings = build(Settings, tables, str(file), given)
    _know_secrets(settings.model_dump(mode="json"))
    return _checked(settings, str(file), given)


def _first_words(overrides: Mapping[Path_, str]) -> None:
    """A mistyped option is told as what it is, before a file is looked for that it may have been to name."""
    known = [*Settings.model_fields, *ALIASES, *FLAGS]
    for name in (path[0] for path in overrides):
        if name not in Settings.model_fields:
            raise ConfigError(f"command line: {name}: unknown key{suggestion(name, known)}")


def load_tables(
    model: type[Tables], tables: Mapping[str, Any], arguments: Sequence[str], origin: str
) -> Tables:
    """What `model` has of the `tables` of an earlier `dump`, changed by a command line; `origin` names them.

    Keys of theirs that have another name by now are taken for what they are.

    Raises:
        ConfigError: something cannot be used; one line for each mistake.
    """
    _, overrides = parse_arguments(arguments)
    merged = merge(renamed(tables), overrides, "command line")
    return build(model, merged, origin, {"command line": overrides})


def renamed(tables: Mapping[str, Any]) -> dict[str, Any]:
    """`tables` with the keys by the names that they have by now."""
    found = lerobot_servers(times_of_stalls(tables))
    for table, before, now in _RENAMED:
        found = _with_key(found, table.split("."), before, now)
    for table in _WITH_UNITS:
        found = _with_units(found, table.split("."))
    return found


def _with_units(tables: Mapping[str, Any], table: Sequence[str]) -> dict[str, Any]:
    """Units in today's words. Those that have none are left out: nothing here follows a recorded policy."""
    inner = tables.get(table[0]) if table else None
    if isinstance(inner, Mapping):
        return {**tables, table[0]: _with_units(inner, table[1:])}
    units = tables.get("units") if not table else None
    if not isinstance(units, Mapping):
        return dict(tables)
    now = translated(units)
    rest = {key: value for key, value in tables.items() if key != "units"}
    return {**rest, "units": now} if "convention" in now else rest


def _with_key(tables: Mapping[str, Any], table: Sequence[str], before: str, now: str) -> dict[str, Any]:
    if not table:
        return {now if key == before else key: value for key, value in tables.items()}
    inner = tables.get(table[0])
    if not isinstance(inner, Mapping):
        return dict(tables)
    return {**tables, table[0]: _with_key(inner, table[1:], before, now)}


def build(
    model: type[Tables], tables: dict[str, Any], origin: str, given: Mapping[str, Mapping[Path_, str]]
) -> Tables:
    """`model` of `tables`, merged of the file `origin` and of what is `given` besides.

    Raises:
        ConfigError: something cannot be used; one line for each mistake.
    """
    try:
        return model(**tables)
    except ValidationError as error:
        lines = [explain(one, model, tables, origin, given) for one in error.errors()]
        raise ConfigError("\n".join(dict.fromkeys(lines))) from None


def _checked(settings: Settings, origin: str, given: Mapping[str, Mapping[Path_, str]]) -> Settings:
    try:
        check(settings)
    except ValueError as error:
        one = {"loc": (), "type": "value_error", "msg": str(error)}
        raise ConfigError(explain(one, Settings, {}, origin, given)) from None
    return settings


def dump(settings: Settings) -> str:
    """The resolved configuration as JSON. It holds no secrets: those are only named, or masked in URLs."""
    return json.dumps(_masked(settings.model_dump(mode="json")), indent=2)


def _know_secrets(value: Any, key: str = "") -> None:
    """Make known what the environment variables that are named hold, and the passwords in addresses."""
    if isinstance(value, dict):
        for name, each in value.items():
            _know_secrets(each, str(name))
    elif isinstance(value, list):
        for each in value:
            _know_secrets(each)
    elif isinstance(value, str) and key.endswith("_env"):
        secret_of(value)
    elif isinstance(value, str):
        know_secrets_of(value)


def _masked(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _masked(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_masked(each) for each in value]
    return masked(value) if isinstance(value, str) else value
