"""What goes over the WebSocket, made and read: JSON texts, and pictures behind a head of JSON."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from runtime.clock import NS_PER_S
from runtime.ring import Sample

PROTOCOL = "dexrun.1"
MESSAGE_BYTES = 65_536
"""The longest message that a page may send."""
_ARGS_BYTES, _STREAMS, _FASTEST_HZ = 4096, 32, 60.0


class BadMessageError(Exception):
    """A page sent what makes no sense. One line."""


def text(kind: str, said: Mapping[str, Any]) -> str:
    """A message of JSON; numbers that are none are ``null``."""
    return json.dumps({"type": kind, **said}, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def binary(head: Mapping[str, Any], *payload: bytes) -> bytes:
    """Four bytes, little-endian, of the head's length; the head; what it is about."""
    described = json.dumps(head, separators=(",", ":")).encode()
    return b"".join((struct.pack("<I", len(described)), described, *payload))


def _plain(values: Any) -> list[float | None]:
    return [round(value, 5) if math.isfinite(value) else None for value in values.tolist()]


def ticks(samples: Sequence[Sample], before_ns: int) -> dict[str, Any]:
    """A batch of tick records, for plots. `before_ns`: when the tick before them began; 0 if unknown."""
    stamps = [sample.stamp_ns for sample in samples]
    earlier = [before_ns or stamps[0], *stamps[:-1]]
    return {
        "tick": [int(sample["tick"]) for sample in samples],
        "t_s": [round(stamp / NS_PER_S, 6) for stamp in stamps],
        "position": [_plain(sample["position"]) for sample in samples],
        "target": [_plain(sample["clipped"]) for sample in samples],
        "force": [_plain(sample["force"]) for sample in samples],
        "period_ms": [round((now - then) / 1e6, 3) for then, now in zip(earlier, stamps, strict=True)],
    }


@dataclass(frozen=True, slots=True)
class Watched:
    """What a page wants to see. `streams`: pictures a second at most, by stream."""

    streams: Mapping[str, float] = field(default_factory=dict)
    bodies: bool = False
    cloud: bool = False


def watched(said: Mapping[str, Any]) -> Watched:
    """What a ``watch`` message asks for.

    Raises:
        BadMessageError: it makes no sense.
    """
    streams = said.get("streams", {})
    if not isinstance(streams, dict) or len(streams) > _STREAMS:
        raise BadMessageError(f"streams: an object of at most {_STREAMS} streams and their rates")
    rates = {}
    for name, rate in streams.items():
        if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 < rate < math.inf:
            raise BadMessageError(f"streams.{name[:40]}: pictures a second, more than 0")
        rates[name] = min(float(rate), _FASTEST_HZ)
    return Watched(rates, said.get("bodies") is True, said.get("cloud") is True)


@dataclass(frozen=True, slots=True)
class AskedCommand:
    """What a page asks the run for; `id` is the page's own number, which the answer gets.

    Attributes:
        seen: the number of the newest stop that the page shows.
    """

    id: int
    name: str
    args: Mapping[str, Any]
    seen: int | None = None


def command(said: Mapping[str, Any]) -> AskedCommand:
    """What a ``command`` message asks for.

    Raises:
        BadMessageError: it makes no sense.
    """
    number, name, args = said.get("id"), said.get("name"), said.get("args", {})
    if type(number) is not int or not 0 <= number < 1 << 53:
        raise BadMessageError("id: a whole number")
    if not isinstance(name, str) or not 0 < len(name) <= 40:
        raise BadMessageError("name: of the command, at most 40 letters")
    if not isinstance(args, dict) or len(json.dumps(args)) > _ARGS_BYTES:
        raise BadMessageError(f"args: an object of at most {_ARGS_BYTES} bytes")
    seen = said.get("seen")
    if seen is not None and (type(seen) is not int or not 0 <= seen < 1 << 53):
        raise BadMessageError("seen: the number of a stop")
    return AskedCommand(number, name, args, seen)


def parsed(message: str) -> dict[str, Any]:
    """A message's object.

    Raises:
        BadMessageError: it is none, or has no type.
    """
    try:
        said = json.loads(message)
    except (ValueError, RecursionError):
        raise BadMessageError("not JSON") from None
    if not isinstance(said, dict) or not isinstance(said.get("type"), str):
        raise BadMessageError("not an object with a type")
    return said
