"""Nothing that a policy returns can raise in the control loop."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from runtime.blends import BLENDS, BlendOptions, blend_from
from runtime.horizon import Horizon
from runtime.inference import InferenceFailureError, checked
from runtime.messages import ActionChunk, PolicyAnswer, PolicyStatus
from runtime.statistics import RunStatistics
from tests.runtime.control_rig import Chunks, D, Rig

FORMS = ("<f8", "<f4", "<f2", np.dtype(np.longdouble).str, "<i8", "<u8", "|i1", "|b1", "<c16", "|O")
shapes = npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=6) | st.just((4, D))
plain = st.sampled_from(FORMS[:-1]).flatmap(lambda form: npst.arrays(form, shapes))
numbers = st.floats() | st.integers() | st.sampled_from([1e305, -1e305, 5e-324, 2**200, "1", None])
objects = st.lists(st.lists(numbers, max_size=4), max_size=4)
rates = st.floats() | st.sampled_from([0.0, 30.0, 5e-324, 1.7e308])
steps = st.integers(-3, 8)


def answered(rows: Any) -> np.ndarray | None:
    """What is left of it behind the worker's check."""
    try:
        return checked(PolicyAnswer(rows), D).rows
    except (InferenceFailureError, ValueError, TypeError, OverflowError):  # counted by the worker
        return None


@settings(deadline=None, max_examples=150)
@given(
    st.lists(st.tuples(plain | objects, rates, steps), min_size=1, max_size=4),
    st.sampled_from(sorted(BLENDS)),
)
def test_any_chunk_is_spliced_or_dropped(answers: list[Any], blend: Any) -> None:
    horizon = Horizon(D, blend_from(BlendOptions(blend=blend)))
    statistics = RunStatistics()
    for rows, rate, step in answers:
        for actions in (rows if isinstance(rows, np.ndarray) else None, answered(rows)):
            if actions is None:
                continue
            splice = horizon.splice(ActionChunk(actions, step, horizon.epoch, 0, 0.01, rate_hz=rate))
            statistics.spliced(splice.verdict, splice.seam, 0.01)
            point = horizon.take(0.5)
            assert point is None or np.isfinite(point).all()
            assert horizon.reached_in(16) >= 0
    statistics.summary()


@given(st.floats(), st.floats())
def test_statistics_take_any_number(seam: float, seconds: float) -> None:
    statistics = RunStatistics()
    statistics.spliced("spliced", seam, seconds)
    assert json.loads(json.dumps(statistics.summary(), allow_nan=False))["policy"]["chunks"] == 1


@pytest.mark.parametrize("value", [1e305, -1e305, 1e7, np.nan, np.inf])
def test_one_impossible_chunk_is_counted_and_the_run_goes_on(value: float) -> None:
    rig = Rig()
    good = [0.01, 0.02, 0.03, 0.04]

    async def main() -> None:
        rig.loop.follow(Chunks(lambda step: [value] * 4 if step == 2 else good))
        await rig.ticks(12)
        assert rig.loop.state == "running"

    rig.run(main)
    assert rig.statistics.splices["not_finite"] >= 1
    assert max(rig.requested()) <= 0.04


@pytest.mark.parametrize("value", [1e305, 1e7, np.nan, np.longdouble("1e400"), 2**63])
def test_the_worker_refuses_what_no_joint_has(value: Any) -> None:
    with pytest.raises(InferenceFailureError, match="beyond 1e\\+06") as refused:
        checked(PolicyAnswer(np.full((2, D), value)), D)
    assert refused.value.kind == "not_finite"


def test_what_a_policy_says_is_one_short_line() -> None:
    answer = PolicyAnswer(np.zeros((0, D)), PolicyStatus.FAILED, "lost\n\x1b[31m\ud800 " + "x" * 9999)
    said = checked(answer, D).why
    assert said.startswith("lost [31m")
    assert len(said) <= 500
    said.encode("utf-8")
