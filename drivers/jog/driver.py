"""The leader without an arm, as the runtime sees it: joint positions, from whatever moves the point."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from drivers.jog.gamepad import Gamepad, Lister, list_gamepads
from drivers.jog.hand import Hand
from drivers.jog.options import JogOptions
from drivers.jog.point import JoggedPoint
from runtime.clock import NS_PER_S
from runtime.messages import Floats
from runtime.part_context import ArmContext
from runtime.ring import Mailbox, Ring, Sample, capacity_for

_GUIDED_S = 1.0
"""So long after whoever guides has said where to be, it stays there."""
_FOLLOWER_S = 0.5
"""A follower's position that is older tells nothing: the point stays where it is."""
_NOWHERE = 1e6
"""Metres, radians and what they are a second: nobody asks for so many; their squares are numbers."""


class JogLeader:
    """`runtime.interfaces.JoggedLeader`: begins where the follower is, and stays near it.

    Args:
        lister: where to look for gamepads; for tests.

    Attributes:
        states: fields ``position``, ``velocity``, ``load`` (zeros), float64 ``[D]``.
        jog: fields ``twist`` float64 ``[6]``, ``grip``. hand: fields ``position``, ``quaternion``, ``grip``,
            ``clutch``. guide: field ``position``, float64 ``[D]``.
    """

    def __init__(self, config: JogOptions, context: ArmContext, lister: Lister = list_gamepads) -> None:
        if context.arm_model is None or context.follower is None:
            raise ValueError(f"{context.name}: driver 'jog' needs an arm to follow it")
        self.name = context.name
        self._config = config
        self._clock = context.clock
        self._make_model = context.arm_model
        self._follower = context.follower
        size = (context.joints.joints,)
        fields = dict.fromkeys(("position", "velocity", "load"), (size, "<f8"))
        self.states = Ring(fields, capacity_for(config.rate_hz, 1.0))
        self.guide = Mailbox({"position": (size, "<f8")})
        self.jog = Mailbox({"twist": ((6,), "<f8"), "grip": ((), "<f8")})
        pose = {"position": ((3,), "<f8"), "quaternion": ((4,), "<f8")}
        self.hand = Mailbox({**pose, "grip": ((), "<f8"), "clutch": ((), "<f8")})
        self._pad = Gamepad(context.name, config.gamepad, config.pad, lister) if config.gamepad else None
        self._period_ns = round(NS_PER_S / config.rate_hz)
        self._valid_ns = round(config.valid_s * NS_PER_S)
        self._point: JoggedPoint | None = None
        self._hand = Hand(config.hand_scale)
        self._asked: tuple[Sample | None, Sample | None] = (None, None)
        self._begun = False
        self._guided_ns = -1
        self._due_ns = 0
        self._stuck = 0

    @property
    def calibration(self) -> Mapping[str, Any]:
        """There is nothing to calibrate."""
        return {}

    def statistics(self) -> Mapping[str, int]:
        """``out_of_reach``: how often something was asked for that the arm could not do."""
        return {"out_of_reach": self._stuck} if self._stuck else {}

    def open(self) -> None:
        """Open the gamepad, if there is one.

        Raises:
            DeviceError: ``not_found``, ``no_permission``.
        """
        if self._point is None:
            self._point = JoggedPoint(self._make_model(), self._config)
        for box in (self.jog, self.hand, self.guide):
            box.take()  # what was asked before a gap is not done after it
        self._asked, self._begun, self._guided_ns = (None, None), False, -1
        self._hand.let_go()
        self._due_ns = self._clock.now_ns()
        if self._pad is not None:
            self._pad.open()

    def close(self) -> None:
        """Let go of the gamepad."""
        if self._pad is not None:
            self._pad.close()

    def poll(self) -> bool:
        """Wait for the next period, move the point on, publish; whether there is a follower to begin at.

        Raises:
            DeviceError: ``gone``: the gamepad.
        """
        self._clock.wait_until_ns(self._due_ns)
        now = self._clock.now_ns()
        self._due_ns = max(self._due_ns + self._period_ns, now)
        if self._pad is not None:
            self._pad.read()
        max_age_ns = round(_FOLLOWER_S * NS_PER_S)
        sample = self._follower.newest(now_ns=now, max_age_ns=max_age_ns)
        point = self._point
        assert point is not None  # noqa: S101 - it is open
        if sample is not None and not self._begun:
            point.anchor(sample["position"])
            self._begun = True
        if not self._begun:
            return False
        before = point.q.copy()
        if not self._guide(point, now) and sample is not None:
            self._move(point, sample["position"], now)
        velocity = (point.q - before) * self._config.rate_hz
        self.states.push(now, position=point.q, velocity=velocity, load=np.zeros(before.size))
        return True

    def _guide(self, point: JoggedPoint, now_ns: int) -> bool:
        """Be where whoever guides says; whether somebody does."""
        sample = self.guide.take()
        if sample is not None:
            known = bool(np.isfinite(sample["position"]).all())
            self._guided_ns = now_ns if known else -1
            if known:
                point.anchor(sample["position"])
                self._hand.let_go()
        return self._guided_ns >= 0 and now_ns - self._guided_ns <= _GUIDED_S * NS_PER_S

    def _move(self, point: JoggedPoint, follower: Floats, now_ns: int) -> None:
        """By a hand that holds the clutch, or else by keys and gamepad together."""
        config, dt_s = self._config, 1.0 / self._config.rate_hz
        jog, hand = self._newest(now_ns)
        grip = 0.0
        asked = np.zeros(6)
        if self._pad is not None and not self._pad.permits:
            self._hand.let_go()
        elif self._hand.holds(hand, point):
            assert hand is not None  # noqa: S101 - it holds
            asked = self._hand.twist(hand, point) / dt_s
            if _is_meant(hand["grip"]):
                grip = (float(hand["grip"]) - point.opening) / dt_s
        else:
            if jog is not None:
                asked, grip = jog["twist"].copy(), float(jog["grip"])
            if self._pad is not None:
                pushed, pulled = self._pad.twist()
                asked += pushed * np.repeat((config.linear_m_s, config.angular_rad_s), 3)
                grip += pulled * config.gripper_s
        move = _at_most(asked[:3], config.linear_m_s) * dt_s
        turn = _at_most(asked[3:], config.angular_rad_s) * dt_s
        if move.any() or turn.any():
            self._stuck += not point.advance(move, turn, follower)
        elif point.strays(follower):
            opening = point.opening
            point.anchor(follower)  # something else has moved it, or it was held
            point.grip(opening, follower)
        if grip:
            point.grip(
                point.opening + float(np.clip(grip, -config.gripper_s, config.gripper_s)) * dt_s, follower
            )

    def _newest(self, now_ns: int) -> tuple[Sample | None, Sample | None]:
        """What was asked for by key and by hand, while it counts; what is no number, or too big, does not."""
        jog, hand = (box.take() or kept for box, kept in zip((self.jog, self.hand), self._asked, strict=True))
        self._asked = (self._counting(jog, now_ns), self._counting(hand, now_ns))
        return self._asked

    def _counting(self, sample: Sample | None, now_ns: int) -> Sample | None:
        if sample is None or not 0 <= now_ns - sample.stamp_ns <= self._valid_ns:
            return None
        known = [value for name, value in sample.fields.items() if name != "grip" or "twist" in sample.fields]
        return sample if all(map(_is_meant, known)) else None


def _is_meant(value: Floats) -> bool:
    return bool((np.abs(value) < _NOWHERE).all())


def _at_most(vector: Floats, limit: float) -> Floats:
    size = float(np.linalg.norm(vector))
    return vector if size <= limit else np.asarray(vector * (limit / size))
