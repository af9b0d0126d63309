"""``dexrun init``: asks what there is, or finds it, and writes a configuration that works."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path

from dexrun.config.load import ConfigError, load
from dexrun.config.overview import overview
from dexrun.printing import complain
from dexrun.setup import calibrate
from dexrun.setup.cameras import FoundCamera, local_cameras, looked_at
from dexrun.setup.find_ports import PortWatch
from dexrun.setup.interrupts import EndedError, ended_by_signals
from dexrun.setup.kit import ArmChoice, KitChoice, config_text
from dexrun.setup.person import Terminal, TypingPerson, log_as_lines
from dexrun.setup.ports import PortReport, SerialPlace, links_in, look_at, places
from drivers.arms import describe
from drivers.feetech.calibration import CalibrationError
from drivers.feetech.plausible import load_plausible
from drivers.opencv_camera.v4l2 import CameraMode
from runtime.arm_model import ModelError
from runtime.clock import Clock, RealClock
from runtime.messages import DeviceError
from runtime.table_model import MeshesMissingError

_MODELS = {"1": "so101", "2": "so100"}
_YES = {"y": "yes", "n": "no"}
_NAME = re.compile(r"[a-z][a-z0-9_]*")


class Interview:
    """One conversation; nothing is written but calibrations that are agreed to.

    Args:
        list_places: the serial ports that are there now. list_cameras: the cameras.
        pictures: folder for what the cameras see.
    """

    def __init__(
        self,
        person: TypingPerson,
        clock: Clock,
        list_places: Callable[[], list[SerialPlace]],
        list_cameras: Callable[[], Sequence[FoundCamera]],
        pictures: Path,
    ) -> None:
        self._person = person
        self._clock = clock
        self._list_places = list_places
        self._list_cameras = list_cameras
        self._pictures = pictures

    def kit(self) -> KitChoice:
        """What the person has.

        Raises:
            EOFError: nobody answers any more.
        """
        model = _MODELS[self._choice("Which arm: 1 SO-101, 2 SO-100?", {"1": "SO-101", "2": "SO-100"})]
        reports = [report for report in look_at(self._list_places(), self._clock) if report.is_bus]
        for number, report in enumerate(reports, start=1):
            self._person.show(f"  {number}  {report.place.path}: {report.said()}")
        if not reports:
            self._person.show("No port has servos that answer: the arm is simulated.")
        count = self._choice("How many arms that follow: 1 or 2?", {"1": "1", "2": "2"})
        names = ("",) if count == "1" else ("left", "right")
        arms = tuple(self._arm(name, model, reports) for name in names)
        if len(arms) == 2 and not all(arm.port for arm in arms) and any(arm.port for arm in arms):
            self._person.show(
                "Both arms are real, or both simulated: they are simulated until both are there."
            )
            arms = tuple(ArmChoice(name) for name in names)
        if len(arms) == 2 and not all(arm.leader_port for arm in arms):
            arms = tuple(ArmChoice(arm.name, arm.port, arm.calibration) for arm in arms)
        cameras = self._cameras()
        task = self._person.ask('What is done in the episodes, such as "put the cube in the tray"?')
        return KitChoice(model, arms, cameras, task)

    def _choice(self, text: str, allowed: Mapping[str, str]) -> str:
        """One of `allowed`, which says what each means; the first if only Enter is pressed."""
        usual = next(iter(allowed))
        while True:
            said = self._person.ask(f"{text} [{usual}]", allowed) or usual
            if said in allowed:
                return said
            self._person.show(f"{said!r} is none of {', '.join(allowed)}")

    # --- arms

    def _arm(self, name: str, model: str, reports: list[PortReport]) -> ArmChoice:
        follower = self._bus(f"{name} follower".strip(), model, reports)
        leader = self._bus(f"{name} leader".strip(), model, reports)
        return ArmChoice(name, *follower, *leader)

    def _bus(self, role: str, model: str, reports: list[PortReport]) -> tuple[str, str]:
        """Port and calibration file of the arm that is `role`; both empty if there is none."""
        if not reports:
            return "", ""
        numbers = {str(number): report.place.path for number, report in enumerate(reports, start=1)}
        said = self._choice(
            f"Which is the {role}: its number, m to move it and see, 0 for none?",
            {"0": "none", "m": "move it and see", **numbers},
        )
        path = self._moved(role, reports) if said == "m" else ""
        path = path or numbers.get(said, "")
        if not path:
            return "", ""
        file = self._calibration(role, model, path)
        return (path, file) if file else ("", "")

    def _moved(self, role: str, reports: list[PortReport]) -> str:
        with closing(PortWatch(reports, self._list_places, self._clock)) as watch:
            held = watch.held()
            if held:
                self._person.show(f"torque is on at {', '.join(held)}: that arm cannot be moved by hand")
            watch.look()
            self._person.confirm(f"Move the {role} by hand, then press Enter.")
            watch.look()
            found = watch.found()
        if len(found) == 1:
            self._person.show(f"the {role} is at {found[0]}")
            return found[0]
        self._person.show("no arm was moved" if not found else f"moved: {', '.join(found)}")
        return ""

    def _calibration(self, role: str, model: str, port: str) -> str:
        default = str(calibrate.FOLDER / f"{role.replace(' ', '_')}.json")
        while True:
            file = (
                self._person.ask(f"Calibration file of the {role} (LeRobot's will do)? [{default}]")
                or default
            )
            try:
                load_plausible(file, describe(model).layout)
                return file
            except (CalibrationError, ModelError, MeshesMissingError) as error:
                self._person.show(str(error))
            if Path(file).exists():
                continue
            if self._choice(f"Calibrate the {role} now: y or n?", _YES) == "n":
                self._person.show(f"the {role} is simulated until it is calibrated")
                return ""
            calibrate.main(["--port", port, "--model", model, "--to", file], self._person)
            default = file

    # --- cameras

    def _cameras(self) -> dict[str, tuple[str, CameraMode]]:
        taken: dict[str, tuple[str, CameraMode]] = {}
        for number, camera in enumerate(self._list_cameras(), start=1):
            self._pictures.mkdir(parents=True, exist_ok=True)
            seen = looked_at(camera, self._pictures / f"{number}.jpg", self._clock)
            if seen.delivers is None:
                self._person.show(f"  {camera.source}: no picture: {seen.trouble}")
                continue
            self._person.show(
                f"  {camera.source}: {seen.delivers} ({seen.fps:.1f} measured); it sees {seen.picture}"
            )
            name = self._camera_name(taken)
            if name:
                taken[name] = (seen.source, seen.delivers)
        return taken

    def _camera_name(self, taken: dict[str, tuple[str, CameraMode]]) -> str:
        while True:
            name = self._person.ask(
                "Its name: head for the one above the table, wrist, ...; Enter leaves it out:"
            )
            if not name or (_NAME.fullmatch(name) and name not in taken):
                return name
            self._person.show(f"{name!r}: small letters, digits and _, and not the name of another one")


def write(kit: KitChoice, target: Path, person: TypingPerson) -> int:
    """Write the configuration of `kit` to `target`, if the loader takes it; returns the exit code.

    Raises:
        OSError: it cannot be written.
    """
    new = target.with_name(f".{target.name}.new")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        new.write_text(config_text(kit), encoding="utf-8")
        settings = load(["--config", str(new)], {})
        for line in overview(settings):
            person.show(f"  {line}")
        replace = f"{target} is there already. Replace it: y or n? [n]"
        if target.exists() and person.ask(replace, {"n": "no", "y": "yes"}) != "y":
            person.show(f"{target} is as it was")
            return 1
        os.replace(new, target)
    except ConfigError as error:
        why = str(error).replace(str(new), "what was chosen makes no configuration that works")
        person.show(f"{why}; {target} is not written")
        return 1
    finally:
        new.unlink(missing_ok=True)
    person.show(f"written to {target}. Next: dexrun doctor --config {target}, then dexrun --config {target}")
    return 0


def _parsed(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="dexrun init",
        description="Ask what there is (SO-101 or SO-100, one arm or two, leaders, cameras), find what can "
        "be found, and write a configuration that works. What is not there is simulated.",
        epilog="example: dexrun init --to config.toml",
    )
    parser.add_argument("--to", type=Path, default=Path("config.toml"), help="the file (config.toml)")
    parser.add_argument("--simulated", action="store_true", help="ask nothing: all is simulated")
    parser.add_argument("--from", dest="folder", help="a folder of links to ports, instead of those listed")
    parser.add_argument("--pictures", type=Path, help="folder for pictures (cameras)")
    options = parser.parse_args(arguments)
    if options.simulated and (options.folder or options.pictures):
        parser.error("--simulated: no port and no camera is looked at; leave --from and --pictures out")
    options.pictures = options.pictures or Path("cameras")
    return options


def main(
    arguments: list[str],
    person: TypingPerson | None = None,
    clock: Clock | None = None,
    list_cameras: Callable[[], Sequence[FoundCamera]] = local_cameras,
) -> int:
    """The command; returns its exit code."""
    options = _parsed(arguments)
    typing = person or Terminal()
    if person is None:
        log_as_lines()

    def listed() -> list[SerialPlace]:
        return places() if options.folder is None else links_in(options.folder)

    interview = Interview(typing, clock or RealClock(), listed, list_cameras, options.pictures)
    try:
        with ended_by_signals():
            kit = KitChoice() if options.simulated else interview.kit()
            return write(kit, options.to, typing)
    except OSError as error:
        complain(f"dexrun: {error.filename or options.to}: {error.strerror or error}; nothing was written\n")
        return 2
    except DeviceError as error:
        complain(f"dexrun: {error}; {options.to} is not written\n")
        return 3
    except EOFError:
        why = "the input ended"
    except (KeyboardInterrupt, EndedError) as error:
        why = f"interrupted ({str(error) or 'SIGINT'})"
    complain(f"dexrun: {why}; {options.to} is not written\n")
    return 1
