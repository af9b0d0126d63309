"""The runtime's side of the simulated tabletop: starts its process, talks to it, takes it down."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from drivers.force.config import ForceConfig
from drivers.world.channel import ChannelClosedError, ControlChannel, Message
from drivers.world.config import WorldConfig
from drivers.world.faults import Fault
from drivers.world.judge import JudgeReport
from drivers.world.operator import OperatorReport
from runtime.body_options import StandingArmOptions
from runtime.clock import Clock
from runtime.messages import CameraInfo, Intrinsics
from runtime.shared_memory import sweep

if TYPE_CHECKING:
    from drivers.realsense.emulator import RealSenseEmulator

READY_S = 120.0
REPLY_S = 120.0
_CLOSE_S = 3.0


class WorldError(Exception):
    """The world's process failed, or refused. One line that says why."""


class WorldClient:
    """A simulated tabletop in its own process. Implements `runtime.stepped.Simulation`.

    The process is started at once and readied in parallel; `wait_ready`, or the first use of anything it
    has to tell, waits for it. On a stepped clock, `runtime.stepped.SteppedClock.attach` it.

    Args:
        clock: whose kind decides whether the table follows real time or `advance`.
        force: the force sensor as the runtime reads it; its port is ignored.
        arms: by name, which models stand on the table and where; one alone is called ``""``.
        baudrates: that the arms' servos are set to, by what their wires are called.

    Attributes:
        process: the world's process.
    """

    def __init__(
        self,
        config: WorldConfig,
        clock: Clock,
        force: ForceConfig | None = None,
        arms: Mapping[str, StandingArmOptions] | None = None,
        baudrates: Mapping[str, int] | None = None,
    ) -> None:
        self._config = config
        self._stepped = clock.stepped
        self._lock = threading.Lock()
        self._ready: Message | None = None
        self._head: RealSenseEmulator | None = None
        self._closed = False
        self._lost = ""
        """Why nothing more can be asked: a reply that comes too late would be taken for the next one."""
        self._next_ns: int | None = None
        self._folder = tempfile.mkdtemp(prefix="dexrun-world-")
        self._errors = tempfile.TemporaryFile(prefix="dexrun-world-")  # noqa: SIM115 - closed by close()
        ours, theirs = socket.socketpair()
        self._bell, their_bell = socket.socketpair()
        with theirs, their_bell:
            command = [sys.executable, "-m", "drivers.world", "--channel", str(theirs.fileno())]
            self.process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                [*command, "--doorbell", str(their_bell.fileno())],
                pass_fds=(theirs.fileno(), their_bell.fileno()),
                stdin=subprocess.DEVNULL,
                stderr=self._errors,
                start_new_session=True,  # Ctrl-C is the runtime's business
            )
        self._channel = ControlChannel(ours)
        hello = {
            "config": config.model_dump(mode="json"),
            "force": (force or ForceConfig(port="world")).model_dump(mode="json"),
            "arms": {name: _described(arm) for name, arm in (arms or {"": StandingArmOptions()}).items()},
            "baudrates": dict(baudrates or {}),
            "folder": self._folder,
            "stepped": self._stepped,
            "start_ns": clock.now_ns(),
            "nice": 0 if self._stepped else config.nice,
        }
        with contextlib.suppress(ChannelClosedError):  # told by wait_ready
            self._channel.send(hello)

    def __enter__(self) -> WorldClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- what it has to tell

    def wait_ready(self, timeout_s: float = READY_S) -> Message:
        """Wait until the world stands.

        Raises:
            WorldError: it does not, and why.
        """
        with self._lock:
            if self._ready is None:
                reply = self._receive(timeout_s)
                self._next_ns = reply.get("next")
                self._ready = reply
            return self._ready

    @property
    def addresses(self) -> dict[str, str]:
        """Where each device is: ports of ``follower``, ``leader`` and ``force``, the URL of ``wrist``, the
        serial number of ``head`` (to be looked for in `realsense_context`). Of several arms, each is called
        by its name, and its leader ``leader_<name>``.
        """
        return {**self.wait_ready()["addresses"], "head": self.head.serial}

    @property
    def camera_infos(self) -> dict[str, CameraInfo]:
        """Of ``head`` (with its pose in the arm's base frame) and ``wrist``."""
        return {name: _camera_info(entry) for name, entry in self.wait_ready()["cameras"].items()}

    @property
    def calibration(self) -> dict[str, dict[str, dict[str, int]]]:
        """Of each arm by its wire, in the layout of LeRobot's calibration files."""
        return dict(self.wait_ready()["calibration"])

    @property
    def middles_rad(self) -> dict[str, dict[str, float]]:
        """Of each arm by its wire, the model's angle in the middle of each joint's calibrated range."""
        return dict(self.wait_ready()["middles_rad"])

    @property
    def objects(self) -> list[dict[str, Any]]:
        """What was put on the table: name, shape, color, size_m, x_m, y_m, yaw_rad. For tests and reports."""
        return list(self.wait_ready()["objects"])

    @property
    def head(self) -> RealSenseEmulator:
        """The head camera's emulator, which lives in this process. Made at the first use."""
        ready = self.wait_ready()
        if self._head is None:
            from drivers.realsense.emulator import RealSenseEmulator

            self._head = RealSenseEmulator(
                ready["ring"],
                None if self._stepped else self._bell.detach(),
                self.camera_infos["head"],
                fps=round(self._config.head.fps),
            )
        return self._head

    @property
    def realsense_context(self) -> Any:
        """The librealsense context in which the head camera is plugged in."""
        return self.head.context

    # --- the simulation, on a stepped clock

    def next_event_ns(self) -> int | None:
        """When the world next sends something of its own accord."""
        self.wait_ready()
        return self._next_ns

    def advance(self, to_ns: int) -> Mapping[str, int]:
        """Move the world to `to_ns`; returns what was sent, by wire: frames, and bytes of force.

        Raises:
            WorldError: the process is gone.
        """
        reply = self._ask({"op": "advance", "to": to_ns})
        self._next_ns = reply["next"]
        sent = dict(reply["sent"])
        if self._head is not None and sent["head"]:
            sent["head"] = self._head.deliver(sent["head"])
        return sent

    # --- the rest

    def judge(self, timeout_s: float | None = None) -> JudgeReport:
        """The score now, from ground truth."""
        return JudgeReport.from_json(self._ask({"op": "judge"}, timeout_s)["judge"])

    def motion(self) -> dict[str, Any]:
        """What the arms ran into (`drivers.world.witness.ContactWatch`); empty unless ``[world] watched``."""
        return dict(self._ask({"op": "motion"})["motion"])

    def operator(self, action: str = "") -> OperatorReport:
        """Have the scripted operator ``"start"`` or ``"stop"``, or just ask what it does."""
        return OperatorReport(**self._ask({"op": "operator", "action": action})["operator"])

    def health(self) -> dict[str, float]:
        """How well the world keeps up with real time (`drivers.world.process.Health`)."""
        return dict(self._ask({"op": "health"})["health"])

    def ended(self) -> str:
        """Why the process is gone, in one line; ``""`` while it is there. Does not wait."""
        return "" if self.process.poll() is None else self._obituary()

    def inject(self, fault: Fault) -> None:
        """Make `fault` happen.

        Raises:
            WorldError: there is no such object on the table.
        """
        if fault.device == "head":
            self.head.inject(fault.kind)
        else:
            self._ask({"op": "inject", "fault": fault.model_dump(mode="json")})

    def close(self) -> None:
        """Take the world down; its process is gone afterwards. Idempotent. A question under way fails."""
        if self._closed:
            return
        self._closed = True
        if self._head is not None:
            self._head.close()
        if self._lost:  # who does not answer will not go when told to
            self.process.kill()
        self._channel.hang_up()  # before the lock: who asks has it for as long as the answer takes
        for end in (self.process.terminate, self.process.kill):
            try:
                self.process.wait(_CLOSE_S)
                break
            except subprocess.TimeoutExpired:
                end()
        self.process.wait()
        sweep()  # its rings, if it was killed
        with self._lock:
            self._lost = self._lost or "the simulated world is closed"
            self._channel.close()
            self._bell.close()
            self._errors.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _ask(self, message: Message, timeout_s: float | None = None) -> Message:
        self.wait_ready()
        with self._lock:
            self._check()
            try:
                self._channel.send(message)
            except ChannelClosedError as error:
                raise WorldError(self._obituary()) from error
            return self._receive(REPLY_S if timeout_s is None else timeout_s)

    def _receive(self, timeout_s: float) -> Message:
        self._check()
        try:
            reply = self._channel.receive(timeout_s)
        except ChannelClosedError as error:
            raise WorldError(self._obituary()) from error
        except TimeoutError as error:
            self._lost = f"the simulated world did not answer within {timeout_s:g} s"
            raise WorldError(self._lost) from error
        if not reply["ok"]:
            raise WorldError(f"the simulated world: {reply['error']}")
        return reply

    def _check(self) -> None:
        if self._lost:
            raise WorldError(self._lost)

    def _obituary(self) -> str:
        """What is left to say about a process that is gone."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(_CLOSE_S)
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        last = f": {lines[-1]}" if lines else ""
        return f"the simulated world's process ended (status {self.process.returncode}){last}"


def _described(arm: StandingArmOptions) -> Message:
    """What is said of an arm's body; its driver's table may say more."""
    return arm.model_dump(mode="json", include=set(StandingArmOptions.model_fields))


def _camera_info(entry: Message) -> CameraInfo:
    pinhole = dict(entry["intrinsics"])
    pinhole["coefficients"] = tuple(pinhole["coefficients"])
    pose = entry["base_from_camera"]
    return CameraInfo(
        entry["name"],
        Intrinsics(**pinhole),
        entry["depth_scale_m"],
        None if pose is None else np.array(pose),
    )
