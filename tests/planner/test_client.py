"""The planner against the real server, over sockets."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

from planner.client import Planner
from planner.config import PlannerConfig, SceneReaderConfig
from planner.errors import PlannerError
from planner.exchange import Exchange
from planner.questions.check_grasp import CheckGrasp
from planner.questions.check_instruction import CheckInstruction
from planner.questions.check_prompt import CheckPrompt
from planner.questions.classify import Classify
from planner.questions.decompose import Decompose
from planner.questions.mark import Mark
from planner.questions.propose import Propose
from planner.questions.question import View
from planner.scene_reader.server import SceneReader
from runtime.clock import NS_PER_S, RealClock
from runtime.stepped import SteppedClock
from tests.planner.pictures import table

LATENCY_S = 0.25
PICTURE = table(("red", "cube", 450, 150), ("blue", "cylinder", 520, 250))
SEEN = {View.HEAD: PICTURE}
BOTH = {View.HEAD: PICTURE, View.WRIST: PICTURE}


def stepped(
    use: Callable[[Planner, SteppedClock], Awaitable[None]],
    log: Callable[[Exchange], None] | None = None,
    **options: Any,
) -> None:
    """Run `use` with an open planner on a stepped clock, and see that nothing is left over."""
    clock = SteppedClock()
    before = set(threading.enumerate())

    async def main() -> None:
        config = PlannerConfig(**{"simulated_latency_s": LATENCY_S, **options})
        async with Planner(config, clock, log) as planner:
            await use(planner, clock)

    clock.run(main)
    assert {thread.name for thread in set(threading.enumerate()) - before} == set()


def test_all_seven_questions() -> None:
    async def use(planner: Planner, clock: SteppedClock) -> None:
        assert (await planner.ask(Classify("fetch the red cube"))).type == "I"
        assert (await planner.ask(Classify("clear the table"))).type == "II"
        objects = (await planner.ask(Decompose("all red and blue things"), SEEN)).objects
        assert [each.split(" on ")[0].split(" in ")[0] for each in objects] == [
            "the blue cylinder",
            "the red cube",
        ]
        target = (await planner.ask(Propose(), SEEN)).target
        assert target == objects[0]
        other = (await planner.ask(Propose((target,)), SEEN)).target
        assert other == objects[1]
        box = await planner.ask(Mark(objects[1]), SEEN)
        assert box.label == "red cube"
        assert box.bbox_2d == pytest.approx((434, 134, 467, 167), abs=2)
        assert (await planner.ask(CheckGrasp(objects[1]), BOTH)).value is False
        assert (await planner.ask(CheckInstruction(objects[1]), SEEN)).value is False
        assert (await planner.ask(CheckInstruction(objects[1]), {View.HEAD: table()})).value is True
        left = await planner.ask(CheckPrompt(), SEEN)
        assert left.value is False
        assert set(left.reason.split(", ")) == {"red cube", "blue cylinder"}
        assert (await planner.ask(CheckPrompt(), {View.HEAD: table()})).value is True
        assert planner.statistics() == {
            "calls": 11,
            "retries": 0,
            "errors": 0,
            "faults": {},
            "latency_s": {"p50": LATENCY_S, "max": LATENCY_S},
        }
        assert clock.now_ns() == round(11 * LATENCY_S * NS_PER_S)

    stepped(use)


def test_boxes_are_in_pixels_of_the_frame_however_small_the_picture_sent() -> None:
    async def use(planner: Planner, _: SteppedClock) -> None:
        box = await planner.ask(Mark("the red cube"), SEEN)
        assert box.bbox_2d == pytest.approx((434, 134, 467, 167), abs=4)

    stepped(use, image_max_px=320)


def test_a_5xx_is_retried_with_doubling_backoff() -> None:
    async def use(planner: Planner, clock: SteppedClock) -> None:
        assert planner.scene_reader is not None
        planner.scene_reader.inject("error_500", 3)
        assert (await planner.ask(CheckPrompt(), SEEN)).value is False
        # four exchanges, and waits of 0.5, 1 and 1.5 s (the cap)
        assert clock.now_ns() == round((4 * LATENCY_S + 3.0) * NS_PER_S)
        assert planner.statistics()["retries"] == 3
        assert planner.statistics()["faults"] == {"http_500": 3}
        assert planner.statistics()["errors"] == 0

    stepped(use, backoff_s=0.5, backoff_max_s=1.5)


def test_retries_end() -> None:
    async def use(planner: Planner, clock: SteppedClock) -> None:
        with pytest.raises(PlannerError) as error:
            await planner.ask(CheckPrompt(), SEEN)
        assert error.value.kind == "http_500"
        assert error.value.task == "check_user_prompt_complete"
        assert planner.where in str(error.value)
        assert clock.now_ns() == round((2 * LATENCY_S + 0.5) * NS_PER_S)
        assert planner.statistics()["errors"] == 1

    stepped(use, retries=1, scene_reader={"fault": "error_500"})


def test_a_hang_costs_the_timeout_and_then_the_deadline() -> None:
    async def use(planner: Planner, clock: SteppedClock) -> None:
        with pytest.raises(PlannerError) as error:
            await planner.ask(CheckPrompt(), SEEN)
        assert error.value.kind == "timeout"
        # 4 s, 0.5 s, 4 s, 1 s; then 0.5 s are left of 10 s, and a backoff of 2 s does not fit in
        assert clock.now_ns() == 10 * NS_PER_S
        assert planner.statistics()["faults"] == {"timeout": 3}

    stepped(use, timeout_s=4, deadline_s=10, scene_reader={"fault": "hang"})


def test_slowness_within_the_timeout_is_only_slow() -> None:
    async def use(planner: Planner, clock: SteppedClock) -> None:
        await planner.ask(CheckPrompt(), SEEN)
        assert clock.now_ns() == round((3 + LATENCY_S) * NS_PER_S)

    stepped(use, scene_reader={"fault": "slow", "slow_s": 3})


@pytest.mark.parametrize(
    ("fault", "reason"),
    [("prose", "neither begins nor concludes"), ("half_json", "neither|complete"), ("html", "text/html")],
)
def test_a_malformed_reply_is_asked_again_once(fault: str, reason: str) -> None:
    log: list[Exchange] = []

    async def use(planner: Planner, clock: SteppedClock) -> None:
        assert planner.scene_reader is not None
        planner.scene_reader.inject(fault, 1)  # type: ignore[arg-type]
        await planner.ask(CheckGrasp(), BOTH)
        assert clock.now_ns() == round(2 * LATENCY_S * NS_PER_S)
        assert planner.scene_reader.requests == 2

    stepped(use, log.append)
    first, second = log
    assert first.error is not None
    assert first.error.startswith("malformed: ")
    assert (first.attempt, second.attempt) == (0, 1)
    assert second.error is None
    assert first.error.removeprefix("malformed: ") in second.prompt


@pytest.mark.parametrize("fault", ["prose", "half_json", "html", "box_outside"])
def test_twice_malformed_is_a_failure(fault: str) -> None:
    async def use(planner: Planner, _: SteppedClock) -> None:
        with pytest.raises(PlannerError) as error:
            await planner.ask(Mark("the red cube"), SEEN)
        assert error.value.kind == "malformed"
        assert "\n" not in str(error.value)
        assert planner.scene_reader is not None
        assert planner.scene_reader.requests == 2

    stepped(use, scene_reader={"fault": fault})


def test_what_is_not_there_is_said_to_be_missing() -> None:
    async def use(planner: Planner, _: SteppedClock) -> None:
        assert planner.scene_reader is not None
        planner.scene_reader.inject("unknown_object", 1)
        target = (await planner.ask(Propose(), SEEN)).target
        assert target is not None
        with pytest.raises(PlannerError) as error:
            await planner.ask(Mark(target), SEEN)
        assert error.value.kind == "no_object"
        assert planner.scene_reader.requests == 2

    stepped(use)


def test_the_log_has_everything_but_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[Exchange] = []
    monkeypatch.setenv("DEXRUN_PLANNER_API_KEY", "sk-secret")

    async def use(planner: Planner, _: SteppedClock) -> None:
        await planner.ask(Mark("the red cube"), SEEN)

    stepped(use, log.append)
    (entry,) = log
    assert entry.task == "mark_bounding_box"
    assert entry.model == "scene-reader"
    assert "the red cube" in entry.prompt
    assert entry.reply is not None
    assert "bbox_2d" in entry.reply
    assert entry.images[0].startswith(b"\xff\xd8")
    assert (entry.asked_ns, entry.latency_s, entry.error) == (0, LATENCY_S, None)
    assert "sk-secret" not in repr(entry)


def test_a_model_that_says_the_key_gets_it_into_no_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEXRUN_PLANNER_API_KEY", "sk-secret")
    log: list[Exchange] = []

    async def main() -> None:
        said = "False: Authorization: Bearer sk-secret, http://gpu/?key=sk-secret"
        for reply in (chat(said), chat("your key is sk-secret")):
            async with Canned(reply) as url:
                config = PlannerConfig(base_url=url, model="sk-secret-7b", simulated_latency_s=0)
                async with Planner(config, clock, log.append) as planner:
                    try:
                        assert "sk-" not in (await planner.ask(CheckPrompt(), SEEN)).reason
                    except PlannerError as error:
                        assert "sk-" not in str(error)  # noqa: PT017

    clock = SteppedClock()
    clock.run(main)
    assert len(log) == 3
    assert "sk-secret" not in repr(log)
    assert log[0].reply == "False: Authorization: Bearer ***, http://gpu/?key=***"


class Canned:
    """A server that answers every request with the same bytes, and remembers what it was sent."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer
        self.heard: list[bytes] = []
        self.asked = asyncio.Event()
        self.hung_up = asyncio.Event()

    async def __aenter__(self) -> str:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        size = next(
            (int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if b"content-length" in line), 0
        )
        self.heard.append(head + await reader.readexactly(size))
        self.asked.set()
        if self.answer:
            writer.write(self.answer)
        else:
            await reader.read()
            self.hung_up.set()
        writer.close()


