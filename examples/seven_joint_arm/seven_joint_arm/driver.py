"""The arm as dexrun sees it: tables for the configuration, and the driver that they make."""

from __future__ import annotations

import termios
from collections.abc import Mapping
from typing import Any

import numpy as np
import serial
from pydantic import Field

from runtime import (
    NS_PER_S,
    ArmContext,
    ArmTable,
    DeviceError,
    DeviceTable,
    FaultKind,
    Floats,
    LeaderTable,
    Mailbox,
    Ring,
    capacity_for,
)
from seven_joint_arm.emulator import UNIT, Emulator, framed, unframed

EMULATED = "emulated"
MODEL = "seven_joint_arm:arm.xml"  # a file of this package's, wherever it is installed
ATTEMPTS = 3
TARGET_MAX_AGE_NS = NS_PER_S // 10
GUARD_S = 10.0  # the emulator always answers; how soon is up to how busy this computer is


class SerialTable(DeviceTable):
    """What arm and leader have in common.

    Attributes:
        port: the serial port's path; ``emulated``: an arm that is not there.
        timeout_s: the longest that an answer may take.
        state_rate_hz: how often the joints are read, and targets sent.
    """

    port: str = EMULATED
    timeout_s: float = Field(
        default=0.03, gt=0, le=0.04
    )  # twice three attempts stay below the 0.25 s of a poll
    state_rate_hz: float = Field(default=100.0, ge=10, le=200)

    @property
    def simulated(self) -> bool:
        return self.port == EMULATED

    def addresses(self) -> Mapping[str, str]:
        return {} if self.simulated else {"port": self.port}


class SevenJointTable(SerialTable, ArmTable):
    """The table ``[arm]`` with ``driver = "seven_joint"``."""

    model: str = MODEL

    def build(self, context: ArmContext) -> SevenJointArm:
        return SevenJointArm(self, context, obeys=True)


class SevenJointLeaderTable(SerialTable, LeaderTable):
    """The table ``[leader]`` with ``driver = "seven_joint"``: an arm that a person moves."""

    def build(self, context: ArmContext) -> SevenJointArm:
        return SevenJointArm(self, context, obeys=False)


class SevenJointArm:
    """Reads the joints and sends the newest target, once a period; all on a thread of its own."""

    calibration: Mapping[str, Any] = {}

    def __init__(self, table: SerialTable, context: ArmContext, *, obeys: bool) -> None:
        self.name, self._table, self._clock, self._obeys = context.name, table, context.clock, obeys
        joints = (context.joints.joints,)
        rate_hz = table.state_rate_hz
        self.states = Ring(
            dict.fromkeys(("position", "velocity", "load"), (joints, "<f8")), capacity_for(rate_hz, 1)
        )
        self.targets = Mailbox({"position": (joints, "<f8")})
        self.sent = Ring({"position": (joints, "<f8")}, capacity_for(rate_hz, 1))
        self.health = Ring({"temperature_c": (joints, "<f8")}, 4)  # this one does not measure it
        self._emulator = Emulator(context.clock, by_hand=not obeys) if table.simulated else None
        self._line: serial.Serial | None = None
        self._period_ns, self._due_ns = round(NS_PER_S / rate_hz), 0
        self._last_good_ns: int | None = None
        self._counts = {"no_reply": 0, "bad_packet": 0}

    def open(self) -> None:
        self.close()
        port = self._table.port if self._emulator is None else self._emulator.plug()
        timeout_s = self._table.timeout_s if self._emulator is None else GUARD_S
        try:
            self._line = serial.Serial(port, 115_200, timeout=timeout_s, exclusive=True)
        except (OSError, ValueError) as error:
            raise self._error(FaultKind.CANNOT_OPEN, str(error)) from error
        who = self._ask("V")
        if who != "seven 1":
            raise self._error(FaultKind.WRONG_MODEL, f"{who!r} answers, not 'seven 1'")
        self._ask("T 1" if self._obeys else "T 0")  # torque on means: hold where you are. Nothing moves
        self.targets.take()  # what was asked before a gap is not obeyed after it
        self._due_ns = self._clock.now_ns()

    def poll(self) -> bool:
        self._clock.wait_until_ns(self._due_ns)
        before_ns = self._clock.now_ns()
        self._due_ns = max(self._due_ns + self._period_ns, before_ns)
        target = self.targets.take(now_ns=before_ns, max_age_ns=TARGET_MAX_AGE_NS)
        if self._obeys and target is not None:
            self._send(target["position"])
        position, velocity, load = np.array(self._ask("S").split(), float).reshape(3, -1) * UNIT
        stamp_ns = (before_ns + self._clock.now_ns()) // 2
        self.states.push(stamp_ns, position=position, velocity=velocity, load=load)
        self._last_good_ns = stamp_ns
        return True

    def close(self) -> None:
        if self._line is not None:
            self._line.close()  # and nothing else: the arm holds where it is
            self._line = None
        if self._emulator is not None:
            self._emulator.unplug()

    def statistics(self) -> Mapping[str, int]:
        return dict(self._counts)

    def _send(self, position: Floats) -> None:
        goals = np.rint(position / UNIT).astype(int)
        self._ask(f"G {' '.join(map(str, goals))}")
        self.sent.push(self._clock.now_ns(), position=goals * UNIT)

    def _ask(self, request: str) -> str:
        """The answer to a request, asked again where it did not come, or came damaged."""
        if self._line is None:
            raise self._error(FaultKind.GONE, "not open")
        kind = FaultKind.NO_REPLY
        for _ in range(ATTEMPTS):
            try:
                self._line.reset_input_buffer()  # an answer that came too late is no answer to this
                self._line.write(framed(request))
                line = self._line.readline()
                return unframed(line)
            except ValueError:
                kind = FaultKind.BAD_PACKET if line else FaultKind.NO_REPLY
                self._counts[kind] += 1
            except (OSError, termios.error) as error:
                raise self._error(FaultKind.GONE, str(error)) from error
        raise self._error(kind, f"no good answer to {request.split()[0]!r} in {ATTEMPTS} attempts")

    def _error(self, kind: FaultKind, detail: str) -> DeviceError:
        return DeviceError(self.name, kind, self._table.port, detail, self._last_good_ns)
