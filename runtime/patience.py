"""How long a stream that has a rate may be silent before it has failed."""

from __future__ import annotations

_LEAST = 1.5
"""Samples' time: with less, every one that is a little late would be a failure."""
_USUAL = 2.5


def patience_s(given: float | None, rate_hz: float, usual_s: float) -> float:
    """`given`; or else `usual_s`, or the time of two and a half samples where that is longer. Seconds."""
    return given if given is not None else max(usual_s, _USUAL / rate_hz)


def check_patience(key: str, given: float | None, rate_key: str, rate_hz: float) -> None:
    """Refuse a limit that a healthy stream of `rate_hz` would break.

    Raises:
        ValueError: `key` first, with what would be accepted.
    """
    if given is not None and given * rate_hz < _LEAST:
        raise ValueError(
            f"{key} = {given:g}: at {rate_key} = {rate_hz:g} one comes every {1 / rate_hz:.3g} s; "
            f"give at least {_LEAST / rate_hz:.3g}"
        )
