"""``dexrun calibrate``: a person moves the arm, the program reads how far every joint goes."""

from __future__ import annotations

import argparse
import select
import sys
from pathlib import Path
from typing import Protocol, TextIO, get_args

from drivers.arms import describe
from drivers.feetech.calibrate import Calibrator
from drivers.feetech.calibration import CalibrationError, save_calibration
from drivers.feetech.options import FeetechOptions
from drivers.feetech.setup import connect
from runtime.arm_model import ModelError
from runtime.clock import RealClock
from runtime.messages import DeviceError
from runtime.table_model import MeshesMissingError

SAMPLE_S = 0.05
BAUDRATES = get_args(FeetechOptions.model_fields["baudrate"].annotation)


class Person(Protocol):
    """Who holds the arm.

    Raises:
        EOFError: `confirm` and `confirmed`: there is nobody to press Enter any more.
    """

    def confirm(self, text: str) -> None:
        """Show `text` and wait for Enter."""

    def confirmed(self) -> bool:
        """Whether Enter was pressed meanwhile; waits for a moment at most."""

    def show(self, text: str) -> None:
        """Show one line."""


class Terminal:
    """A person at a terminal."""

    def __init__(self, keys: TextIO = sys.stdin, out: TextIO = sys.stdout) -> None:
        self._keys = keys
        self._out = out

    def confirm(self, text: str) -> None:
        self.show(text)
        self._enter()

    def confirmed(self) -> bool:
        ready, _, _ = select.select([self._keys], [], [], SAMPLE_S)
        if ready:
            self._enter()
        return bool(ready)

    def _enter(self) -> None:
        if not self._keys.readline():
            raise EOFError

    def show(self, text: str) -> None:
        self._out.write(text + "\n")
        self._out.flush()


def calibrate(calibrator: Calibrator, person: Person, target: Path) -> None:
    """Torque off, middle, ranges, then the file.

    Raises:
        DeviceError: a servo does not answer. CalibrationError: a joint was not moved; no file is written.
        EOFError: nobody answers; no file is written, and torque is cut only if it was agreed to.
    """
    # Every run leaves torque on: without it the arm drops, and with it no joint can be moved by hand.
    person.confirm("Hold the arm: it drops when its torque goes off. Press Enter to let it go.")
    calibrator.release()
    person.confirm("Torque is off. Bring every joint to about its middle, then press Enter.")
    calibrator.set_middle()
    person.show("Move every joint from stop to stop (wrist_roll may stay), then press Enter.")
    ranges = calibrator.sample()
    while not person.confirmed():
        ranges = calibrator.sample()
    for name, moved in ranges.items():
        person.show(f"  {name:<14} {moved.low:5d} to {moved.high:5d}")
    save_calibration(target, calibrator.finish())
    person.show(f"written to {target}")


def _fail(message: str, code: int) -> int:
    sys.stderr.write(f"dexrun: {message}\n")
    return code


def main(arguments: list[str], person: Person | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="dexrun calibrate", description=__doc__)
    parser.add_argument("--port", required=True, help="serial port of the arm's bus")
    parser.add_argument("--to", required=True, type=Path, help="calibration file to write (LeRobot's layout)")
    parser.add_argument("--model", default="", help="of the arm, as arm.model: so100, so101 or a model file")
    parser.add_argument("--baudrate", type=int, default=1_000_000, choices=BAUDRATES)
    parser.add_argument(
        "--reversed", nargs="*", default=[], metavar="JOINT", help="joints that turn backwards"
    )
    options = parser.parse_args(arguments)
    if not options.port:
        return _fail("--port is empty; give the serial port of the arm's bus", 2)
    try:
        names = describe(options.model).joints
    except (ModelError, MeshesMissingError) as error:
        return _fail(f"--model {options.model}: {error}", 2)
    if unknown := sorted(set(options.reversed) - set(names)):
        return _fail(f"--reversed {unknown[0]}: no such joint; there are {', '.join(names)}", 2)
    ids = {name: number for number, name in enumerate(names, start=1)}
    config = FeetechOptions.model_validate({"port": options.port, "baudrate": options.baudrate})
    try:
        bus = connect("arm", config, {number: name for name, number in ids.items()}, RealClock())
        try:
            calibrator = Calibrator(bus, ids, reversed_joints=options.reversed)
            calibrate(calibrator, person or Terminal(), options.to)
        finally:
            bus.close()
    except (DeviceError, CalibrationError) as error:
        return _fail(str(error), 3)
    except EOFError:
        return _fail(f"the input ended before Enter was pressed; {options.to} is not written", 1)
    return 0
