"""How long a server asks to be left alone, in each of the ways in which servers say it."""

from __future__ import annotations

import email.utils
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime

from runtime.clock import NS_PER_S, RealClock

_LONGEST_S = 365 * 86_400.0
_UNIT = r"(?:ms|milliseconds?|d|days?|h|hrs?|hours?|m|mins?|minutes?|s|secs?|seconds?)(?![a-z])"
_DURATION = rf"(?:\d{{1,9}}(?:\.\d{{1,9}})? ?{_UNIT} ?){{1,4}}"
_IN_BODY = re.compile(
    rf"(?:retryDelay|retry_after)[\"']?\s?[:=]\s?[\"']?({_DURATION}|\d{{1,9}}(?:\.\d{{1,9}})?)"
    rf"|(?:(?:try|retry) (?:again |your request )?(?:in|after)|wait(?: for)?) ({_DURATION})",
    re.IGNORECASE,
)
"""Google's ``RetryInfo`` and the field of many gateways; OpenAI's and Groq's sentence, of which ``6m0s`` and
``1m30.5s`` are forms."""
_PARTS = re.compile(r"(\d+(?:\.\d+)?) ?(ms|milli|[dhms])", re.IGNORECASE)
_UNITS_S = {"ms": 0.001, "milli": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


def asked_to_wait_s(headers: Mapping[str, str], body: str = "") -> float:
    """Seconds that a refusal asks to wait; 0 if it does not say.

    ``retry-after-ms`` is milliseconds, ``Retry-After`` seconds, a duration with its unit or a date, which
    counts from the server's own ``Date``; without either, the body may say it.
    """
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds > 0:
        return milliseconds / 1000
    told = headers.get("retry-after")
    if told is not None:
        told = _repeated(told.strip())
        return _number(told) or _duration_s(told) or _until(told, headers.get("date"))
    if (found := _IN_BODY.search(body[:4000])) is None:
        return 0.0
    said = (found[1] or found[2]).strip()
    return _duration_s(said) or _number(said)


def _repeated(told: str) -> str:
    """One of a header's values, which are joined by commas where it was sent more than once."""
    values = {each.strip() for each in told.split(",")}
    return values.pop() if len(values) == 1 else told


def _duration_s(text: str) -> float:
    """``1m30.5s`` or ``2 minutes`` in seconds; 0 for what is neither."""
    if not re.fullmatch(_DURATION, text, re.IGNORECASE):
        return 0.0
    parts = _PARTS.findall(text)
    return min(sum(float(count) * _UNITS_S[unit.lower()] for count, unit in parts), _LONGEST_S)


def _number(header: str | None) -> float:
    """A header as a number above 0; 0 for none and for everything else."""
    try:
        value = float((header or "").strip().removesuffix("s") or 0.0)
    except ValueError:
        return 0.0
    return min(value, _LONGEST_S * 1000) if math.isfinite(value) and value > 0 else 0.0


def _until(told: str, server_date: str | None) -> float:
    until = _date(told)
    if until is None:
        return 0.0
    now = _date(server_date or "")
    if now is None:
        now = datetime.fromtimestamp(RealClock().wall_ns() / NS_PER_S, UTC)
    return min(max(0.0, (until - now).total_seconds()), _LONGEST_S)


def _date(text: str) -> datetime | None:
    try:
        try:
            found = email.utils.parsedate_to_datetime(text[:100])
        except (ValueError, TypeError, IndexError):
            found = datetime.fromisoformat(text[:100])
    except (ValueError, OverflowError):
        return None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)
