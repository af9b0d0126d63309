"""One line for each mistake in a configuration: where it was given, the key, its value, what would do."""

from __future__ import annotations

import re
import types
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from dexrun.config.sources import Path_, suggestion

Given = Mapping[str, Mapping[Path_, str]]
"""What was given outside the file: by source, by key path; the first source wins."""

_LEADING_KEY = re.compile(r"\w+(\.\w+)*")


def explain(error: Any, model: type[BaseModel], file: str, given: Given) -> str:
    """One of pydantic's errors about `model`, read from `file` and `given`, as one line."""
    found = tuple(str(part) for part in error["loc"])
    keys = _keys(found, model)
    where = _origin(keys, file, given)
    name, kind, details = ".".join(keys), error["type"], error.get("ctx", {})
    if kind == "extra_forbidden":
        return f"{where}: {name}: unknown key{suggestion(keys[-1], _known(found[:-1], model))}"
    if kind == "missing":
        return f"{where}: {name}: this key is required"
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        key = f"{name}.{details['discriminator'].strip(chr(39))}"
        return f"{where}: {key}{_wrong_tag(details, sorted(_tags(_at(found, model))))}"
    message = str(error["msg"]).removeprefix("Value error, ")
    if not name:  # about several tables: by convention, the message begins with the key
        leading = _LEADING_KEY.match(message)
        return f"{_origin(tuple(leading[0].split('.')) if leading else (), file, given)}: {message}"
    value = error.get("input")
    shown = "" if isinstance(value, dict | list | tuple | BaseModel) else f" = {value!r}"
    return f"{where}: {name}{shown}: {message[:1].lower()}{message[1:]}"


def _wrong_tag(details: Mapping[str, Any], tags: list[str]) -> str:
    if "tag" not in details:
        return f": this key is required; known: {', '.join(tags)}"
    return f" = {details['tag']!r}: unknown{suggestion(str(details['tag']), tags)}"


def _origin(keys: Path_, file: str, given: Given) -> str:
    for source, paths in given.items():
        if any(path[: len(keys)] == keys or keys[: len(path)] == path for path in paths if keys):
            return source
    return file


# --- what the model has at a path


def _keys(found: Path_, model: type[BaseModel]) -> Path_:
    """`found` without the union tags that pydantic puts in: the file has no such tables."""
    return tuple(part for i, part in enumerate(found) if not _is_tag(found, i, model))


def _is_tag(found: Path_, index: int, model: type[BaseModel]) -> bool:
    return found[index] in _tags(_at(found[:index], model))


def _known(found: Path_, model: type[BaseModel]) -> list[str]:
    """Names of the keys of the table at `found`."""
    return sorted({key for each in _at(found, model) if _is_model(each) for key in each.model_fields})


def _at(found: Path_, model: type[BaseModel]) -> list[Any]:
    """The types that may stand at `found`."""
    here: list[Any] = [model]
    for part in found:
        chosen = [each for each in here if part in _tags([each])] if len(here) > 1 else []
        here = chosen or [inner for each in here for inner in _below(each, part)]
    return here


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


def _tags(kinds: Iterable[Any]) -> set[str]:
    """What ``driver`` or ``type`` may be, of those of `kinds` that are told apart by it."""
    fields = [each.model_fields.get(key) for each in kinds if _is_model(each) for key in ("driver", "type")]
    return {str(tag) for field in fields if field is not None for tag in get_args(field.annotation)}
