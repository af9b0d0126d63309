"""``dexrun calibrate``: a person moves the arm, the program reads how far every joint goes."""

from __future__ import annotations

import argparse
import contextlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import get_args

from dexrun.printing import complain
from dexrun.setup.interrupts import EndedError, ended_by_signals, undisturbed
from dexrun.setup.person import Person, Terminal, log_as_lines
from drivers.arms import describe
from drivers.feetech import registers as reg
from drivers.feetech.bus import FeetechBus
from drivers.feetech.calibrate import Calibrator, JointRange
from drivers.feetech.calibration import Calibration, CalibrationError, load_calibration, save_calibration
from drivers.feetech.compare import compare
from drivers.feetech.options import FeetechOptions
from drivers.feetech.setup import connect
from runtime.arm_model import ModelError
from runtime.body import RobotDescription
from runtime.clock import RealClock
from runtime.messages import DeviceError
from runtime.table_model import MeshesMissingError

FOLDER = Path("calibration")
"""Where calibrations are by name."""
RETRIES = 9
"""A person cannot start all over because of one lost packet."""
BAUDRATES = get_args(FeetechOptions.model_fields["baudrate"].annotation)


def table(ranges: Mapping[str, JointRange]) -> list[str]:
    """How far every joint has been moved, in ticks."""
    rows = [f"  {name:<16}{r.low:>9}{r.now:>9}{r.high:>9}" for name, r in ranges.items()]
    return [f"  {'joint':<16}{'minimum':>9}{'now':>9}{'maximum':>9}", *rows]


def calibrate(calibrator: Calibrator, person: Person, target: Path) -> None:
    """Torque off, middle, ranges, which way the gripper closes; then the servos and the file, or neither.

    Raises:
        DeviceError: a servo does not answer. CalibrationError: a range cannot be the joint's. OSError: the
            file cannot be written. EOFError: nobody answers, and torque is cut only if it was agreed to.
    """
    if target.exists():
        person.show(f"{target} is there already, and will be replaced at the end.")
    # Every run leaves torque on: without it the arm drops, and with it no joint can be moved by hand.
    person.confirm("Hold the arm: it drops when its torque goes off. Press Enter to let it go.")
    calibrator.release()
    person.confirm("Torque is off. Bring every joint to about its middle, then press Enter.")
    calibrator.set_middle()
    person.show("Move every joint from stop to stop (wrist_roll may stay), then press Enter.")
    person.watch(table(calibrator.sample()))
    while not person.confirmed():
        person.watch(table(calibrator.sample()))
    between = calibrator.to_be_closed()
    while between:
        person.confirm(f"Close {' and '.join(between)} all the way and keep it so, then press Enter.")
        between = calibrator.note_closed()
        if between:
            person.show(f"{' and '.join(between)}: neither end of the range; or was it not moved to both?")
    calibration = calibrator.finish()
    whole = target.with_name(target.name + ".new")
    save_calibration(whole, calibration)
    try:
        with undisturbed(), calibrator.written(calibration):
            whole.replace(target)
    finally:
        whole.unlink(missing_ok=True)
    for name, joint in calibration.items():
        way = ", closes with rising ticks" if joint.drive_mode and name in calibrator.grippers else ""
        person.show(f"  {name:<16} {joint.range_min:5d} to {joint.range_max:5d}{way}")
    person.show(f"written to {target}, and into the servos")


def _check_target(target: Path) -> str:
    """Why no calibration can be written to `target`; empty if it can. Makes its folder."""
    if target.is_dir():
        return f"{target} is a folder; give the name of a file"
    probe = target.with_name(target.name + ".new")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except (OSError, ValueError) as error:
        return f"{target} cannot be written: {getattr(error, 'strerror', None) or error}"
    return ""


def _fail(message: str, code: int) -> int:
    complain(f"dexrun: {message}\n")
    return code


