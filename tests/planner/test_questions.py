"""A question is one class: here is one that the project does not have."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from planner.client import Planner
from planner.config import PlannerConfig
from planner.errors import PlannerError
from planner.exchange import Exchange
from planner.prompts import quote
from planner.questions.check_grasp import CheckGrasp
from planner.questions.check_instruction import CheckInstruction
from planner.questions.check_prompt import CheckPrompt
from planner.questions.classify import Classify
from planner.questions.decompose import Decompose
from planner.questions.mark import Mark
from planner.questions.propose import Propose
from planner.questions.question import Canvas, Question, View
from planner.questions.reply import Reply
from planner.reply_text import ReplyError, plain
from runtime.messages import ColorImage
from runtime.stepped import SteppedClock
from tests.planner.pictures import table
from tests.planner.test_client import PICTURE, Canned, chat


class Count(Reply):
    """How many there are."""

    number: int


@dataclass(frozen=True)
class CountObjects(Question[Count]):
    """How many objects of a kind are on the table."""

    kind: str

    task = "count_objects"
    reply = Count
    optional_views = (View.WRIST,)

    def in_words(self) -> str:
        return f"planner: how many {self.kind}?"

    def text(self, pictures: int) -> str:
        return f"How many of {quote(self.kind)} do you see in {pictures} picture(s)? Reply with a number."

    @classmethod
    def parse(cls, said: str, canvases: Sequence[Canvas] = ()) -> Count | None:
        body = plain(said)
        if body == "none":
            return None
        if not body.isdecimal():
            raise ReplyError("that is no number")
        return Count(number=int(body))

    def ask_again(self, reason: str) -> str:
        return f"{reason}. Digits only, please."


class InTurn(Canned):
    """Answers one after the other."""

    def __init__(self, *answers: bytes) -> None:
        super().__init__(b"")
        self.answers = list(answers)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.answer = self.answers.pop(0)
        await super()._serve(reader, writer)

    def messages(self) -> list[Any]:
        """The messages of each request."""
        return [json.loads(each.partition(b"\r\n\r\n")[2])["messages"] for each in self.heard]


def asked(
    question: Question[Count], pictures: Mapping[View, ColorImage], *said: str
) -> tuple[Count | PlannerError, list[Any], list[Exchange], dict[str, object]]:
    """What comes of `question` where a server says `said`; what it was sent; the log; the statistics."""
    clock, server, log = SteppedClock(), InTurn(*map(chat, said)), list[Exchange]()

    async def main() -> tuple[Count | PlannerError, dict[str, object]]:
        async with server as url:
            config = PlannerConfig(base_url=url, model="m", simulated_latency_s=0)
            async with Planner(config, clock, log.append) as planner:
                try:
                    return await planner.ask(question, pictures), planner.statistics()
                except PlannerError as error:
                    return error, planner.statistics()

    result, statistics = clock.run(main)
    return result, server.messages(), log, statistics


def test_a_new_question_is_asked_by_its_class_alone() -> None:
    pictures = {View.WRIST: table(), View.HEAD: PICTURE}
    reply, (messages,), (entry,), statistics = asked(CountObjects("red cubes"), pictures, "3")
    assert reply == Count(number=3)
    text, head, wrist = messages[-1]["content"]
    assert text["text"] == "How many of <<<red cubes>>> do you see in 2 picture(s)? Reply with a number."
    assert head["image_url"]["url"] != wrist["image_url"]["url"]
    assert (entry.task, entry.reply, entry.error, len(entry.images)) == ("count_objects", "3", None, 2)
    assert (statistics["calls"], statistics["errors"]) == (1, 0)


def test_what_it_can_do_without_is_left_out() -> None:
    reply, (messages,), _, _ = asked(CountObjects("cups"), {View.HEAD: PICTURE}, "0")
    assert reply == Count(number=0)
    assert [part["type"] for part in messages[-1]["content"]] == ["text", "image_url"]


def test_what_it_needs_is_missed_before_anything_is_sent() -> None:
    with pytest.raises(ValueError, match="count_objects needs a picture of head"):
        asked(CountObjects("cups"), {View.WRIST: PICTURE})


def test_it_has_its_own_word_for_a_second_chance() -> None:
    reply, sent, log, statistics = asked(CountObjects("cups"), {View.HEAD: PICTURE}, "many", "2")
    assert reply == Count(number=2)
    assert [each["content"] for each in sent[1][2:]] == ["many", "that is no number. Digits only, please."]
    assert [each.error for each in log] == ["malformed: that is no number", None]
    assert (statistics["retries"], statistics["faults"]) == (1, {"malformed": 1})


def test_what_the_model_does_not_see_is_no_reply() -> None:
    error, sent, (entry,), statistics = asked(CountObjects("cups"), {View.HEAD: PICTURE}, "none")
    assert isinstance(error, PlannerError)
    assert (error.task, error.kind) == ("count_objects", "no_object")
    assert error.detail == "the model does not see what was asked for"
    assert len(sent) == 1
    assert entry.error is None  # it is an answer
    assert (statistics["errors"], statistics["faults"]) == (1, {})


def test_recordings_know_the_questions_by_these_names() -> None:
    kinds = (Classify, Decompose, Propose, Mark, CheckGrasp, CheckInstruction, CheckPrompt)
    assert [each.task for each in kinds] == [
        "classify_user_prompt",
        "decompose_user_prompt",
        "generate_instruction",
        "mark_bounding_box",
        "check_grasp_success",
        "check_instruction_complete",
        "check_user_prompt_complete",
    ]
