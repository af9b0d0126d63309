"""The world's process: serves the control channel and, in real time, keeps the table moving."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drivers.world.channel import ChannelClosedError, ControlChannel, Message
from drivers.world.config import WorldConfig
from drivers.world.faults import Fault
from drivers.world.render import prepare_environment
from runtime.body_options import StandingArmOptions
from runtime.clock import NS_PER_S, Clock, RealClock
from runtime.messages import CameraInfo

if TYPE_CHECKING:
    from drivers.world.world import World

TICK_NS = 5_000_000
SLIP_NS = 60_000_000
"""When the physics is further behind than this, the time in between is left out, and said so."""

_WATCH_S = 1.0


@dataclass(slots=True)
class Health:
    """How well the world keeps up with real time."""

    slipped_s: float = 0.0
    """Time that the table stood still because the machine was too slow."""
    slips: int = 0
    head_frames: int = 0
    wrist_frames: int = 0
    skipped_frames: int = 0
    """Pictures left out because the one before took too long, or showed the same instant."""
    render_s: float = 0.0
    """Spent on pictures so far."""


def serve(channel_fd: int, doorbell_fd: int) -> int:
    """Be the world at the other end of `channel_fd` until it hangs up; returns the exit status."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    channel = ControlChannel(socket.socket(fileno=channel_fd))
    bell = socket.socket(fileno=doorbell_fd)
    bell.setblocking(False)
    folder: Path | None = None
    _die_with(os.getppid(), channel)
    try:
        hello = channel.receive()
        folder = Path(hello["folder"])
        os.nice(int(hello["nice"]))
        _serve_world(channel, bell, hello, folder)
    except ChannelClosedError:
        return 0
    except Exception as error:
        with contextlib.suppress(ChannelClosedError):
            channel.send({"ok": False, "error": f"{type(error).__name__}: {error}"})
        return 1
    finally:
        channel.close()
        bell.close()
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
    return 0


def _die_with(parent: int, channel: ControlChannel) -> None:
    """End the conversation when `parent` is gone, even if a child of its own still holds our channel."""

    def watch() -> None:
        never = threading.Event()
        while os.getppid() == parent:
            never.wait(_WATCH_S)
        channel.hang_up()

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


def _serve_world(channel: ControlChannel, bell: socket.socket, hello: Message, folder: Path) -> None:
    config = WorldConfig.model_validate(hello["config"])
    prepare_environment(config.render)
    from drivers.arms.choice import robot_of_all
    from drivers.force.config import ForceConfig
    from drivers.world.world import World

    clock = RealClock()
    start_ns = int(hello["start_ns"]) if hello["stepped"] else clock.now_ns()
    arms = {name: StandingArmOptions.model_validate(arm) for name, arm in hello["arms"].items()}
    force = ForceConfig.model_validate(hello["force"])
    world = World(config, force, folder, start_ns, robot_of_all(arms), hello["baudrates"])
    try:
        if hello["stepped"]:
            Stepped(world, channel, bell).run()
        else:
            RealTime(world, channel, bell, clock).run()
    finally:
        world.close()


def _info(info: CameraInfo) -> dict[str, Any]:
    pose = info.base_from_camera
    return {
        "name": info.name,
        "intrinsics": asdict(info.intrinsics),
        "depth_scale_m": info.depth_scale_m,
        "base_from_camera": None if pose is None else pose.tolist(),
    }


def ready_message(world: World) -> Message:
    """What the client is told once everything is there."""
    return {
        "ok": True,
        "addresses": world.devices.addresses(),
        "ring": world.ring.name,
        "cameras": {name: _info(info) for name, info in world.infos.items()},
        "calibration": {wire: bank.encoders.calibration() for wire, bank in world.banks.items()},
        "middles_rad": {wire: bank.encoders.middles() for wire, bank in world.banks.items()},
        "objects": [asdict(o) for o in world.table.objects if o.present],
        "start_joints_rad": world.table.bank.joints_rad().tolist(),
    }


