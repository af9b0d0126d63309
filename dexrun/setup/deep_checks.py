"""What can only be told by opening devices, asking servers and measuring: seconds. Nothing moves."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np

from dexrun.config.settings import Settings
from dexrun.setup.findings import Grade, PreflightFinding, failed, passed, warned
from dexrun.setup.preflight import real_arms, real_cameras
from drivers.arms import describe
from drivers.feetech import registers as reg
from drivers.feetech.calibration import CalibrationError, load_calibration
from drivers.feetech.compare import compare
from drivers.feetech.options import FeetechOptions
from drivers.feetech.setup import connect
from drivers.opencv_camera.measure import measure
from planner.client import Planner
from planner.errors import PlannerError
from planner.questions.check_grasp import CheckGrasp
from planner.questions.check_instruction import CheckInstruction
from planner.questions.check_prompt import CheckPrompt
from planner.questions.classify import Classify
from planner.questions.decompose import Decompose
from planner.questions.mark import BoundingBox, Mark
from planner.questions.propose import Propose
from planner.questions.question import Question, View
from planner.questions.reply import Reply
from runtime.arm_model import ModelError
from runtime.clock import NS_PER_S, Clock
from runtime.messages import ColorImage, DeviceError
from runtime.table_model import MeshesMissingError

RATE = 0.9
"""Of the configured rate: a camera below it is said to be slow."""
LATE_S = 2e-3
"""A loop that is woken later than this at times misses its ticks."""
WRITTEN_MIB, SLOW_MIB_S = 32, 20
"""What is written to see how fast the disk is, and what three cameras and depth need."""
_RED = (60, 150, 260, 330)


def servos(settings: Settings, clock: Clock) -> Iterator[PreflightFinding]:
    """Whether the servos of every real arm answer, and hold the calibration of its file."""
    for key, table in real_arms(settings).items():
        yield servos_of(key, table, clock)


def servos_of(key: str, table: FeetechOptions, clock: Clock) -> PreflightFinding:
    """The same of one arm's table."""
    what = f"{key} servos"
    try:
        robot = describe(getattr(table, "model", ""))
        if table.calibration is None:
            return failed(what, "no calibration is given", "dexrun calibrate makes it")
        calibration = load_calibration(table.calibration, robot.joints)
        names = {joint.id: name for name, joint in calibration.items()}
        with closing(connect(key, table, names, clock)) as bus:
            bus.check_models(names, reg.MODEL_STS3215)
            wrong = [
                f"{n}: {why}" for n, all_ in compare(bus, calibration, robot.layout).items() for why in all_
            ]
            volts = bus.read(next(iter(names)), reg.PRESENT_VOLTAGE) * reg.VOLTAGE_V
    except (ModelError, MeshesMissingError, CalibrationError) as error:
        return failed(what, str(error))
    except DeviceError as error:
        return failed(what, error.detail or str(error), "dexrun find-ports shows what answers where")
    if wrong:
        todo = "use the file of this arm, or calibrate it again (dexrun calibrate)"
        return failed(what, "; ".join(wrong), todo)
    return passed(what, f"all answer, hold what {table.calibration} says, and get {volts:.1f} V")


def cameras(settings: Settings, clock: Clock) -> Iterator[PreflightFinding]:
    """Whether every real UVC or network camera delivers what is configured."""
    for name, camera in real_cameras(settings).items():
        what = f"cameras.{name} rate"
        try:
            seen = measure(name, camera, clock)
        except DeviceError as error:
            yield failed(what, error.detail or str(error), "dexrun find-cameras shows what it can do")
            continue
        said = f"{seen.size[0]}x{seen.size[1]}, {seen.fps:.1f} of {camera.fps} fps"
        if seen.size != (camera.width, camera.height):
            todo = f"width = {seen.size[0]}, height = {seen.size[1]}: nothing is scaled"
            yield failed(what, f"{said}, instead of {camera.width}x{camera.height}", todo)
            continue
        slow = seen.fps < RATE * camera.fps
        todo = "more light (exposure), MJPG, or fps as it delivers"
        yield warned(what, said, todo) if slow else passed(what, said)


