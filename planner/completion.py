"""What a server's answer says: the text of its one candidate, or why there is none.

Servers fill in the form as they like, so it is read by hand: an error may come with status 200, a reply that
was broken off is named in a dozen ways, and a message may hold parts, thoughts and calls of tools.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from runtime.masking import without_secrets


@dataclass(frozen=True, slots=True)
class Completion:
    """The text of a reply."""

    text: str
    extra_latency_s: float = 0.0


@dataclass(frozen=True, slots=True)
class FailedExchange:
    """An exchange that gave no text.

    `again` says whether it is worth trying once more after a while, `wait_s` how long the server asked for.
    """

    kind: str
    detail: str
    again: bool
    wait_s: float = 0.0
    extra_latency_s: float = 0.0


class ErrorWithinError(Exception):
    """The server reports an error in an answer of status 200, as a proxy does of what is behind it.

    Attributes:
        status: the HTTP status that it names; 0 for none.
        headers, body: of the answer, once that is known.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status
        self.headers: Mapping[str, str] = {}
        self.body = ""


_CUT_OFF = frozenset(
    {"length", "max_tokens", "model_length", "max_output_tokens", "max_completion_tokens", "incomplete"}
)
_REFUSED = frozenset(
    {
        *("content_filter", "refusal", "sensitive", "blocked"),
        *("safety", "recitation", "prohibited_content", "blocklist", "spii", "image_safety"),
    }
)
"""OpenAI's, Anthropic's, GLM's, and Gemini's."""
_BROKEN_OFF = frozenset(
    {"error", "abort", "aborted", "cancelled", "network_error", "insufficient_system_resource", "timeout"}
)
"""OpenRouter's, vLLM's and SGLang's, GLM's and DeepSeek's."""
_SAID = frozenset({"text", "output_text"})
_THOUGHTS = ("reasoning_content", "reasoning", "reasoning_details")
_MESSAGES = ("message", "error", "detail", "msg", "error_description")
_DEEP = 4


def read(body: bytes, later_s: float) -> Completion | FailedExchange:
    """The text in `body`, a chat completion.

    Args:
        body: as it came, unpacked.
        later_s: simulated latency to hand on.

    Raises:
        ErrorWithinError: it is an error instead.
        ValueError: it is no JSON.
        RecursionError: it is JSON of great depth.
    """
    value = json.loads(body)
    candidates = [each for each in _list(value, "choices") if isinstance(each, Mapping)]
    for each in (value, *candidates):
        _raise_error_in(each)
    found = [(each, message) for each in candidates if isinstance(message := each.get("message"), Mapping)]
    if not found:
        return FailedExchange("malformed", "a chat completion without a message", False, 0.0, later_s)
    answers = [_of(choice, message, later_s) for choice, message in found]
    for each in answers:
        if isinstance(each, FailedExchange) and each.kind == "refused":
            return each
    texts = {each.text.strip() for each in answers if isinstance(each, Completion)}
    if len(texts) > 1:
        detail = f"one reply was asked for, and the server gave {len(texts)} that differ"
        return FailedExchange("malformed", detail, False, 0.0, later_s)
    return next((each for each in answers if isinstance(each, Completion)), answers[0])


def _list(value: Any, key: str) -> list[Any]:
    found = value.get(key) if isinstance(value, Mapping) else None
    return found if isinstance(found, list) else []


def _raise_error_in(value: Any) -> None:
    """Raise if `value`, a completion or one of its candidates, holds an error instead of an answer.

    Raises:
        ErrorWithinError: it does.
    """
    if not isinstance(value, Mapping):
        return
    error = value.get("error") or (value if value.get("object") == "error" else None)
    if error:
        code = error.get("code") or error.get("status") if isinstance(error, Mapping) else 0
        text = str(code)
        status = int(text) if re.fullmatch(r"[45]\d\d", text, re.ASCII) else 0
        raise ErrorWithinError(message_in(error) or "it does not say which", status)


def _of(choice: Mapping[str, Any], message: Mapping[str, Any], later_s: float) -> Completion | FailedExchange:
    reason = str(choice.get("finish_reason") or "").lower()
    content = message.get("content")
    refusal = message.get("refusal") or _refused(content)
    if refusal or reason in _REFUSED:
        return FailedExchange("refused", str(refusal or "filtered by the server"), False, 0.0, later_s)
    if reason in _CUT_OFF:
        detail = "the reply was cut off at planner.max_completion_tokens"
        return FailedExchange("malformed", detail, False, 0.0, later_s)
    if reason in _BROKEN_OFF:
        return FailedExchange("broken_off", f"the server broke its reply off: {reason}", True, 0.0, later_s)
    text = _text(content)
    if not text.strip():
        return FailedExchange("malformed", _why_empty(message), False, 0.0, later_s)
    try:
        text.encode()
    except UnicodeEncodeError:  # half a surrogate pair, which JSON can write: no file could hold it
        return FailedExchange("malformed", "the reply is not Unicode", False, 0.0, later_s)
    return Completion(without_secrets(text), later_s)  # a model may say what it was sent


def _why_empty(message: Mapping[str, Any]) -> str:
    if message.get("tool_calls") or message.get("function_call"):
        return "the reply calls a tool, of which none was offered, and has no answer"
    if any(message.get(name) for name in _THOUGHTS):
        return "the reply has thoughts and no answer"
    return "the reply is empty"


def _parts(content: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(content, Mapping):
        content = [content]
    if isinstance(content, list):
        yield from (each for each in content if isinstance(each, Mapping))


def _refused(content: Any) -> str:
    """What a part of a message's content says of why there is no answer."""
    found = (each.get("refusal") for each in _parts(content) if each.get("type") == "refusal")
    return next((each for each in found if isinstance(each, str)), "")


def _text(content: Any) -> str:
    """The text of a message's content, which may come in parts, thoughts among them."""
    if isinstance(content, str):
        return content
    texts = [each.get("text") for each in _parts(content) if each.get("type", "text") in _SAID]
    said = "".join(each if isinstance(each, str) else "" for each in texts)
    if said or not isinstance(content, list):
        return said
    return "".join(each for each in content if isinstance(each, str))


def message_in(value: Any, deep: int = _DEEP) -> str:
    """What an error says, wherever a server puts it; empty for nothing."""
    if isinstance(value, str):
        return value.strip()
    if deep and isinstance(value, list):
        return next((said for each in value if (said := message_in(each, deep - 1))), "")
    if deep and isinstance(value, Mapping):
        return next((said for key in _MESSAGES if (said := message_in(value.get(key), deep - 1))), "")
    return ""
