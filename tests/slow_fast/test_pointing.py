"""A vision-language model, over its real wire, points at the instruction's object."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from planner.pointing.config import PointingConfig
from planner.pointing.policy import PointingPolicy
from runtime.geometry import look_at
from runtime.interfaces import NoAnswerError, PolicyError, ServedPolicy
from runtime.messages import ArmState, CameraInfo, Frame, Intrinsics, Observation
from runtime.pointed import POINTED, PointedObject, in_box

PICTURE = Path(__file__).parents[1] / "planner" / "rendered" / "head_3.png"
HEIGHT_M = 0.5


def seen(instruction: str) -> Observation:
    """The picture, every pixel of it half a metre below the camera."""
    color = cv2.cvtColor(cv2.imread(str(PICTURE)), cv2.COLOR_BGR2RGB)
    depth = np.full(color.shape[:2], round(1000 * HEIGHT_M), np.uint16)
    zeros = np.zeros(6)
    frame = Frame("head", 7, np.ascontiguousarray(color), depth)
    return Observation(0, 0, 9, ArmState(8, zeros, zeros, zeros), {"head": frame}, instruction=instruction)


def info_of(made: Observation) -> CameraInfo:
    height, width = made.frames["head"].color.shape[:2]
    lens = Intrinsics(width, height, 600.0, 600.0, (width - 1) / 2, (height - 1) / 2)
    pose = look_at((0.2, 0.0, HEIGHT_M), (0.2, 0.0, 0.0), (1.0, 0.0, 0.0))
    return CameraInfo("head", lens, 0.001, pose)


@pytest.fixture
def policy() -> Iterator[PointingPolicy]:
    info = info_of(seen(""))
    made = PointingPolicy(PointingConfig(), 6, lambda: info)
    yield made
    made.close()


def test_its_thought_is_where_the_object_is_and_what_it_looks_like(policy: PointingPolicy) -> None:
    assert isinstance(policy, ServedPolicy)  # its calls can be ended
    policy.warm_up()
    made = seen("red cube")
    answer = policy.infer(made)
    assert answer.rows.tolist() == [[0.0] * 6]  # the arm stays where it is
    assert answer.latent is not None
    assert (answer.latent.shape, answer.latent.dtype) == ((POINTED,), np.float32)
    pointed = PointedObject.from_latent(answer.latent)
    red, green, blue = pointed.color
    assert red > 2 * max(green, blue)
    assert answer.reasoning.startswith("red cube")
    info = info_of(made)
    pose = np.linalg.inv(info.base_from_camera)  # type: ignore[arg-type]
    at = pose[:3, :3] @ pointed.point_m + pose[:3, 3]
    column, row = 600 * at[:2] / at[2] + (info.intrinsics.cx, info.intrinsics.cy)
    pixel = made.frames["head"].color[round(row), round(column)].astype(int)
    assert pixel[0] > 2 * max(pixel[1], pixel[2])
    other = policy.infer(seen("purple cube")).latent
    assert other is not None
    assert np.linalg.norm(other[:2] - answer.latent[:2]) > 0.03
    assert policy.statistics()["calls"] == 2


def test_what_is_not_there_is_no_fault(policy: PointingPolicy) -> None:
    policy.warm_up()
    with pytest.raises(NoAnswerError, match="nothing in the picture fits 'yellow cube'"):
        policy.infer(seen("yellow cube"))
    with pytest.raises(NoAnswerError, match="there is no instruction"):
        policy.infer(seen(""))
    blind = seen("red cube")
    no_depth = replace(blind.frames["head"], depth=np.zeros_like(blind.frames["head"].depth))
    with pytest.raises(NoAnswerError, match="no depth where it is said to be"):
        policy.infer(replace(blind, frames={"head": no_depth}))
    with pytest.raises(PolicyError, match="no frame with depth of camera 'head'"):
        policy.infer(replace(blind, frames={}))


def test_a_server_that_is_not_there_is_one_line() -> None:
    options: dict[str, Any] = {"base_url": "http://127.0.0.1:9/v1", "retries": 0, "timeout_s": 2.0}
    made = PointingPolicy(PointingConfig(**options), 6, lambda: info_of(seen("")))
    try:
        made.warm_up()
        with pytest.raises(PolicyError, match="unreachable"):
            made.infer(seen("red cube"))
    finally:
        made.close()


def test_a_question_that_hangs_can_be_ended_from_elsewhere() -> None:
    made = PointingPolicy(
        PointingConfig.model_validate({"scene_reader": {"fault": "hang"}}), 6, lambda: info_of(seen(""))
    )
    try:
        made.warm_up()
        threading.Timer(0.2, made.interrupt).start()
        with pytest.raises(PolicyError, match="closed"):
            made.infer(seen("red cube"))
        with pytest.raises(PolicyError, match="closed"):
            made.infer(seen("red cube"))
    finally:
        made.close()


def test_what_is_in_a_box_as_numbers_and_back() -> None:
    made = seen("red cube")
    pointed = in_box(made.frames["head"], (100.0, 100.0, 140.0, 130.0), info_of(made))
    assert pointed is not None
    again = PointedObject.from_latent(pointed.as_latent())
    assert np.allclose(again.point_m, pointed.point_m, atol=1e-6)
    assert again.radius_m == pytest.approx(20 * HEIGHT_M / 600, abs=1e-6)
    with pytest.raises(ValueError, match=r"a latent of \[3\]; one that points has 8 numbers"):
        PointedObject.from_latent(np.zeros(3, np.float32))
