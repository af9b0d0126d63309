"""What every policy's table has in common, whatever its type."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from runtime.options import Options

Blend = Literal["latest", "average", "weighted_average", "conservative", "temporal_ensemble", "rtc"]


class PolicyOptions(Options):
    """How chunks of a policy are asked for and spliced.

    Attributes:
        blend: how an arriving chunk is merged with what the horizon still holds.
        request_below_steps: ask for the next chunk when fewer steps than this are left.
        execute_steps: at most so many steps of one chunk are executed; 0 executes all of it.
        simulated_latency_s: on a stepped clock, how long an inference takes.
    """

    blend: Blend = "latest"
    request_below_steps: int = Field(default=25, ge=1, le=1000)
    execute_steps: int = Field(default=0, ge=0, le=1000)
    simulated_latency_s: float = Field(default=0.1, ge=0.0, le=60.0)
