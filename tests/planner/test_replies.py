import contextlib
import json
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner import reply_text
from planner.box_text import box_of
from planner.box_units import HINT, BoxUnits, BoxUnitsName, shown_box
from planner.questions.check_grasp import CheckGrasp
from planner.questions.check_instruction import CheckInstruction
from planner.questions.check_prompt import CheckPrompt
from planner.questions.classify import Classify
from planner.questions.decompose import Decompose
from planner.questions.mark import BoundingBox, Mark
from planner.questions.propose import Propose
from planner.questions.question import Canvas
from planner.questions.verdict import Verdict, parse_conclusion, parse_verdict
from planner.reply_text import MAX_ANSWER_CHARS, MAX_REPLY_CHARS, ReplyError

ANALYSIS = {"priority_consideration": "nearest", "accessibility": "free", "risk_assessment": "none"}
CANVASES = (Canvas(640, 480, 640, 480),)
BOX = {"bbox_2d": [10, 20, 30, 40.5], "label": "red cube", "description": "a red cube on the left"}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("True", True),
        ("false", False),
        ("**True**", True),
        ("TRUE.", True),
        ("False: cup, bottle, plate", False),
        ("True。", True),
        ("Ｔｒｕｅ", True),
        ("False：杯子，盘子", False),
        ("**False**：a cup", False),
        ("我看不到红色方块。\n答案：True", True),
        ("最终答案是假。", False),
        ("真：桌上没有了", True),
        ("<answer>True</answer>", True),
        ("The jaws are empty, I think it is true that… <answer>\nFalse: a cup\n</answer>", False),
        ("<answer>True: it is gone", True),
        ("<think>false, or</think><answer>True</answer>", True),
        ("<|begin_of_box|>True<|end_of_box|>", True),
        ("$\\boxed{\\text{True}}$", True),
        (
            "<|channel|>analysis<|message|>False?<|end|><|start|>assistant<|channel|>final<|message|>True<|return|>",
            True,
        ),
        ("True<|im_end|>", True),
        ('{"answer": "True", "reason": "gone"}', True),
        ("{'answer': False, 'reason': 'it is there',}", False),
        ('[{"result": true}]', True),
        ("True: it is not there any more", True),
        ("True - nothing is false here", True),
        ("The jaws hold the cube, which is off the table. True", True),
        ("The cube is still on the table.\nFalse", False),
        ("It is true that the jaws are closed, but nothing is between them.\n\n**False**", False),
        ("I see no cube.\nFinal answer: **True**", True),
        ("The answer is False.", False),
        ("The conclusion is: `true`", True),
        ("Nothing between the jaws => False", False),
        ("<think>true? false? true!</think>\nFalse: a cup", False),
        ('```json\n{"grasped": true, "reason": "between the jaws"}\n```', True),
        ('{"result": false}', False),
        ("✅ True", True),
        ("❌ **False**", False),
        ("[True]", True),
        ("『真』", True),
        ("<result>True</result>", True),
        ("The cube is in the jaws: True\n\nConfidence: 0.9", True),
        ("{answer: False}", False),
        ("False:\n- cup\n- a plate of true colour", False),
        ("True<｜end▁of▁sentence｜>", True),
        ("<|begin_of_text|><answer>True</answer><|end_of_text|><|end_of_text|>", True),
        ("<|START_THINKING|>False?<|END_THINKING|><|START_TEXT|>True<|END_TEXT|>", True),
        ("<|START_THINKING|>False?<|END_THINKING|><|START_RESPONSE|>True<|END_RESPONSE|>", True),
        ("<|channel>thought\nFalse?<channel|>True", True),
        ("<response>\nTrue\n</response>", True),
    ],
)
def test_verdicts_that_are_said_clearly(text: str, value: bool) -> None:
    assert parse_verdict(text).value is value


@pytest.mark.parametrize(
    "text",
    [
        "It is true that there are objects on the table",
        "I believe that this is not true",
        "The claim that the cube was grasped is true",
        "true or false",
        "True/False: it is hard to say",
        "True: all gone.\nFalse",
        "Untrue",
        "truely: yes",
        "yes",
        "The answer may be true",
        "",
        "   ",
        "<html><body>true</body></html>",
        '{"a": true, "b": false}',
        '{"a": "True", "b": "False"}',
        "<answer>True</answer> or <answer>False</answer>",
        "<think>True",
        "True</think>",
        "<|channel|>analysis<|message|>True",
        "真的吗",
        "是",
        "x" * (MAX_REPLY_CHARS + 1),
    ],
)
def test_verdicts_that_are_not_said(text: str) -> None:
    with pytest.raises(ReplyError) as error:
        parse_verdict(text)
    assert "\n" not in str(error.value)


