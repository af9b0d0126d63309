"""What servers put into a chat completion beside, or instead of, an answer."""

from __future__ import annotations

import json
from typing import Any

import pytest

from planner.client import Planner
from planner.config import PlannerConfig
from planner.errors import PlannerError
from planner.questions.check_prompt import CheckPrompt
from runtime.clock import NS_PER_S
from runtime.stepped import SteppedClock
from tests.planner.test_client import JSON, SEEN, Canned, http

SAID = "True: nothing is left"


def choice(content: Any = SAID, finish: str | None = "stop", **message: Any) -> dict[str, Any]:
    return {
        "index": 0,
        "finish_reason": finish,
        "message": {"role": "assistant", "content": content, **message},
    }


def completion(*choices: Any) -> str:
    return json.dumps(
        {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": choices}
    )


def asked(answer: bytes, **options: Any) -> tuple[str, str, int, int]:
    """What came of one question to a server that gives `answer`.

    Returns:
        The error's kind and detail, or ``said`` and the reason; how often it was asked; nanoseconds it took.
    """
    clock = SteppedClock()
    found: list[tuple[str, str, int]] = []

    async def main() -> None:
        server = Canned(answer)
        config = {"model": "m", "retries": 1, "simulated_latency_s": 0.0, **options}
        async with server as url, Planner(PlannerConfig(base_url=url, **config), clock) as planner:
            try:
                reply = await planner.ask(CheckPrompt(), SEEN)
            except PlannerError as error:
                found.append((error.kind, error.detail, len(server.heard)))
            else:
                found.append(("said", reply.reason, len(server.heard)))
            assert all(b'"stream":false' in each for each in server.heard if each.startswith(b"POST"))

    clock.run(main)
    return (*found[0], clock.now_ns())


@pytest.mark.parametrize(
    "reason", ["length", "max_tokens", "MAX_TOKENS", "model_length", "max_output_tokens", "incomplete"]
)
def test_a_reply_that_was_cut_off_is_no_reply_however_the_server_says_so(reason: str) -> None:
    kind, detail, times, _ = asked(http("200 OK", completion(choice("False: cup, pl", reason)), JSON))
    assert (kind, times) == ("malformed", 2)
    assert detail == "asked twice; the reply was cut off at planner.max_completion_tokens"


@pytest.mark.parametrize("reason", ["content_filter", "SAFETY", "RECITATION", "refusal", "sensitive"])
def test_a_filtered_reply_is_a_refusal(reason: str) -> None:
    assert asked(http("200 OK", completion(choice("True: the t", reason)), JSON))[0] == "refused"


def test_a_refusal_may_be_a_part_of_the_content() -> None:
    answer = completion(choice([{"type": "refusal", "refusal": "I would rather not"}]))
    assert asked(http("200 OK", answer, JSON))[:2] == ("refused", "I would rather not (asked once)")


@pytest.mark.parametrize("reason", ["error", "abort", "network_error", "insufficient_system_resource"])
def test_a_reply_that_the_server_broke_off_is_asked_for_again(reason: str) -> None:
    kind, detail, times, _ = asked(http("200 OK", completion(choice("True: the t", reason)), JSON))
    assert (kind, times) == ("broken_off", 2)
    assert detail == f"the server broke its reply off: {reason} (asked 2 times)"


@pytest.mark.parametrize("reason", [None, "stop", "eos_token", "STOP", "end_turn"])
def test_a_whole_reply_may_have_ended_in_any_other_way(reason: str | None) -> None:
    assert asked(http("200 OK", completion(choice(finish=reason)), JSON))[:2] == ("said", "nothing is left")


@pytest.mark.parametrize(
    ("body", "kind", "said"),
    [
        (
            json.dumps({"error": {"message": "Provider returned error", "code": 502}}),
            "http_502",
            "Provider ret",
        ),
        (json.dumps({"error": {"message": "no credit", "code": 402}}), "http_402", "no credit"),
        (
            json.dumps({"object": "error", "message": "still loading", "code": 503}),
            "http_503",
            "still loading",
        ),
        (
            completion({**choice("", "error"), "error": {"code": 429, "message": "upstream is busy"}}),
            "http_429",
            "upstream is busy",
        ),
        (json.dumps({"error": {"message": "of its own", "code": 999}}), "malformed", "an error: of its own"),
        (
            json.dumps({"error": "model overloaded"}),
            "malformed",
            "the server reports an error: model overloaded",
        ),
    ],
)
def test_an_error_within_an_answer_is_told_and_treated_as_one(body: str, kind: str, said: str) -> None:
    found, detail, times, _ = asked(http("200 OK", body, JSON))
    assert found == kind
    assert said in detail
    assert times == (1 if kind == "http_402" else 2)


def test_an_error_within_an_answer_may_ask_to_wait() -> None:
    body = json.dumps({"error": {"message": "busy, try again in 7s", "code": 429}})
    assert asked(http("200 OK", body, JSON))[3] == 7 * NS_PER_S


@pytest.mark.parametrize(
    ("choices", "kind"),
    [
        ([choice(), {**choice(), "index": 1}], "said"),
        ([choice(""), {**choice(), "index": 1}], "said"),
        ([choice(), {**choice("False: cup"), "index": 1}], "malformed"),
        ([choice(), {**choice(None, refusal="no, I would rather not"), "index": 1}], "refused"),
    ],
)
def test_of_several_candidates_that_differ_none_is_chosen(choices: list[Any], kind: str) -> None:
    found, detail, *_ = asked(http("200 OK", completion(*choices), JSON))
    assert found == kind
    assert kind != "malformed" or "one reply was asked for, and the server gave 2 that differ" in detail


@pytest.mark.parametrize("name", ["tool_calls", "function_call"])
def test_a_call_of_a_tool_is_told_to_be_one(name: str) -> None:
    called = [{"id": "1", "type": "function", "function": {"name": "answer", "arguments": "{}"}}]
    _, detail, *_ = asked(http("200 OK", completion(choice(None, "tool_calls", **{name: called})), JSON))
    assert "the reply calls a tool, of which none was offered" in detail


@pytest.mark.parametrize("header", [[], ["content-type: text/plain"], ["Content-Type: Application/JSON"]])
def test_json_is_read_whatever_it_is_called(header: list[str]) -> None:
    assert asked(http("200 OK", completion(choice()), *header))[0] == "said"


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        ("404 Not Found", '{"error": "model \'m\' not found"}', "Error code: 404: model 'm' not found"),
        ("401 Unauthorized", '{"detail": "Not authenticated"}', "Error code: 401: Not authenticated"),
        (
            "422 Unprocessable",
            '{"detail": [{"loc": ["x"], "msg": "too many images"}]}',
            "422: too many images",
        ),
        ("400 Bad Request", '[{"error": {"code": 400, "message": "no such model"}}]', "400: no such model"),
        ("413 Too Large", "the body is too large", "Error code: 413: the body is too large"),
        ("403 Forbidden", "<html><p>Forbidden</p></html>", "Error code: 403 (asked once)"),
        ("400 Bad Request", "[" * 50_000, "Error code: 400"),
    ],
)
def test_what_a_refusal_says_is_told_wherever_it_stands(status: str, body: str, said: str) -> None:
    assert said in asked(http(status, body, "content-type: text/plain"))[1]
