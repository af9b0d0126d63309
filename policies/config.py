"""What every policy's table has in common, whatever its type."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from policies.packages import need
from runtime.blends import SplicingOptions


class PolicyOptions(SplicingOptions):
    """How chunks of a policy are asked for, spliced and played, and how long they take in simulation.

    Attributes:
        rate_hz: rows per second that its chunks mean, as its training data had them; 0: as many as
            ``control.rate_hz``.
        discrete: joints, by name, that have no value between two rows (a gripper that is open or closed).
        simulated_latency_s: on a stepped clock, how long an inference takes.
    """

    packages: ClassVar[tuple[str, ...]] = ()
    """What the policy imports beyond a plain install."""
    extra: ClassVar[str] = ""
    """Which of dexrun's extras brings it."""

    rate_hz: float = Field(default=0.0, ge=0, le=1000)
    discrete: tuple[str, ...] = ()
    simulated_latency_s: float = Field(default=0.1, ge=0.0, le=60.0)

    def check_packages(self) -> None:
        """Make sure that what the policy imports is installed; nothing is imported.

        Raises:
            PolicyError: it is not; one line.
        """
        need(f"policy type {getattr(self, 'type', '')!r}", self.packages, self.extra)
