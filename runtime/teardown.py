"""One step of a teardown: shielded from the cancellation that began it, and never waited for without end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio
from loguru import logger


async def boxed(what: str, seconds: float, step: Callable[[], Awaitable[object]]) -> bool:
    """Await `step`, shielded, for at most `seconds`; raises what it raises.

    Returns:
        ``False`` if it did not end in time: it was cancelled, what it waited for is left to itself, and that
        `what` did not end is logged.
    """
    with anyio.move_on_after(seconds, shield=True) as limit:
        await step()
    if limit.cancelled_caught:
        logger.error("{} did not end within {:g} s", what, seconds)
    return not limit.cancelled_caught
