"""Compares how often the sensors deliver with how often the configuration says."""

from __future__ import annotations

from collections.abc import Mapping

from loguru import logger

from dexrun.robot import Robot
from runtime.clock import NS_PER_S
from runtime.parts import DeviceTable

_LOOK_S = 2.5
"""Longer than what `RunStatistics.recent_rates_hz` looks back."""
_SLOW, _FAST = 0.8, 1.25
_REMEDIES = {
    "fps": "more light, or a USB port of its own, may help; or give the rate that it has",
    "rate_hz": "give the rate that it has: stamps and the longest silence are worked out from it",
    "state_rate_hz": "give a rate that its bus can do",
}


def promised_hz(tables: Mapping[str, DeviceTable]) -> dict[str, tuple[str, float]]:
    """By device, the key that says how often it delivers, and how often that is."""
    found = {}
    for table, device in tables.items():
        name = table.removeprefix("cameras.")
        for key in _REMEDIES:
            if (rate := getattr(device, key, None)) is not None:
                found[name] = (f"{table}.{key}", float(rate))
                break
    return found


class RateWatch:
    """Says once of every sensor that it delivers less, or more, than the configuration says."""

    def __init__(self, robot: Robot) -> None:
        self._robot = robot
        self._promised = promised_hz(robot.settings.device_tables())
        self._ticks_hz = robot.settings.control.rate_hz
        self._ran: set[str] = set()
        self._told: set[str] = set()

    async def run(self) -> None:
        """Look every few seconds, until cancelled."""
        clock = self._robot.clock
        while True:
            await clock.sleep_until_ns(clock.now_ns() + round(_LOOK_S * NS_PER_S))
            self.look()

    def look(self) -> None:
        """Compare what came in the last seconds; a device that was not well meanwhile is passed over."""
        robot = self._robot
        rates = robot.statistics.recent_rates_hz(robot.clock.now_ns())
        well = {name for name, thread in robot.threads.items() if thread.state == "running"}
        for name in sorted(self._ran & well & set(self._promised) - self._told):
            key, promised = self._promised[name]
            real = rates.get(name, 0.0)
            # An arm is read at least once a tick, however fast the loop is.
            fast = real > _FAST * max(promised, self._ticks_hz if key.endswith("state_rate_hz") else 0.0)
            if fast or real < _SLOW * promised:
                self._told.add(name)
                remedy = _REMEDIES[key.rpartition(".")[2]]
                logger.warning(
                    "{}: {:.3g} a second come, and {} says {:g}; {}", name, real, key, promised, remedy
                )
        self._ran = well
