"""The base of all replies, and its strict check."""

from __future__ import annotations

import re
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints, ValidationError

from planner.reply_text import ReplyError

_EXCUSE = re.compile(
    r"(?:i(?:['’]m| am| can(?:['’]t|not| not)| could| do(?:n['’]t| not)| see no)|sorry|unfortunately"
    r"|unable to|as an ai)\b|无法|抱歉|对不起",
    re.IGNORECASE,
)


def _says_something(text: str) -> str:
    """`text` on one line.

    Raises:
        ValueError: it has no word, says why there is no answer, or is the format's own placeholder, which
            small models repeat.
    """
    if _EXCUSE.match(text):
        raise ValueError(f"{text!r} is no object")
    if not any(map(str.isalnum, text)) or (text.startswith("<") and text.endswith(">")):
        raise ValueError(f"{text!r} names nothing")
    return " ".join("".join(each if each.isprintable() else " " for each in text).split())


Name = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=300),
    AfterValidator(_says_something),
]
"""What an object is called: it is quoted to models, shown and written down."""


def name_in(item: object) -> object:
    """An object's text, also where a model made an object of it: ``{"name": ..., "position": ...}``."""
    if not isinstance(item, dict):
        return item
    texts = {str(key).lower(): each for key, each in item.items() if isinstance(each, str) and each.strip()}
    whole = next((texts[key] for key in ("description", "instruction") if key in texts), None)
    if whole is not None or len(texts) == 1:
        return whole or next(iter(texts.values()))
    name = next((texts[key] for key in ("name", "object", "label") if key in texts), None)
    place = next((texts[key] for key in ("position", "location") if key in texts), None)
    return ", ".join(each for each in (name, place) if each) if name else item


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
