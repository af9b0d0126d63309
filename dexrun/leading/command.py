"""``dexrun lead``: the joints of this machine's leader, sent to the machine that has the follower."""

from __future__ import annotations

import argparse
import contextlib
import sys
import tomllib
from pathlib import Path
from typing import Any

from loguru import logger
from pydantic import ValidationError

from dexrun.config.addresses import in_world
from dexrun.exit_codes import BAD_CONFIGURATION, OK, STOPPED
from dexrun.printing import fail
from drivers.arms.choice import robot_of
from drivers.remote_leader.options import secret_for, split_address
from drivers.remote_leader.sender import LeaderSender, RefusedLeaderError
from runtime.arm_model import ModelError
from runtime.clock import NS_PER_S, Clock, RealClock
from runtime.device import DeviceThread
from runtime.interfaces import LeaderDriver
from runtime.joints import JointLayout
from runtime.messages import Decision, DeviceError
from runtime.part_context import ArmContext
from runtime.parts import LeaderTable
from runtime.printable import line
from runtime.table_model import MeshesMissingError

_TURN_NS = NS_PER_S // 500
_SAY_NS = 5 * NS_PER_S


class LeadError(Exception):
    """What was asked for cannot be done. One line."""


def leader_table(file: Path, name: str) -> tuple[str, LeaderTable]:
    """The key and the table of the leader in `file`: ``[leader]``, or ``[leaders.<name>]``.

    Raises:
        LeadError: there is none, or it is wrong, or not a leader that can be far from its arm.
    """
    try:
        given: dict[str, Any] = tomllib.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise LeadError(f"{file}: {line(str(error))}") from None
    key = f"leaders.{name}" if name else "leader"
    found = given.get("leaders", {}).get(name) if name else given.get("leader")
    if found is None:
        known = [each for each in ("leader",) if each in given]
        known += [f"leaders.{each}" for each in given.get("leaders", {})]
        there = ", ".join(known) or "no leader"
        raise LeadError(f"{file}: no [{key}]; there is {there}; --leader NAME picks one of [leaders.NAME]")
    try:
        table = LeaderTable.model_validate(found)
    except ValidationError as error:
        wrong = error.errors()[0]
        where = ".".join([key, *map(str, wrong["loc"])])
        raise LeadError(f"{file}: {where}: {line(wrong['msg'])}") from None
    if in_world(table.address) or table.jogged or table.driver == "remote":
        raise LeadError(f"{file}: {key}: it is no arm of this machine, which alone can be sent")
    with _named(file, key):
        table.check_real()
    return key, table


@contextlib.contextmanager
def _named(file: Path, key: str) -> Any:
    try:
        yield
    except ValueError as error:
        raise LeadError(f"{file}: {key}.{line(str(error))}") from None


def joints_of(table: LeaderTable, file: Path, key: str) -> JointLayout:
    """The joints of its model; its files fit them.

    Raises:
        LeadError: the model is unknown, or they do not.
    """
    try:
        layout = robot_of(table).layout
    except (ModelError, MeshesMissingError) as error:
        raise LeadError(f"{file}: {key}.model = {table.model!r}: {line(str(error))}") from None
    with _named(file, key):
        table.check_joints(layout)
    return layout


async def lead(driver: LeaderDriver, sender: LeaderSender, clock: Clock) -> None:
    """Send every state, until cancelled; say how it goes.

    Raises:
        DeviceError: the leader cannot be opened.
        RefusedLeaderError: the follower does not want this one.
    """

    def report(error: DeviceError) -> Decision:
        logger.warning("{}", error)
        return Decision.RETRY

    thread = DeviceThread(driver, clock, report)
    await thread.start()
    try:
        at, said_ns, agreed = driver.states.published, clock.now_ns(), False
        logger.info("the leader is open; asking the other machine for its follower")
        while True:
            published = driver.states.published
            sender.turn(driver.states.newest() if published > at else None)
            at = published
            now = clock.now_ns()
            if sender.agreed != agreed:
                agreed = sender.agreed
                logger.info(
                    "the follower answers" if agreed else "the follower does not answer; asking again"
                )
            elif agreed and now - said_ns >= _SAY_NS:
                said_ns = now
                trip_ms = sender.trips.percentile_ns(0.5) / 1e6
                logger.info("round trip {:.1f} ms, lost {:.1%}", trip_ms, sender.lost)
            await clock.sleep_until_ns(now + _TURN_NS)
    finally:
        await thread.stop()


def main(arguments: list[str]) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="dexrun lead",
        description="Send the joints of this machine's leader to the machine with the follower, where "
        '[leader] has driver = "remote". Of the file, [leader] counts alone, or [leaders.NAME].',
        epilog="example: dexrun lead --config config.toml --to robot.local:8471",
    )
    parser.add_argument("--config", type=Path, default=Path("config.toml"), help="with the leader's table")
    parser.add_argument("--to", required=True, help="HOST:PORT that the follower's machine listens at")
    parser.add_argument("--leader", default="", metavar="NAME", help="which of [leaders.NAME]")
    parser.add_argument(
        "--token-env", default="DEXRUN_LEADER_TOKEN", help="the environment variable with the shared secret"
    )
    given = parser.parse_args(arguments)
    logger.remove()
    logger.add(sys.stderr, format="{time:HH:mm:ss} {level: <7} {message}", level="INFO")
    clock = RealClock()
    try:
        key, table = leader_table(given.config, given.leader)
        layout = joints_of(table, given.config, key)
        host, port = split_address(given.to)
        sender = LeaderSender((host, port), secret_for(host, given.token_env), layout, clock)
    except (LeadError, ValueError, OSError) as error:
        fail(str(error), "dexrun lead")
        return BAD_CONFIGURATION
    try:
        clock.run(lead, table.build(ArmContext(key, clock, joints=layout)), sender, clock)
    except KeyboardInterrupt:
        return OK
    except RefusedLeaderError as error:
        fail(f"{given.to} refuses: {error}", "dexrun lead")
        return BAD_CONFIGURATION
    except DeviceError as error:
        fail(error, "dexrun lead")
        return STOPPED
    finally:
        sender.close()
    return OK
