"""The arm of ``examples/``: the driver against its emulator, over a pseudo-terminal."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from drivers.arms import describe
from runtime import (
    NS_PER_S,
    ArmContext,
    ArmDriver,
    ArmTable,
    Clock,
    DeviceError,
    FaultKind,
    LeaderDriver,
    LeaderTable,
    RealClock,
    SteppedClock,
)
from runtime.body_options import BodyOptions

pytestmark = pytest.mark.usefixtures("parts")

PATIENT_S = 10.0
"""For an answer that comes: how soon is up to how busy this computer is."""
SILENT = ""
DAMAGED = "\N{DEGREE SIGN}"
"""No answer of this arm's has such a character."""


def arm(clock: Clock, timeout_s: float = PATIENT_S, **keys: Any) -> ArmDriver:
    table = ArmTable.of("seven_joint").model_validate({"driver": "seven_joint", **keys})
    table = table.model_copy(update={"timeout_s": timeout_s})
    layout = describe(table.model, BodyOptions()).layout
    driver = table.build(ArmContext("arm", clock, joints=layout))
    assert isinstance(driver, ArmDriver)
    return driver


@contextmanager
def opened(driver: LeaderDriver) -> Iterator[None]:
    driver.open()
    try:
        yield
    finally:
        driver.close()


def position(driver: LeaderDriver) -> np.ndarray[Any, Any]:
    sample = driver.states.newest()
    assert sample is not None
    return sample["position"].copy()


def test_the_emulated_arm_begins_where_its_model_is_at_home() -> None:
    robot = describe(ArmTable.of("seven_joint").model_fields["model"].default, BodyOptions())
    assert robot.layout.joints == 8
    assert robot.layout.gripper_names == ("gripper",)
    with SteppedClock() as clock:
        driver = arm(clock)
        with opened(driver):
            driver.poll()
    np.testing.assert_allclose(position(driver), robot.home, atol=1e-6)
    model = robot.model()
    assert min(model.clearances(np.array(robot.home))) > 0.004
    assert model.fk(np.array(robot.home))[2, 2] < -0.99  # the hand points down


def test_nothing_moves_until_a_target_comes_and_then_with_a_lag() -> None:
    with SteppedClock() as clock:
        driver = arm(clock)
        with opened(driver):
            driver.targets.post(0, position=np.zeros(8))
            driver.close()
            driver.open()  # what was asked before is not obeyed after it
            for _ in range(20):
                assert driver.poll()
            start = position(driver)
            goal = start + 0.1
            driver.targets.post(clock.now_ns(), position=goal)
            driver.poll()
            sent = driver.sent.newest()
            assert sent is not None
            np.testing.assert_allclose(sent["position"], goal, atol=1e-6)
            asked_ns = sent.stamp_ns
            for _ in range(10):
                driver.poll()
            passed_s = (clock.now_ns() - asked_ns) / NS_PER_S
            assert passed_s == pytest.approx(0.1)
            left = goal - position(driver)
    np.testing.assert_allclose(left, 0.1 * math.exp(-passed_s / 0.05), rtol=1e-3)


def test_a_leader_is_moved_by_its_hand() -> None:
    with SteppedClock() as clock:
        table = LeaderTable.of("seven_joint").model_validate({"driver": "seven_joint"})
        layout = describe(ArmTable.of("seven_joint").model_fields["model"].default, BodyOptions()).layout
        leader = table.build(ArmContext("leader", clock, joints=layout))
        assert isinstance(leader, LeaderDriver)
        with opened(leader):
            leader.poll()
            before = position(leader)
            for _ in range(50):
                leader.poll()
    assert np.abs(position(leader) - before).min() > 0.05


def test_a_port_is_a_real_arm_s_on_the_real_clock() -> None:
    from seven_joint_arm.emulator import Emulator

    clock = RealClock()
    emulator = Emulator(clock)
    driver = arm(clock, port=emulator.plug())
    try:
        with opened(driver):
            driver.targets.post(clock.now_ns(), position=np.full(8, 0.5))
            while np.abs(position_after(driver) - 0.5).max() > 1e-3:
                pass
            newest = driver.states.newest()
            assert newest is not None
            assert newest.stamp_ns <= clock.now_ns()  # by the clock that the runtime reads
    finally:
        emulator.unplug()


def position_after(driver: ArmDriver) -> np.ndarray[Any, Any]:
    driver.poll()
    return position(driver)


class Line:
    """An emulator whose answers are spoiled."""

    def __init__(self, clock: Clock, answers: list[str | None]) -> None:
        from seven_joint_arm import emulator

        self.answers = answers
        self.good = emulator.Emulator(clock)
        self.answer, self.good.answer = self.good.answer, self.spoiled  # type: ignore[method-assign]

    def spoiled(self, request: str) -> str:
        answer = self.answer(request)
        other = self.answers.pop(0) if self.answers else None
        if other == SILENT:
            raise ValueError("not answered")
        return answer if other is None else other


@pytest.mark.parametrize(
    ("answers", "timeout_s", "kind"),
    [
        (["seven 2"], PATIENT_S, FaultKind.WRONG_MODEL),
        ([None, None, *[DAMAGED] * 3], PATIENT_S, FaultKind.BAD_PACKET),
        ([SILENT] * 3, 0.01, FaultKind.NO_REPLY),
    ],
)
def test_what_is_wrong_is_a_device_error(
    answers: list[str | None], timeout_s: float, kind: FaultKind
) -> None:
    clock = RealClock()
    line = Line(clock, answers)
    driver = arm(clock, timeout_s, port=line.good.plug())
    try:
        with pytest.raises(DeviceError) as caught, opened(driver):
            driver.poll()
    finally:
        driver.close()
        line.good.unplug()
    assert (caught.value.device, caught.value.kind) == ("arm", kind)


def test_a_damaged_answer_is_asked_for_again() -> None:
    clock = RealClock()
    line = Line(clock, [None, None, DAMAGED, DAMAGED])
    driver = arm(clock, port=line.good.plug())
    try:
        with opened(driver):
            assert driver.poll()
    finally:
        line.good.unplug()
    assert driver.statistics() == {"no_reply": 0, "bad_packet": 2}


def test_a_port_that_is_not_there(tmp_path: Path) -> None:
    driver = arm(RealClock(), port=str(tmp_path / "no_port"))
    with pytest.raises(DeviceError) as caught:
        driver.open()
    assert caught.value.kind is FaultKind.CANNOT_OPEN
    with pytest.raises(DeviceError) as caught:
        driver.poll()
    assert caught.value.kind is FaultKind.GONE
