"""``dexrun setup-motors``: gives the servos of an arm their ids, one after another."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from dexrun.printing import complain
from dexrun.setup.interrupts import EndedError, ended_by_signals, undisturbed
from dexrun.setup.person import Person, Terminal, log_as_lines
from dexrun.setup.ports import servos_said
from drivers.arms import describe
from drivers.feetech import registers as reg
from drivers.feetech.numbering import Numberer, ServoAddress
from drivers.feetech.port import BusPort
from drivers.feetech.scan import BusScan, FoundServo, raw_port, scan
from runtime.arm_model import ModelError
from runtime.clock import Clock, RealClock
from runtime.messages import DeviceError
from runtime.table_model import MeshesMissingError

DEVICE = "setup-motors"
SHIPPED_ID = 1


class MotorSetup:
    """A person connects one servo after another; each gets its joint's id.

    Args:
        port: of the servos' line. joints: from the base on; the first gets id 1.
        person: who plugs.

    Attributes:
        changed: what was written so far, in words.
    """

    def __init__(self, port: BusPort, joints: Sequence[str], person: Person) -> None:
        self._port = port
        self._person = person
        self._numberer = Numberer(DEVICE, port)
        self._wanted = {name: ServoAddress(number) for number, name in enumerate(joints, start=1)}
        self.changed: list[str] = []

    def run(self, names: Sequence[str]) -> None:
        """Set up the servos of `names`, from the last to the first; if those are all, look at them together.

        Raises:
            DeviceError: a port that is gone; a servo that does not take what it is given, and what it holds.
            EOFError: nobody answers any more.
        """
        done = self._done_before()
        for name in reversed(names):
            if name in done:
                self._person.show(f"{name}: already set (id {self._wanted[name].servo_id})")
            else:
                self._one(name)
        if len(names) == len(self._wanted):
            self._together()

    def _done_before(self) -> set[str]:
        """The joints whose servos are on the line together, with their ids: those were set earlier."""
        heard = self._scan()
        if len(heard.servos) < 2 or any(_wrong(servo) for servo in heard.servos):
            return set()
        by_id = {servo.servo_id: servo for servo in heard.servos}
        return {
            name
            for name, wanted in self._wanted.items()
            if wanted.servo_id in by_id and self._numberer.is_set(by_id[wanted.servo_id], wanted)
        }

    def _scan(self) -> BusScan:
        return scan(DEVICE, self._port)

    def _one(self, name: str) -> None:
        wanted = self._wanted[name]
        servo = self._alone(f"Connect the servo of {name} alone, with its power, then press Enter.")
        other = next((n for n, w in self._wanted.items() if w.servo_id == servo.servo_id and n != name), "")
        if other and servo.servo_id != SHIPPED_ID:
            servo = self._alone(
                f"This servo has id {servo.servo_id}, as {other} has. Enter makes it {name}; if it is "
                f"{other}, connect that of {name} first."
            )
        if self._numberer.is_set(servo, wanted):
            self._person.show(f"{name}: already set (id {wanted.servo_id}); nothing was written")
            return
        with undisturbed():
            said = f"{name}: {', '.join(self._numberer.settle(servo, wanted, name))}"
            self.changed.append(said)
        self._person.show(f"{said} (firmware {servo.firmware})")

    def _alone(self, text: str) -> FoundServo:
        """The only servo on the line, once it is."""
        while True:
            self._person.confirm(text)
            heard = self._scan()
            if len(heard.servos) == 1 and not (why := _wrong(heard.servos[0])):
                return heard.servos[0]
            if heard.babbles:
                self._person.show("something on this port talks without being asked: is it the servos' port?")
            elif not heard.servos:
                self._person.show("no servo answers at any speed: is it powered, and its cable in?")
            elif len(heard.servos) > 1:
                self._person.show(f"several servos answer ({servos_said(heard)}): connect only one")
            else:
                self._person.show(f"{why}; nothing was written")

    def _together(self) -> None:
        while True:
            self._person.confirm("Connect all servos in their order, then press Enter.")
            heard = self._scan()
            there = {ServoAddress(servo.servo_id, servo.baudrate) for servo in heard.servos}
            missing = [f"{n} (id {w.servo_id})" for n, w in self._wanted.items() if w not in there]
            wrong = [why for servo in heard.servos if (why := _wrong(servo))]
            if not missing and not wrong:
                break
            said = [f"no answer from {', '.join(missing)}"] if missing else []
            self._person.show("; ".join([*said, *wrong]))
        versions = sorted({servo.firmware for servo in heard.servos})
        if len(versions) > 1:
            self._person.show(
                f"firmware differs ({', '.join(versions)}): LeRobot refuses such an arm; Feetech's own "
                "program updates it"
            )
        self._person.show(f"all set: {servos_said(heard)}")


def _wrong(servo: FoundServo) -> str:
    """Why `servo` is not to be written to, in words; empty if it may be."""
    if servo.clashes:
        what = "two servos with one id (connect only one), or a bad cable"
        return f"broken answers from id {servo.servo_id}: {what}"
    if servo.model != reg.MODEL_STS3215:
        return (
            f"the servo with id {servo.servo_id} is of model {servo.model}, not {reg.MODEL_STS3215} (STS3215)"
        )
    return ""


def _parsed(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="dexrun setup-motors",
        description="Give the servos of a new arm their ids, the line's speed and the shortest response "
        "delay, one after another. What is set already is skipped: start it again as often as you like.",
        epilog="example: dexrun setup-motors --port /dev/ttyACM0 --model so101",
    )
    parser.add_argument("--port", required=True, help="serial port of the servos' line (dexrun find-ports)")
    parser.add_argument("--model", default="", help="of the arm, as arm.model: so100, so101 or a model file")
    parser.add_argument("--joints", nargs="+", metavar="JOINT", help="only these (default: all)")
    return parser.parse_args(arguments)


def main(arguments: list[str], person: Person | None = None, clock: Clock | None = None) -> int:
    """The command; returns its exit code."""
    options = _parsed(arguments)
    try:
        joints = describe(options.model).joints
    except (ModelError, MeshesMissingError) as error:
        return _fail(f"--model {options.model}: {error}", 2)
    names = [name for name in joints if not options.joints or name in options.joints]
    if unknown := sorted(set(options.joints or ()) - set(joints)):
        return _fail(f"--joints {unknown[0]}: no such joint; there are {', '.join(joints)}", 2)
    if person is None:
        log_as_lines()
    try:
        with raw_port(DEVICE, options.port, clock or RealClock()) as port:
            return _run(MotorSetup(port, joints, person or Terminal()), names)
    except DeviceError as error:
        return _fail(str(error), 3)


def _run(setup: MotorSetup, names: Sequence[str]) -> int:
    try:
        with ended_by_signals():
            setup.run(names)
        return 0
    except DeviceError as error:
        return _fail(f"{error}; {_left(setup)}", 3)
    except EOFError:
        why = "the input ended before Enter was pressed"
    except (KeyboardInterrupt, EndedError) as error:
        why = f"interrupted ({str(error) or 'SIGINT'})"
    return _fail(f"{why}; {_left(setup)}", 1)


def _left(setup: MotorSetup) -> str:
    if not setup.changed:
        return "no servo was written"
    return f"written before: {'; '.join(setup.changed)}; no other servo was"


def _fail(message: str, code: int) -> int:
    complain(f"dexrun: {message}\n")
    return code