def http(status: str, body: str, *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"content-length: {len(body.encode())}", "connection: close", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()


def chat(content: str | None, finish: str = "stop", refusal: str | None = None) -> bytes:
    message = {"role": "assistant", "content": content, "refusal": refusal}
    choice = {"index": 0, "finish_reason": finish, "message": message}
    body = {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
    return http("200 OK", json.dumps(body), "content-type: application/json")


JSON = "content-type: application/json"


@pytest.mark.parametrize(
    ("answer", "kind", "exchanges"),
    [
        (http("401 Unauthorized", '{"error": {"message": "bad key sk-secret"}}', JSON), "http_401", 1),
        (http("404 Not Found", "no such model", "content-type: text/plain"), "http_404", 2),
        (http("429 Too Many Requests", "{}", JSON, "retry-after: 7"), "http_429", 3),
        (http("503 Service Unavailable", "<html>", "content-type: text/html"), "http_503", 3),
        (http("200 OK", '{"id": "1", "choi', JSON), "malformed", 2),
        (http("200 OK", "{}", JSON), "malformed", 2),
        (http("200 OK", '{"choices": []}', JSON), "malformed", 2),
        (http("200 OK", '{"choices": [{}]}', JSON), "malformed", 2),
        (http("200 OK", '{"choices": "no"}', JSON), "malformed", 2),
        (http("200 OK", "[1, 2]", JSON), "malformed", 2),
        (http("200 OK", "[" * 100_000, JSON), "malformed", 2),
        (http("200 OK", "True"), "malformed", 2),
        (chat(None), "malformed", 2),
        (chat("True \ud83d"), "malformed", 2),
        (chat("True", finish="length"), "malformed", 2),
        (chat(None, refusal="I would rather not"), "refused", 1),
        (chat(None, refusal="not for sk-secret"), "refused", 1),
        (
            http("401 Unauthorized", json.dumps({"error": {"message": "x" * 274 + " sk-secret"}}), JSON),
            "http_401",
            1,
        ),
        (chat("", finish="content_filter"), "refused", 1),
        (b"this is not HTTP\r\n\r\n", "unreachable", 3),
        (
            b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\ncontent-type: application/json\r\n\r\n{",
            "unreachable",
            3,
        ),
    ],
)
def test_other_servers_faults(
    answer: bytes, kind: str, exchanges: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEXRUN_PLANNER_API_KEY", "sk-secret")
    clock = SteppedClock()

    async def main() -> None:
        canned = Canned(answer)
        async with canned as url:
            config = PlannerConfig(base_url=url, model="m", retries=2, simulated_latency_s=0)
            async with Planner(config, clock) as planner:
                with pytest.raises(PlannerError) as error:
                    await planner.ask(CheckPrompt(), SEEN)
        assert error.value.kind == kind
        assert "sk-" not in str(error.value)
        assert len(canned.heard) == exchanges
        # of which, after a 404, one is for the list of models
        assert all(b"authorization: bearer sk-secret" in each.lower() for each in canned.heard)

    clock.run(main)
    waits = {"http_429": 14, "http_503": 1.5, "unreachable": 1.5}
    assert clock.now_ns() == round(waits.get(kind, 0) * NS_PER_S)


def test_credentials_of_the_server_are_not_said() -> None:
    error = PlannerError("start", "unreachable", "refused", "http://me:hunter2@gpu/v1")
    assert error.where == "http://***@gpu/v1"
    assert "hunter2" not in str(error)


@pytest.mark.parametrize("key", ["sk-secret\n", "sk-secret\r", "sk-se\ncret", "sk-se\x7f\rcret", "sk-sécret"])
def test_a_key_that_no_header_takes_is_not_printed(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The libraries refuse such a header, and say which it was."""
    monkeypatch.setenv("DEXRUN_PLANNER_API_KEY", key)
    clock = SteppedClock()

    async def main() -> None:
        canned = Canned(chat("True: nothing is left"))
        async with canned as url:
            config = PlannerConfig(base_url=url, model="m", retries=0, simulated_latency_s=0)
            async with Planner(config, clock) as planner:
                if key.strip() == "sk-secret":
                    assert (await planner.ask(CheckPrompt(), SEEN)).value
                    assert b"authorization: bearer sk-secret\r\n" in canned.heard[0].lower()
                    return
                with pytest.raises(PlannerError) as error:
                    await planner.ask(CheckPrompt(), SEEN)
        assert "sk-" not in str(error.value)
        assert "cret" not in str(error.value)

    clock.run(main)


def test_nobody_listens() -> None:
    async def main() -> None:
        async with Canned(b"") as url:
            pass  # the port is free again now
        async with Planner(PlannerConfig(base_url=url, model="m", retries=1), clock) as planner:
            with pytest.raises(PlannerError) as error:
                await planner.ask(CheckPrompt(), SEEN)
        assert error.value.kind == "unreachable"

    clock = SteppedClock()
    clock.run(main)
    # a refusal also takes the simulated latency to arrive, twice, and the backoff lies between
    assert clock.now_ns() == round((2 * 0.3 + 0.5) * NS_PER_S)


def test_an_unknown_host_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_args: Any, **_more: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    async def main() -> None:
        config = PlannerConfig(base_url="http://no-such-host.invalid/some/v1", model="m")
        async with Planner(config, clock) as planner:
            monkeypatch.setattr(socket, "getaddrinfo", unknown)
            with pytest.raises(PlannerError) as error:
                await planner.ask(CheckPrompt(), SEEN)
        assert error.value.kind == "unknown_host"
        assert "host 'no-such-host.invalid' is not known: Name or service not known" in str(error.value)
        assert planner.statistics()["retries"] == 0

    clock = SteppedClock()
    clock.run(main)


def test_a_proxy_of_the_environment_is_not_asked_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)

    async def main() -> None:
        async with (
            Canned(http("404 Not Found", "{}", JSON)) as url,
            Planner(PlannerConfig(base_url=url, model="m"), clock) as planner,
        ):
            with pytest.raises(PlannerError) as error:
                await planner.ask(CheckPrompt(), SEEN)
        assert error.value.kind == "http_404"

    clock = SteppedClock()
    clock.run(main)


def test_one_line_of_configuration_names_another_server() -> None:
    """With nothing but an address, the first model listed there is asked."""
    clock = SteppedClock()
    log: list[Exchange] = []

    async def main() -> None:
        reader = SceneReader(SceneReaderConfig())
        await reader.start()
        try:
            async with Planner(PlannerConfig(base_url=reader.base_url), clock, log.append) as planner:
                assert planner.scene_reader is None
                assert (await planner.ask(Classify("the red one"))).type == "I"
        finally:
            await reader.close()

    clock.run(main)
    assert log[0].model == "scene-reader"


def test_boxes_per_mille() -> None:
    box = {"bbox_2d": [500, 250, 750, 1000], "label": "a", "description": "b"}
    clock = SteppedClock()

    async def main() -> None:
        async with Canned(chat(json.dumps(box))) as url:
            config = PlannerConfig(base_url=url, model="m", box_units="per_mille")
            async with Planner(config, clock) as planner:
                assert (await planner.ask(Mark("a"), SEEN)).bbox_2d == (320, 120, 480, 480)

    clock.run(main)


def test_cancelling_a_call_hangs_up() -> None:
    """On the real clock, so that the exchange is truly in flight."""

    async def main() -> None:
        canned = Canned(b"")
        async with canned as url, Planner(PlannerConfig(base_url=url, model="m"), RealClock()) as planner:
            async with anyio.create_task_group() as group:
                group.start_soon(planner.ask, CheckPrompt(), SEEN)
                await canned.asked.wait()
                group.cancel_scope.cancel()
            await canned.hung_up.wait()
            assert planner.statistics()["calls"] == 1

    RealClock().run(main)


def test_closing_ends_calls_in_flight() -> None:
    async def main() -> None:
        canned = Canned(b"")
        async with canned as url:
            planner = Planner(PlannerConfig(base_url=url, model="m"), RealClock())
            await planner.open()
            call = asyncio.create_task(planner.ask(CheckPrompt(), SEEN))
            await canned.asked.wait()
            await planner.aclose()
            await planner.aclose()
            with pytest.raises(PlannerError) as error:
                await call
            assert error.value.kind in ("closed", "unreachable")
            with pytest.raises(PlannerError, match="not open"):
                await planner.ask(CheckPrompt(), SEEN)
            await canned.hung_up.wait()

    RealClock().run(main)


def test_a_real_timeout() -> None:
    """A server that accepts and says nothing is left after `timeout_s` of wall time."""

    async def main() -> None:
        async with Canned(b"") as url:
            config = PlannerConfig(
                base_url=url, model="m", timeout_s=0.05, deadline_s=600, retries=1, backoff_s=0.01
            )
            async with Planner(config, RealClock()) as planner:
                with pytest.raises(PlannerError) as error:
                    await planner.ask(CheckPrompt(), SEEN)
                assert error.value.kind == "timeout"
                assert planner.statistics()["faults"] == {"timeout": 2}

    RealClock().run(main)


def test_a_dead_server_does_not_stop_simulated_time_for_ever() -> None:
    clock = SteppedClock()

    async def main() -> None:
        async with Canned(b"") as url:
            config = PlannerConfig(
                base_url=url, model="m", timeout_s=0.05, deadline_s=5, retries=1, backoff_s=1
            )
            async with Planner(config, clock) as planner:
                with pytest.raises(PlannerError, match="timeout"):
                    await planner.ask(CheckPrompt(), SEEN)

    clock.run(main)
    assert clock.now_ns() == round(1.1 * NS_PER_S)


def test_a_port_in_use_is_said() -> None:
    clock = SteppedClock()

    async def main() -> None:
        reader = SceneReader(SceneReaderConfig())
        await reader.start()
        port = int(reader.base_url.rsplit(":", 1)[1].split("/")[0])
        try:
            with pytest.raises(PlannerError, match="in use"):
                await Planner(PlannerConfig(scene_reader=SceneReaderConfig(port=port)), clock).open()
        finally:
            await reader.close()

    clock.run(main)


def test_the_loop_goes_on_while_an_answer_is_awaited() -> None:
    """On the stepped clock others' sleeps end while a reply is on its way, in order."""
    events: list[str] = []

    async def use(planner: Planner, clock: SteppedClock) -> None:
        async def tick() -> None:
            for number in range(4):
                await clock.sleep_until_ns(round(number * 0.1 * NS_PER_S))
                events.append(f"tick {number}")

        async with anyio.create_task_group() as group:
            group.start_soon(tick)
            await planner.ask(CheckPrompt(), SEEN)
            events.append("reply")

    stepped(use)
    assert events == ["tick 0", "tick 1", "tick 2", "reply", "tick 3"]


def test_two_runs_are_one() -> None:
    logs: list[list[Exchange]] = [[], []]
    for log in logs:

        async def use(planner: Planner, _: SteppedClock) -> None:
            await planner.ask(Decompose("everything blue or red"), SEEN)
            await planner.ask(Propose(), SEEN)

        stepped(use, log.append)
    assert logs[0] == logs[1]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"timeout_s": 9, "deadline_s": 3}, "deadline_s"),
        ({"base_url": "gpu:8000"}, "base_url"),
        ({"jpeg_quality": 0}, "jpeg_quality"),
        ({"api_key": "sk-1"}, "api_key"),
        ({"scene_reader": {"fault": "fire"}}, "fault"),
    ],
)
def test_bad_configuration(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        PlannerConfig(**options)
