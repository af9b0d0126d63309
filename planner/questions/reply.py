"""The base of all replies, and its strict check."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from planner.reply_text import ReplyError

Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=300)]


class Reply(BaseModel):
    """Base of all replies. Types are strict; fields that nobody asked for are dropped."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", allow_inf_nan=False)


R = TypeVar("R", bound=Reply)


def validated(model: type[R], value: dict[str, Any]) -> R:
    """`value` as a reply of type `model`.

    Raises:
        ReplyError: a field is missing or of another type.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the reply"
        raise ReplyError(f"{where}: {first['msg']}") from None
