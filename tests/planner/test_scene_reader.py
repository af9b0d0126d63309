"""The scene reader's eyes and its understanding of words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner import prompts
from planner.images import encode
from planner.questions.check_grasp import CheckGrasp
from planner.questions.check_instruction import CheckInstruction
from planner.questions.check_prompt import CheckPrompt
from planner.questions.classify import Classify
from planner.questions.decompose import Decompose
from planner.questions.mark import Mark
from planner.questions.propose import Propose
from planner.questions.question import Canvas, Question
from planner.questions.reply import Reply
from planner.questions.verdict import Verdict
from planner.reply_text import ReplyError
from planner.scene_reader import select, vision
from planner.scene_reader.language import parse_query, parse_request
from planner.scene_reader.tasks import answer
from runtime.messages import ColorImage
from tests.planner.pictures import RGB, table

RENDERED = Path(__file__).parent / "rendered"
TRUTH: dict[str, Any] = json.loads((RENDERED / "truth.json").read_text())
HEADS = [name for name, truth in TRUTH.items() if "on_table" in truth and name != "head_3_held"]
WRISTS = [name for name in TRUTH if name.startswith("wrist")]


def rendered(name: str) -> ColorImage:
    """A picture of the simulated table as the server gets it: through a JPEG."""
    bgr = cv2.imread(str(RENDERED / f"{name}.png"))
    assert bgr is not None
    return jpeg(np.ascontiguousarray(bgr[..., ::-1]).astype(np.uint8))


def jpeg(image: ColorImage) -> ColorImage:
    data = np.frombuffer(encode(image, 90, 4096).jpeg, np.uint8)
    return np.ascontiguousarray(cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1]).astype(np.uint8)


R = TypeVar("R", bound=Reply)
CANVASES = (Canvas(640, 480, 640, 480),)


def ask(question: Question[R], *pictures: ColorImage, system: str = "") -> R | None:
    """The reader's reply to `question` about `pictures`, of 640 by 480 pixels."""
    return question.parse(answer(question.text(len(pictures)), list(pictures), system), CANVASES)


def labels(things: tuple[vision.SceneObject, ...]) -> list[str]:
    return sorted(select.label(each) for each in things)


@pytest.mark.parametrize("name", HEADS)
def test_every_object_is_seen_for_what_it_is(name: str) -> None:
    scene = vision.read(rendered(name))
    assert labels(scene.on_table) == sorted(TRUTH[name]["on_table"])
    assert labels(tuple(each for each in scene.objects if each.in_tray)) == sorted(TRUTH[name]["in_tray"])
    # Other looks (``--world.look.vary 1``, seeds of the training range): the camera was moved; 4062's yellow
    # cylinder is an orange one whose tint makes its top yellow and leaves its side orange.
    assert scene.tray == pytest.approx((80, 210, 240, 381), abs=24 if name.startswith("look") else 4)


@pytest.mark.parametrize("name", WRISTS)
def test_what_the_jaws_hold(name: str) -> None:
    assert vision.between_jaws(rendered(name)) == TRUTH[name]["held"]


@pytest.mark.parametrize("seed", [101, 102, 103, 104])
def test_freshly_rendered_tables(seed: int) -> None:
    """Against the simulated world as it is now, should its look ever change."""
    from drivers.arms import describe
    from drivers.world.config import RenderOptions, WorldConfig
    from drivers.world.layout import draw_objects
    from drivers.world.physics import Tabletop
    from drivers.world.render import Renderer, prepare_environment

    prepare_environment(RenderOptions())
    config = WorldConfig(seed=seed)
    world = Tabletop(config, draw_objects(config), describe())
    renderer = Renderer(world.model, config)
    color = np.empty((config.head.height, config.head.width, 3), np.uint8)
    depth = np.empty(color.shape[:2], np.uint16)
    renderer.head(world.data, color, depth)
    wrist = renderer.wrist(world.data)
    renderer.close()
    scene = vision.read(jpeg(color))
    assert labels(scene.on_table) == sorted(each.name for each in world.objects if each.present)
    assert scene.tray is not None
    assert vision.between_jaws(jpeg(wrist)) is None


@pytest.mark.parametrize("color", RGB)
@pytest.mark.parametrize("shape", vision.SHAPES)
def test_drawn_objects(color: str, shape: str) -> None:
    scene = vision.read(jpeg(table((color, shape, 400, 120))))
    assert labels(scene.on_table) == [f"{color} {shape}"]


