"""Timeouts in floating-point seconds on a clock of whole nanoseconds."""

from __future__ import annotations

import anyio
import pytest

from runtime.stepped import SteppedClock


@pytest.mark.parametrize("start_ns", [0, 1, 1_000_000_000, 123_456_789_123])
@pytest.mark.parametrize("period_s", [0.1, 0.05, 1 / 3, 1e-9])
def test_a_short_timeout_ends_however_its_float_is_rounded(start_ns: int, period_s: float) -> None:
    clock = SteppedClock(start_ns)

    async def main() -> None:
        for turn in range(1, 60):
            with anyio.move_on_after(period_s):
                await anyio.Event().wait()
            assert clock.now_ns() - start_ns == pytest.approx(turn * period_s * 1e9, abs=turn)

    clock.run(main)
