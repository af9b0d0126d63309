"""An HTTP response to be."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Response:
    """Status, body and, for the faults that are about time, how much later than at once it comes."""

    status: int
    body: str
    content_type: str = "application/json"
    delay_s: float = 0.0
    headers: tuple[tuple[str, str], ...] = ()

    def telling_its_delay(self) -> Response:
        """The same at once, with the delay in a header: for a client whose time is simulated."""
        if self.delay_s <= 0:
            return self
        told = ("x-dexrun-simulated-latency-s", str(self.delay_s))
        return replace(self, delay_s=0.0, headers=(*self.headers, told))
