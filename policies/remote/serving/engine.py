"""What a protocol's server asks of whatever infers; `dexrun.serve` has the engines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from runtime.messages import Floats, Observation


class Answer(NamedTuple):
    """Rows ``[T, D]``, T > 0, in the robot's units, and what else the policy says, as JSON has it
    (`policies.remote.extras.said_as_json`).
    """

    rows: Floats
    status: Mapping[str, Any]


class Engine(Protocol):
    """Where inference happens: this process, or Ray's.

    Attributes:
        isolated: whether every client has a policy of its own.
    """

    isolated: bool

    async def infer(self, observations: Sequence[Observation], client: str) -> list[Answer]:
        """One answer for each observation.

        Raises:
            PolicyError: the policy cannot answer; one line.
        """

    async def reset(self, client: str) -> None:
        """Make the client's policy forget the episode."""

    def forget(self, client: str) -> None:
        """The client has gone."""

    def start(self) -> None:
        """Begin to answer. Blocks until the policy is warm.

        Raises:
            PolicyError: it cannot be.
        """

    def stop(self) -> None:
        """Close the policy and end; what is still being inferred is waited for a moment only. Blocks."""
