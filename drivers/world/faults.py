"""What can be made to go wrong, and where each fault goes."""

from __future__ import annotations

from pydantic import Field, model_validator

from runtime.options import Options

BUS = ("lose", "corrupt", "delay", "silent", "overload", "brownout", "unplug", "plug", "clear")
"""Of an arm: ``follower`` and ``leader``, or of several ``<name>`` and ``leader_<name>``."""

KINDS: dict[str, tuple[str, ...]] = {
    "head": ("freeze", "gone", "back", "torn"),
    "wrist": ("freeze", "gone", "back", "torn", "garbage"),
    "force": ("gone", "back", "saturated", "drift", "constant", "clear"),
    "table": ("remove", "add", "move"),
    "hand": ("shove", "clear"),
}
"""By device, of what is no arm; ``hand`` is the one at the first leader."""


class Fault(Options):
    """One fault. Which of the values count depends on its kind.

    device, kind: see `KINDS` and, for arms, `BUS`. Bus: ``lose``, ``corrupt`` and ``delay`` take `count` (the
    next packets) or `fraction` (of all packets); ``silent`` and ``overload`` take `servo` (an id). Force:
    ``constant`` takes `value_n`, ``drift`` takes `value_n` as newtons a second. Table: `object` by name,
    `x_m` and `y_m`;
    ``add`` without a name puts the spare object on the table. Hand: ``shove`` moves joint `servo` of the
    leader at once by `value_rad`, from then on.
    """

    device: str
    kind: str
    count: int = Field(default=0, ge=0, le=100_000)
    fraction: float = Field(default=0.0, ge=0, le=1)
    servo: int = Field(default=0, ge=0, le=253)
    value_n: float = 0.0
    value_rad: float = 0.0
    object: str = ""
    x_m: float = 0.22
    y_m: float = -0.05

    @model_validator(mode="after")
    def _known(self) -> Fault:
        kinds = KINDS.get(self.device, BUS)
        if self.kind not in kinds:
            raise ValueError(f"{self.device} has no fault {self.kind!r}; it has {', '.join(kinds)}")
        if self.kind in ("silent", "overload", "shove") and self.servo == 0:
            raise ValueError(f"fault {self.kind!r} needs servo, the id of the one that it happens to")
        return self
