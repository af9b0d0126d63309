"""Who is read when: a client whose messages are good waits behind nobody whose messages are not."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import zmq

from dexrun.config.serve_options import ServeOptions
from dexrun.serve.engine import LocalEngine
from policies.encoding.limits import WireError
from policies.remote.groot import codec as groot
from policies.remote.serving.metrics import Metrics
from policies.remote.serving.turns import MOST_REST_NS, REST, Turns
from policies.remote.serving.zmq_front import ZmqFront
from runtime.clock import RealClock
from tests.remote.support import (
    GUARD_S,
    BatchedEcho,
    EchoPolicy,
    connected,
    observation,
    refused,
    serving,
)

GUARD_MS = int(GUARD_S * 1000)
PING = b"".join(groot.encode({"endpoint": "ping"}))
BAD = b"\xc1"


class CostedClock(RealClock):
    """Stands still but for what decoding is said to cost; notes how long it was rested."""

    def __init__(self) -> None:
        super().__init__()
        self.at_ns = 0
        self.rests: list[int] = []

    def now_ns(self) -> int:
        return self.at_ns

    async def sleep_until_ns(self, deadline_ns: int) -> None:
        self.rests.append(deadline_ns - self.at_ns)
        self.at_ns = deadline_ns
        await asyncio.sleep(0)


def test_one_message_of_each_peer_in_turn_and_a_rest_after_each() -> None:
    clock, order = CostedClock(), []

    async def main() -> None:
        turns = Turns(clock)

        def decode(name: str, cost_ns: int) -> None:
            order.append(name)
            clock.at_ns += cost_ns
            if name == "bad":
                raise WireError("bad")

        async def read(name: str, cost_ns: int) -> None:
            await turns.read(name, lambda: decode(name, cost_ns))

        costs = [("flood", 1000), ("flood", 2000), ("flood", 10**9), ("bad", 3000), ("new", 4000)]
        reads = [asyncio.ensure_future(read(*each)) for each in costs]
        await asyncio.sleep(0)
        reads.append(asyncio.ensure_future(read("gone", 0)))
        await asyncio.sleep(0)
        reads[-1].cancel()
        ends = await asyncio.gather(*reads, return_exceptions=True)
        assert isinstance(ends[3], WireError)
        assert isinstance(ends[-1], asyncio.CancelledError)
        await read("later", 0)

    asyncio.run(main())
    assert order == ["flood", "flood", "bad", "new", "flood", "later"]
    assert clock.rests == [REST * 1000, REST * 2000, REST * 3000, REST * 4000, MOST_REST_NS, 0]


def test_a_turn_that_was_given_to_who_has_just_gone_is_passed_on() -> None:
    async def main() -> None:
        clock = CostedClock()
        turns = Turns(clock)
        first = asyncio.ensure_future(turns.read("first", lambda: 1))
        second = asyncio.ensure_future(turns.read("second", lambda: 2))
        third = asyncio.ensure_future(turns.read("third", lambda: 3))
        first.add_done_callback(lambda _: second.cancel())  # whose turn has come by now
        assert await first == 1
        assert await third == 3
        assert second.cancelled()

    asyncio.run(main())


def test_only_a_client_that_was_answered_and_never_refused_is_read_at_once() -> None:
    with (
        serving(EchoPolicy(), ServeOptions(protocol="gr00t")) as server,
        connected("gr00t", server.port) as good,
        zmq.Context() as context,
        context.socket(zmq.DEALER) as stranger,
    ):
        good.infer(observation(1))
        service = server.server.service
        assert service is not None
        stranger.linger, stranger.rcvtimeo = 0, GUARD_MS
        stranger.connect(f"tcp://127.0.0.1:{server.port}")
        for message in (PING, BAD):  # once in good standing, then no more
            stranger.send_multipart([b"", message])
            stranger.recv_multipart()
        turns: Any = service._turns
        server.call(lambda: setattr(turns, "_reading", True))  # somebody's long message
        stranger.send_multipart([b"", PING])
        for step in range(2, 6):
            good.infer(observation(step))
        assert not stranger.poll(0)
        server.call(turns._pass_on)
        assert b"Server is running" in stranger.recv_multipart()[-1]


def test_messages_of_connections_that_are_gone_are_dropped_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    fronts: list[ZmqFront] = []
    opened = ZmqFront.open

    async def noted(front: ZmqFront) -> None:
        fronts.append(front)
        await opened(front)

    monkeypatch.setattr(ZmqFront, "open", noted)
    with (
        serving(EchoPolicy(), ServeOptions(protocol="gr00t")) as server,
        connected("gr00t", server.port) as good,
    ):
        good.infer(observation(1))
        watch: Any = fronts[0]._watch

        def come_and_go() -> None:
            """While the loop stands still: all that was sent is in libzmq, whose sender has gone."""
            before = len(watch._connections)
            with zmq.Context() as context, context.socket(zmq.DEALER) as peer:
                peer.linger = GUARD_MS
                peer.connect(f"tcp://127.0.0.1:{server.port}")
                for _ in range(8):
                    peer.send_multipart([b"", PING])
                while len(watch._connections) == before:
                    assert watch._events.poll(GUARD_MS)
                    watch.follow()
            while len(watch._connections) > before:
                assert watch._events.poll(GUARD_MS)
                watch.follow()

        asked = server.server.service.metrics.registry  # type: ignore[union-attr]
        name, labels = "dexrun_serve_requests_total", {"endpoint": "ping"}
        pings = asked.get_sample_value(name, labels)
        server.call(come_and_go)
        good.infer(observation(2))
        good.infer(observation(3))
        assert refused(server, "gone") == 8
        assert asked.get_sample_value(name, labels) == pings


def test_who_has_gone_is_not_inferred_for() -> None:
    async def main() -> None:
        policy = BatchedEcho()
        engine = LocalEngine(policy, RealClock(), Metrics())
        engine.start()
        first = asyncio.ensure_future(engine.infer([observation(1)], "first"))
        await asyncio.to_thread(policy.entered.acquire)
        second = asyncio.ensure_future(engine.infer([observation(2)], "second"))
        await asyncio.sleep(0)
        second.cancel()
        policy.gate.set()
        await first
        await engine.infer([observation(3)], "third")
        await asyncio.to_thread(engine.stop)
        assert [each.step for each in policy.seen] == [1, 3]

    asyncio.run(main())
