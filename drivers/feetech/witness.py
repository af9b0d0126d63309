"""How a restart is noticed: registers that are set at opening, and that a servo then forgets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from loguru import logger

from drivers.feetech import registers as reg
from drivers.feetech.bus import FeetechBus
from runtime.messages import DeviceError, FaultKind


@dataclass(frozen=True, slots=True)
class HeldRegisters:
    """What the servos held in `registers.VOLATILE` once they had been prepared, by id.

    A servo that restarted answers as before, and with a goal its torque is on again: these registers alone
    say that it did. One of them differs in any case: `mark` sees to it.
    """

    held: Mapping[int, tuple[int, ...]]

    @classmethod
    def take(cls, bus: FeetechBus, ids: Sequence[int]) -> HeldRegisters:
        """Read them.

        Raises:
            DeviceError: ``no_reply``; ``gone``.
        """
        start, size = reg.HEALTH_BLOCK
        answers = bus.sync_read(ids, start, size)
        if silent := [bus.name(i) for i in ids if i not in answers]:
            detail = f"no answer while its registers were read back: {', '.join(silent)}"
            raise DeviceError(bus.device, FaultKind.NO_REPLY, bus.where, detail, bus.last_good_ns)
        return cls({servo_id: _volatile(answers[servo_id], start) for servo_id in ids})

    def restarted(self, answers: Mapping[int, bytes], start: int) -> dict[int, str]:
        """The servos that have forgotten something, by id, and what; `answers` begin at address `start`."""
        found = {}
        for servo_id, data in answers.items():
            was, now = self.held[servo_id], _volatile(data, start)
            if now != was:
                pairs = zip(reg.VOLATILE, now, was, strict=True)
                found[servo_id] = ", ".join(
                    f"{register.name} {is_now} instead of {then}"
                    for register, is_now, then in pairs
                    if is_now != then
                )
        return found


class ServoWatch:
    """Notices servos that protected themselves or restarted: they answer as before, and obey nobody.

    They are not put right here: opening the arm anew does that, from where the arm is.

    Args:
        torque: whether it should be on, as a follower's.
    """

    def __init__(self, torque: bool) -> None:
        self._torque = torque
        self._held = HeldRegisters({})
        self._forgotten: list[str] = []

    def begin(self, bus: FeetechBus, held: HeldRegisters) -> None:
        """The servos were prepared, perhaps after a restart, and hold `held`."""
        self._held = held
        if self._forgotten:
            logger.info("{}: set again what a restart undid: {}", bus.device, ", ".join(self._forgotten))
            self._forgotten = []

    def check(self, bus: FeetechBus, answers: Mapping[int, bytes], start: int) -> None:
        """Look at what the servos that answered hold from address `start` on.

        Raises:
            DeviceError: ``torque_lost``, ``restarted``.
        """
        if forgotten := self._held.restarted(answers, start):
            self._forgotten = [bus.name(servo_id) for servo_id in forgotten]
            names, what = ", ".join(self._forgotten), next(iter(forgotten.values()))
            detail = f"lost power for a moment, and what was set with it ({what}): {names}"
            raise DeviceError(bus.device, FaultKind.RESTARTED, bus.where, detail, bus.last_good_ns)
        at = reg.TORQUE_ENABLE.address - start
        limp = [bus.name(servo_id) for servo_id, data in answers.items() if not data[at]]
        if limp and self._torque:
            detail = f"torque is off, though nobody switched it off: {', '.join(limp)}"
            raise DeviceError(bus.device, FaultKind.TORQUE_LOST, bus.where, detail, bus.last_good_ns)

    def powered(self, bus: FeetechBus, ids: Sequence[int], num_retry: int = -1) -> dict[int, int]:
        """Ask the servos what `obeying` says.

        Raises:
            DeviceError: as `check`.
        """
        start = reg.TORQUE_ENABLE.address
        answers = bus.sync_read(ids, start, reg.GOAL_POSITION.end - start, num_retry)
        return self.obeying(bus, answers, start)

    def obeying(self, bus: FeetechBus, answers: Mapping[int, bytes], start: int) -> dict[int, int]:
        """The servos that say that their torque is on, and the goal that each has: none other may get one.

        A goal switches torque on. One that let go has fallen, and would jump back at full speed, with the
        gains that a restart left it. `answers` begin at address `start`.

        Raises:
            DeviceError: as `check`.
        """
        on, goal = reg.TORQUE_ENABLE.address - start, reg.GOAL_POSITION.address - start
        if not all(data[on] for data in answers.values()):
            block, size = reg.HEALTH_BLOCK
            self.check(bus, bus.sync_read(list(answers), block, size), block)
        return {i: reg.GOAL_POSITION.decode(data[goal:]) for i, data in answers.items() if data[on]}


def mark(bus: FeetechBus, servo_id: int, limit: int) -> int:
    """The torque limit to write for one of `limit` (in 0.1 %): below the one that a restart brings back.

    Whatever else is configured as the servo's own EEPROM has it, this register tells.
    """
    return min(limit, max(1, bus.read(servo_id, reg.MAX_TORQUE_LIMIT) - 1))


def _volatile(data: bytes, start: int) -> tuple[int, ...]:
    return tuple(register.decode(data[register.address - start :]) for register in reg.VOLATILE)
