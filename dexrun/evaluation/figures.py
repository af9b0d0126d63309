"""From scenes to figures one can trust: rates with their intervals, and whether two policies differ."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from dexrun.evaluation.results import SceneResult
from dexrun.modes.tally import interval


def share(successes: int, count: int) -> dict[str, Any]:
    """A rate with Wilson's 95 % interval."""
    low, high = interval(successes, count)
    return {
        "successes": successes,
        "count": count,
        "rate": round(successes / count, 4) if count else None,
        "interval_95": [round(low, 4), round(high, 4)],
    }


def figures(results: Sequence[SceneResult]) -> dict[str, Any]:
    """Of one candidate. Scenes without a result (``errors``) are no part of any rate."""
    judged = [result for result in results if not result.error]
    total = sum(result.objects_total for result in judged)
    inside = sum(result.objects_in_tray for result in judged)
    attempts = [attempt for result in judged for attempt in result.attempts]
    clips: Counter[str] = Counter()
    for result in judged:
        clips.update(result.clips)
    times = [result.inference_s for result in judged if result.inference_s]
    seconds = sum(result.duration_s for result in judged)
    return {
        "objects": share(inside, total),
        "scenes": share(sum(result.success for result in judged), len(judged)),
        "attempts": len(attempts),
        "attempt_success": share(sum(bool(a.get("completed")) for a in attempts), len(attempts)),
        "seconds_per_object": round(seconds / inside, 2) if inside else None,
        "drops": sum(result.drops for result in judged),
        "clips": dict(clips),
        "clips_per_object": round(sum(clips.values()) / total, 3) if total else None,
        "starved_ticks": sum(result.starved_ticks for result in judged),
        "inference_s": {
            "p50": round(float(np.median([t.get("p50", 0.0) for t in times])), 4) if times else None,
            "max": round(max(t.get("max", 0.0) for t in times), 4) if times else None,
        },
        "simulated_s": round(seconds, 1),
        "wall_s": round(sum(result.wall_s for result in judged), 1),
        "errors": len(results) - len(judged),
        "failed_seeds": [result.seed for result in judged if not result.success],
    }


def compared(first: Sequence[SceneResult], second: Sequence[SceneResult]) -> dict[str, Any]:
    """Two candidates on the scenes that both have played.

    ``p`` is exact and two-sided: McNemar's test of whole scenes, and the sign test of the objects that each
    got into the tray of a scene. Only scenes on which the two differ tell anything.
    """
    other = {result.seed: result for result in second if not result.error}
    pairs = [(result, other[result.seed]) for result in first if not result.error and result.seed in other]
    only_first = sum(a.success and not b.success for a, b in pairs)
    only_second = sum(b.success and not a.success for a, b in pairs)
    more = sum(a.objects_in_tray > b.objects_in_tray for a, b in pairs)
    fewer = sum(a.objects_in_tray < b.objects_in_tray for a, b in pairs)
    return {
        "scenes": len(pairs),
        "only_first": only_first,
        "only_second": only_second,
        "p_scenes": exact_p(only_first, only_second),
        "more_objects_first": more,
        "more_objects_second": fewer,
        "p_objects": exact_p(more, fewer),
    }


def exact_p(ups: int, downs: int) -> float:
    """The two-sided probability of a split at least as uneven, where both sides are equally likely."""
    count, most = ups + downs, max(ups, downs)
    if count == 0:
        return 1.0
    tail: float = sum(math.comb(count, k) for k in range(most, count + 1)) / 2**count
    return round(min(1.0, 2.0 * tail), 6)