def test_touching_objects_of_two_colors_are_two() -> None:
    scene = vision.read(jpeg(table(("red", "cube", 400, 120), ("blue", "cube", 433, 120))))
    assert labels(scene.on_table) == ["blue cube", "red cube"]


def test_an_object_half_under_something_fits_any_shape() -> None:
    image = table(("red", "cylinder", 400, 120))
    cv2.rectangle(image, (330, 118), (480, 190), (240, 240, 235), cv2.FILLED)
    (thing,) = vision.read(jpeg(image)).on_table
    assert thing.partly_hidden
    assert select.of_kind([thing], parse_query("the red cylinder")) == [thing]
    assert select.of_kind([thing], parse_query("the blue cylinder")) == []


def test_an_empty_picture() -> None:
    scene = vision.read(np.full((60, 80, 3), 140, np.uint8))
    assert scene == vision.Scene((), None)
    assert vision.read(np.zeros((48, 64, 3), np.uint8)).on_table == ()


@settings(deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 2**32 - 1))
def test_any_picture_can_be_read(height: int, width: int, seed: int) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    for thing in vision.read(image).objects:
        x1, y1, x2, y2 = thing.box
        assert 0 <= x1 < x2 <= width
        assert 0 <= y1 < y2 <= height
    vision.between_jaws(image)


# --- words

SCENE = "head_3"
# blue cuboid far left, red cube near left, purple cube far, orange and green right


def decomposed(prompt: str, picture: str = SCENE) -> list[str]:
    return [
        each.removeprefix("the ").split(" on the")[0].split(" in the")[0]
        for each in ask(Decompose(prompt), rendered(picture)).objects
    ]


@pytest.mark.parametrize(
    ("prompt", "objects"),
    [
        ("put the red cube in the tray", ["red cube"]),
        ("Grab all green objects!", ["green cylinder"]),
        ("the blue one on the left", ["blue cuboid"]),
        ("put the red and orange things into the box on the left", ["red cube", "orange cuboid"]),
        ("all cubes", ["red cube", "purple cube"]),
        ("the red and purple cubes", ["red cube", "purple cube"]),
        ("take the cylinder", ["green cylinder"]),
        ("the purple cube, then the green cylinder", ["purple cube", "green cylinder"]),
        ("everything except the blue cuboid", ["green cylinder", "red cube", "orange cuboid", "purple cube"]),
        ("remove all but the cubes", ["green cylinder", "orange cuboid", "blue cuboid"]),
        ("objects from the right", ["green cylinder", "orange cuboid", "purple cube"]),
        ("the leftmost object", ["red cube"]),
        ("the two smallest cubes", ["red cube", "purple cube"]),
        ("two cubes", ["red cube", "purple cube"]),
        ("the purple block next to the blue brick", ["purple cube"]),
        ("the banana", []),
        ("the turquoise teapot", []),
        ("the yellow cube", []),
        ("the red cylinder", []),
        ("把红色方块放进托盘", ["red cube"]),
        ("除了红色的都收走", ["green cylinder", "orange cuboid", "purple cube", "blue cuboid"]),
        ("先拿紫色的，然后绿色圆柱", ["purple cube", "green cylinder"]),
    ],
)
def test_prompts_that_name_objects(prompt: str, objects: list[str]) -> None:
    assert decomposed(prompt) == objects
    assert ask(Classify(prompt)).type == "I"


@pytest.mark.parametrize(
    "prompt",
    [
        "clear the table",
        "Clean up.",
        "remove everything",
        "tidy up please",
        "put all objects in the tray on the left",
        "Could you please put the toys away?",
        "clean up this mess",
        "清理桌面",
        "move all the things from the table into the box",
    ],
)
def test_prompts_that_name_none(prompt: str) -> None:
    assert ask(Classify(prompt)).type == "II"


@settings(deadline=None)
@given(st.text(max_size=80))
def test_any_words_are_parsed(text: str) -> None:
    parse_request(text)
    parse_query(text)
    assert ask(Classify(text)).type in ("I", "II")


@settings(deadline=None)
@given(st.text(max_size=80))
def test_a_quotation_cannot_change_the_question(text: str) -> None:
    picture = table(("red", "cube", 400, 120))
    assert isinstance(said(CheckInstruction(text + " bbox_2d Type II list >>>"), picture), bool)


# --- tasks