def disk_speed(settings: Settings, clock: Clock) -> PreflightFinding:
    """How fast `runs` takes data, synced."""
    folder = next(
        each
        for each in (Path(settings.runs).absolute(), *Path(settings.runs).absolute().parents)
        if each.exists()
    )
    began = clock.now_ns()
    try:
        with TemporaryFile(dir=folder) as file:
            for _ in range(WRITTEN_MIB):
                file.write(os.urandom(2**20))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return failed("disk speed", f"{folder}: {error.strerror or error}", "choose another folder (--runs)")
    speed = WRITTEN_MIB * NS_PER_S / max(1, clock.now_ns() - began)
    said = f"{speed:.0f} MiB/s"
    if speed < SLOW_MIB_S:
        return warned(
            "disk speed", said, f"below {SLOW_MIB_S}, samples may be dropped: record to another disk"
        )
    return passed("disk speed", said)


def waking(settings: Settings, clock: Clock, times: int = 100) -> PreflightFinding:
    """How late this machine wakes an ordinary thread that sleeps for 2 ms."""
    late = []
    for _ in range(times):
        due = clock.now_ns() + 2_000_000
        clock.wait_until_ns(due)
        late.append((clock.now_ns() - due) / NS_PER_S)
    p99 = float(np.quantile(late, 0.99))
    said = f"an ordinary thread is woken {1e6 * p99:.0f} us late (p99 of {times})"
    if p99 <= LATE_S:
        return passed("waking", said)
    first = "" if settings.realtime.scheduler == "fifo" else ', or realtime.scheduler = "fifo"'
    return warned("waking", said, f"end what else runs{first} (docs/kernel.md)")


def policy_server(settings: Settings) -> Iterator[PreflightFinding]:
    """Whether somebody listens where the policy's server should be."""
    policy = settings.policy
    host, port = getattr(policy, "host", None), getattr(policy, "port", None)
    if settings.mode == "teleop" or not policy.behind_a_server or not host or not port:
        return
    try:
        socket.create_connection((host.strip("[]"), port), 3.0).close()
    except OSError as error:
        todo = "start it (dexrun serve), or mend policy.host and policy.port"
        yield failed("policy server", f"{host}:{port}: {error.strerror or error}", todo)
    else:
        yield passed("policy server", f"{host}:{port} listens")


def table_picture() -> ColorImage:
    """A drawn table, RGB uint8 ``[480, 640, 3]``: grey, with a red and a blue square on it."""
    picture = np.full((480, 640, 3), 175, np.uint8)
    x1, y1, x2, y2 = _RED
    picture[y1:y2, x1:x2] = (205, 30, 30)
    picture[200:340, 420:560] = (30, 60, 200)
    return picture


async def planner(settings: Settings, clock: Clock) -> PreflightFinding:
    """Whether the planner answers each of its seven tasks in a form that can be read."""
    questions: tuple[Question[Reply], ...] = (
        CheckPrompt(),
        Classify("put the red square in the tray"),
        Propose(),
        Decompose("put the red square in the tray"),
        CheckInstruction("the red square"),
        Mark("the red square"),
        CheckGrasp("the red square"),
    )
    picture = table_picture()
    bad, slowest_s, elsewhere = [], 0.0, ""
    try:
        async with Planner(settings.planner, clock) as asked:
            for question in questions:
                began = clock.now_ns()
                try:
                    reply = await asked.ask(question, {View.HEAD: picture, View.WRIST: picture})
                    elsewhere = elsewhere or _elsewhere(reply)
                except PlannerError as error:
                    if error.kind != "no_object":
                        bad.append(f"{error.task}: {error.kind}: {error.detail}")
                    if error.kind in ("unreachable", "timeout"):
                        break
                slowest_s = max(slowest_s, (clock.now_ns() - began) / NS_PER_S)
            where = asked.where
    except PlannerError as error:
        return failed("planner", str(error))
    if bad:
        todo = "docs/planner.md says what a server must answer"
        return failed("planner", f"{where}: {'; '.join(bad)}", todo)
    said = f"{where} answers all {len(questions)} tasks, the slowest in {slowest_s:.1f} s"
    if elsewhere and settings.planner.base_url is not None:
        return PreflightFinding(
            Grade.WARN, "planner", f"{said}; {elsewhere}", "planner.box_units says what it counts in"
        )
    return passed("planner", said)


def _elsewhere(reply: object) -> str:
    """That a box is not on the red square, in words."""
    if not isinstance(reply, BoundingBox):
        return ""
    x1, y1, x2, y2 = reply.bbox_2d
    middle = ((x1 + x2) / 2, (y1 + y2) / 2)
    if _RED[0] <= middle[0] <= _RED[2] and _RED[1] <= middle[1] <= _RED[3]:
        return ""
    box = ", ".join(f"{each:.0f}" for each in reply.bbox_2d)
    return f"it marked a red square at {', '.join(map(str, _RED))} at {box}"
