"""A live run for other people's viewers: a process of its own reads what the run shares, as the panel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from dexrun.panel.link import AttachedRun, NoRunError
from runtime.clock import NS_PER_S, Clock
from runtime.ring import Sample

_LOOK_NS, _STATUS_NS = NS_PER_S // 100, NS_PER_S // 4


class LiveSink(Protocol):
    """Takes what comes, on one thread; `wall_ns` is since the Unix epoch, or of a stepped run's own time."""

    def begin(self, link: Mapping[str, Any]) -> None:
        """What is constant about the run (``panel.json``)."""

    def wants(self, camera: str) -> bool:
        """Whether somebody looks at this camera."""

    def tick(self, wall_ns: int, sample: Sample) -> None:
        """A tick record (`runtime.tick.tick_layout`)."""

    def picture(self, camera: str, wall_ns: int, sample: Sample) -> None:
        """A new picture (`dexrun.panel.shared.SharedCamera.layout`)."""

    def status(self, wall_ns: int, status: Mapping[str, Any]) -> None:
        """What the run says of itself."""

    def alive(self) -> bool:
        """Whether there is somebody to go on for."""


def stream(folder: Path, sink: LiveSink, clock: Clock) -> str:
    """Until the run of `folder` has gone, or the sink has; returns why.

    Raises:
        NoRunError: there is no such run.
    """
    run = AttachedRun.attach(folder, clock)
    offset_ns = 0 if run.link["stepped"] else clock.wall_ns() - clock.now_ns()
    seen = dict.fromkeys(run.link["cameras"], -1)
    tick, due_ns = 0, 0
    sink.begin(run.link)
    try:
        while sink.alive():
            for sample in run.ticks_since(tick):
                sink.tick(sample.stamp_ns + offset_ns, sample)
                tick = sample.index + 1
            for camera in filter(sink.wants, seen):
                picture = run.newest_picture(camera, seen[camera])
                if picture is not None:
                    seen[camera] = picture.index
                    sink.picture(camera, picture.stamp_ns + offset_ns, picture)
            if clock.now_ns() >= due_ns and (status := run.status()) is not None:
                due_ns = clock.now_ns() + _STATUS_NS
                sink.status(clock.now_ns() + offset_ns, status)
            clock.wait_until_ns(clock.now_ns() + _LOOK_NS)
    except NoRunError as error:
        return str(error)
    finally:
        run.close()
    return "closed"


def texts_of(status: Mapping[str, Any]) -> Sequence[str]:
    """What a person reads of a status, line by line."""
    state = ": ".join(filter(None, (str(status.get("state", "")), str(status.get("reason", "")))))
    said = {"step": status.get("step"), "instruction": status.get("instruction"), "state": state}
    return [f"{name}: {value}" for name, value in said.items() if value]