def _parsed(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="dexrun calibrate",
        description=__doc__,
        epilog="examples: dexrun calibrate --port /dev/ttyACM0 --model so101 --to follower.json;  "
        "dexrun calibrate --check --port /dev/ttyACM0 --model so101 --name follower",
    )
    parser.add_argument("--port", required=True, help="serial port of the arm's bus")
    file = parser.add_mutually_exclusive_group(required=True)
    file.add_argument("--to", type=Path, help="calibration file to write (LeRobot's layout)")
    file.add_argument("--name", help=f"of the arm: the file is {FOLDER}/NAME.json")
    parser.add_argument(
        "--check", action="store_true", help="compare that file with the servos and the model; writes nothing"
    )
    parser.add_argument("--model", default="", help="of the arm, as arm.model: so100, so101 or a model file")
    parser.add_argument("--baudrate", type=int, default=1_000_000, choices=BAUDRATES)
    parser.add_argument(
        "--reversed", nargs="*", default=[], metavar="JOINT", help="joints that turn backwards"
    )
    options = parser.parse_args(arguments)
    if options.check and options.reversed:
        parser.error("--reversed: with --check, what the file says is compared; nothing is made")
    if options.name is not None:
        if not re.fullmatch(r"[\w-]+(\.[\w-]+)*", options.name):
            parser.error(f"--name {options.name!r}: letters, digits, dots, _ and - make a name")
        options.to = FOLDER / f"{options.name}.json"
    return options


def main(arguments: list[str], person: Person | None = None) -> int:
    """The command; returns its exit code."""
    options = _parsed(arguments)
    if not options.port:
        return _fail("--port is empty; give the serial port of the arm's bus", 2)
    try:
        robot = describe(options.model)
        file = load_calibration(options.to, robot.joints) if options.check else {}
    except (ModelError, MeshesMissingError) as error:
        return _fail(f"--model {options.model}: {error}", 2)
    except CalibrationError as error:
        return _fail(str(error), 2)
    if unknown := sorted(set(options.reversed) - set(robot.joints)):
        return _fail(f"--reversed {unknown[0]}: no such joint; there are {', '.join(robot.joints)}", 2)
    if not options.check and (why := _check_target(options.to)):
        return _fail(f"--to {why}", 2)
    return _on_bus(options, robot, file, person)


def _on_bus(
    options: argparse.Namespace, robot: RobotDescription, file: Calibration, person: Person | None
) -> int:
    names = {joint.id: name for name, joint in file.items()} or dict(enumerate(robot.joints, start=1))
    config = FeetechOptions.model_validate(
        {"port": options.port, "baudrate": options.baudrate, "num_retry": RETRIES}
    )
    try:
        bus = connect("arm", config, names, RealClock())
    except DeviceError as error:
        return _fail(str(error), 3)
    if person is None:
        log_as_lines()
    with contextlib.closing(bus):
        if file:
            return _checked(bus, robot, file, person or Terminal())
        return _run(bus, robot, options, person or Terminal())


def _checked(bus: FeetechBus, robot: RobotDescription, file: Calibration, person: Person) -> int:
    """Show by joint whether file, servo and model agree; 0 if all do."""
    try:
        bus.check_models([joint.id for joint in file.values()], reg.MODEL_STS3215)
        found = compare(bus, file, robot.layout)
    except DeviceError as error:
        return _fail(str(error), 3)
    for name, wrong in found.items():
        person.show(f"  {name:<16} {'; '.join(wrong) or 'file, servo and model agree'}")
    if not any(found.values()):
        return 0
    person.show("use the file of this arm, or calibrate it again")
    return 1


def _run(bus: FeetechBus, robot: RobotDescription, options: argparse.Namespace, person: Person) -> int:
    ids = {name: number for number, name in enumerate(robot.joints, start=1)}
    ranges = dict(zip(robot.joints, robot.ranges, strict=True))
    calibrator = Calibrator(
        bus, ids, reversed_joints=options.reversed, ranges=ranges, grippers=tuple(robot.grippers)
    )
    try:
        with ended_by_signals():
            bus.check_models(ids.values(), reg.MODEL_STS3215)
            calibrate(calibrator, person, options.to)
    except (DeviceError, CalibrationError) as error:
        return _fail(f"{error}; {options.to} is not written{calibrator.left()}", 3)
    except OSError as error:
        return _fail(f"{options.to} cannot be written: {error.strerror or error}{calibrator.left()}", 3)
    except EOFError:
        why = "the input ended before Enter was pressed"
    except (KeyboardInterrupt, EndedError) as error:
        why = f"interrupted ({str(error) or 'SIGINT'})"
    else:
        return 0
    return _fail(f"{why}; {options.to} is not written{calibrator.left()}", 1)