def test_the_nearest_to_the_arm_comes_first_wherever_it_is() -> None:
    picture = table(("red", "cube", 300, 120), ("blue", "cube", 500, 80), ("green", "cube", 420, 300))
    for place, first in {"bottom": "green", "top": "blue", "left": "red", "right": "blue"}.items():
        system = prompts.system(f"at the {place} edge of the picture")
        target = ask(Propose(), picture, system=system).target
        assert target is not None
        assert target.startswith(f"the {first} cube")


def test_what_was_tried_is_avoided_as_long_as_there_is_another() -> None:
    picture = rendered(SCENE)
    tried: list[str] = []
    for _ in range(5):
        reply = ask(Propose(tuple(tried)), picture)
        assert reply.target is not None
        assert reply.target not in tried
        tried.append(reply.target)
    last = ask(Propose(tuple(tried)), picture)
    assert last.target in tried


def test_an_empty_table_has_no_next_object() -> None:
    assert ask(Propose(), table()).target is None
    assert ask(Decompose("all"), table()).objects == ()


def test_a_description_leads_back_to_its_object_even_among_alike() -> None:
    things = [("red", "cube", 300, 100), ("red", "cube", 500, 110), ("red", "cube", 400, 320)]
    picture = jpeg(table(*things))
    names = ask(Decompose("red things"), picture).objects
    assert len(set(names)) == 3
    found = set()
    for name in names:
        box = ask(Mark(name), picture)
        assert box is not None
        x1, y1, x2, y2 = box.bbox_2d
        found.add((round((x1 + x2) / 2, -1), round((y1 + y2) / 2, -1)))
        assert not said(CheckInstruction(name), picture)
    assert found == {(300, 100), (500, 110), (400, 320)}
    fewer = jpeg(table(*things[:2]))
    assert all(said(CheckInstruction(name), fewer) for name in names)


def said(question: Question[Verdict], *pictures: ColorImage) -> bool:
    return ask(question, *pictures).value


def test_an_object_that_was_pushed_is_still_there() -> None:
    before, after = table(("red", "cube", 300, 100)), table(("red", "cube", 480, 300))
    (name,) = ask(Decompose("the cube"), before).objects
    assert not said(CheckInstruction(name), after)
    box = ask(Mark(name), after)
    assert box is not None
    assert box.bbox_2d == pytest.approx((464, 284, 497, 317), abs=2)


def test_an_object_that_fell_over_is_still_there() -> None:
    before, after = table(("red", "cylinder", 300, 100)), table(("red", "cuboid", 320, 110))
    (name,) = ask(Decompose("the red one"), before).objects
    assert not said(CheckInstruction(name), after)
    assert ask(Mark(name), after) is not None


def test_what_is_in_the_tray_is_done() -> None:
    picture = rendered("head_3_two_in_tray")
    assert said(CheckInstruction("the red cube"), picture)
    assert not said(CheckInstruction("the purple cube"), picture)
    assert ask(Mark("the red cube"), picture) is None
    left = ask(CheckPrompt(), picture)
    assert set(left.reason.split(", ")) == set(TRUTH["head_3_two_in_tray"]["on_table"])


@pytest.mark.parametrize("name", WRISTS)
def test_grasps_are_judged_by_the_wrist_camera(name: str) -> None:
    held = said(CheckGrasp("the green cylinder"), rendered(SCENE), rendered(name))
    assert held is (TRUTH[name]["held"] is not None)


def test_without_a_wrist_camera_the_table_tells() -> None:
    question = CheckGrasp("the green cylinder on the right")
    assert said(question, rendered(SCENE)) is False
    assert said(question, rendered("head_3_held")) is True
    assert ask(CheckGrasp(""), rendered(SCENE)).value is False


def test_other_wordings_of_the_same_questions() -> None:
    """The reader knows the questions by what they ask for, not by this project's sentences."""
    picture = [rendered(SCENE)]
    assert answer("Is this prompt Type I or Type II? user prompt: grab the green cup", []).startswith("True")
    asked = 'Return JSON with "bbox_2d" for the best match with the description: the purple cube.'
    assert Mark.parse(answer(asked, picture), CANVASES) is not None
    assert answer("Please check whether the red cube exists on the desktop.", picture).startswith("False")
    assert answer("Is the table empty of 3D objects?", picture).startswith("False")
    assert answer("Has the arm successfully grasped an object?", picture).endswith("False")


def test_other_questions_are_not_answered() -> None:
    for text in ("What is the capital of France?", Mark("the red cube").text(0)):
        reply = answer(text, [])
        with pytest.raises(ReplyError):
            Mark.parse(reply, CANVASES)
