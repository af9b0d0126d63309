"""A robot made of nothing, for `bench.panel`: cameras, an arm and a control loop, on the real clock."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from bench.loop import CLOCK
from dexrun.config.panel_options import PanelOptions
from dexrun.panel.shared import SharedCamera, SharedFacts
from dexrun.shown import Shown
from drivers.arms import describe
from runtime.clock import NS_PER_S
from runtime.control import ControlLoop
from runtime.control_options import LoopOptions
from runtime.faults import FaultLog
from runtime.limits import SafetyOptions
from runtime.realtime import RealtimeOptions
from runtime.ring import Mailbox, Ring
from runtime.safety import SafetyStage
from runtime.statistics import RunStatistics
from runtime.tick import tick_layout

RATE_HZ, FPS, WIDTH, HEIGHT = 30.0, 30.0, 640, 480


def pictures(depth: bool) -> list[dict[str, np.ndarray[Any, Any]]]:
    """Eight frames of a table with something on it that moves; as large as JPEG as a camera's."""
    noise = np.random.default_rng(0)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    found = []
    for place in range(8):
        color = np.stack([rows // 3, columns // 4, (rows + columns) // 6], axis=2).astype(np.int16)
        color[200:260, 60 * place : 60 * place + 60] = (220, 30, 30)
        color += noise.integers(-4, 5, color.shape, np.int16)
        frame = {"color": np.clip(color, 0, 255).astype(np.uint8)}
        if depth:
            frame["depth"] = (500 + rows).astype(np.uint16)
        found.append(frame)
    return found


class MadeUpCamera:
    """Frames at 30 Hz on a thread of its own, stamped as they are taken."""

    def __init__(self, *, depth: bool) -> None:
        size = (HEIGHT, WIDTH)
        more = {"depth": (size, "<u2")} if depth else {}
        self.frames = Ring({"color": ((*size, 3), "|u1"), **more}, 8)
        self.ending = False
        self._pictures = pictures(depth)

    def run(self) -> None:
        due_ns, number = CLOCK.now_ns(), 0
        while not self.ending:
            CLOCK.wait_until_ns(due_ns)
            self.frames.push(CLOCK.now_ns(), **self._pictures[number % len(self._pictures)])
            due_ns, number = due_ns + round(NS_PER_S / FPS), number + 1


class MadeUpArm:
    """Is where it is asked to be, 100 times a second."""

    def __init__(self, middle: np.ndarray[Any, Any]) -> None:
        fields = dict.fromkeys(("position", "velocity", "load"), (middle.shape, "<f8"))
        self.states, self.targets = Ring(fields, 16), Mailbox({"position": (middle.shape, "<f8")})
        self.health = Ring({"temperature_c": (middle.shape, "<f8")}, 4)
        self.ending = False
        self._position = middle

    def run(self) -> None:
        due_ns = CLOCK.now_ns()
        while not self.ending:
            CLOCK.wait_until_ns(due_ns)
            if (target := self.targets.take()) is not None:
                self._position = target["position"]
            self.states.push(CLOCK.now_ns(), position=self._position, velocity=0, load=0)
            due_ns += NS_PER_S // 100


def made_up_robot() -> Any:
    """As much of a `dexrun.robot.Robot` as a panel looks at, with a control loop that ticks."""
    model = describe().model()
    arm, cameras = (
        MadeUpArm(model.middle()),
        {"head": MadeUpCamera(depth=True), "wrist": MadeUpCamera(depth=False)},
    )
    figures, records = RunStatistics(), Ring(tick_layout(model.joints), 4096)
    loop = ControlLoop(
        CLOCK,
        LoopOptions(rate_hz=RATE_HZ),
        arm,
        SafetyStage(SafetyOptions(), model),
        figures,
        records=records,
        grippers=model.grippers,
    )
    settings = SimpleNamespace(
        mode="rollout",
        panel=PanelOptions(),
        realtime=RealtimeOptions(),
        working_arm="",
        followers=lambda: {"": None},
        policy=SimpleNamespace(type="bench"),
        recording=SimpleNamespace(task="bench"),
    )
    return SimpleNamespace(
        settings=settings,
        clock=CLOCK,
        arms={"arm": arm},
        cameras=cameras,
        force=None,
        leader=None,
        leaders={},
        control=loop,
        model=model.copy(),
        records=records,
        statistics=figures,
        faults=SimpleNamespace(log=FaultLog()),
        survived=dict,
        shown=Shown(),
    )


def facts(robot: Any) -> SharedFacts:
    """What the made-up run is."""
    names = list(robot.model.names)
    shared = {
        name: SharedCamera(WIDTH, HEIGHT, "depth" in each.frames.layout, 0.001)
        for name, each in robot.cameras.items()
    }
    return SharedFacts(
        "rollout",
        RATE_HZ,
        names,
        ["rad"] * len(names),
        robot.model.ranges.tolist(),
        list(robot.model.grippers),
        cameras=shared,
    )
