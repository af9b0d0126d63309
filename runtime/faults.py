"""From a fault to one decision, and the account of all faults of a run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from loguru import logger
from pydantic import field_validator

from runtime.clock import Clock
from runtime.messages import Decision, DeviceError
from runtime.options import Options

_STRENGTH = {Decision.RETRY: 0, Decision.HOLD: 1, Decision.STOP: 2}


class FaultOptions(Options):
    """Table ``[faults]``: what a fault asks of the control loop, ``retry``, ``hold`` or ``stop``.

    ``retry`` is no reason to hold: a device is polled again at once, and reopened if that does not help,
    while the run goes on. So it does over a missed reading, and without a device that nobody waits for; not
    without the arm, the leader, the force sensor or grasp mode's head camera: once their newest reading is
    older than ``control.state_max_age_s``, ``grasp.stale_force_s`` or ``grasp.stale_camera_s`` allow, the arm
    holds all the same. ``hold`` holds the position until the fault is over; ``stop`` latches a stop.

    Attributes:
        device: any device, unless a rule says otherwise.
        policy: the policy raised, or returned what is not an action chunk.
        planner: the planner gave up on a question.
        rules: the exceptions, first match wins in the order ``"<device>.<kind>"``, ``"<device>.*"``,
            ``"*.<kind>"``; for example ``"wrist.*" = "retry"``. The device is one that there can be, the
            kind a `runtime.messages.FaultKind` (or ``http_<status>`` of the planner).
    """

    device: Decision = Decision.HOLD
    policy: Decision = Decision.HOLD
    planner: Decision = Decision.HOLD
    rules: Mapping[str, Decision] = {}

    @field_validator("rules", mode="before")
    @classmethod
    def _with_dots(cls, rules: object) -> object:
        """Tables in the place of keys with dots: ``--faults.rules.arm.gone stop`` comes as them."""
        return dict(_flat(rules)) if isinstance(rules, Mapping) else rules


def _flat(rules: Mapping[str, object], before: str = "") -> Iterator[tuple[str, object]]:
    for key, value in rules.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", value


def decide(options: FaultOptions, name: str, kind: str) -> Decision:
    """The decision for a fault of `kind` of `name`: a device, ``"policy"`` or ``"planner"``."""
    for key in (f"{name}.{kind}", f"{name}.*", f"*.{kind}"):
        if key in options.rules:
            return options.rules[key]
    return {"policy": options.policy, "planner": options.planner}.get(name, options.device)


@dataclass(slots=True)
class Gap:
    """A stretch without a device's data; `to_ns` is ``None`` while it lasts."""

    device: str
    kind: str
    from_ns: int
    to_ns: int | None = None


@dataclass(slots=True)
class FaultLog:
    """Counts by device and kind, and the gaps. Written by several threads, one entry by one thread each.

    The GIL makes each dictionary and list operation whole; no device shares a name with another, so no
    two threads count in the same inner dictionary.
    """

    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    gaps: list[Gap] = field(default_factory=list)
    gap_limit: int = 10_000

    def count(self, name: str, kind: str, times: int = 1) -> int:
        """Count `times` more faults; returns how many there are of this kind now."""
        kinds = self.counts.setdefault(name, {})
        kinds[kind] = total = kinds.get(kind, 0) + times
        return total

    def open_gap(self, device: str, kind: str, from_ns: int) -> None:
        """Mark the start of a gap, unless one is open for `device`."""
        if len(self.gaps) < self.gap_limit and all(g.to_ns is not None for g in self._of(device)):
            self.gaps.append(Gap(device, kind, from_ns))

    def close_gap(self, device: str, to_ns: int) -> None:
        """Mark the end of the gap of `device`, if one is open."""
        for gap in self._of(device):
            if gap.to_ns is None:
                gap.to_ns = to_ns

    def _of(self, device: str) -> list[Gap]:
        return [g for g in list(self.gaps) if g.device == device]

    def summary(self, survived: Mapping[str, Mapping[str, int]] | None = None) -> dict[str, dict[str, int]]:
        """``{device: {kind: count}}``, with what the drivers `survived` on their own counted in."""
        total = {name: dict(kinds) for name, kinds in list(self.counts.items())}
        for name, kinds in (survived or {}).items():
            for kind, times in kinds.items():
                if times:
                    mine = total.setdefault(name, {})
                    mine[kind] = mine.get(kind, 0) + times
        return total


class FaultPolicy:
    """Maps every fault of a device to a decision, counts it, and knows which decisions are in force.

    Called on any thread, for microseconds. A line is logged for the 1st, 2nd, 4th, 8th... fault of a kind,
    so that a dead bus does not fill the log. Of policy and planner the mode decides, which waits for them.

    Attributes:
        newest: what each device that failed said last.
    """

    def __init__(self, options: FaultOptions, clock: Clock, log: FaultLog | None = None) -> None:
        self.log = log if log is not None else FaultLog()
        self._options = options
        self._clock = clock
        self._active: dict[str, tuple[Decision, str]] = {}
        self._spared: frozenset[str] = frozenset()
        self.newest: dict[str, DeviceError] = {}

    def device(self, error: DeviceError) -> Decision:
        """A device failed; in force until `recovered` is called with its name."""
        since = error.last_good_ns if error.last_good_ns is not None else self._clock.now_ns()
        self.log.open_gap(error.device, error.kind, since)
        decision = decide(self._options, error.device, error.kind)
        times = self.log.count(error.device, error.kind)
        self._active[error.device] = (decision, str(error))
        self.newest[error.device] = error
        if times & (times - 1) == 0:
            logger.warning("{} (time {}): {}", error, times, decision.value)
        return decision

    def recovered(self, name: str) -> None:
        """`name` works again: its decision is no longer in force."""
        self._active.pop(name, None)
        self.log.close_gap(name, self._clock.now_ns())

    def spare(self, names: Iterable[str]) -> None:
        """From now on faults of `names`, which nobody uses now, hold nothing; rules still stop."""
        self._spared = frozenset(names)

    def active(self) -> tuple[Decision, str] | None:
        """The most careful decision in force, and why; ``None`` if nothing is wrong."""
        spared = self._spared
        entries = [
            entry
            for name, entry in list(self._active.items())
            if entry[0] is Decision.STOP or name not in spared
        ]
        return max(entries, key=lambda entry: _STRENGTH[entry[0]]) if entries else None
