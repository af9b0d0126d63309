"""How recordings become rows."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from runtime.options import Options

Target = Literal["sent", "clipped", "requested"]
"""A target of the control loop."""


class SamplingOptions(Options):
    """What decides the rows of a recorded episode.

    Attributes:
        fps: of the grid onto which everything is resampled.
        action: which of the control loop's targets becomes the action: what was ``sent`` to the arm, what
            was ``requested`` before the safety stage, or the ``clipped`` target that left it. By default
            what the recording says: a demonstration with noise on what was sent, or of one who corrects a
            policy, says ``requested``; others say nothing, which is ``sent``.
        latency_s: per sensor (``arm``, ``force``, or a camera's name), how long before its stamp what it
            shows had happened.
        cameras: the ones to export; none named means all.
        head, wrist: the cameras that take these parts where a format knows them; empty picks the one of
            that name, else the first of those with depth for the head and the first other for the wrist.
    """

    fps: float = Field(default=30.0, gt=0, le=1000)
    action: Target | None = None
    latency_s: dict[str, Annotated[float, Field(ge=-60.0, le=60.0)]] = Field(default_factory=dict)
    cameras: tuple[str, ...] = ()
    head: str = ""
    wrist: str = ""
