"""``dexrun doctor``: would a run of this configuration work here? PASS, WARN, FAIL, and what to do."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict

from dexrun.config.load import ConfigError, load
from dexrun.config.settings import Settings
from dexrun.printing import say
from dexrun.setup import deep_checks
from dexrun.setup.findings import Grade, PreflightFinding, failed
from dexrun.setup.machine import HostMachine
from dexrun.setup.preflight import preflight
from runtime.clock import Clock, RealClock
from runtime.interfaces import PerceptionError, PolicyError
from runtime.masking import masked


def examine(settings: Settings, machine: HostMachine, clock: Clock) -> Iterator[PreflightFinding]:
    """All that is looked at, in the order in which it is shown."""
    yield from preflight(settings, machine, clock.wall_ns())
    yield from _packages(settings)
    yield from deep_checks.servos(settings, clock)
    yield from deep_checks.cameras(settings, clock)
    yield deep_checks.disk_speed(settings, clock)
    yield deep_checks.waking(settings, clock)
    yield from deep_checks.policy_server(settings)
    if settings.mode == "grasp":
        yield clock.run(deep_checks.planner, settings, clock)


def _packages(settings: Settings) -> Iterator[PreflightFinding]:
    try:
        if settings.mode != "teleop":
            settings.policy.check_packages()
            settings.check_perception()
    except (PolicyError, PerceptionError) as error:
        yield failed("packages", str(error))


def _parsed(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(
        prog="dexrun doctor",
        description="Look at all that a run of the configuration needs: ports and rights, servos against "
        "their calibration, cameras and their USB bus, disk, clock, GPU, servers, planner. Nothing moves. "
        "Whatever else is given goes to the configuration (--config FILE, --mode, --TABLE.KEY VALUE).",
        epilog="example: dexrun doctor --config config.toml --mode teleop",
    )
    parser.add_argument("--json", action="store_true", help="the findings as JSON")
    return parser.parse_known_args(arguments)


def main(arguments: list[str], machine: HostMachine | None = None, clock: Clock | None = None) -> int:
    """The command; returns its exit code: 1 if anything is FAIL."""
    options, rest = _parsed(arguments)
    machine, clock = machine or HostMachine(), clock or RealClock()
    try:
        findings: Iterable[PreflightFinding] = examine(load(rest), machine, clock)
    except ConfigError as error:
        findings = [failed("configuration", line) for line in str(error).splitlines()]
    counts = dict.fromkeys(Grade, 0)
    found = []
    for finding in findings:
        counts[finding.grade] += 1
        found.append(asdict(finding))
        if not options.json:
            say(masked(finding.line()) + "\n")
    if options.json:
        say(masked(json.dumps(found, indent=2)) + "\n")
    else:
        say(", ".join(f"{count} {grade}" for grade, count in counts.items()) + "\n")
    return 1 if counts[Grade.FAIL] else 0
