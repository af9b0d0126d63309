"""What our own two ends say beyond their protocol: step, what the horizon holds, how the attempt stands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from policies.encoding.limits import WireError
from policies.remote.link import PolicyReply, PolicyRequest
from runtime.inference import printable
from runtime.messages import Floats, Latent, PolicyAnswer, PolicyStatus

LONGEST_WHY, LONGEST_REASONING = 500, 2000
LARGEST_LATENT = 65_536
"""Numbers."""


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


def said_as_json(answer: PolicyAnswer, *, tells_end: bool) -> dict[str, Any]:
    """What our own server tells our own client beside the rows: how the attempt stands, if the policy tells
    or if it has ended, what it says that it does, and its latent.
    """
    said: dict[str, Any] = {}
    if tells_end or answer.status is not PolicyStatus.RUNNING:
        said = {"status": str(answer.status), "why": answer.why[:LONGEST_WHY]}
    if answer.reasoning:
        said["reasoning"] = answer.reasoning[:LONGEST_REASONING]
    if answer.latent is not None:
        said["latent"] = [float(each) for each in answer.latent]
    return said


def reply_of(actions: Mapping[str, Floats], said: Any) -> PolicyReply:
    """A server's `actions` with what it says besides, as `said_as_json` has it; a stranger's says nothing.

    Raises:
        WireError: kind ``shape``: a latent that is none.
    """
    said = said if isinstance(said, dict) else {}
    reasoning, latent = said.get("reasoning"), said.get("latent")
    text = printable(reasoning, LONGEST_REASONING) if isinstance(reasoning, str) else ""
    return PolicyReply(actions, status_of(said), text, None if latent is None else _latent(latent))


def _latent(value: Any) -> Latent:
    try:
        latent = np.asarray(value, np.float32)
    except (TypeError, ValueError, OverflowError):
        latent = np.zeros((0, 0), np.float32)
    if latent.ndim != 1 or not 0 < latent.size <= LARGEST_LATENT or not np.isfinite(latent).all():
        raise WireError(f"a latent is up to {LARGEST_LATENT} finite numbers", "shape")
    return latent


def status_of(value: Any) -> tuple[PolicyStatus, str] | None:
    """What a server says of how the attempt stands, and why; ``None`` from one that does not say."""
    status, why = (value.get("status"), value.get("why")) if isinstance(value, dict) else (None, None)
    if not isinstance(status, str) or status not in tuple(PolicyStatus):
        return None
    said = "".join(c for c in why if c.isprintable()) if isinstance(why, str) else ""
    return PolicyStatus(status), said[:LONGEST_WHY]
