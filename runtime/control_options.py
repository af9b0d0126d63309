"""The ``[control]`` table, and what of ``[policy]`` the control loop takes besides. Numbers only."""

from __future__ import annotations

from pydantic import Field

from runtime.blends import SplicingOptions
from runtime.horizon import CAPACITY
from runtime.inputs import LONGEST_STATE_AGE_S
from runtime.options import Options


class ControlOptions(Options):
    """Table ``[control]``.

    Attributes:
        rate_hz: ticks per second. A policy's rows have a rate of their own (``policy.rate_hz``).
        state_max_age_s: the arm's state, and the leader's, may be this old; then the arm holds.
        stop_after_hold_s: a fault that lasts this long latches a stop; 0 holds for ever.
        stop_after_starved_s: a source that gives nothing for this long latches a stop; 0 waits for ever.
        park_rad: where a fault or a starved source that lasted too long brings the arm before the stop is
            latched, straight through the joints' angles and through the safety stage; grippers, if it has no
            values for them, stay as they are. Empty: it stays where it is.
        park_speed_rad_s: of the joint with the longest way there.
        follow_blend_s: how long engaging takes to get up to its speed.
        arrived_rad: a prepared move is done when every joint, grippers left out, is measured this near to its
            end.
        engage_speed_rad_s: how fast a joint is brought to what is followed, at the beginning and after
            anything that held the arm, until it has met it (a gripper: travels a second).
        horizon_rows: rows that the horizon holds at most; a prepared motion comes in pieces.
    """

    rate_hz: float = Field(default=30.0, gt=0, le=1000)
    state_max_age_s: float = Field(default=0.1, gt=0, le=LONGEST_STATE_AGE_S)
    stop_after_hold_s: float = Field(default=10.0, ge=0)
    stop_after_starved_s: float = Field(default=30.0, ge=0)
    park_rad: tuple[float, ...] = ()
    park_speed_rad_s: float = Field(default=0.5, gt=0)
    follow_blend_s: float = Field(default=0.3, ge=0)
    arrived_rad: float = Field(default=0.15, gt=0, le=1)
    engage_speed_rad_s: float = Field(default=0.8, gt=0)
    horizon_rows: int = Field(default=CAPACITY, ge=1024)


class LoopOptions(ControlOptions, SplicingOptions):
    """Both tables' worth: ``[control]`` and what ``[policy]`` says of splicing."""

    @classmethod
    def of(
        cls, control: ControlOptions, splicing: SplicingOptions, engage_speed_rad_s: float | None = None
    ) -> LoopOptions:
        """From the two tables, and a mode's own engaging speed if it has one."""
        if engage_speed_rad_s is not None:
            control = control.model_copy(update={"engage_speed_rad_s": engage_speed_rad_s})
        chosen = {name: getattr(splicing, name) for name in SplicingOptions.model_fields}
        return cls(**control.model_dump(), **chosen)
