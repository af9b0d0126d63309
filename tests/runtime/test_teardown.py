"""A step of a teardown: shielded, and never waited for without end."""

from __future__ import annotations

import anyio
import pytest

from runtime.clock import NS_PER_S
from runtime.stepped import SteppedClock
from runtime.teardown import boxed


def test_a_step_is_finished_although_the_run_is_cancelled() -> None:
    clock = SteppedClock()
    done: list[int] = []

    async def step() -> None:
        await clock.sleep_until_ns(NS_PER_S)
        done.append(clock.now_ns())

    async def main() -> None:
        with anyio.CancelScope() as work:
            work.cancel()
            assert await boxed("it", 2.0, step)

    clock.run(main)
    assert done == [NS_PER_S]


def test_a_step_that_does_not_end_is_left() -> None:
    clock = SteppedClock()

    async def main() -> None:
        with anyio.CancelScope() as work:
            work.cancel()
            assert not await boxed("it", 2.0, anyio.sleep_forever)
            assert clock.now_ns() == 2 * NS_PER_S

    clock.run(main)


def test_what_a_step_raises_is_raised() -> None:
    async def step() -> None:
        raise ValueError("no")

    async def main() -> None:
        with pytest.raises(ValueError, match="no"):
            await boxed("it", 2.0, step)

    SteppedClock().run(main)
