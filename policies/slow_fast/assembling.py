"""From the table of both halves to the policy."""

from __future__ import annotations

from policies.slow_fast.masks import PointedMasks
from policies.slow_fast.options import SlowFastOptions
from policies.slow_fast.policy import SlowFastPolicy
from policies.slow_fast.thinking import InlineThinker, Thinker, ThreadThinker
from runtime.clock import NS_PER_S, single_threaded
from runtime.interfaces import Policy, PolicyError
from runtime.part_context import PolicyContext
from runtime.parts import PolicyTable


def assembled(table: SlowFastOptions, context: PolicyContext) -> SlowFastPolicy:
    """Both halves, not warmed up yet.

    Raises:
        PolicyError: one of them cannot be made for this robot; one line.
    """
    fast = _half(table.fast, context, "fast")
    try:
        slow = _half(table.slow, context, "slow")
    except BaseException:
        fast.close()
        raise
    pointed = None
    if table.masks == "pointed" and fast.spec.masks:
        pointed = PointedMasks(fast.spec.masks, context.cameras)
    return SlowFastPolicy(fast, _thinker(slow, table, context), table, context.clock, pointed)


def _half(table: PolicyTable, context: PolicyContext, name: str) -> Policy:
    try:
        if table.worker == "process":
            from policies.process import ProcessPolicy

            return ProcessPolicy(table, context)
        return table.build(context)
    except PolicyError as error:
        raise PolicyError(f"policy.{name}: {error}") from None
    except ModuleNotFoundError as error:
        raise PolicyError(
            f"policy.{name}: {table.type!r} needs the package {error.name}, which is missing"
        ) from None


def _thinker(slow: Policy, table: SlowFastOptions, context: PolicyContext) -> Thinker:
    clock, latency_ns = context.clock, round(table.slow.simulated_latency_s * NS_PER_S)
    if table.synchronous:
        return InlineThinker(slow, clock, waits=True)
    if single_threaded(clock):
        return InlineThinker(slow, clock, latency_ns)
    return ThreadThinker(slow, clock, latency_ns)
