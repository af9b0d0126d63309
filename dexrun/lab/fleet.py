"""``dexrun fleet status``: how several robots are, by the metrics of their panels."""

from __future__ import annotations

import argparse
import http.client
import json
import math
import os
import ssl
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import Field, ValidationError

from dexrun.exit_codes import BAD_CONFIGURATION, NOT_DONE, OK
from dexrun.printing import fail, say
from runtime.masking import secret_of
from runtime.options import Options
from runtime.packages import missing

_MOST_BYTES = 1 << 20
_PORT = 8470
_AT_ONCE = 16


class FleetError(Exception):
    """The robots cannot be asked, in one line."""


class FleetRobot(Options):
    """One robot of ``fleet.toml``.

    Attributes:
        url: of its panel, as it is printed, without the token: ``http://left.lab:8470``.
        token_env: the variable of this machine's environment that holds its token, if it wants one.
    """

    url: str = Field(min_length=1, max_length=500)
    token_env: str = Field(default="", max_length=100)


@dataclass(frozen=True)
class RobotHealth:
    """What one robot said.

    Attributes:
        up: a run is alive there, and not stopped. trouble: why not, or why nothing is known; else empty.
        rate_hz, late_ms: of the control loop, and its period error's p99.
        missed, starved: periods. faults, clips: their sums.
        attempts, completed: at objects. hottest_c: of its servos; ``None``: none says so.
    """

    name: str
    up: bool = False
    trouble: str = ""
    mode: str = ""
    state: str = ""
    driving: str = ""
    policy: str = ""
    rate_hz: float | None = None
    late_ms: float | None = None
    missed: int = 0
    starved: int = 0
    faults: int = 0
    clips: int = 0
    attempts: int = 0
    completed: int = 0
    hottest_c: float | None = None
    faults_by_device: Mapping[str, int] = field(default_factory=dict)


def robots_of(words: Sequence[str], file: Path | None) -> dict[str, FleetRobot]:
    """The robots of the command line, ``[NAME=]URL``, and those of a file's ``[robots]``.

    Raises:
        FleetError: there are none, or one cannot be meant.
    """
    robots = {} if file is None else _listed(file)
    for word in words:
        name, sign, url = word.partition("=")
        if not sign or "/" in name:
            name, url = word.removeprefix("http://").removeprefix("https://").rstrip("/"), word
        robots[name] = FleetRobot(url=url)
    if not robots:
        raise FleetError("no robots: give NAME=http://HOST:8470, or --robots fleet.toml")
    for name, robot in robots.items():
        _address(name, robot)
    return robots


