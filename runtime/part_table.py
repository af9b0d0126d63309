"""Where a table of the configuration is that of a part, its name picks the installed part's own model."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Self, cast

from pydantic import GetCoreSchemaHandler, SerializationInfo
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from runtime import plugins
from runtime.options import Options
from runtime.units import UnitMap


class PartTable(Options):
    """What all parts' tables have in common.

    Attributes:
        part_kind: a key of `runtime.plugins.GROUPS`; given by the bases in `runtime.parts`, whose
            subclasses are tables.
        part_key: the key whose value is the part's name.
        is_default: whether a table without that key is this part's; for one built-in part of a kind.
    """

    part_kind: ClassVar[str]
    part_key: ClassVar[str] = "driver"
    is_default: ClassVar[bool] = False

    def by_joint(self) -> Mapping[str, Iterable[str]]:
        """The joints that keys of this table name: ``{"zero_rad": self.zero_rad}``; here, those of units."""
        maps = {name: value for name, value in self if isinstance(value, UnitMap)}
        return {key: joints for name, units in maps.items() for key, joints in units.by_joint(name).items()}

    @classmethod
    def is_choice(cls) -> bool:
        """Whether this is one of the bases, which stand for every installed table of their kind."""
        return "part_kind" in vars(cls)

    @classmethod
    def default_name(cls) -> str:
        """The part that a table without the key is of; empty if the key is required."""
        registry = plugins.installed()
        own = [
            part for part in registry.parts if part.kind == cls.part_kind and part.distribution == plugins.OWN
        ]
        return next((part.name for part in own if getattr(part.load(), "is_default", False)), "")

    @classmethod
    def of(cls, name: str) -> type[Self]:
        """The table of the installed part `name` of this kind.

        Raises:
            runtime.plugins.PartError: there is none, or it cannot be used.
        """
        return cast("type[Self]", checked(plugins.installed().part(cls.part_kind, name), cls))

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        if not cls.is_choice():
            return handler(source)
        dump = core_schema.plain_serializer_function_ser_schema(_dumped, info_arg=True)
        return core_schema.no_info_plain_validator_function(cls._chosen, serialization=dump)

    @classmethod
    def _chosen(cls, given: object) -> PartTable:
        if isinstance(given, cls):
            return given
        key = cls.part_key
        if not isinstance(given, Mapping):
            raise PydanticCustomError("part_table", "Input should be a table")
        registry = plugins.installed()
        name = given.get(key) or cls.default_name()
        known = registry.names(cls.part_kind)
        if name not in known and registry.stale:
            raise PydanticCustomError("part_broken", "{why}", {"why": plugins.STALE})
        if not name:
            raise PydanticCustomError("part_required", "{key} is required", {"key": key, "known": known})
        if name not in known:
            details = {"key": key, "name": name, "known": known, "all": ", ".join(known)}
            message = "{key} '{name}' is unknown; installed are {all}"
            raise PydanticCustomError("part_unknown", message, details)
        try:
            table = cls.of(name)
        except plugins.PartError as error:
            details = {"key": key, "name": name, "why": f"cannot be used: {error}"}
            raise PydanticCustomError("part_broken", "{why}", details) from None
        return table.model_validate({**given, key: name})


def _dumped(table: PartTable, info: SerializationInfo) -> dict[str, Any]:
    return table.model_dump(mode=info.mode, exclude_unset=info.exclude_unset)


def checked(part: plugins.Part, base: type[PartTable]) -> type[PartTable]:
    """The part's table, seen to derive from the `base` of its kind.

    Raises:
        runtime.plugins.PartError: it cannot be imported, or is no such table. The part remembers why.
    """
    table = part.load()
    if not (isinstance(table, type) and issubclass(table, base)):
        part.error = f"{part.reference} is no subclass of runtime.{base.__name__}"
    elif inspect.isabstract(table):
        part.error = f"{part.reference} does not define {', '.join(sorted(table.__abstractmethods__))}"
    else:
        return table
    raise plugins.PartError(f"{part.origin}: {part.error}")
