"""Servers that speak otherwise than the scene reader does: as other models and their servers are known to."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from typing import Any

import numpy as np
import pytest
from loguru import logger

from planner.box_text import NotedCorners
from planner.box_units import HINT, BoxUnits, shown, shown_box
from planner.client import Planner
from planner.config import PlannerConfig
from planner.errors import PlannerError
from planner.exchange import Exchange
from planner.questions.check_grasp import CheckGrasp
from planner.questions.check_prompt import CheckPrompt
from planner.questions.mark import Mark
from planner.questions.question import Canvas
from planner.reply_text import ReplyError
from planner.retry_after import asked_to_wait_s
from planner.scene_reader import chat
from planner.scene_reader.vision import read
from runtime.clock import NS_PER_S
from runtime.http_server import HttpLimits, HttpRequest, HttpResponse, HttpServer
from runtime.stepped import SteppedClock
from tests.planner.test_client import BOTH, JSON, SEEN, Canned, http

LIMITS = HttpLimits(16_384, 8_000_000, 30.0, 32, keep_alive=True)
Change = Callable[[str], Any]
RED_CUBE = (434, 134, 468, 167)


class Server:
    """The scene reader's answers, said in another manner; `refuse` comes first where it gives a response.

    Attributes:
        requests: the completions that were asked for.
    """

    def __init__(self, change: Change = lambda text: text, models: tuple[str, ...] = ("a",)) -> None:
        self._change = change
        self.models = models
        self.requests: list[dict[str, Any]] = []
        self.refusals: list[HttpResponse] = []

    async def answer(self, request: HttpRequest) -> HttpResponse:
        if request.method == "GET":
            return self._json(200, {"data": [{"id": name} for name in self.models]})
        asked = json.loads(request.body)
        self.requests.append(asked)
        if self.refusals:
            return self.refusals.pop(0)
        if asked["model"] not in self.models:
            return self._json(404, {"error": {"message": f"The model `{asked['model']}` does not exist."}})
        completion = json.loads(chat.complete(request.body).body)
        message = completion["choices"][0]["message"]
        message["content"] = self._change(message["content"])
        return self._json(200, completion)

    def _json(self, status: int, value: Any) -> HttpResponse:
        return HttpResponse(status, json.dumps(value).encode(), "application/json")


def asking(
    server: Server,
    use: Callable[[Planner, SteppedClock], Awaitable[None]],
    log: list[Exchange] | None = None,
    **options: Any,
) -> SteppedClock:
    """Run `use` with a planner that asks `server`, over sockets."""
    clock = SteppedClock()

    async def main() -> None:
        listening = HttpServer(server.answer, LIMITS)
        port = await listening.open("127.0.0.1", 0)
        try:
            config = PlannerConfig(
                **{"base_url": f"http://127.0.0.1:{port}/v1", "simulated_latency_s": 0.0, **options}
            )
            async with Planner(config, clock, None if log is None else log.append) as planner:
                await use(planner, clock)
        finally:
            await listening.close()

    clock.run(main)
    return clock


def boxes(change: Callable[[list[float]], Any]) -> Change:
    """Changes the box of a reply that has one."""

    def changed(text: str) -> str:
        if (found := re.search(r"\{.*\}", text, re.DOTALL)) is None or '"bbox_2d"' not in text:
            return text
        box = json.loads(found[0])["bbox_2d"]
        return text if box is None else json.dumps({"bbox_2d": change(box)})

    return changed


def by(x: float, y: float, digits: int = 0) -> Change:
    return boxes(lambda b: [round(v * (x, y)[i % 2], digits) for i, v in enumerate(b)])


@pytest.mark.parametrize(
    ("change", "within"),
    [
        (by(1, 1), 0.1),
        (by(1000 / 640, 1000 / 480), 1),
        (by(1 / 640, 1 / 480, 4), 1),
        (by(644 / 640, 476 / 480), 4),
        (by(0.5, 0.5), 2),
        (by(1024 / 640, 1024 / 480), 1),
        (boxes(lambda b: [b[1], b[0], b[3], b[2]]), 0.1),
        (
            boxes(
                lambda b: [
                    round(v * (1000 / 480, 1000 / 640)[i % 2]) for i, v in enumerate((b[1], b[0], b[3], b[2]))
                ]
            ),
            1,
        ),
        (boxes(lambda b: f"({b[0]},{b[1]}),({b[2]},{b[3]})"), 0.1),
        (lambda text: [{"type": "thinking", "thinking": [text]}, {"type": "text", "text": text}], 0.1),
        (lambda text: f"No closing tag yet. {text}\n</think>\n\n{text}", 0.1),
    ],
    ids=[
        "pixels",
        "thousandths",
        "fractions",
        "multiples of 28",
        "halved",
        "of 1024",
        "top first",
        "top first in thousandths",
        "text",
        "parts",
        "think",
    ],
)
def test_a_box_is_where_the_object_is_in_whatever_the_model_counts(change: Change, within: float) -> None:
    log: list[Exchange] = []

    async def use(planner: Planner, _: SteppedClock) -> None:
        for _ in range(2):
            assert (await planner.ask(Mark("the red cube"), SEEN)).bbox_2d == pytest.approx(
                RED_CUBE, abs=within
            )

    asking(Server(change), use, log)
    tasks = [entry.task for entry in log]
    assert tasks == ["find_box_units", "mark_bounding_box", "mark_bounding_box"]


def test_a_configured_unit_is_not_asked_for() -> None:
    async def use(planner: Planner, _: SteppedClock) -> None:
        box = (await planner.ask(Mark("the red cube"), SEEN)).bbox_2d
        assert box == pytest.approx(RED_CUBE, abs=1)

    server = Server(by(1 / 640, 1 / 480, 4))
    asking(server, use, box_units="fractions")
    assert len(server.requests) == 1


@pytest.mark.parametrize("size", [(640, 480), (1280, 720), (480, 640)])
def test_the_drawn_picture_has_on_it_what_is_said_of_it(size: tuple[int, int]) -> None:
    (found,) = read(shown(*size)).on_table
    assert found.box == pytest.approx(shown_box(*size), abs=2)


def test_where_the_drawn_picture_tells_nothing_boxes_do() -> None:
    """Of a model that sees boxes everywhere. One that cannot be in pixels of the picture may be in those of
    another, to which it was resized: nothing is learned from it.
    """
    units = BoxUnits("auto")
    assert units.to_be_shown()
    units.learn((1, 1, 5, 5), 640, 480)
    with pytest.raises(ReplyError, match="may be in pixels of 640 by 480 or in thousandths") as either:
        units.extent((100, 100, 200, 200), 640, 480)
    assert either.value.hint == HINT
    assert units.extent((100, 700, 200, 900), 640, 480) == (1000, 1000)
    with pytest.raises(ReplyError, match="may be in pixels of 640 by 480 or in thousandths"):
        units.extent((100, 100, 200, 200), 640, 480)
    with pytest.raises(ReplyError, match="not inside the picture of 640 by 480"):
        units.extent((100, 100, 1200, 200), 640, 480)
    assert BoxUnits("auto").extent((100, 100, 1700, 200), 1920, 1080) == (1920, 1080)
    fractions = BoxUnits("auto")
    assert fractions.extent((0.1, 0.2, 0.3, 1.0), 640, 480) == (1, 1)
    with pytest.raises(ReplyError, match="not inside the picture of 1 by 1"):
        fractions.extent((100, 700, 200, 900), 640, 480)


def test_a_noted_unit_counts_whatever_was_learned() -> None:
    noted = NotedCorners((125, 250, 375, 500), "per_mille")
    units = BoxUnits("auto")
    units.learn(shown_box(640, 480), 640, 480)
    assert units.extent((125, 250, 375, 400), 640, 480) == (640, 480)
    assert units.extent(noted, 640, 480) == (1000, 1000)
    fractions = BoxUnits("auto")
    assert fractions.extent((0.1, 0.2, 0.3, 1.0), 640, 480) == (1, 1)
    assert fractions.extent(noted, 640, 480) == (1000, 1000)
    assert BoxUnits("pixels").extent(noted, 640, 640) == (640, 640)  # as configured


@pytest.mark.parametrize(("side", "off", "tells"), [(1000, 0, False), (1004, 2, False), (1024, 0, True)])
def test_of_a_picture_of_a_thousand_pixels_nothing_is_learned(side: int, off: int, tells: bool) -> None:
    units = BoxUnits("auto")
    x1, y1, x2, y2 = shown_box(side, side)
    units.learn((x1 - off, y1, x2 - off, y2), side, side)
    if tells:
        assert units.extent((100, 100, 200, 200), 640, 480) == (640, 480)
        return
    with pytest.raises(ReplyError, match="may be in pixels of 640 by 480 or in thousandths"):
        units.extent((100, 100, 200, 200), 640, 480)


@pytest.mark.parametrize(
    ("moved", "grown", "counts"),
    [
        ((10, 10), 0, "pixels"),
        ((-4, 12), 0, "pixels"),
        ((0, 0), 20, "pixels"),
        ((25, 25), 0, ""),
        ((0, 80), 0, ""),
    ],
    ids=["a little off", "farther down", "too large", "off", "beside a border"],
)
def test_a_box_that_is_off_is_no_scale(moved: tuple[int, int], grown: int, counts: str) -> None:
    """Taken for one, every box near the other edges would be off by far more."""
    units = BoxUnits("auto")
    x1, y1, x2, y2 = shown_box(640, 480)
    (x, y) = moved
    units.learn((x1 + x - grown, y1 + y - grown, x2 + x + grown, y2 + y + grown), 640, 480)
    if counts:
        assert units.extent((300, 200, 350, 260), 640, 480) == (640, 480)
        return
    with pytest.raises(ReplyError, match="may be in pixels of 640 by 480 or in thousandths"):
        units.extent((300, 200, 350, 260), 640, 480)


def test_how_another_picture_is_resized_is_not_known() -> None:
    units = BoxUnits("auto")
    x1, y1, x2, y2 = shown_box(640, 480)
    units.learn((1.4 * x1, 1.8667 * y1, 1.4 * x2, 1.8667 * y2), 640, 480)
    assert units.extent((100, 100, 200, 200), 640, 480) == pytest.approx((896, 896), abs=1)
    with pytest.raises(ReplyError, match="320 by 240 is resized to is not known, only one of 640 by 480"):
        units.extent((100, 100, 200, 200), 320, 240)


def test_a_box_in_no_units_is_refused_with_the_hint() -> None:
    async def use(planner: Planner, _: SteppedClock) -> None:
        with pytest.raises(
            PlannerError, match=r"not inside .*; planner\.box_units says what the model counts in"
        ):
            await planner.ask(Mark("the red cube"), SEEN)

    asking(Server(boxes(lambda b: [5000, 5000, 5100, 5100])), use)


def refusal(status: int, *headers: tuple[str, str], body: str = "{}") -> HttpResponse:
    return HttpResponse(status, body.encode(), "application/json", headers)


@pytest.mark.parametrize(
    ("headers", "body", "seconds"),
    [
        ({"retry-after": "90"}, "", 90),
        ({"retry-after": "1.5"}, "", 1.5),
        ({"retry-after": "30s"}, "", 30),
        ({"retry-after-ms": "5000", "retry-after": "90"}, "", 5),
        ({"retry-after": "Fri, 27 Nov 2026 12:00:05 GMT", "date": "Fri, 27 Nov 2026 12:00:00 GMT"}, "", 5),
        ({"retry-after": "Friday, 27-Nov-26 12:01:00 GMT", "date": "Fri, 27 Nov 2026 12:00:00 GMT"}, "", 60),
        ({"retry-after": "Fri, 27 Nov 2026 11:00:00 GMT", "date": "Fri, 27 Nov 2026 12:00:00 GMT"}, "", 0),
        (
            {},
            '{"error": {"details": [{"@type": "type.googleapis.com/RetryInfo", "retryDelay": "34.5s"}]}}',
            34.5,
        ),
        ({}, '{"error": {"message": "Rate limit reached. Please try again in 7.66s."}}', 7.66),
        ({}, '{"error": {"message": "Please try again in 120ms."}}', 0.12),
        ({}, '{"error": {"message": "Please try again in 1m30.5s."}}', 90.5),
        ({}, '{"error": {"message": "Please try again in 6m0s. Need more tokens?"}}', 360.0),
        ({}, '{"error": {"message": "Please retry after 1 hour 2 minutes."}}', 3720.0),
        ({}, '{"error": {"message": "Please try again in 3 milliseconds."}}', 0.003),
        ({}, '{"error": {"message": "Please try again in 1 day."}}', 86_400),
        ({}, '{"error": {"code": 429, "retry_after": 20}}', 20),
        ({}, "Please wait 12 seconds before the next request", 12),
        ({}, "Please wait 5 more seconds", 0),
        ({"retry-after": "2m"}, "", 120),
        ({"retry-after": "500ms"}, "", 0.5),
        ({"retry-after": "120, 120"}, "", 120),
        ({"retry-after": "2026-11-27T12:00:05Z", "date": "Fri, 27 Nov 2026 12:00:00 GMT"}, "", 5),
        ({"retry-after": "soon"}, "", 0),
        ({"retry-after": "-3"}, "", 0),
        ({"retry-after": "nan"}, "", 0),
        ({"retry-after": "9" * 400}, "", 0),
        ({"retry-after": "Fri, 99 Nov 99999 12:00:05 GMT"}, "", 0),
        ({}, "", 0),
    ],
)
def test_retry_after_in_every_form(headers: dict[str, str], body: str, seconds: float) -> None:
    assert asked_to_wait_s(headers, body) == pytest.approx(seconds)


def test_a_date_without_the_servers_own_counts_from_now() -> None:
    from runtime.clock import RealClock

    date = formatdate(RealClock().wall_ns() / NS_PER_S + 60, usegmt=True)
    assert asked_to_wait_s({"retry-after": date}) == pytest.approx(60, abs=5)


def test_a_server_that_asks_for_rest_gets_it_and_it_is_said() -> None:
    said: list[str] = []
    server = Server()
    server.refusals = [refusal(429, ("retry-after", "90"))]

    async def use(planner: Planner, clock: SteppedClock) -> None:
        await planner.ask(CheckPrompt(), SEEN)
        assert clock.now_ns() == 90 * NS_PER_S  # beyond deadline_s, which is the server's own time

    handler = logger.add(lambda line: said.append(str(line)), format="{message}")
    try:
        asking(server, use)
    finally:
        logger.remove(handler)
    assert len(server.requests) == 2
    assert any("asks to wait (http_429): waiting 90 s" in line for line in said)


def test_longer_than_the_budget_is_not_waited_for_and_nobody_is_asked_meanwhile() -> None:
    server = Server()
    server.refusals = [refusal(503, ("retry-after", "600"))]

    async def use(planner: Planner, clock: SteppedClock) -> None:
        for _ in range(3):
            with pytest.raises(
                PlannerError, match=r"asks to wait 600 s, more than planner\.wait_max_s = 120"
            ) as e:
                await planner.ask(CheckPrompt(), SEEN)
            assert e.value.kind == "http_503"
        assert len(server.requests) == 1
        await clock.sleep_until_ns(590 * NS_PER_S)
        await planner.ask(CheckPrompt(), SEEN)
        assert clock.now_ns() == 600 * NS_PER_S

    asking(server, use)


@pytest.mark.parametrize("configured", [None, "a"])
def test_a_renamed_model_is_asked_by_its_new_name(configured: str | None) -> None:
    server = Server()

    async def use(planner: Planner, _: SteppedClock) -> None:
        await planner.ask(CheckPrompt(), SEEN)
        server.models = ("b",)
        await planner.ask(CheckPrompt(), SEEN)
        await planner.ask(CheckPrompt(), SEEN)

    asking(server, use, model=configured)
    assert [each["model"] for each in server.requests] == ["a", "a", "b", "b"]


def test_of_several_models_none_is_chosen_and_they_are_named() -> None:
    async def use(planner: Planner, _: SteppedClock) -> None:
        with pytest.raises(PlannerError, match=r"http_404.*it lists b, c: name one with planner\.model"):
            await planner.ask(CheckPrompt(), SEEN)

    asking(Server(models=("b", "c")), use, model="a")


def test_a_server_elsewhere_is_told_by_its_address() -> None:
    async def main() -> None:
        async with (
            Canned(http("404 Not Found", "{}", JSON)) as url,
            Planner(PlannerConfig(base_url=url, model="m"), clock) as planner,
        ):
            with pytest.raises(PlannerError, match=r"does planner\.base_url end where its API begins"):
                await planner.ask(CheckPrompt(), SEEN)

    clock = SteppedClock()
    clock.run(main)


@pytest.mark.parametrize(
    ("status", "code"), [(400, ""), (200, ', "code": 400'), (200, ', "code": "unsupported_value"'), (200, "")]
)
def test_what_a_server_does_not_take_is_left_out(status: int, code: str) -> None:
    """Of a proxy, the refusal of what is behind it comes as an answer of status 200."""
    server = Server()
    said = "Unsupported value: 'temperature' does not support 0"
    server.refusals = [
        refusal(
            422, body='{"detail": [{"loc": ["body", "max_completion_tokens"], "msg": "extra_forbidden"}]}'
        ),
        refusal(status, body=f'{{"error": {{"message": "{said}"{code}}}}}'),
    ]

    async def use(planner: Planner, _: SteppedClock) -> None:
        await planner.ask(CheckPrompt(), SEEN)
        await planner.ask(CheckPrompt(), SEEN)

    asking(server, use)
    last = server.requests[-1]
    assert len(server.requests) == 4
    assert last["max_tokens"] == 1024
    assert not {"max_completion_tokens", "temperature"} & set(last)


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (400, "System role not supported"),
        (500, "Conversation roles must alternate user/assistant/user/assistant/..."),
        (200, "Conversation roles must alternate user/assistant/user/assistant/..."),
    ],
)
def test_a_model_without_a_system_role_is_told_by_the_person(status: int, said: str) -> None:
    server = Server()
    server.refusals = [refusal(status, body=json.dumps({"error": {"message": said}}))]

    async def use(planner: Planner, _: SteppedClock) -> None:
        await planner.ask(CheckPrompt(), SEEN)
        await planner.ask(CheckPrompt(), SEEN)
        assert planner.statistics()["retries"] == 0

    asking(server, use)
    first, *later = server.requests
    assert [each["role"] for each in first["messages"]] == ["system", "user"]
    system, (text, *pictures) = first["messages"][0]["content"], first["messages"][1]["content"]
    for request in later:
        (message,) = request["messages"]
        assert message["role"] == "user"
        assert message["content"][0]["text"] == f"{system}\n\n{text['text']}"
        assert message["content"][1:] == pictures
    assert len(later) == 2


@pytest.mark.parametrize(
    "said",
    [
        '{"bbox_2d": [20, 10, 40, 30]}',
        '{"x1": 10, "y1": 20, "x2": 30, "y2": 40}',
        '{"bbox_2d": {"x": 10, "y": 20, "width": 20, "height": 20}}',
    ],
)
def test_of_a_model_that_puts_the_top_first_corners_by_name_are_what_they_are_called(said: str) -> None:
    units = BoxUnits("auto")
    x1, y1, x2, y2 = shown_box(640, 480)
    units.learn((y1, x1, y2, x2), 640, 480)
    box = Mark.parse(said, [Canvas(640, 480, 640, 480, units)])
    assert box is not None
    assert box.bbox_2d == (10, 20, 30, 40)


def test_roles_alternate_after_a_reply_that_was_none() -> None:
    """Chat templates of Gemma and of Mistral's first models refuse two questions in a row."""
    said = iter(["", "True: nothing is left"])
    server = Server(lambda _: next(said))
    log: list[Exchange] = []

    async def use(planner: Planner, _: SteppedClock) -> None:
        assert (await planner.ask(CheckPrompt(), SEEN)).value

    asking(server, use, log)
    first, second = (each["messages"] for each in server.requests)
    assert [each["role"] for each in second] == ["system", "user"]
    again = {"type": "text", "text": log[1].prompt}
    assert second[1]["content"] == [*first[1]["content"], again]
    assert "the reply is empty" in log[1].prompt