def test_a_conclusion_stands_at_the_end() -> None:
    assert parse_conclusion("The jaws hold it.\nTrue").value is True
    assert parse_conclusion("False: the jaws are empty").value is False
    with pytest.raises(ReplyError, match="does not conclude"):
        parse_conclusion("True: the jaws hold it.\nThe cube seems to be red.")


@pytest.mark.parametrize("parse", [parse_verdict, parse_conclusion])
@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("The cube is between the jaws.\nTrue: it is held", (True, "it is held")),
        ("I looked twice.\n\n**False**: cup, plate", (False, "cup, plate")),
        ("False: the jaws are empty.\nIt is not true that they hold it.\nFalse", (False, None)),
        ("Between the jaws?\nTrue.\nOff the table, too?\nFalse.\n\nFalse: it lies there", (False, None)),
    ],
)
def test_the_last_line_may_begin_with_the_boolean(
    parse: Callable[[str], Verdict], text: str, verdict: tuple[bool, str | None]
) -> None:
    read, (value, reason) = parse(text), verdict
    assert read.value is value
    assert reason is None or read.reason == reason


@pytest.mark.parametrize("parse", [parse_verdict, parse_conclusion, Classify.parse])
@pytest.mark.parametrize(
    "text",
    [
        "True: it looks held at first sight.\nOn a closer look the jaws are empty.\nFalse: it slipped",
        "False: nothing yet\nTrue: the cube is between the jaws",
        "True\n\nFalse",
        "True: it is held.\nThe answer is False.",
        "It is hard to see.\nTrue: if it had not slipped. So the answer is false",
        "False: nothing is named.\nTrue: a cup is named. This is Type I",
    ],
)
def test_a_reply_that_says_both_is_not_guessed_at(parse: Callable[[str], object], text: str) -> None:
    with pytest.raises(ReplyError, match="True in one place and False in another"):
        parse(text)


def test_a_second_thought_before_the_last_line_counts_where_nothing_concludes() -> None:
    with pytest.raises(ReplyError, match="True in one place and False in another"):
        parse_verdict("True: it is gone.\nFalse: there it is.\nThe picture is dark.")
    said = parse_verdict("True: it is gone.\nNothing else is false here.\nThe picture is dark.")
    assert said.value is True


def test_the_reason_is_what_is_left() -> None:
    assert parse_verdict("False: cup, plate").reason == "cup, plate"
    assert parse_verdict("It is off the table.\nTrue").reason == "It is off the table."
    assert parse_verdict("True").reason == ""


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("True: it names a cup", "I"),
        ("False: nothing is said about any object", "II"),
        ("This is a Type II prompt.", "II"),
        ("Type I", "I"),
        ("True: this is a Type I prompt, since it names a colour", "I"),
        ("type 2, as it is abstract", "II"),
    ],
)
def test_prompt_types(text: str, kind: str) -> None:
    assert Classify.parse(text).type == kind


@pytest.mark.parametrize(
    "text", ["Type I or Type II?", "False: this is Type I", "It is about objects", "Type III", "true enough"]
)
def test_prompt_types_that_are_not_clear(text: str) -> None:
    with pytest.raises(ReplyError):
        Classify.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        '["the red cube on the left", "the blue cube"]',
        'Here you are:\n```json\n["the red cube on the left", "the blue cube"]\n```\nGood luck!',
        '```\n["the red cube on the left", "the blue cube"]\n```',
        '[["the red cube on the left", "the blue cube"]]',
        '["the red cube\non the left", "the blue cube"]',
        '{"name": "list_objects", "arguments": {"objects": ["the red cube on the left", "the blue cube"]}}',
        '[{"name": "a", "input": "[{\\"b\\": [\\"the red cube on the left\\", \\"the blue cube\\"]}]"}]',
        'The list is ["the red cube on the left", "the blue cube"].',
        "I see these (2): ['the red cube on the left', 'the blue cube']",
        "### Objects #1 and #2: ['the red cube on the left', 'the blue cube']",
    ],
)
def test_decompositions(text: str) -> None:
    assert Decompose.parse(text).objects == ("the red cube on the left", "the blue cube")


def test_an_empty_decomposition_is_an_answer() -> None:
    assert Decompose.parse("[]").objects == ()


@pytest.mark.parametrize(
    "text",
    [
        "[1, 2]",
        '[""]',
        '["a", "a"]',
        '["a"] or ["b"]',
        '["a", "b',
        '{"a": ["a"], "b": ["b"]}',
        '{"name": "list_objects", "arguments": {}}',
        *(
            '["I can’t see the picture"]',
            '{"description": "Sorry, I can\'t help with that."}',
            '["抱歉,无法识别"]',
        ),
        *('{"error": null}', '{"objects": "a, b"}'),
        '[{"name": "list_objects", "arguments": {"thoughts": "none of these"}}]',
        '{"name": "list_objects", "arguments": "the red cube"}',
        "[[]]",
        "- a\n- b",
    ],
)
def test_decompositions_that_are_not(text: str) -> None:
    with pytest.raises(ReplyError):
        Decompose.parse(text)


