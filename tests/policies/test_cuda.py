"""What only shows on a CUDA device: the same answers, in every precision and from graphs; memory given back.

Tiny random networks. Without a CUDA device every test here is skipped.
"""

from __future__ import annotations

import gc
import itertools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from policies.accelerate import Replay, Upload  # noqa: E402
from runtime.messages import Floats, Observation  # noqa: E402
from tests.geometric.synthetic import Box, observation  # noqa: E402
from tests.lift.test_policy import made as lift  # noqa: E402
from tests.policies.test_learned import act, dexgrasp, observe  # noqa: E402

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")

CUDA = torch.device("cuda")
Build = Callable[..., Any]
KINDS = pytest.mark.parametrize("build", [act, dexgrasp], ids=["act", "dexgrasp"])
LEFT_OVER = 16 * 1024
"""Bytes: 3,072 were left of a closed controller on an H200."""
NEAR_RAD = 5e-3
"""Convolutions and products on the device count in tf32 or in another order."""


@pytest.fixture(autouse=True)
def _exact_products() -> Iterator[None]:
    """tf32 off, so that differences are the code's."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


def rows(policy: Any, seen: Observation) -> Floats:
    answer: Floats = policy.infer(seen).rows
    return answer


@KINDS
def test_the_device_answers_as_the_processor_does(build: Build) -> None:
    here, there = build(), build(device="cuda", cuda_graphs=False)
    for seed in range(3):
        np.testing.assert_allclose(rows(there, observe(seed)), rows(here, observe(seed)), atol=NEAR_RAD)


@KINDS
def test_a_graph_computes_what_it_was_captured_from_and_sees_each_new_observation(build: Build) -> None:
    graphed, plain = build(device="cuda"), build(device="cuda", cuda_graphs=False)
    answers = [rows(graphed, observe(seed)) for seed in range(4)]
    for seed, answer in enumerate(answers):
        np.testing.assert_allclose(answer, rows(plain, observe(seed)), atol=1e-4)
    assert np.abs(answers[0] - answers[1]).max() > 1e-6


@pytest.mark.parametrize("how", ["inpaint", "guidance"])
def test_a_committed_prefix_is_kept_on_the_device(how: str) -> None:
    committed = np.repeat(observe().arm.position[None], 6, axis=0)
    here, there = dexgrasp(rtc=how), dexgrasp(rtc=how, device="cuda")
    for frozen in (3, 1):  # from the graph, the number may change
        bound = observe(committed=committed, frozen_steps=frozen)
        np.testing.assert_allclose(rows(there, bound), rows(here, bound), atol=NEAR_RAD)


@KINDS
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_stays_near(build: Build, precision: str) -> None:
    exact = rows(build(device="cuda"), observe())
    half = rows(build(device="cuda", precision=precision), observe())
    assert np.isfinite(half).all()
    assert np.abs(exact - half).mean() < 0.1


@KINDS
def test_what_is_compiled_computes_the_same(build: Build) -> None:
    compiled = build(device="cuda", compile=True)
    np.testing.assert_allclose(
        rows(compiled, observe()), rows(build(device="cuda"), observe()), atol=NEAR_RAD
    )


@KINDS
def test_a_batch_is_answered_as_one_by_one(build: Build) -> None:
    together, alone = build(device="cuda"), build(device="cuda")
    seen = [observe(seed) for seed in range(3)]
    answers = [answer.rows for answer in together.infer_batch(seen)]
    assert len(answers) == len(seen)
    if build is act:  # the controller draws its noise row by row, for a batch at once
        for answer, each in zip(answers, seen, strict=True):
            np.testing.assert_allclose(answer, rows(alone, each), atol=NEAR_RAD)


def test_lift_answers_as_on_the_processor() -> None:
    here, there = lift(), lift(device="cuda")
    seen = observation(Box(), force_n=np.array([0.1, 0.2, 0.0]))
    np.testing.assert_allclose(rows(there, seen), rows(here, seen), atol=NEAR_RAD)
    there.close()


@KINDS
def test_a_closed_policy_gives_its_memory_back(build: Build) -> None:
    rows(build(device="cuda"), observe())  # libraries keep workspaces of their own
    gc.collect()
    before = torch.cuda.memory_allocated()
    policy = build(device="cuda")
    rows(policy, observe())
    assert torch.cuda.memory_allocated() > before + LEFT_OVER
    policy.close()
    assert torch.cuda.memory_allocated() <= before + LEFT_OVER


def test_a_graph_is_captured_while_another_thread_uses_the_device() -> None:
    """As perception does: another model, on another thread, on the same device."""
    end, worked, troubles = threading.Event(), threading.Event(), []

    def work() -> None:
        try:
            upload = Upload(CUDA)
            for size in itertools.count():
                if end.is_set():
                    return
                given = upload("x", np.ones((64, 64 + size % 7), np.float32))
                (given @ given.T).sum().item()
                worked.set()
        except Exception as error:  # it is looked at on the test's thread
            troubles.append(error)
            worked.set()

    other = threading.Thread(target=work)
    other.start()
    try:
        worked.wait()
        for _ in range(5):
            replay = Replay(lambda x: x * 2 + 1, CUDA, enabled=True)
            given = torch.arange(1000.0, device=CUDA)
            torch.testing.assert_close(replay(given), given * 2 + 1)
        assert other.is_alive() or troubles, "it has used the device all the while"
    finally:
        end.set()
        other.join()
    assert not troubles


def test_pinned_uploads_hold_what_was_given_last() -> None:
    upload = Upload(CUDA)
    for value in range(20):
        array = np.full((480, 640, 3), value, np.uint8)
        on_device = upload("picture", array)
        torch.cuda.synchronize()
        assert int(on_device.min()) == int(on_device.max()) == value
