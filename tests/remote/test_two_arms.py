"""The whole joint vector of two arms crosses in every protocol, under the names that each has for it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dexrun.config.serve_options import ServeOptions
from dexrun.serve.server import local_server
from policies.mapping import KeyMap
from policies.remote.make import make_remote
from runtime.clock import RealClock
from runtime.joints import side_by_side
from runtime.messages import ArmState
from tests.remote.support import (
    GUARD_S,
    NAMES,
    OPTIONS,
    PROTOCOLS,
    ROBOT,
    EchoPolicy,
    Running,
    expected,
    observation,
)

TWO = side_by_side({"left": ROBOT, "right": ROBOT})
CLOSE = 2e-5


def keys(protocol: str) -> KeyMap:
    own: KeyMap = OPTIONS[protocol]().keys
    if protocol == "gr00t":
        parts = {f"{arm}_arm": tuple(f"{arm}.{name}" for name in NAMES[:5]) for arm in ("left", "right")}
        parts |= {f"{arm}_gripper": (f"{arm}.gripper",) for arm in ("left", "right")}
        return own.model_copy(update={"state": parts, "action": parts})
    if protocol == "lerobot":
        parts = {f"{name.replace('.', '_')}.pos": (name,) for name in TWO.names}
        return own.model_copy(update={"state": parts, "action": {next(iter(own.action)): TWO.names}})
    state, action = ({next(iter(each)): TWO.names} for each in (own.state, own.action))
    return own.model_copy(update={"state": state, "action": action})


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_both_arms_cross(protocol: str) -> None:
    policy = EchoPolicy()
    policy.spec = replace(policy.spec, joints=12)
    running = Running(local_server(policy, ServeOptions(protocol=protocol, keys=keys(protocol)), TWO)).start()
    given = {"backoff_s": 0.0, "request_timeout_s": GUARD_S, "keys": keys(protocol)}
    remote = make_remote(OPTIONS[protocol](port=running.port, **given), TWO, RealClock())
    try:
        low, high = TWO.ranges.T
        position = low + (high - low) * np.linspace(0.3, 0.7, 12)
        made = replace(observation(), arm=ArmState(5, position, np.zeros(12), np.zeros(12)))
        rows = remote.infer(made).rows
        assert np.abs(rows - expected(made)).max() < CLOSE
        np.testing.assert_allclose(policy.seen[0].arm.position, position, atol=CLOSE)
    finally:
        remote.close()
        running.stop()