@pytest.mark.parametrize(
    "said", ['{{"name": "answer", "parameters": {}}}', '[{{"name": "answer", "input": {}}}]']
)
def test_a_call_of_a_tool_says_what_it_was_given(said: str) -> None:
    assert Propose.parse(said.format('{"target": "the red cube"}')).target == "the red cube"
    assert parse_verdict(said.format('{"grasped": false}')).value is False
    with pytest.raises(ReplyError, match="target: it is missing"):
        Propose.parse(said.format("{}"))


def test_instructions() -> None:
    reply = Propose.parse("```json\n" + json.dumps({"analysis": ANALYSIS, "target": " a "}) + "```")
    assert reply.target == "a"
    assert reply.analysis.accessibility == "free"
    assert Propose.parse(json.dumps({"analysis": ANALYSIS, "target": None})).target is None


@pytest.mark.parametrize(
    ("value", "where"),
    [
        ({"analysis": ANALYSIS}, "target"),
        ({"analysis": ANALYSIS, "target": ""}, "target"),
        ({"analysis": ANALYSIS, "target": ["a", "b"]}, "target"),
        ({"analysis": ANALYSIS, "target": "..."}, "target.* names nothing"),
        ({"target": "<the object's colour, shape and position>"}, "target.* names nothing"),
        ({"target": "I cannot help with that."}, "target.* is no object"),
        ({"target": {"color": "red", "size": "small"}}, "target"),
    ],
)
def test_instructions_that_lack_something_say_what(value: object, where: str) -> None:
    with pytest.raises(ReplyError, match=where):
        Propose.parse(json.dumps(value))


def test_boxes() -> None:
    assert Mark.parse(json.dumps(BOX), CANVASES) == BoundingBox(
        bbox_2d=(10.0, 20.0, 30.0, 40.5), label="red cube", description="a red cube on the left"
    )
    assert Mark.parse(f"```json\n[{json.dumps(BOX)}]\n```", CANVASES) is not None
    assert Mark.parse(json.dumps({**BOX, "bbox_2d": None}), CANVASES) is None
    assert Mark.parse(json.dumps({**BOX, "bbox_2d": [0, 0, 640, 480]}), CANVASES) is not None


@pytest.mark.parametrize(
    "box",
    [
        [0, 0, 700, 480],
        [-40, 0, 10, 10],
        [650, 0, 660, 10],
        [30, 20, 10, 40],
        [10, 10, 10, 20],
        [1, 2, 3],
        ["1", "2", "3", "x"],
        [None, 1, 2, 3],
        [True, False, True, True],
        [0, 0, 1e400, 1],
        [10**400, 0, 10**401, 1],
        "1 2 3",
        "about 1 2 3 4",
        {"x": 1},
    ],
)
def test_boxes_that_are_not(box: object) -> None:
    with pytest.raises(ReplyError):
        Mark.parse(json.dumps({**BOX, "bbox_2d": box}), CANVASES)


@pytest.mark.parametrize(
    "text",
    [
        json.dumps([BOX, {**BOX, "bbox_2d": [11, 20, 30, 40]}]),
        json.dumps({"objects": [BOX, {**BOX, "bbox_2d": [11, 20, 30, 40]}]}),
        json.dumps({"target": "red cube"}),
        '{"a": ' * 900 + "1" + "}" * 900,
        json.dumps(BOX) + json.dumps({**BOX, "bbox_2d": [11, 20, 30, 40]}),
        "```json\n" + json.dumps(BOX) + "\n```\n```json\n" + json.dumps(BOX) + "\n```",
        json.dumps(BOX)[:-9],
        '{"bbox_2d": [NaN, 0, 1, 1], "label": "a", "description": "b"}',
        '{"a": ' * 1_300,
        "[" * MAX_ANSWER_CHARS,
        json.dumps([BOX, BOX])[:-9],
        '{"label": "a", "description": "b"}',
        "<box>1 2 3 4</box><box>5 6 7 8</box>",
        "<!DOCTYPE html><p>{}</p>",
        "The red cube is there ( ).",
    ],
)
def test_one_box_means_one(text: str) -> None:
    with pytest.raises(ReplyError) as error:
        Mark.parse(text, CANVASES)
    assert "\n" not in str(error.value)


def test_unasked_fields_are_dropped() -> None:
    box = Mark.parse(json.dumps({**BOX, "confidence": 0.9}), CANVASES)
    assert box is not None
    assert not hasattr(box, "confidence")


