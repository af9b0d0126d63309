"""The thread that copies what a run shares, at its odd ends."""

from __future__ import annotations

from dexrun.panel.tap import Tap
from runtime.clock import NS_PER_S
from runtime.stepped import SteppedClock


class CountingTap(Tap):
    """Copies nothing, and counts how often."""

    def __init__(self, clock: SteppedClock) -> None:  # of a robot's it needs nothing here
        self._clock, self._realtime, self._wake = clock, None, clock.signal()
        self._period_ns, self._stopping, self._complained = NS_PER_S // 30, False, False
        self._thread = None
        self.copies = 0

    def copy(self) -> None:
        self.copies += 1


def test_a_run_that_ends_before_anything_was_copied_is_copied_once() -> None:
    clock = SteppedClock()
    tap = CountingTap(clock)

    async def main() -> None:
        tap.start()
        await tap.stop()

    clock.run(main)
    assert tap.copies == 1
