"""``python -m dexrun.config.reference``: every key, its default and its meaning, from the models.

With ``--installed``, keys of parts that other packages brought are among them.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import inspect
import itertools
import re
import sys
import textwrap
import types
import typing
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from dexrun.config.settings import Settings
from runtime import plugins
from runtime.part_table import PartTable
from runtime.parts import table_of

HEAD = """\
# Configuration

Every key of `config.toml`, made by `python -m dexrun.config.reference` from the options' own classes.
Command line (`--world.seed 7`) wins over environment (`DEXRUN_WORLD__SEED=7`), environment over file, file
over default. Physical keys end in their unit. Secrets are read from the environment only.
"""

_NAMES = re.compile(r"^((?:`?[a-z_0-9]+`?)(?:, `?[a-z_0-9]+`?)*): (.*)$")


def described(model: type[BaseModel]) -> dict[str, str]:
    """Meaning of every key, from the ``Attributes`` of a class's docstring and those it inherits."""
    found: dict[str, str] = {}
    for each in reversed(model.__mro__):
        if each is not BaseModel and issubclass(each, BaseModel) and each.__doc__:
            found.update(_parsed(inspect.cleandoc(each.__doc__), set(model.model_fields)))
            found.update(_beside_fields(each))
    return found


@functools.cache
def _beside_fields(model: type[BaseModel]) -> dict[str, str]:
    """Meanings written as a string under the field."""
    body = ast.parse(textwrap.dedent(inspect.getsource(model))).body[0]
    assert isinstance(body, ast.ClassDef)  # noqa: S101 - the source of a class
    found: dict[str, str] = {}
    for line, after in itertools.pairwise(body.body):
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
            value = after.value if isinstance(after, ast.Expr) else None
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                found[line.target.id] = " ".join(value.value.split())
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


def models_of(annotation: Any, outside: bool = False) -> list[type[BaseModel]]:
    """Models among the members of a (nested) union, ``dict`` or ``Annotated``.

    For a kind of parts, the tables of all that dexrun brings, or of all that are installed (`outside`).
    """
    if isinstance(annotation, type) and issubclass(annotation, PartTable) and annotation.is_choice():
        tables = [(part, table) for part, table in _usable() if part.kind == annotation.part_kind]
        tables.sort(key=lambda found: found[0].name != annotation.default_name())
        return [table for part, table in tables if outside or part.distribution == plugins.OWN]
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for each in typing.get_args(annotation) for model in models_of(each, outside)]


def _usable() -> list[tuple[plugins.Part, type[PartTable]]]:
    found = []
    for part in plugins.installed().parts:
        with contextlib.suppress(plugins.PartError):  # --plugins says why
            found.append((part, table_of(part)))
    return found


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


Seen = dict[type[BaseModel], str]


def sections(name: str, model: type[BaseModel], seen: Seen, outside: bool = False) -> Iterator[str]:
    """Markdown of one table and the tables below it; `seen` is where a model was described before."""
    tag = _tag(model)
    title = f"## `[{name}]`" + (f" with `{tag}`" if tag else "")
    name = name.strip("[]")
    if model in seen:
        yield f"{title}\n\nThe same keys as `[{seen[model]}]`.\n"
        return
    seen[model] = name
    first = (inspect.getdoc(model) or "").split("\n\n")[0].replace("\n", " ")
    rows = ["| key | type | default | meaning |", "|---|---|---|---|"]
    below: list[tuple[str, type[BaseModel]]] = []
    meanings = described(model)
    for key, field in model.model_fields.items():
        if _other_of(model, field.annotation):  # described where its own kind is
            rows.append(f"| `{key}` | a {model.part_kind}'s table | required | {meanings.get(key, '')} |")  # type: ignore[attr-defined]
            continue
        inner = models_of(field.annotation, outside)
        array = typing.get_origin(field.annotation) is tuple
        below += [(f"[{name}.{key}]" if array else f"{name}.{key}", each) for each in inner]
        if array or not inner:
            kind = f"array of tables `[[{name}.{key}]]`" if inner else type_name(field.annotation)
            meaning = meanings.get(key, "").replace("|", "\\|")
            rows.append(f"| `{key}` | {kind} | {_default(field)} | {meaning} |")
    yield f"{title}\n\n{first}\n\n" + "\n".join(rows) + "\n"
    for path, each in below:
        if path != "serve.policy" or not getattr(each, "behind_a_server", False):  # nothing to serve
            yield from sections(path, each, seen, outside)


def _other_of(model: type[BaseModel], annotation: Any) -> bool:
    """Whether a part's table holds the table of another part of its kind."""
    if not (isinstance(annotation, type) and issubclass(annotation, PartTable) and annotation.is_choice()):
        return False
    return issubclass(model, PartTable) and model.part_kind == annotation.part_kind


def _tag(model: type[BaseModel]) -> str:
    for part, table in _usable():
        if table is model:
            return f'{table.part_key} = "{part.name}"'
    return ""


def reference(outside: bool = False) -> str:
    """The whole page: with what dexrun brings, or with every installed part (`outside`)."""
    parts = [HEAD]
    top = ["## Top level", "", "| key | type | default | meaning |", "|---|---|---|---|"]
    meanings = described(Settings)
    tables: list[str] = []
    seen: Seen = {}
    for key, field in Settings.model_fields.items():
        inner = models_of(field.annotation, outside)
        if not inner:
            meaning = meanings.get(key, "")
            top.append(f"| `{key}` | {type_name(field.annotation)} | {_default(field)} | {meaning} |")
        for each in inner:
            tables += sections(f"{key}.NAME" if key == "cameras" else key, each, seen, outside)
    return "\n".join([*parts, "\n".join(top) + "\n", *tables])


if __name__ == "__main__":
    sys.stdout.write(reference("--installed" in sys.argv[1:]))