PARSERS = {
    "verdict": parse_verdict,
    "conclusion": parse_conclusion,
    "class": Classify.parse,
    "list": Decompose.parse,
    "instruction": Propose.parse,
    "box": lambda text: Mark.parse(text, CANVASES),
}
WORDS = (
    "True False yes 是 真 。 ： </answer> <answer> <thinking> </thinking> None ' <box> 1,2,3,4 : \n "
    '``` ```json { } [ ] " , bbox_2d target null 1 -1 1e999 NaN ** \\ <think> </think>'
)
FRAGMENTS = st.sampled_from([*WORDS.split(" "), " ", "Type I", "Type II", "the answer is ", "\ud800"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(
            st.sampled_from(["bbox_2d", "label", "description", "target", "analysis", "x"]), inner, max_size=5
        )
    ),
    max_leaves=12,
)
TEXTS = st.text() | st.lists(FRAGMENTS, max_size=30).map("".join) | VALUES.map(json.dumps)


@pytest.mark.parametrize("name", PARSERS)
@settings(deadline=None)
@given(text=TEXTS)
def test_any_text_gives_a_reply_or_a_reply_error(name: str, text: str) -> None:
    try:
        reply = PARSERS[name](text)
    except ReplyError as error:
        assert str(error)  # noqa: PT017 - the message is the point
    else:
        if isinstance(reply, BoundingBox):
            x1, y1, x2, y2 = reply.bbox_2d
            assert 0 <= x1 <= x2 <= 640
            assert 0 <= y1 <= y2 <= 480


