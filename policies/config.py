"""What every policy's table has in common, whatever its type."""

from __future__ import annotations

from pydantic import Field

from runtime.blends import SplicingOptions


class PolicyOptions(SplicingOptions):
    """How chunks of a policy are asked for and spliced, and how long they take in simulation.

    Attributes:
        simulated_latency_s: on a stepped clock, how long an inference takes.
    """

    simulated_latency_s: float = Field(default=0.1, ge=0.0, le=60.0)