class _Server:
    """Answers the commands that both kinds of world have."""

    def __init__(self, world: World, channel: ControlChannel, bell: socket.socket) -> None:
        self.world = world
        self.channel = channel
        self.health = Health()
        self._bell = bell
        self._answers: dict[str, Callable[[Message], Message]] = {
            "judge": lambda message: {"judge": world.judge().as_json()},
            "motion": lambda message: {"motion": world.motion()},
            "inject": self._inject,
            "operator": lambda message: {"operator": world.command(message["action"])},
            "health": lambda message: {"health": asdict(self.health)},
        }

    def _inject(self, message: Message) -> Message:
        self.world.inject(Fault.model_validate(message["fault"]))
        return {}

    def answer(self, message: Message) -> Message:
        """Do what `message` asks."""
        try:
            return {"ok": True, **self._answers[message["op"]](message)}
        except (ValueError, KeyError) as error:
            return {"ok": False, "error": str(error)}

    def serve_channel(self) -> None:
        """Answer until the other side hangs up."""
        with contextlib.suppress(ChannelClosedError):
            while True:
                self.channel.send(self.answer(self.channel.receive()))

    def ring_bell(self) -> None:
        """Say that a head frame has been published."""
        with contextlib.suppress(OSError):  # nobody listens, or is hopelessly behind
            self._bell.send(b"f")


class Stepped(_Server):
    """Moves only when told to, in one thread: a function of its configuration and of what it is told."""

    def __init__(self, world: World, channel: ControlChannel, bell: socket.socket) -> None:
        super().__init__(world, channel, bell)
        self._answers["advance"] = lambda message: self._advance(int(message["to"]))

    def run(self) -> None:
        """Serve."""
        self.channel.send({**ready_message(self.world), "next": self._next_ns()})
        self.serve_channel()

    def _next_ns(self) -> int:
        world = self.world
        return min(world.head_due.next_ns, world.wrist_due.next_ns, world.force_due.next_ns)

    def _advance(self, to_ns: int) -> Message:
        world = self.world
        sent = {"head": 0, "wrist": 0, "force": 0}
        while (due := self._next_ns()) <= to_ns:
            sent["force"] += world.advance(due)
            if world.head_due.next_ns == due:
                world.head_due.take()
                world.render_head(due)
                self.health.head_frames += 1
                sent["head"] += 1
            if world.wrist_due.next_ns == due:
                world.wrist_due.take()
                sent["wrist"] += world.render_wrist(due)[0]
                self.health.wrist_frames += 1
        sent["force"] += world.advance(to_ns)
        return {"sent": sent, "next": self._next_ns()}


class RealTime(_Server):
    """Keeps to the clock: physics on one thread, commands on another, pictures on this one."""

    def __init__(self, world: World, channel: ControlChannel, bell: socket.socket, clock: Clock) -> None:
        super().__init__(world, channel, bell)
        self._clock = clock
        self._stop = threading.Event()
        self._failure: BaseException | None = None

    def run(self) -> None:
        """Serve until the other side hangs up.

        Raises:
            Exception: whatever stopped the physics.
        """
        self.world.render_head()  # the first picture compiles shaders; better now than later
        self.world.render_wrist()
        self.world.jump(self._clock.now_ns())
        self._skip_frames()
        threads = [
            threading.Thread(target=self._guarded, args=(work,), name=name, daemon=True)
            for name, work in (("channel", self.serve_channel), ("physics", self._physics))
        ]
        self.channel.send(ready_message(self.world))
        for thread in threads:
            thread.start()
        self._guarded(self._pictures)
        threads[1].join()
        if self._failure is not None:
            raise self._failure

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:
            self._failure = self._failure or error
        finally:
            self._stop.set()

    def _physics(self) -> None:
        clock, world = self._clock, self.world
        tick = clock.now_ns()
        while not self._stop.is_set():
            tick += TICK_NS
            clock.wait_until_ns(tick)
            late = clock.now_ns() - tick
            if late > SLIP_NS:
                self.health.slips += 1
                self.health.slipped_s += late / NS_PER_S
                tick += late
                world.jump(tick)
            world.advance(tick)

    def _skip_frames(self) -> None:
        now = self._clock.now_ns()
        self.world.head_due.skip_to(now)
        self.world.wrist_due.skip_to(now)

    def _pictures(self) -> None:
        """At their times; none of an instant that was shown, as where the physics had no processor."""
        clock, world, health = self._clock, self.world, self.health
        shown_ns = {world.head_due: -1, world.wrist_due: -1}
        while not self._stop.is_set():
            due = min(world.head_due, world.wrist_due, key=lambda d: d.next_ns)
            clock.wait_until_ns(due.next_ns)
            began = clock.now_ns()
            health.skipped_frames += due.skip_to(began)
            due.take()
            if not world.moved_since(shown_ns[due]):
                health.skipped_frames += 1
            elif due is world.head_due:
                health.head_frames += 1  # before it can be seen
                shown_ns[due] = world.render_head()
                self.ring_bell()
            else:
                health.wrist_frames += 1
                shown_ns[due] = world.render_wrist()[1]
            health.render_s += (clock.now_ns() - began) / NS_PER_S
