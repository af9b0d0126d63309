"""The arm of ``examples/``: the driver against its emulator, over a pseudo-terminal."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
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


def arm(clock: Clock, **keys: Any) -> ArmDriver:
    table = ArmTable.of("seven_joint").model_validate({"driver": "seven_joint", **keys})
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
    """It answers in good time even where this computer is busy: a lost answer is asked for again."""
    from seven_joint_arm.emulator import Emulator

    clock = RealClock()
    emulator = Emulator(clock)
    driver = arm(clock, port=emulator.plug(), timeout_s=0.04)
    try:
        with opened(driver):
            driver.targets.post(clock.now_ns(), position=np.full(8, 0.5))
            while np.abs(position_after(driver) - 0.5).max() > 1e-3:
                pass
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
        return answer if other is None else other


@pytest.mark.parametrize(
    ("answers", "kind"),
    [(["seven 2"], FaultKind.WRONG_MODEL), ([None, None, *["\N{DEGREE SIGN}"] * 3], FaultKind.BAD_PACKET)],
)
def test_what_is_wrong_is_a_device_error(answers: list[str | None], kind: FaultKind) -> None:
    clock = RealClock()
    line = Line(clock, answers)
    driver = arm(clock, port=line.good.plug(), timeout_s=0.04)
    try:
        with pytest.raises(DeviceError) as caught, opened(driver):
            driver.poll()
    finally:
        driver.close()
        line.good.unplug()
    assert (caught.value.device, caught.value.kind) == ("arm", kind)


def test_an_arm_that_was_unplugged_is_gone() -> None:
    clock = RealClock()
    from seven_joint_arm.emulator import Emulator

    emulator = Emulator(clock)
    driver = arm(clock, port=emulator.plug())
    driver.open()
    driver.poll()
    driver.close()
    emulator.unplug()
    with pytest.raises(DeviceError) as caught:
        driver.open()
    assert caught.value.kind is FaultKind.CANNOT_OPEN
    with pytest.raises(DeviceError) as caught:
        driver.poll()
    assert caught.value.kind is FaultKind.GONE
