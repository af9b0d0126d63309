"""What sensors deliver, against what the configuration says they do."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from loguru import logger

from dexrun.config.load import load
from dexrun.rate_watch import RateWatch, promised_hz
from dexrun.robot import Robot
from runtime.clock import NS_PER_S
from runtime.ring import Ring
from runtime.statistics import RunStatistics
from runtime.stepped import SteppedClock

CONFIG = Path(__file__).parents[2] / "config.toml"


def test_every_device_of_the_default_configuration_has_a_rate() -> None:
    settings = load(["--config", str(CONFIG), "--mode", "teleop"], {})
    promised = promised_hz(settings.device_tables())
    assert promised == {
        "arm": ("arm.state_rate_hz", 100.0),
        "leader": ("leader.state_rate_hz", 100.0),
        "force": ("force.rate_hz", 200.0),
        "head": ("cameras.head.fps", 30.0),
        "wrist": ("cameras.wrist.fps", 30.0),
    }


@pytest.mark.parametrize(
    ("name", "real_hz", "state", "said"),
    [
        ("head", 10.0, "running", "head: 10 a second come, and cameras.head.fps says 30; "),
        ("head", 60.0, "running", "head: 60 a second come, and cameras.head.fps says 30; "),
        ("head", 26.0, "running", ""),
        ("head", 10.0, "reopening", ""),
        ("arm", 20.0, "running", "arm: 20 a second come, and arm.state_rate_hz says 100; "),
        ("arm", 200.0, "running", ""),  # once a tick
        ("arm", 300.0, "running", "arm: 300 a second come, and arm.state_rate_hz says 100; "),
    ],
)
def test_a_rate_that_is_not_the_configured_one_is_said_once(
    name: str, real_hz: float, state: str, said: str
) -> None:
    clock, statistics = SteppedClock(), RunStatistics()
    ring = Ring({"value": ((1,), "<f8")}, 4)
    statistics.meter(name, ring)
    robot = SimpleNamespace(
        clock=clock,
        statistics=statistics,
        settings=load(["--config", str(CONFIG), "--control.rate_hz", "200"], {}),
        threads={name: SimpleNamespace(state=state)},
    )
    watch = RateWatch(cast(Robot, cast(Any, robot)))
    lines: list[str] = []
    sink = logger.add(lambda message: lines.append(message.record["message"]), level="WARNING")
    try:
        sent = 0
        for tick in range(1, 400):
            now_ns = tick * NS_PER_S // 30
            clock.wait_until_ns(now_ns)
            while (sent + 1) / real_hz * NS_PER_S <= now_ns:
                sent += 1
                ring.push(now_ns, value=0.0)
            statistics.woke(now_ns, now_ns, 0)
            if tick % 75 == 0:
                watch.look()
    finally:
        logger.remove(sink)
    assert len(lines) == bool(said)
    assert all(line.startswith(said) for line in lines)
