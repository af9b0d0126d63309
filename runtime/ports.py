"""What the control loop knows of the arm, of the safety stage, and of who listens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from runtime.messages import Clip, Floats
from runtime.ring import Layout, Sample


class SafetyOutcome(Protocol):
    """What the safety stage answers: a target that may be sent, why it differs, and why to stop, if so."""

    @property
    def target(self) -> Floats: ...

    @property
    def clips(self) -> Clip: ...

    @property
    def stop_reason(self) -> str | None: ...


class Safety(Protocol):
    """`runtime.safety.SafetyStage`, as far as the loop knows it."""

    def apply(
        self,
        requested: Floats,
        present: Floats,
        previous: Floats,
        force_n: Floats | None,
        load: Floats | None,
        dt_s: float,
    ) -> SafetyOutcome:
        """The target to send in place of `requested`."""

    def rehearse(self, target: Floats, present: Floats, load: Floats, dt_s: float) -> None:
        """Go through the work of `apply` without a trace, so that it is in the processor's caches."""

    def reset(self) -> None:
        """Forget everything; the next target starts from rest."""

    def interrupted(self) -> None:
        """The next target starts from rest. How long anything has lasted is not forgotten."""

    def lasted(self, dt_s: float, passed_s: float) -> None:
        """The last target, credited `dt_s`, came `passed_s` after the one before."""

    def slowing(self, previous: Floats, dt_s: float) -> Floats:
        """The target ``[D]`` after `previous` of an arm that is braked; `previous` once it stands still."""

    def limit_speed(self, share: float) -> None:
        """Targets move at most at this share of the velocity limits."""

    def unsent(self, force_n: Floats | None, dt_s: float) -> str | None:
        """Nothing is sent for `dt_s`; returns why to stop, if what lasts has lasted too long."""


class Readings(Protocol):
    """The newest of a device's readings: a `runtime.ring.Ring`, or several as one (`runtime.arms`)."""

    @property
    def layout(self) -> Layout: ...

    def blank(self) -> Sample:
        """As `Ring.blank`."""

    def newest(
        self, into: Sample | None = None, *, now_ns: int | None = None, max_age_ns: int | None = None
    ) -> Sample | None:
        """As `Ring.newest`."""

    def before(self, stamp_ns: int, into: Sample | None = None) -> Sample | None:
        """As `Ring.before`."""


class LeaderPort(Protocol):
    """What is followed of `runtime.interfaces.LeaderDriver`, or of several as one."""

    @property
    def states(self) -> Readings: ...


class Targets(Protocol):
    """Where targets are posted: a `runtime.ring.Mailbox`, or several as one."""

    def post(self, stamp_ns: int, **fields: Any) -> None:
        """As `Mailbox.post`."""


class ArmPort(Protocol):
    """What the loop needs of `runtime.interfaces.ArmDriver`, or of several as one (`runtime.arms.ArmGroup`).

    A driver that knows what it wrote may also have a ring ``sent`` with field ``position`` ``[D]``, in the
    robot's units and stamped at the write, NaN for a joint that was left out; the next target then starts at
    the goals that were written. Otherwise what was posted is recorded as sent, and taken for it.
    """

    @property
    def states(self) -> Readings: ...

    @property
    def targets(self) -> Targets: ...


class LoopListener(Protocol):
    """Told what the loop does, on the loop; both must return at once."""

    def noted(self, kind: str, values: Mapping[str, Any]) -> None:
        """A command or a chunk: what the loop was asked for and was given, so that it can be replayed."""

    def ticked(self) -> None:
        """The work of a tick is done."""
