"""Tests give the same result whatever ran before them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.internal.conjecture import providers

import runtime.units  # one of ours, with numbers in it
from drivers.feetech import registers


@given(st.integers())
def test_hypothesis_draws_nothing_that_stands_in_imported_modules(number: int) -> None:
    assert runtime.units.__file__
    assert registers.__file__
    assert isinstance(number, int)
    known = providers._get_local_constants()
    assert [len(known.set_for_type(kind)) for kind in ("integer", "float", "bytes", "string")] == [0] * 4


def test_networks_have_one_thread() -> None:
    torch = pytest.importorskip("torch")
    assert torch.get_num_threads() == 1
