"""What recordings made by earlier versions, and files written for them, say in another way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np


def times_of_stalls(tables: Mapping[str, Any]) -> dict[str, Any]:
    """Recorded `tables` with ``safety.stall_s`` where they have ``safety.stall_ticks``."""
    safety = tables.get("safety")
    if not isinstance(safety, Mapping) or "stall_ticks" not in safety:
        return dict(tables)
    control = tables.get("control")
    rate_hz = control.get("rate_hz", 30.0) if isinstance(control, Mapping) else 30.0
    ticks, rate_hz = (
        value if isinstance(value, int | float) else 0 for value in (safety["stall_ticks"], rate_hz)
    )
    rest = {key: value for key, value in safety.items() if key != "stall_ticks"}
    # Half a tick less: the tick that reached the number has to reach the time.
    return {**tables, "safety": {**rest, "stall_s": (ticks - 0.5) / rate_hz if rate_hz else 0.0}}


def targets_alone(tables: Mapping[str, Any]) -> dict[str, Any]:
    """Recorded `tables`; where ``safety`` does not say how far ahead of the arm they may be, at any."""
    safety = tables.get("safety")
    if not isinstance(safety, Mapping) or "table_lag_m_per_rad" in safety:
        return dict(tables)
    return {**tables, "safety": {**safety, "table_lag_m_per_rad": 0.0}}


def constant_weights(tables: Mapping[str, Any]) -> dict[str, Any]:
    """Recorded `tables`; where ``policy`` does not say how chunks are blended, as it was when nobody did."""
    policy = tables.get("policy")
    said = policy if isinstance(policy, Mapping) else {}
    return {**tables, "policy": {"blend": "weighted_average", **said}}


_OF_SERVERS = {
    *("host", "port", "token_env", "connect_timeout_s", "request_timeout_s", "setup_timeout_s"),
    *("backoff_s", "backoff_max_s", "keep_alive_s", "max_message_mib", "jpeg_quality"),
    *("chunk_steps", "policy_type", "pretrained", "classes"),
}
"""Keys that a policy's server has, and a folder has not."""


def lerobot_servers(tables: Mapping[str, Any]) -> dict[str, Any]:
    """`tables`, with ``lerobot_grpc`` where a policy behind a server has the name of before, ``lerobot``."""
    policy, serve = tables.get("policy"), tables.get("serve")
    found = dict(tables)
    if isinstance(policy, Mapping):
        found["policy"] = _lerobot_server(policy)
    if isinstance(serve, Mapping) and isinstance(serve.get("policy"), Mapping):
        found["serve"] = {**serve, "policy": _lerobot_server(serve["policy"])}
    return found


def _lerobot_server(table: Mapping[str, Any]) -> dict[str, Any]:
    if table.get("type") != "lerobot" or "path" in table or not _OF_SERVERS & table.keys():
        return dict(table)
    return {**table, "type": "lerobot_grpc"}


def stage_snapshot(state: Mapping[str, Any], rate_hz: float) -> dict[str, Any]:
    """What the safety stage remembered, with times where it counted ticks."""
    stall = dict(state["stall"])
    if "_count" in stall:
        stall["_pushing_s"] = np.asarray(stall.pop("_count"), np.float64) / rate_hz
    return {**state, "stall": stall}
