"""A remote policy under the inference worker, on the stepped clock: chunks come exactly when due."""

from __future__ import annotations

import numpy as np
import pytest

from dexrun.config.serve_options import ServeOptions
from runtime.messages import Observation
from runtime.stepped import SteppedClock
from runtime.worker import ChunkRequest, InferenceWorker
from tests.remote.support import PROTOCOLS, EchoPolicy, expected, make_client, observation, serving

MS = 1_000_000


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_chunks_are_delivered_at_their_simulated_time(protocol: str) -> None:
    clock = SteppedClock()
    wanted: dict[int, Observation] = {}

    def observe(request: ChunkRequest) -> Observation:
        wanted[request.step] = observation(request.step, seed=request.step)
        return wanted[request.step]

    with serving(EchoPolicy(), ServeOptions(protocol=protocol)) as server:
        remote = make_client(protocol, server.port, clock, connect_timeout_s=1.0)
        worker = InferenceWorker(remote, observe, clock, simulated_latency_s=0.1)
        worker.start()
        clock.wait_until_ns(1 * MS)
        assert worker.check_ready()
        attempt = worker.attempt()
        for step in (1, 2):
            start = clock.now_ns()
            assert attempt.request(step, 0, np.zeros((0, 6)), 0)
            clock.wait_until_ns(start + 99 * MS)
            assert attempt.poll() is None
            clock.wait_until_ns(start + 101 * MS)
            chunk = attempt.poll()
            assert chunk is not None
            assert chunk.step == step
            assert np.abs(chunk.actions - expected(wanted[step])).max() < 2e-5
        server.stop()
        assert attempt.request(3, 0, np.zeros((0, 6)), 0)
        clock.wait_until_ns(clock.now_ns() + 200 * MS)
        assert attempt.poll() is None
        assert dict(worker.report.failures) == {"policy_error": 1}
        assert "\n" not in worker.report.last_error
        worker.stop()
        clock.wait_until_ns(clock.now_ns() + 10 * MS)
        assert not worker.is_alive()
