"""The roles without their processes: commands that are listened to, workers that only hear."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dexrun.annotation.jobs import Job
from dexrun.annotation.options import AnnotateOptions
from dexrun.annotation.pipeline import Pipeline
from dexrun.annotation.processes import WorkerOptions
from runtime.frame_channel import FrameMessage


class Hand:
    """A clock that a test sets."""

    at_ns = 0

    def now_ns(self) -> int:
        return self.at_ns


class Listener:
    """Takes the place of `Commands`: keeps what a role answers."""

    def __init__(self) -> None:
        self.said: list[dict[str, Any]] = []
        self.gone = False

    def answer(self, **said: Any) -> None:
        self.said.append(said)

    def hear(self) -> bool:
        return not self.gone


class Taker:
    """Takes the place of `FrameSender`: keeps what is sent."""

    def __init__(self, address: str = "") -> None:
        self.sent: list[FrameMessage] = []

    def send(self, message: FrameMessage, timeout_ns: int) -> bool:
        self.sent.append(message)
        return True

    def settle(self, timeout_ns: int) -> bool:
        return True

    def close(self) -> None:
        pass


class Arrivals:
    """Takes the place of `FrameReceiver`: what has come."""

    address = ""

    def __init__(self, *messages: FrameMessage) -> None:
        self.messages = list(messages)

    def receive(self, timeout_ns: int) -> FrameMessage | None:
        return self.messages.pop(0) if self.messages else None

    def close(self) -> None:
        pass


class Hearer:
    """Takes the place of `WorkerProcess`: keeps what it is told."""

    def __init__(self, name: str, clock: Hand) -> None:
        self.name = name
        self.ready = True
        self.address = f"tcp://{name}"
        self.pid = 1
        self.heard_ns = clock.now_ns()
        self.killed = False
        self.waits_for: list[int] = []
        self.told: list[dict[str, Any]] = []

    def say(self, **command: Any) -> None:
        self.told.append(command)

    def kill(self) -> None:
        self.killed = True

    def asked(self, do: str) -> Iterator[dict[str, Any]]:
        return (each for each in self.told if each["do"] == do)


class Rig:
    """A pipeline over `paths` whose workers are hearers."""

    def __init__(self, paths: list[Path], options: AnnotateOptions, **how: Any) -> None:
        self.clock = Hand()
        self.told: list[tuple[str, Any]] = []
        hosts = {"tracker": "127.0.0.1"}
        self.pipeline = Pipeline(
            paths,
            options,
            WorkerOptions(hosts=hosts, **how),
            self.clock,  # type: ignore[arg-type]
            lambda *said: self.told.append(said),
        )
        self.pipeline._start = self._start  # type: ignore[method-assign]
        for name in ("reader", "namer", *self.pipeline._trackers, "writer"):
            self._start(name)

    def _start(self, name: str) -> None:
        self.pipeline._workers[name] = Hearer(name, self.clock)  # type: ignore[assignment]

    @property
    def jobs(self) -> list[Job]:
        return self.pipeline._jobs

    def worker(self, name: str) -> Hearer:
        found: Any = self.pipeline._workers[name]
        assert isinstance(found, Hearer)
        return found

    def heard(self, name: str, **said: Any) -> None:
        """A worker says something."""
        self.worker(name).heard_ns = self.clock.now_ns()
        self.pipeline._heard(self.worker(name), said)  # type: ignore[arg-type]

    def go_on(self) -> None:
        self.pipeline._assign()

    def lose(self, name: str) -> None:
        """A worker ends."""
        self.pipeline._lost(self.worker(name), f"the {name} ended")  # type: ignore[arg-type]
