"""One line for each mistake in a configuration: where it was given, the key, its value, what would do."""

from __future__ import annotations

import json
import re
import types
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from dexrun.config.sources import ENV_PREFIX, Path_, shortened, suggestion
from runtime.part_table import PartTable
from runtime.plugins import PartError

Given = Mapping[str, Mapping[Path_, str]]
"""What was given outside the file: by source, by key path; the first source wins."""

_PLAIN = {
    "tuple_type": "give a list, such as [0.1, 0.2]",
    "list_type": "give a list, such as [0.1, 0.2]",
    "dict_type": "give a table, such as {name = 1}",
    "model_type": "give a table, such as {key = 1}",
    "part_table": "give a table, such as {key = 1}",
    "bool_parsing": "give true or false",
    "bool_type": "give true or false",
    "int_parsing": "give a whole number",
    "int_from_float": "give a whole number",
    "float_parsing": "give a number",
    "float_type": "give a number",
    "string_type": 'give text, such as "words"',
}
"""What pydantic says in its own terms, in a person's."""
_URL = "give a URL, such as http://gpu-server:8000/v1"
_SUCH = {
    r"^https?://[^\s/]+": _URL,
    r"^(https?://[^\s/]|$)": _URL,
    r"^[a-z][a-z0-9_]*$": "give a name of small letters, digits and _, a letter first, such as left_2",
    r"^[A-Za-z_][A-Za-z0-9_]*$": "give the name of an environment variable, such as DEXRUN_PLANNER_API_KEY",
    r"^[0-9a-fA-F]{4}$": "give two bytes as four hex digits, such as aa55",
}
"""The same of the patterns that texts are held to."""
_NOW_CALLED = {"safety.stall_ticks": "safety.stall_s, a time in seconds (10 ticks at 30 Hz were 0.33 s)"}
_LEADING_KEY = re.compile(r"\w+(\.\w+)*")


def explain(error: Any, model: type[BaseModel], tables: Mapping[str, Any], file: str, given: Given) -> str:
    """One of pydantic's errors about `model`, made of `tables`, read from `file` and `given`, as one line."""
    keys = tuple(str(part) for part in error["loc"] if part != "[key]")  # a name is told as its table
    details = error.get("ctx", {})
    where, name, kind = _origin(keys, file, given), shortened(".".join(keys)), error["type"]
    if kind == "extra_forbidden" and name in _NOW_CALLED:
        return f"{where}: {name}: this key is gone; give {_NOW_CALLED[name]}"
    if kind == "extra_forbidden":
        known = _known(keys[:-1], model, tables)
        meant = (_two_underscores(keys, known) if where == "environment" else "") or suggestion(
            keys[-1], known
        )
        return f"{where}: {name}: unknown key{meant}"
    if kind == "missing":
        return f"{where}: {name}: this key is required"
    if kind.startswith("part_") and "key" in details:
        return f"{where}: {name}.{details['key']}{_wrong_part(details)}"
    message = str(error["msg"]).removeprefix("Value error, ")
    if not name:  # about several tables: by convention, the message begins with the key
        leading = _LEADING_KEY.match(message)
        return f"{_origin(tuple(leading[0].split('.')) if leading else (), file, given)}: {message}"
    value = error.get("input")
    if kind in ("tuple_type", "list_type") and isinstance(value, str) and value[:1].isalpha():
        such = shortened(json.dumps([value]))
        return f"{where}: {name} = {shortened(repr(value))}: give a list, such as {such}"
    shown = "" if isinstance(value, dict | list | tuple | BaseModel) else f" = {shortened(repr(value))}"
    plain = _SUCH.get(str(details.get("pattern"))) or _PLAIN.get(kind)
    return f"{where}: {name}{shown}: {plain or message[:1].lower() + message[1:]}"


def _two_underscores(keys: Path_, known: Sequence[str]) -> str:
    """That a variable's name leads into a table by two underscores, if what it says so is one."""
    table = next((each for each in known if keys[-1].startswith(f"{each}_")), "")
    if not table:
        return ""
    inside = (*keys[:-1], table, keys[-1].removeprefix(f"{table}_"))
    return f"; did you mean {ENV_PREFIX}{'__'.join(inside).upper()}? Two underscores lead into a table"


def _wrong_part(details: Mapping[str, Any]) -> str:
    if "name" not in details:
        return f": this key is required; known: {', '.join(details['known'])}"
    name = details["name"]
    why = details["why"] if "why" in details else f"unknown{suggestion(str(name), details['known'])}"
    return f" = {name!r}: {why}"


def _origin(keys: Path_, file: str, given: Given) -> str:
    for source, paths in given.items():
        if any(path[: len(keys)] == keys or keys[: len(path)] == path for path in paths if keys):
            return source
    return file


# --- what the model has at a path


def _known(found: Path_, model: type[BaseModel], tables: Mapping[str, Any]) -> list[str]:
    """Names of the keys of the table at `found`."""
    here: list[Any] = [model]
    value: Any = tables
    for part in found:
        value = value.get(part, {}) if isinstance(value, Mapping) else {}
        here = [_chosen(inner, value) for each in here for inner in _below(each, part)]
    return sorted({key for each in here if _is_model(each) for key in each.model_fields})


def _chosen(kind: Any, value: Any) -> Any:
    """Of a kind of parts, the table that `value` says it is; `kind` otherwise."""
    if not (_is_model(kind) and issubclass(kind, PartTable) and kind.is_choice()):
        return kind
    given = value.get(kind.part_key) if isinstance(value, Mapping) else None
    name = given or kind.default_name()
    try:
        return kind.of(name)
    except PartError:
        return kind


def _below(kind: Any, part: str) -> Iterable[Any]:
    if _is_model(kind):
        field = kind.model_fields.get(part)
        return [] if field is None else _alternatives(field.annotation)
    arguments = get_args(kind)
    if get_origin(kind) is tuple:
        return _alternatives(arguments[0])
    return _alternatives(arguments[-1]) if arguments and get_origin(kind) is not Literal else []


def _alternatives(annotation: Any) -> list[Any]:
    if get_origin(annotation) is Annotated:
        return _alternatives(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return [one for each in get_args(annotation) for one in _alternatives(each)]
    return [annotation]


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)
