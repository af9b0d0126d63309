"""Servers that answer what no chat completion server would."""

from __future__ import annotations

import pytest

from planner.client import Planner
from planner.config import PlannerConfig
from planner.errors import PlannerError
from runtime.stepped import SteppedClock
from tests.planner.test_client import JSON, PICTURE, Canned, http


@pytest.mark.parametrize(
    ("answer", "what"),
    [
        (http("200 OK", "<html>a web page</html>", "content-type: text/html; charset=utf-8"), "text/html"),
        (http("200 OK", '["m"]', JSON), "application/json"),
        (http("200 OK", '"m"', JSON), "application/json"),
        (http("200 OK", "null", JSON), "application/json"),
        (http("200 OK", '{"data": "m"}', JSON), "application/json"),
        (http("200 OK", '{"data": ["m"]}', JSON), "application/json"),
        (http("200 OK", '{"data": {"m": 1}}', JSON), "application/json"),
        (http("200 OK", '{"data": [{}]}', JSON), "application/json"),
        (http("200 OK", "[" * 100_000, JSON), "application/json"),
    ],
)
def test_what_is_no_list_of_models_is_named_with_its_address(answer: bytes, what: str) -> None:
    """As of a web page that answers whatever it is asked, at the address of a server that it belongs to."""

    async def main() -> None:
        canned = Canned(answer)
        async with canned as url, Planner(PlannerConfig(base_url=f"{url}/"), clock) as planner:
            with pytest.raises(PlannerError) as error:
                await planner.check_user_prompt_complete(PICTURE)
            assert planner.statistics()["errors"] == 1
        assert error.value.kind == "malformed"
        assert (
            error.value.detail == f"asked twice; {url}/models answered with {what} that is no list of models"
        )
        assert {request.split(b" HTTP")[0] for request in canned.heard} == {b"GET /v1/models"}

    clock = SteppedClock()
    clock.run(main)


def test_a_server_without_a_model() -> None:
    async def main() -> None:
        canned = Canned(http("200 OK", '{"data": []}', JSON))
        async with canned as url, Planner(PlannerConfig(base_url=url), clock) as planner:
            with pytest.raises(
                PlannerError, match=r"malformed: .*lists no model; name one with planner\.model"
            ):
                await planner.check_user_prompt_complete(PICTURE)

    clock = SteppedClock()
    clock.run(main)
