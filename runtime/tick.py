"""The record that every control tick leaves in a ring, for the recorder and for reports."""

from __future__ import annotations

import enum

import numpy as np

from runtime.messages import Clip, Floats
from runtime.ports import Readings
from runtime.ring import Layout, Ring, Sample


class TickFlag(enum.IntFlag):
    """What was special about a tick, in its record.

    ``STARVED``: the source had nothing in time; ``WAITING``: its first chunk has not come yet;
    ``STRETCHED``: the horizon was played slower, to last until the next chunk; ``PARKING``: held by what
    lasted too long, on the way to where a stop is latched (with ``HOLDING``).
    """

    NONE = 0
    STARVED = 1
    HOLDING = 2
    STOPPED = 4
    IDLE = 8
    STALE_STATE = 16
    LEADER = 32
    POSTED = 64
    BLENDING = 128
    SKIPPED_BEFORE = 256
    WAITING = 512
    STRETCHED = 1024
    PARKING = 2048


def tick_layout(joints: int, force_channels: int = 0) -> Layout:
    """Layout of the ring of tick records; a record is stamped with the tick's start.

    ``requested``, ``clipped`` (after safety), ``sent`` (what the driver wrote last before this tick ended,
    at ``sent_stamp_ns``), ``held`` (the goal that a joint went on from in this tick, since its servo did not
    get the last target), the arm's ``position``, ``velocity``, ``load`` at ``state_stamp_ns``, all float64
    ``[D]``; ``force`` ``[K]`` at ``force_stamp_ns``; ``clips`` (`Clip`), ``flags`` (`TickFlag`), ``tick``,
    ``step`` (rows executed), ``epoch``, ``horizon`` (rows left), ``trouble`` (what a fault or a missing input
    asked for: 0 nothing, 1 hold, 2 stop), ``pilot`` (`runtime.pilot.Pilot`: who drives), and the ``leader``'s
    position ``[D]`` at ``leader_stamp_ns`` if one was followed. What does not exist is NaN, or -1.
    """
    vectors = ("requested", "clipped", "sent", "held", "position", "velocity", "load", "leader")
    stamps = ("state_stamp_ns", "sent_stamp_ns", "force_stamp_ns", "leader_stamp_ns")
    numbers = (*stamps, "tick", "step", "epoch", "horizon", "trouble", "pilot")
    layout: dict[str, tuple[tuple[int, ...], str]] = dict.fromkeys(vectors, ((joints,), "<f8"))
    layout["force"] = ((force_channels,), "<f8")
    layout.update(dict.fromkeys((*numbers, "clips", "flags"), ((), "<i8")))
    return layout


class TickRecorder:
    """Writes tick records into `records`; nothing but copies of ``[D]`` vectors.

    `sent` is the driver's ring of what it wrote (field ``position``); without one, what was posted counts as
    sent.
    """

    def __init__(self, records: Ring, joints: int, sent: Readings | None) -> None:
        self._records = records
        self._sent_ring = sent
        self._sent = sent.blank() if sent is not None else None
        self._nothing = np.full(joints, np.nan)

    def write(
        self,
        now_ns: int,
        requested: Floats,
        posted: Floats | None,
        held: Floats | None,
        state: Sample,
        force: Sample | None,
        leader: Sample | None,
        numbers: dict[str, int],
        clips: Clip,
        flags: TickFlag,
    ) -> None:
        """Publish the record of the tick that started at `now_ns`; `posted` is ``None`` if nothing was."""
        clipped = self._nothing if posted is None else posted
        sent, sent_ns = clipped, -1 if posted is None else now_ns
        if self._sent_ring is not None and self._sent_ring.newest(self._sent) is not None:
            sent, sent_ns = self._sent["position"], self._sent.stamp_ns  # type: ignore[index,union-attr]
        with self._records.write(now_ns) as slot:
            slot["requested"][:], slot["clipped"][:], slot["sent"][:] = requested, clipped, sent
            slot["held"][:] = self._nothing if held is None else held
            for name in ("position", "velocity", "load"):
                slot[name][:] = state[name] if state.index >= 0 else self._nothing
            known = force is not None and force.index >= 0
            slot["force"][:] = force["force"] if known else np.nan  # type: ignore[index]
            slot["force_stamp_ns"][...] = force.stamp_ns if known else -1  # type: ignore[union-attr]
            slot["leader"][:] = self._nothing if leader is None else leader["position"]
            slot["leader_stamp_ns"][...] = -1 if leader is None else leader.stamp_ns
            slot["state_stamp_ns"][...] = state.stamp_ns if state.index >= 0 else -1
            slot["sent_stamp_ns"][...], slot["clips"][...], slot["flags"][...] = sent_ns, clips, flags
            for name, number in numbers.items():
                slot[name][...] = number
