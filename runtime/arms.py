"""Several arms that look like one: their newest states as one joint vector, targets to each its part.

The control loop, the observer and the recorder's ticks work on the whole vector; each arm keeps its own
driver, thread, rings and mailbox. Nothing here owns a thread, and reading copies each arm's state straight
into its part of the whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from runtime.interfaces import ArmDriver, LeaderDriver
from runtime.ports import ArmPort, LeaderPort, Readings
from runtime.ring import Layout, Mailbox, Ring, Sample


@dataclass(slots=True)
class JoinedSample(Sample):
    """One sample of several rings; the arrays of `parts` are views into its own."""

    parts: list[Sample] = field(default_factory=list)


class JoinedRings:
    """Rings of several devices, read as one: fields ``[d]`` of each become one ``[D]``, in order.

    A sample's stamp is that of the oldest of its parts, its index the least: it holds nothing where one part
    holds nothing.

    Args:
        rings: by the device's name.
        names: of the fields that are read; every ring has them, with one axis.

    Attributes:
        layout: of the whole. places: where each device's part is in it.
    """

    def __init__(self, rings: Mapping[str, Ring], names: Sequence[str]) -> None:
        self._rings = dict(rings)
        sizes = [ring.layout[names[0]][0][0] for ring in rings.values()]
        ends = np.cumsum([0, *sizes]).tolist()
        self.places = [slice(*pair) for pair in pairwise(ends)]
        first = next(iter(rings.values()))
        self.layout: Layout = {name: ((ends[-1],), first.layout[name][1]) for name in names}

    def blank(self) -> JoinedSample:
        """A sample to be passed as `into`, so that reading allocates nothing."""
        fields = {name: np.zeros(shape, dtype) for name, (shape, dtype) in self.layout.items()}
        parts = [
            Sample(-1, 0, {name: array[place] for name, array in fields.items()}) for place in self.places
        ]
        return JoinedSample(-1, 0, fields, parts)

    def newest(
        self, into: Sample | None = None, *, now_ns: int | None = None, max_age_ns: int | None = None
    ) -> Sample | None:
        """As `Ring.newest`: ``None`` where one of them has nothing yet, or nothing recent enough.

        `into` is a sample that `blank` gave.
        """
        sample = into if isinstance(into, JoinedSample) else self.blank()
        whole = True
        for ring, part in zip(self._rings.values(), sample.parts, strict=True):
            whole &= ring.newest(part, now_ns=now_ns, max_age_ns=max_age_ns) is not None
        return self._joined(sample, whole=whole)

    def before(self, stamp_ns: int, into: Sample | None = None) -> Sample | None:
        """As `Ring.before`: ``None`` where one of them has nothing so early any more."""
        sample = into if isinstance(into, JoinedSample) else self.blank()
        whole = True
        for ring, part in zip(self._rings.values(), sample.parts, strict=True):
            whole &= ring.before(stamp_ns, part) is not None
        return self._joined(sample, whole=whole)

    @staticmethod
    def _joined(sample: JoinedSample, *, whole: bool) -> JoinedSample | None:
        sample.index = min(part.index for part in sample.parts)
        sample.stamp_ns = min(part.stamp_ns for part in sample.parts)
        return sample if whole else None

    def late(self, now_ns: int, max_age_ns: int) -> str:
        """The first device without a recent sample; empty if there is none such."""
        return next((name for name, ring in self._rings.items() if not ring.fresh(now_ns, max_age_ns)), "")


def late(readings: Readings, name: str, now_ns: int, max_age_ns: int) -> str:
    """Who is behind in `readings`, which are not recent: the one device called `name`, or one of several."""
    return (readings.late(now_ns, max_age_ns) if isinstance(readings, JoinedRings) else "") or name


class SplitTargets:
    """One target for all arms; each gets its joints."""

    def __init__(self, boxes: Sequence[Mailbox], places: Sequence[slice]) -> None:
        self._boxes = list(zip(boxes, places, strict=True))

    def post(self, stamp_ns: int, **fields: Any) -> None:
        """Replace what is in every arm's box; a field is ``[D]`` of the whole vector."""
        for box, place in self._boxes:
            box.post(stamp_ns, **{name: value[place] for name, value in fields.items()})


class ArmGroup:
    """Several arms as the control loop sees one (`runtime.ports.ArmPort`).

    Args:
        arms: by the device's name, in the order of the joint vector.

    Attributes:
        states: their newest readings as one. sent: what went to them last, as one. targets: for all of them.
    """

    def __init__(self, arms: Mapping[str, ArmDriver]) -> None:
        self.states = joined_states(arms)
        told = all("target_ns" in arm.sent.layout for arm in arms.values())
        fields = ("position", "target_ns") if told else ("position",)
        self.sent = JoinedRings({name: arm.sent for name, arm in arms.items()}, fields)
        self.targets = SplitTargets([arm.targets for arm in arms.values()], self.states.places)


@dataclass(frozen=True, slots=True)
class LeaderGroup:
    """Several leaders as one is followed (`runtime.ports.LeaderPort`)."""

    states: JoinedRings


def arms_as_one(arms: Mapping[str, ArmDriver]) -> ArmPort:
    """The only arm itself; several as a group, in the order of the joint vector."""
    return next(iter(arms.values())) if len(arms) == 1 else ArmGroup(arms)


def leaders_as_one(leaders: Mapping[str, LeaderDriver]) -> LeaderPort | None:
    """The same of leaders; ``None`` if there is none."""
    if len(leaders) > 1:
        return LeaderGroup(joined_states(leaders))
    return next(iter(leaders.values()), None)


def joined_states(arms: Mapping[str, LeaderDriver]) -> JoinedRings:
    """The newest readings of several arms or leaders as one joint vector."""
    return JoinedRings({name: arm.states for name, arm in arms.items()}, ("position", "velocity", "load"))