@pytest.mark.parametrize(
    "said", ["At most 1 image(s) may be provided in one request.", "This model takes only one image"]
)
def test_a_server_of_one_picture_at_a_time_gets_the_one_that_is_needed(said: str) -> None:
    """As vLLM has it where nothing else is configured; the wrist's picture was optional."""
    server = Server()
    log: list[Exchange] = []
    server.refusals = [refusal(400, body=json.dumps({"error": {"message": said}}))]

    async def use(planner: Planner, _: SteppedClock) -> None:
        for _ in range(2):
            await planner.ask(CheckGrasp("the cube"), BOTH)
        assert planner.statistics()["errors"] == 0

    asking(server, use, log)
    shown = [
        sum(part["type"] == "image_url" for part in each["messages"][1]["content"])
        for each in server.requests
    ]
    assert shown == [2, 1, 1]
    assert (
        "The picture is the camera over the table." in server.requests[1]["messages"][1]["content"][0]["text"]
    )
    assert [len(each.images) for each in log] == [2, 1, 1]


def test_a_server_that_takes_no_picture_at_all_is_told_of() -> None:
    server = Server()
    server.refusals = [refusal(400, body=json.dumps({"error": {"message": "At most 0 image(s) may be"}}))]

    async def use(planner: Planner, _: SteppedClock) -> None:
        with pytest.raises(PlannerError, match="At most 0 image"):
            await planner.ask(CheckPrompt(), SEEN)

    asking(server, use)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([{"type": "text", "text": "Tr"}, {"type": "text", "text": "ue"}], True),
        ([{"type": "reasoning", "text": "False"}, {"type": "output_text", "text": "True"}], True),
        ({"type": "text", "text": "True"}, True),
        (["True"], True),
        ([], None),
        ([{"type": "image_url", "image_url": {"url": "x"}}, 3, None], None),
        (7, None),
    ],
)
def test_content_in_parts(content: object, said: bool | None) -> None:
    async def use(planner: Planner, _: SteppedClock) -> None:
        if said is None:
            with pytest.raises(PlannerError, match="the reply is empty"):
                await planner.ask(CheckPrompt(), SEEN)
        else:
            assert (await planner.ask(CheckPrompt(), SEEN)).value is said

    asking(Server(lambda _: content), use)


def test_thoughts_beside_no_answer_are_not_taken_for_it() -> None:
    message = {"role": "assistant", "content": None, "reasoning_content": "True: yes"}
    body = {"choices": [{"index": 0, "finish_reason": "stop", "message": message}]}

    async def main() -> None:
        async with (
            Canned(http("200 OK", json.dumps(body), JSON)) as url,
            Planner(PlannerConfig(base_url=url, model="m"), clock) as planner,
        ):
            with pytest.raises(
                PlannerError, match="malformed: asked twice; the reply has thoughts and no answer"
            ):
                await planner.ask(CheckPrompt(), SEEN)

    clock = SteppedClock()
    clock.run(main)


def test_the_drawn_picture_is_an_image() -> None:
    assert shown(64, 48).shape == (48, 64, 3)
    assert shown(64, 48).dtype == np.uint8