@pytest.mark.parametrize("name", PARSERS)
@pytest.mark.parametrize("head", ["", "```", "```json", "The answer", "true", "x.", "type", "<think>"])
def test_a_long_run_of_anything_is_read_at_once(name: str, head: str) -> None:
    """Patterns that share a run out in every possible way would take hours over these."""
    for run in (" ", "\t", "\u00a0", "\n", "`", "[", "]", "{", "-", "the ", "- "):
        for tail in ("x", "```", "\nfalse or x"):
            with contextlib.suppress(ReplyError):
                found = PARSERS[name](head + run * ((MAX_ANSWER_CHARS - 20) // len(run)) + tail)
                assert found is not None


@pytest.mark.parametrize("name", PARSERS)
def test_an_answer_that_would_take_long_to_read_is_not_read(name: str) -> None:
    for part in ("true\n", "[1,", "The jaws are closed. "):
        with pytest.raises(ReplyError, match="at most 8192 are read"):
            PARSERS[name](part * (MAX_ANSWER_CHARS // len(part) + 1))


def test_thoughts_may_be_long_since_they_are_not_read() -> None:
    thoughts = "<think>" + "true? [1, " * 6_000 + "</think>\n"
    assert len(thoughts) > 60_000
    assert parse_conclusion(thoughts + "The jaws are empty.\nFalse").value is False


@pytest.mark.parametrize("name", PARSERS)
def test_no_part_of_an_answer_is_decoded_twice(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it would be, an answer of brackets takes as many times its length as there are brackets."""
    spans: list[tuple[int, int]] = []

    class Watched(json.JSONDecoder):
        def raw_decode(self, s: str, idx: int = 0) -> tuple[object, int]:
            try:
                value, end = super().raw_decode(s, idx)
            except json.JSONDecodeError as error:
                spans.append((idx, error.pos))
                raise
            spans.append((idx, end))
            return value, end

    monkeypatch.setattr(reply_text.json, "JSONDecoder", Watched)
    for text in ("[1," * 300, "[[1, x" * 300, "[see [1]] " * 300, '["a [ ' * 300, "[NaN, " * 300):
        spans.clear()
        with contextlib.suppress(ReplyError):
            PARSERS[name](text)
        passes = sum(start == spans[0][0] for start, _ in spans)  # one for each kind of value looked for
        assert sum(end - start for start, end in spans) <= passes * len(text)


def test_blanks_between_the_words_of_a_verdict_do_not_count() -> None:
    verdict = parse_verdict("The  answer \t is   :   False ,   a\u00a0 cup")
    assert verdict == Verdict(value=False, reason="a cup")


@settings(deadline=None)
@given(st.booleans(), st.text(alphabet="abc defg.,:\n", max_size=60))
def test_a_boolean_on_the_last_line_concludes(value: bool, reason: str) -> None:
    assert parse_conclusion(f"{reason}\n{value}").value is value


@settings(deadline=None)
@given(st.text(max_size=40).filter(lambda text: "true" not in text.lower() and "false" not in text.lower()))
def test_no_boolean_without_the_word(text: str) -> None:
    with pytest.raises(ReplyError):
        parse_verdict(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("yes", True),
        ("No.", False),
        ("Yes: between the jaws", True),
        ("是", True),
        ("不是。", False),
        ("否：空的", False),
    ],
)
def test_yes_counts_where_it_means_the_same_as_true(text: str, value: bool) -> None:
    assert CheckGrasp.parse(text).value is value
    assert CheckPrompt.parse(text).value is value
    for parse in (CheckInstruction.parse, Classify.parse):  # "is it still there? True if it is not"
        with pytest.raises(ReplyError):
            parse(text)


@pytest.mark.parametrize("said", ["No. It slipped.\nTrue", "Yes, it is held.\nFalse"])
def test_yes_beside_false_is_not_guessed_at(said: str) -> None:
    with pytest.raises(ReplyError, match="True in one place and False in another"):
        CheckGrasp.parse(said)


DRAFT = '{"bbox_2d": [1, 2, 3, 4], "label": "a draft"}'
FINAL = '{"bbox_2d": [10, 20, 30, 40.5]}'


@pytest.mark.parametrize(
    "text",
    [
        f"<think>{DRAFT}</think>\n{FINAL}",
        f"Hm. {DRAFT}\n</think>\n{FINAL}",
        f"<thinking>{DRAFT}</thinking>{FINAL}",
        f"<think>a</think>{DRAFT}<think>no</think>{FINAL}",
        f"<think>so <think>{DRAFT}</think> {DRAFT}</think>{FINAL}",
        f"<think>{DRAFT}</think>{FINAL}<think>{DRAFT}</think>",
        f"<THINK >{DRAFT}</THINK >{FINAL}".replace(" >", ">"),
        f"◁think▷{DRAFT}◁/think▷{FINAL}",
        f"[THINK]{DRAFT}[/THINK]{FINAL}",
        f"<seed:think>{DRAFT}</seed:think>{FINAL}",
        f"<reasoning>```json\n{DRAFT}\n```</reasoning>```json\n{FINAL}\n```",
        f"<|begin_of_thought|>{DRAFT}<|end_of_thought|><|begin_of_solution|>{FINAL}<|end_of_solution|>",
        f"<|channel|>analysis<|message|>{DRAFT}<|end|><|start|>assistant<|channel|>final<|message|>{FINAL}",
        f"<think>{DRAFT}</think><answer>```json\n[\n\t{FINAL}\n]\n```</answer>",
    ],
)
def test_what_was_thought_is_not_the_answer(text: str) -> None:
    assert Mark.parse(text, CANVASES) == BoundingBox(bbox_2d=(10, 20, 30, 40.5))


@pytest.mark.parametrize(
    "text",
    [f"<think>{DRAFT}", f"{DRAFT}</think>", f"<think>x</think><think>{DRAFT}", f"{FINAL}<think>{DRAFT}"],
)
def test_thoughts_without_an_answer_are_none(text: str) -> None:
    with pytest.raises(ReplyError):
        Mark.parse(text, CANVASES)


OPEN = st.sampled_from(["<think>", "<thinking>", "<reasoning>", "<think>\n"])
CLOSE = st.sampled_from(["</think>", "</thinking>", "</reasoning>", "</think>\n\n"])
MUSING = st.lists(
    st.sampled_from(
        ["hm ", DRAFT, "```json\n", "```", "True", "False", "[", "{", '"', "\n", "<answer>", "x"]
    ),
    max_size=12,
).map("".join)


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), OPEN, MUSING, CLOSE, MUSING), min_size=1, max_size=3), st.booleans())
def test_no_draft_in_any_thought_is_read_as_the_answer(
    blocks: list[tuple[bool, str, str, str, str]], right: bool
) -> None:
    """Whatever was thought, with the opening tag or without, and whatever was said between thoughts."""
    thoughts = "".join(f"{tag if whole else ''}{a}{close}{b}" for whole, tag, a, close, b in blocks)
    text = f"{thoughts}<think>{DRAFT}</think>"
    assert parse_verdict(f"{text}{right}").value is right
    assert Mark.parse(text + FINAL, CANVASES) == BoundingBox(bbox_2d=(10, 20, 30, 40.5))


@pytest.mark.parametrize(
    "text",
    [
        '{"bbox_2d": [10, 20, 30, 40.5]}',
        '```json\n[\n\t{"bbox_2d": [10, 20, 30, 40.5], "label": "red cube"}\n]\n```',
        '{"bbox_2d": [[10, 20, 30, 40.5]]}',
        '{"bbox_2d": [[10, 20], [30, 40.5]]}',
        '{"bbox_2d": "10, 20, 30, 40.5"}',
        '{"bbox_2d": "[10, 20, 30, 40.5]"}',
        '{"bbox_2d": "(10,20),(30,40.5)"}',
        '{"bbox_2d": ["10", "20", "30", "40.5"], "label": 7, "confidence": NaN}',
        '{"bbox": [10, 20, 30, 40.5]}',
        '{"box": {"x1": 10, "y1": 20, "x2": 30, "y2": 40.5}}',
        '{"bounding_box": {"left": 10, "top": 20, "right": 30, "bottom": 40.5}}',
        '{"bbox": {"x": 10, "y": 20, "width": 20, "height": 20.5}}',
        '{"box_2d": [20, 10, 40.5, 30], "label": "Gemini puts the top first"}',
        "{'bbox_2d': [10, 20, 30, 40.5,], 'label': 'the cup\\'s',} // there",
        "｛“bbox_2d”：［10，20，30，40.5］｝",
        "[10, 20, 30, 40.5]",
        "[[10, 20, 30, 40.5]]",
        "(10,20),(30,40.5)",
        "<|object_ref_start|>the cube<|object_ref_end|><|box_start|>(10,20),(30,40.5)<|box_end|>",
        "<ref>the cube</ref><box>[[10, 20, 30, 40.5]]</box>",
        "<box>10 20 30 40.5</box>",
        "<|ref|>the cube<|/ref|><|det|>[[10, 20, 30, 40.5]]<|/det|>",
        "<bbox>10 20 30 40.5</bbox>",
        "The cube is at <BBOX>10, 20, 30, 40.5</BBOX>.",
        '{"red cube": [10, 20, 30, 40.5]}',
        '{"bounding_boxes": [{"box_2d": [20, 10, 40.5, 30], "label": "red cube"}]}',
        '{"result": {"bbox_2d": [10, 20, 30, 40.5], "label": "red cube"}}',
        '[{"bbox_2d": [10, 20, 30, 40.5]}, {"bbox_2d": [10, 20, 30, 40.5]}]',
        '{"bbox_2d": [10, 20, 30, 40.5]}\n{"bbox_2d": [10, 20, 30, 40.5]}',
        '{"bbox_2d": [10, 20, 30, 40.5], "bbox": [10, 20, 30, 40.5]}',
        '{"bbox_2d": [10, 20, 30, 40.5, 0.98]}',
        '{"box_2d": {"ymin": 20, "xmin": 10, "ymax": 40.5, "xmax": 30}}',
        '{"bbox": {"left": 10, "top": 20, "width": 20, "height": 20.5}}',
        '{"bbox_2d": [[10, 20], [30, 20], [30, 40.5], [10, 40.5]]}',
        "{bbox_2d: [10, 20, 30, 40.5], label: 'red cube'}",
        '{"bbox_2d": [10, /* left */ 20, 30, 40.5], # the cube\n "label": undefined}',
        '{"bbox_2d": (10, 20, 30, 40.5)}',
        '{"bbox_2d": [010, +20, 30., 040.50]}',
        '{"bbox_2d": [１０, ２０, ３０, ４０．５]}',
        '{\u200b"bbox_2d":\u00a0[10,\u202f20, 30, 40.5]}\ufeff',
        '{"bbox_2d": ["10px", "20px", "30px", "40.5px"]}',
        '{"bbox_2d": "10 px, 20 px, 30 px, 40.5 px"}',
        '{"bbox_2d": [10, 20, 30, 40.5], "description": "on the left\nof the tray"}',
        '{"x0": 10, "y0": 20, "x1": 30, "y1": 40.5}',
        '{"bbox": {"top_left": {"x": 10, "y": 20}, "bottom_right": {"y": 40.5, "x": 30}}}',
        '{"top-left": [10, 20], "bottom-right": [30, 40.5]}',
        '{"bbox_2d": [{"x": 10, "y": 20}, {"x": 30, "y": 40.5}]}',
        '{"result": {"objects": [{"bbox_2d": [10, 20, 30, 40.5]}]}}',
        '<tool_call>\n{"name": "mark", "arguments": {"bbox_2d": [10, 20, 30, 40.5]}}\n</tool_call>',
        '[TOOL_CALLS][{"name": "mark", "arguments": "{\\"bbox_2d\\": [10, 20, 30, 40.5]}"}]',
        "The red cube is at [[010,020,030,40.5]].",
    ],
)
def test_boxes_as_models_write_them(text: str) -> None:
    box = Mark.parse(text, CANVASES)
    assert box is not None
    assert box.bbox_2d == (10, 20, 30, 40.5)


@pytest.mark.parametrize(
    "said",
    [
        '["12.5%", "25%", "37.5%", "50%"]',
        '"12.5%, 25 %, 37.5 %, 50%"',
        '["12.5％", "25％", "37.5％", "50％"]',
    ],
)
@pytest.mark.parametrize("units", ["auto", "pixels", "per_mille"])
def test_a_percent_sign_says_what_is_counted_whatever_is_configured(said: str, units: BoxUnitsName) -> None:
    box = Mark.parse(f'{{"bbox_2d": {said}}}', [Canvas(640, 480, 640, 480, BoxUnits(units))])
    assert box is not None
    assert box.bbox_2d == (80, 120, 240, 240)
    first, second, third, fourth = said.split(", ")
    if said.startswith("["):
        first, fourth = first[1:], fourth[:-1]
        top_first = Mark.parse(f'{{"box_2d": [{second}, {first}, {fourth}, {third}]}}', CANVASES)
        assert top_first is not None
        assert top_first.bbox_2d == (80, 120, 240, 240)


@pytest.mark.parametrize(
    "said",
    [
        '["10%", "20px", "30%", "40%"]',
        '"10%, 20, 30, 40"',
        '"left 10%, top 20%, 30%, 40%"',
        '"10,5 20,5 30,5 40,5"',
    ],
)
def test_mixed_units_and_words_beside_numbers_are_no_box(said: str) -> None:
    with pytest.raises(ReplyError, match="must be a list of four numbers"):
        Mark.parse(f'{{"bbox_2d": {said}}}', CANVASES)


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "```json\n[]\n```",
        '{"bbox_2d": []}',
        '{"bbox_2d": "null"}',
        '{"bbox_2d": [null, null, null, null]}',
        '{"bbox_2d": [0, 0, 0, 0], "label": "none"}',
        '[{"bbox_2d": null}]',
        "null",
        "None.",
        "{'bbox_2d': None}",
        "No matching object found in the picture.",
        "没有匹配的物体。",
    ],
)
def test_nothing_is_said_in_several_ways(text: str) -> None:
    assert Mark.parse(text, CANVASES) is None


@pytest.mark.parametrize(
    "text",
    [
        *(
            "[]",
            "```json\n[]\n```",
            '{"objects": []}',
            "null",
            "None.",
            "Nothing fits.",
            "nothing matches the request",
        ),
        *(
            "No objects match the request.",
            "No object found on the table.",
            "There are no such objects in the picture.",
        ),
        *("None of the objects fit.", "没有"),
        *('["none"]', "[null]", '["N/A"]', '{"object": "nothing"}', "桌上没有物体"),
        *('{"objects": null}', '{"objects": "none of them"}', '{"object": null}'),
        "There is nothing left to grasp: the table is empty.",
    ],
)
def test_that_no_object_fits_is_said_in_several_ways(text: str) -> None:
    assert Decompose.parse(text).objects == ()


@pytest.mark.parametrize(
    "text",
    [
        *("Nothing fits but the red cube", "the red cube", "No.", ""),
        *("The table is not empty", "none of the cups, the empty jar", "the empty one on the table"),
    ],
)
def test_what_may_be_an_object_is_not_taken_for_none(text: str) -> None:
    with pytest.raises(ReplyError):
        Decompose.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "<loc0256><loc0128><loc0512><loc0384> red cube",
        "red cube<loc_125><loc_250><loc_375><loc_500>",
        "</s><s>red cube<loc_125><loc_250><loc_375><loc_500></s>",
    ],
)
def test_places_on_a_grid_are_fractions_of_the_picture(text: str) -> None:
    box = Mark.parse(text, [Canvas(640, 480, 640, 480, BoxUnits("auto"))])
    assert box is not None
    assert box.bbox_2d == (80, 120, 240, 240)
    with pytest.raises(ReplyError, match="exactly one box was asked for, and the reply holds 2"):
        Mark.parse(text + text.replace("25", "26"), CANVASES)
    with pytest.raises(ReplyError, match=r"is smaller than a pixel$") as error:
        Mark.parse(text, CANVASES)  # in pixels, as configured
    assert error.value.hint == HINT


@pytest.mark.parametrize(
    "text",
    [
        '```json\n[\n  {"box_2d": [250, 125, 500, 375], "label": "red cup"}\n]\n```',
        "<ref>the red cup</ref><box>[[125, 250, 375, 500]]</box>",
        "<ref>red cup</ref><box>125 250 375 500</box>",
        "<|ref|>the red cup<|/ref|><|det|>[[125, 250, 375, 500]]<|/det|>",
    ],
    ids=["Gemini", "InternVL", "MiniCPM-V", "DeepSeek-VL2"],
)
def test_a_notation_of_one_unit_says_it_where_nothing_else_does(text: str) -> None:
    """In any other unit only if that is configured."""
    box = Mark.parse(text, [Canvas(640, 480, 640, 480, BoxUnits("auto"))])
    assert box is not None
    assert box.bbox_2d == (80, 120, 240, 240)
    pixels = Mark.parse(text, [Canvas(640, 640, 640, 640, BoxUnits("pixels"))])
    assert pixels is not None
    assert pixels.bbox_2d == (125, 250, 375, 500)


@pytest.mark.parametrize(
    ("said", "count"),
    [
        (
            "<|object_ref_start|>{0}<|object_ref_end|><|box_start|>({1},{2}),({3},{4})<|box_end|>",
            (1000, 1000),
        ),
        ('```json\n[\n\t{{"bbox_2d": [{1}, {2}, {3}, {4}], "label": "{0}"}}\n]\n```', (644, 476)),
        ('```json\n[\n\t{{"bbox_2d": [{1}, {2}, {3}, {4}], "label": "{0}"}}\n]\n```', (1000, 1000)),
    ],
    ids=["Qwen2-VL", "Qwen2.5-VL", "Qwen3-VL"],
)
def test_a_notation_of_several_units_waits_for_the_drawn_picture(said: str, count: tuple[int, int]) -> None:
    """Thousandths, or pixels of the picture as the model resized it: the same words, another place."""

    def reply(name: str, box: tuple[float, ...]) -> str:
        scaled = [round(value * count[i % 2] / (640, 480)[i % 2]) for i, value in enumerate(box)]
        return said.format(name, *scaled)

    cup = (80.0, 120.0, 240.0, 240.0)
    units = BoxUnits("auto")
    canvas = Canvas(640, 480, 640, 480, units)
    with pytest.raises(ReplyError, match="or in thousandths; the drawn picture did not tell"):
        Mark.parse(reply("red cup", cup), [canvas])
    units.learn(box_of(reply("red cube", shown_box(640, 480)))[0], 640, 480)
    found = Mark.parse(reply("red cup", cup), [canvas])
    assert found is not None
    assert found.bbox_2d == pytest.approx(cup, abs=3)


@pytest.mark.parametrize(
    "text",
    [
        ' <point x="61.5" y="40.4" alt="red cube">red cube</point>',
        '<points x1="61.5" y1="40.4" x2="10.1" y2="20.0" alt="cubes">cubes</points>',
        '[{"point": [404, 615], "label": "red cube"}]',
        '{"point_2d": [120, 200], "label": "red cube"}',
    ],
)
def test_a_point_is_no_box_and_the_hint_says_so(text: str) -> None:
    with pytest.raises(ReplyError, match="the reply is a point, and a box was asked for") as error:
        Mark.parse(text, CANVASES)
    assert "one that marks boxes" in error.value.hint


def test_a_box_a_little_outside_is_cut_off() -> None:
    box = Mark.parse('{"bbox_2d": [-2, -3, 642, 481]}', CANVASES)
    assert box is not None
    assert box.bbox_2d == (0, 0, 640, 480)


def test_far_outside_the_hint_is_the_persons_and_not_the_models() -> None:
    with pytest.raises(ReplyError, match=r"not inside the picture of 640 by 480$") as error:
        Mark.parse('{"bbox_2d": [10, 10, 900, 900]}', CANVASES)
    assert error.value.hint == "planner.box_units says what the model counts in"


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ('{"target": "a"}', "a"),
        ('[{"target": "a", "analysis": "the nearest"}]', "a"),
        ('{"target": ["a"]}', "a"),
        ('{"Target": {"name": "a", "position": "left"}}', "a, left"),
        ('{"target": []}', None),
        ('{"target": "null"}', None),
        ('{"target": "None."}', None),
        ('{"target": "N/A"}', None),
        ('{"target": "none (the table is empty)"}', None),
        ('{"target": "There are no objects on the table."}', None),
        ('{"target": "No object"}', None),
        ('{"target": "The table is empty."}', None),
        ('{"target": "无"}', None),
        ('{"target": "nothing but the red cube"}', "nothing but the red cube"),
        ('{"target": "none of the cups, the red cube"}', "none of the cups, the red cube"),
        ('{"target": "the empty cup on the table"}', "the empty cup on the table"),
        ('{"analysis": {"accessibility": 3, "confidence": 1}, "target": "a"}', "a"),
        ("{'analysis': {}, 'target': None}", None),
        *(
            (f'{{"target": "{said}"}}', None)
            for said in (
                "no objects remaining",
                "There is nothing left to grasp.",
                "nothing on the table",
                "None remaining",
                "no graspable objects remain on the table",
                "table is empty",
                "桌子上没有物体了",
            )
        ),
        ("The table is empty.", None),
        ('{"analysis": {"accessibility": "free,\nnear"}, "target": "a\x1b[31m\u2028cube"}', "a [31m cube"),
    ],
)
def test_of_a_proposal_only_the_target_is_needed(text: str, target: str | None) -> None:
    assert Propose.parse(text).target == target


@pytest.mark.parametrize(
    "text",
    [
        '{"objects": ["a cup", "b"]}',
        '[{"name": "a cup"}, {"description": "b", "label": "x", "position": "left"}]',
        "['a cup', 'b',]",
        "［“a cup”，“b”］",
    ],
)
def test_lists_of_objects_as_models_write_them(text: str) -> None:
    assert Decompose.parse(text).objects == ("a cup", "b")
    assert Decompose.parse('[{"object": "cup", "position": "on the left"}]').objects == ("cup, on the left",)