def _listed(file: Path) -> dict[str, FleetRobot]:
    robots: dict[str, FleetRobot] = {}
    name = ""
    try:
        for name, about in tomllib.loads(file.read_text(encoding="utf-8")).get("robots", {}).items():
            robots[name] = FleetRobot.model_validate({"url": about} if isinstance(about, str) else about)
    except OSError as error:
        raise FleetError(f"{file}: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(("robots", name, *map(str, first["loc"])))
        raise FleetError(f"{file}: {where}: {first['msg']}") from None
    except (ValueError, AttributeError) as error:
        raise FleetError(f"{file} is no list of robots: {error}") from None
    return robots


def _address(name: str, robot: FleetRobot) -> tuple[bool, str, int, str]:
    """Whether it is TLS, host, port and the path before ours.

    Raises:
        FleetError: the URL is none.
    """
    url = robot.url if "://" in robot.url else f"http://{robot.url}"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise FleetError(f"{name}: {robot.url!r}: {error}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or "@" in parts.netloc:
        raise FleetError(f"{name}: {robot.url!r} is no address such as http://left.lab:{_PORT}")
    return parts.scheme == "https", parts.hostname, port or _PORT, parts.path.rstrip("/")


def health_of(name: str, robot: FleetRobot, timeout_s: float) -> RobotHealth:
    """Ask one robot; whatever goes wrong is in the answer."""
    try:
        metrics = _asked(name, robot, "/metrics", timeout_s)
        return healthy(name, metrics, " ".join(_asked(name, robot, "/healthz", timeout_s).split())[:200])
    except FleetError as error:
        return RobotHealth(name, trouble=str(error))


def _asked(name: str, robot: FleetRobot, path: str, timeout_s: float) -> str:
    """The text at `path`; a redirection is not followed, so that no token goes elsewhere.

    Raises:
        FleetError: it is not to be had, in a few words.
    """
    secure, host, port, before = _address(name, robot)
    token = secret_of(robot.token_env) if robot.token_env else ""
    headers = {"authorization": f"Bearer {token}"} if token else {}
    connection: http.client.HTTPConnection = (
        http.client.HTTPSConnection(host, port, timeout=timeout_s, context=ssl.create_default_context())
        if secure
        else http.client.HTTPConnection(host, port, timeout=timeout_s)
    )
    try:
        connection.request("GET", before + path, headers=headers)
        answer = connection.getresponse()
        body = answer.read(_MOST_BYTES + 1)
    except TimeoutError:
        raise FleetError(f"no answer within {timeout_s:g} s") from None
    except (OSError, http.client.HTTPException) as error:
        raise FleetError(getattr(error, "strerror", None) or type(error).__name__) from None
    finally:
        connection.close()
    if answer.status in (401, 403):
        raise FleetError("it wants a token: token_env" if not robot.token_env else "the token is wrong")
    if answer.status not in (200, 503) or len(body) > _MOST_BYTES:
        raise FleetError(f"no panel of dexrun: {path} answers {answer.status}, {len(body)} bytes")
    return body.decode(errors="replace")


def healthy(name: str, metrics: str, line: str) -> RobotHealth:
    """What `metrics`, in Prometheus' text format, say.

    Raises:
        FleetError: they are not dexrun's.
    """
    from prometheus_client.parser import text_string_to_metric_families

    try:
        samples = [each for family in text_string_to_metric_families(metrics) for each in family.samples]
    except ValueError as error:
        raise FleetError(f"no metrics: {error}") from None
    if not any(each.name == "dexrun_run_up" for each in samples):
        raise FleetError("metrics, and none of dexrun's")

    def values(name: str, **labels: str) -> list[float]:
        wanted = labels.items()
        found = (each.value for each in samples if each.name == name and wanted <= each.labels.items())
        return [value for value in found if math.isfinite(value)]  # a robot may not know all of itself

    def count(name: str, **labels: str) -> int:
        return round(sum(values(name, **labels)))

    about = next((each.labels for each in samples if each.name == "dexrun_run_info"), {})
    late = values("dexrun_loop_period_error_seconds", quantile="0.99")
    hottest, rate = values("dexrun_servo_temperature_celsius"), values("dexrun_loop_rate_hertz")
    devices = [each for each in samples if each.name == "dexrun_device_faults_total"]
    up = sum(values("dexrun_run_up")) == 1.0
    return RobotHealth(
        name,
        up,
        "" if up else line,
        mode=about.get("mode", ""),
        state=about.get("state", ""),
        driving=about.get("driving", ""),
        policy=about.get("policy", ""),
        rate_hz=rate[0] if rate else None,
        late_ms=1e3 * late[0] if late else None,
        missed=count("dexrun_loop_missed_total"),
        starved=count("dexrun_loop_starved_total"),
        faults=count("dexrun_device_faults_total"),
        clips=count("dexrun_safety_clips_total"),
        attempts=count("dexrun_attempts", reached="begun"),
        completed=count("dexrun_attempts", reached="completed"),
        hottest_c=max(hottest) if hottest else None,
        faults_by_device=_summed(devices),
    )


def _summed(samples: Iterable[Any]) -> dict[str, int]:
    by_device: dict[str, int] = {}
    for each in samples:
        device = each.labels.get("device", "?")
        count = round(each.value) if math.isfinite(each.value) else 0
        by_device[device] = by_device.get(device, 0) + count
    return by_device


def as_table(robots: Sequence[RobotHealth]) -> str:
    """A line for each, and one for what they are."""
    head = ("robot", "", "mode", "state", "drives", "Hz", "late ms", "missed", "faults", "done", "C")
    rows = [head, *(_row(each) for each in robots)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = []
    for row, robot in zip(rows, (None, *robots), strict=True):
        told = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        if robot is not None and robot.trouble:
            told = [*told[:2], robot.trouble]
        lines.append("  ".join(told).rstrip())
    up = sum(each.up for each in robots)
    return "\n".join([*lines, f"{up} of {len(robots)} up", ""])


def _row(robot: RobotHealth) -> tuple[str, ...]:
    def number(value: float | None, form: str) -> str:
        return "-" if value is None else format(value, form)

    return (
        robot.name,
        "up" if robot.up else "DOWN",
        robot.mode,
        robot.state,
        robot.driving,
        number(robot.rate_hz, ".1f"),
        number(robot.late_ms, ".2f"),
        str(robot.missed),
        str(robot.faults),
        f"{robot.completed}/{robot.attempts}" if robot.attempts else "-",
        number(robot.hottest_c, ".0f"),
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="dexrun fleet", description=__doc__)
    parser.add_argument("do", choices=("status",))
    parser.add_argument("robots", nargs="*", metavar="[NAME=]URL", help="of a robot's panel")
    parser.add_argument("--robots", dest="file", type=Path, default=None, help="a TOML file with [robots]")
    parser.add_argument("--timeout", type=float, default=3.0, help="seconds to wait for each (3)")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    return parser


def main(argv: Sequence[str]) -> int:
    """Run the command; returns its exit code: 0 only if every robot is up."""
    arguments = _parser().parse_args(list(argv))
    try:
        if why := missing("dexrun fleet", ("prometheus_client",), "panel"):
            raise FleetError(why)
        if not 0 < arguments.timeout <= 600:
            raise FleetError(f"--timeout {arguments.timeout:g}: more than 0 and at most 600 s")
        robots = robots_of(arguments.robots, arguments.file)
    except (FleetError, ValidationError) as error:
        fail(error, "dexrun fleet")
        return BAD_CONFIGURATION
    with ThreadPoolExecutor(min(_AT_ONCE, len(robots))) as pool:
        asked = [pool.submit(health_of, name, robot, arguments.timeout) for name, robot in robots.items()]
        found = [each.result() for each in asked]
    if arguments.json:
        say(json.dumps({each.name: asdict(each) for each in found}) + os.linesep)
    else:
        say(as_table(found))
    return OK if all(each.up for each in found) else NOT_DONE
