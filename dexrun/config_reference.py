"""``python -m dexrun.config_reference``: every key, its default and its meaning, from the models themselves."""

from __future__ import annotations

import inspect
import re
import sys
import types
import typing
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from dexrun.config import Settings

HEAD = """\
# Configuration

Every key of `config.toml`, made by `python -m dexrun.config_reference` from the options' own classes.
Command line (`--world.seed 7`) wins over environment (`DEXRUN_WORLD__SEED=7`), environment over file, file
over default. Physical keys end in their unit. Secrets are read from the environment only.
"""

_NAMES = re.compile(r"^((?:`?[a-z_0-9]+`?)(?:, `?[a-z_0-9]+`?)*): (.*)$")


def described(model: type[BaseModel]) -> dict[str, str]:
    """Meaning of every key, from the ``Attributes`` of a class's docstring and those it inherits."""
    found: dict[str, str] = {}
    for each in reversed(model.__mro__):
        if isinstance(each, type) and issubclass(each, BaseModel) and each.__doc__:
            found.update(_parsed(inspect.cleandoc(each.__doc__), set(model.model_fields)))
    return found


def _parsed(text: str, known: set[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    names: list[str] = []
    for line in text.splitlines():
        # Several keys may share one line: "timeout_s: ... open_timeout_s: ..."
        parts = re.split(r"(?<=\.) (?=[a-z_0-9, ]+: )", line.strip())
        for part in parts:
            match = _NAMES.match(part)
            keys = [key.strip(" `") for key in match.group(1).split(",")] if match else []
            if match and keys and set(keys) <= known:
                names = keys
                found.update(dict.fromkeys(names, match.group(2)))
            elif names and part and not part.endswith("Attributes:"):
                for name in names:
                    found[name] = f"{found[name]} {part}"
            else:
                names = []
    return found


def models_of(annotation: Any) -> list[type[BaseModel]]:
    """Models among the members of a (nested) union, ``dict`` or ``Annotated``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in typing.get_args(annotation) for model in models_of(part)]


def type_name(annotation: Any) -> str:
    """A type as a person would write it."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return type_name(typing.get_args(annotation)[0])
    if origin is typing.Literal:
        return " \\| ".join(f"`{value!r}`".replace("'", '"') for value in typing.get_args(annotation))
    if origin in (types.UnionType, typing.Union):
        return " \\| ".join(type_name(part) for part in typing.get_args(annotation) if part is not type(None))
    if origin is not None:
        inside = [type_name(part) for part in typing.get_args(annotation) if part is not Ellipsis]
        return f"{getattr(origin, '__name__', origin)} of {', '.join(dict.fromkeys(inside))}"
    return getattr(annotation, "__name__", str(annotation))


def _default(field: Any) -> str:
    if field.default_factory is not None:
        value = field.default_factory()
    elif field.default is PydanticUndefined:
        return "required"
    else:
        value = field.default
    if isinstance(value, BaseModel):
        return ""
    text = (
        str(value.value)
        if hasattr(value, "value")
        else repr(value)
        if not isinstance(value, str)
        else f'"{value}"'
    )
    return "none" if value is None else f"`{text}`"


def sections(name: str, model: type[BaseModel], tag: str = "") -> Iterator[str]:
    """Markdown of one table and the tables below it."""
    title = f"## `[{name}]`" + (f" with `{tag}`" if tag else "")
    first = (inspect.getdoc(model) or "").split("\n\n")[0].replace("\n", " ")
    rows = ["| key | type | default | meaning |", "|---|---|---|---|"]
    below: list[tuple[str, type[BaseModel], str]] = []
    meanings = described(model)
    for key, field in model.model_fields.items():
        inner = models_of(field.annotation)
        if inner:
            below += [(f"{name}.{key}", each, _tag(each)) for each in inner]
        else:
            meaning = meanings.get(key, "").replace("|", "\\|")
            rows.append(f"| `{key}` | {type_name(field.annotation)} | {_default(field)} | {meaning} |")
    yield f"{title}\n\n{first}\n\n" + "\n".join(rows) + "\n"
    for path, each, its_tag in below:
        yield from sections(path, each, its_tag)


def _tag(model: type[BaseModel]) -> str:
    for key in ("driver", "type"):
        field = model.model_fields.get(key)
        if field is not None and isinstance(field.default, str):
            return f'{key} = "{field.default}"'
    return ""


def reference() -> str:
    """The whole page."""
    parts = [HEAD]
    top = ["## Top level", "", "| key | type | default | meaning |", "|---|---|---|---|"]
    meanings = described(Settings)
    tables: list[str] = []
    for key, field in Settings.model_fields.items():
        inner = models_of(field.annotation)
        if not inner:
            top.append(
                f"| `{key}` | {type_name(field.annotation)} | {_default(field)} | {meanings.get(key, '')} |"
            )
        path = f"{key}.NAME" if key == "cameras" else key
        for each in inner:
            tables += sections(path, each, _tag(each))
    return "\n".join([*parts, "\n".join(top) + "\n", *tables])


if __name__ == "__main__":
    sys.stdout.write(reference())
