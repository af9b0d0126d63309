"""The base of every configuration model: frozen, unknown keys rejected."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, model_validator


class Options(BaseModel):
    """One table of the configuration file.

    Every room declares its own options beside the code that reads them; ``dexrun.config`` composes
    them into one model. Physical keys end in their unit (``rate_hz``, ``timeout_s``, ``range_rad``).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _numbers_as_text(cls, data: Any) -> Any:
        """Command line and environment give text, which pydantic takes for numbers but in choices."""
        if not isinstance(data, Mapping):
            return data
        read = {
            name: _chosen(value, choices(cls.model_fields[name].annotation))
            for name, value in data.items()
            if isinstance(value, str) and name in cls.model_fields
        }
        return {**data, **read} if read else data


def choices(annotation: Any) -> tuple[Any, ...]:
    """The values of all ``Literal``s in `annotation`."""
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    return tuple(choice for part in get_args(annotation) for choice in choices(part))


def _chosen(text: str, choices: tuple[Any, ...]) -> Any:
    """The number of `choices` that `text` is, else `text` as it is."""
    numbers = [number for number in choices if type(number) in (int, float)]
    if text in choices or not numbers:
        return text
    with suppress(ValueError):
        return next((number for number in numbers if number == float(text)), text)
    return text
