"""What a policy gets to see, from rings that a test fills."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from drivers.arms import describe
from runtime.arm_model import ArmModel
from runtime.inference import ChunkRequest, NotReadyError
from runtime.interfaces import PolicySpec
from runtime.messages import Tip, TrackedMask
from runtime.observer import Observer
from runtime.ring import Ring
from runtime.stepped import SteppedClock

MS = 1_000_000
STATES = dict.fromkeys(("position", "velocity", "load"), ((6,), "<f8"))


@dataclass
class Device:
    """An arm's or a camera's rings."""

    states: Ring
    frames: Ring


class Scene:
    """One arm and one camera; at time `t` ms both have values of `t`."""

    def __init__(self, model: ArmModel | None = None, **spec: Any) -> None:
        states, frames = Ring(STATES, 32), Ring({"color": ((2, 2, 3), "|u1")}, 32)
        device: Any = Device(states, frames)
        self.mask: TrackedMask | None = None
        self.rings = states, frames
        self.observer = Observer(
            PolicySpec("test", 1, cameras=("head",), **spec),
            device,
            {"head": device},
            None,
            lambda _: self.mask,
            1000 * MS,
            SteppedClock(),
            model,
        )

    def publish(self, *at_ms: int) -> None:
        for t in at_ms:
            values = np.full(6, t / 1000)
            self.rings[0].push(t * MS, position=values, velocity=values, load=values)
            self.rings[1].push(t * MS, color=np.full((2, 2, 3), t // 10, np.uint8))

    def at(self, t: int, attempt: int = 1) -> Any:
        return self.observer(ChunkRequest(0, 0, np.zeros((0, 6)), 0, t * MS, attempt, "lift it"))


def seen(observation: Any) -> list[tuple[int, int, float]]:
    return [
        (s.arm.stamp_ns // MS, s.frames["head"].stamp_ns // MS, float(s.arm.position[0]))
        for s in observation.history
    ]


def test_a_policy_that_looks_at_the_present_only_gets_no_history() -> None:
    scene = Scene()
    scene.publish(0, 100)
    made = scene.at(100)
    assert (made.history, dict(made.end_effector), made.instruction) == ((), {}, "lift it")


def test_history_is_earlier_instants_the_oldest_first() -> None:
    scene = Scene(history_steps=3, history_stride_s=0.2)
    scene.publish(*range(0, 1001, 100))
    scene.at(0)  # the attempt begins here
    made = scene.at(1000)
    assert seen(made) == [(600, 600, 0.6), (800, 800, 0.8)]
    assert made.history[0].frames["head"].color.max() == 60
    assert seen(scene.at(1090)) == [(600, 600, 0.6), (800, 800, 0.8)]  # what was known at 690 and 890 ms


def test_before_an_attempt_its_first_instant_counts_again() -> None:
    scene = Scene(history_steps=3, history_stride_s=0.2)
    scene.publish(*range(0, 501, 100))
    assert seen(scene.at(500)) == [(500, 500, 0.5)] * 2
    scene.publish(600, 700)
    assert seen(scene.at(700)) == [(500, 500, 0.5)] * 2
    scene.publish(800)
    assert seen(scene.at(800)) == [(500, 500, 0.5), (600, 600, 0.6)]
    assert seen(scene.at(800, attempt=2)) == [(800, 800, 0.8)] * 2  # another attempt looks back at nothing


def test_the_end_effectors_pose_where_it_is_asked_for() -> None:
    model = describe().model()
    scene = Scene(model.copy(), end_effector=True)
    scene.publish(100)
    (pose,) = scene.at(100).end_effector.values()
    np.testing.assert_array_equal(pose, model.fk(np.full(6, 0.1)))


def test_a_mask_of_another_attempt_or_an_old_frame_is_not_ready() -> None:
    scene = Scene(masks=("head",))
    scene.publish(100)
    mask = np.ones((2, 2), np.uint8)
    for scene.mask in (None, TrackedMask("head", 100 * MS, mask, 1.0, attempt=1)):
        with pytest.raises(NotReadyError, match="no mask of this attempt's object in camera head"):
            scene.at(100, attempt=2)
    assert scene.at(100, attempt=1).masks["head"].attempt == 1
    with pytest.raises(NotReadyError, match="camera head: newest frame is 1100 ms old"):
        scene.at(1200)


def test_where_the_object_is_comes_with_its_mask() -> None:
    """The very numbers that are recorded with it, if they are asked for; in a trial there is no object."""
    point = np.array([0.2, 0.1, 0.03])
    tip = Tip(point, np.full(3, 0.001), point, 100 * MS)
    mask = TrackedMask("head", 100 * MS, np.ones((2, 2), np.uint8), 1.0, attempt=1, tip=tip)
    for wanted in (True, False):
        scene = Scene(masks=("head",), tip=wanted)
        scene.publish(100)
        scene.mask = mask
        assert scene.at(100).tip is (tip if wanted else None)
    scene = Scene(masks=("head",), tip=True)
    scene.publish(0)
    tried = scene.observer.trial().tip
    assert tried is not None
    assert not tried.point_m.any()


def test_a_mask_that_is_not_kept_up_is_not_ready_though_frames_come() -> None:
    """As the first one is where the planner thought for seconds: the next belongs to a frame of now."""
    scene = Scene(masks=("head",))
    scene.publish(*range(0, 2500, 100))
    scene.mask = TrackedMask("head", 100 * MS, np.ones((2, 2), np.uint8), 1.0, attempt=1)
    with pytest.raises(NotReadyError, match="the object was seen last in camera head 2300 ms ago"):
        scene.at(2400)
    scene.mask = replace(scene.mask, stamp_ns=2300 * MS)
    assert scene.at(2400).frames["head"].stamp_ns == 2300 * MS


def test_before_anything_moves_all_is_masked() -> None:
    scene = Scene(masks=("head",))
    with pytest.raises(NotReadyError, match="the arm has not reported"):
        scene.observer.trial()
    scene.publish(0)
    assert scene.observer.trial().masks["head"].mask.all()
