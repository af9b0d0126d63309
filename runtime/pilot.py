"""Who drives the arm: what every tick's record says of its target."""

from __future__ import annotations

import enum


class Pilot(enum.IntEnum):
    """Whose targets the control loop follows.

    ``NOBODY``: it follows nothing, and the arm stays where it is; ``POLICY``: a policy's chunks; ``PERSON``:
    a leader arm; ``MOTION``: a prepared move (home, to a place), which is neither's.
    """

    NOBODY = 0
    POLICY = 1
    PERSON = 2
    MOTION = 3
