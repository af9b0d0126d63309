"""What our own two ends say beyond their protocol: step, what the horizon holds, how the attempt stands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from policies.encoding.limits import WireError
from policies.remote.link import PolicyRequest
from runtime.messages import Floats, PolicyAnswer, PolicyStatus

LONGEST_WHY = 500


def extras_of(request: PolicyRequest) -> dict[str, Any]:
    """What our own server is told beyond the protocol. Nothing committed is nothing said."""
    if not len(request.prefix):
        return {"step": request.step}
    prefix = request.prefix.astype(np.float32)
    return {"step": request.step, "prefix": prefix, "frozen_steps": request.frozen}


@dataclass(frozen=True, slots=True)
class Extras:
    """As `extras_of` sends them; `asked` is false for a client that is not ours."""

    asked: bool = False
    step: int | None = None
    prefix: Floats | None = None
    frozen: int = 0
    steps: int = 0
    reset: bool = False


def read_extras(value: Any) -> Extras:
    """Read them from a message.

    Raises:
        WireError: kind ``shape``.
    """
    if not isinstance(value, dict):
        return Extras()
    prefix = value.get("prefix")
    if prefix is not None and not isinstance(prefix, np.ndarray):
        raise WireError(f"prefix is a {type(prefix).__name__}; an array is wanted", "shape")
    step = value.get("step", value.get("tick"))  # older clients of ours say "tick"
    return Extras(
        asked=step is not None,
        step=step if type(step) is int else None,
        prefix=prefix,
        frozen=_count(value.get("frozen_steps")),
        steps=_count(value.get("steps")),
        reset=value.get("reset") is True,
    )


def _count(value: Any) -> int:
    return value if type(value) is int and value >= 0 else 0


def status_as_json(answer: PolicyAnswer) -> dict[str, str]:
    """How our own server tells our own client how the attempt stands, beside the rows."""
    return {"status": str(answer.status), "why": answer.why[:LONGEST_WHY]}


def status_of(value: Any) -> tuple[PolicyStatus, str] | None:
    """What a server says of how the attempt stands, and why; ``None`` from one that does not say."""
    status, why = (value.get("status"), value.get("why")) if isinstance(value, dict) else (None, None)
    if not isinstance(status, str) or status not in tuple(PolicyStatus):
        return None
    said = "".join(c for c in why if c.isprintable()) if isinstance(why, str) else ""
    return PolicyStatus(status), said[:LONGEST_WHY]
