"""The servos' alarms: told when they come and when they go, without filling the log."""

from __future__ import annotations

from collections import Counter

from loguru import logger

from drivers.feetech.registers import alarm_names


class AlarmLog:
    """What alarms stand, by servo. An alarm is told the 1st, 2nd, 4th, 8th... time that it comes up.

    Args:
        device: its name in the configuration.

    Attributes:
        standing: the error byte that each servo sent last, by id.
        counts: how often each alarm came up, as ``<joint>.alarm_<what>``.
    """

    def __init__(self, device: str) -> None:
        self.standing: dict[int, int] = {}
        self.counts: Counter[str] = Counter()
        self._device = device

    def note(self, servo_id: int, joint: str, error: int) -> None:
        """A servo sent this error byte."""
        before = self.standing.get(servo_id, 0)
        if error == before:
            return
        self.standing[servo_id] = error
        for alarm in alarm_names(error & ~before):
            key = f"{joint}.alarm_{alarm}"
            self.counts[key] += 1
            if self._told(key):
                words = "{}: {} (servo {}) raises its {} alarm (time {})"
                logger.warning(words, self._device, joint, servo_id, alarm, self.counts[key])
        for alarm in alarm_names(before & ~error):
            if self._told(f"{joint}.alarm_{alarm}"):
                logger.info("{}: {} (servo {}): no {} alarm any more", self._device, joint, servo_id, alarm)

    def _told(self, key: str) -> bool:
        times = self.counts[key]
        return times & (times - 1) == 0
