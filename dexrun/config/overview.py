"""Ten lines about a configuration: what is real, what simulated, what would move and be written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from dexrun.config.addresses import in_world
from dexrun.config.settings import Settings
from runtime.masking import masked
from runtime.parts import DeviceTable, LeaderTable

_MODES = {
    "grasp": "planner, perception and policy clear the table on their own",
    "teleop": "a person moves the leader, the arm follows",
    "rollout": "a policy drives, in episodes; a person starts, stops and judges them",
}


def overview(settings: Settings) -> list[str]:
    """Ten lines, a word and what is said about it each."""
    cameras = [f"cameras.{name}" for name in settings.cameras]
    lines = (
        ("mode", f"{settings.mode}: {_MODES.get(settings.mode, settings.mode)}"),
        ("moves", "; ".join(_moving(settings))),
        ("arms", "; ".join(_devices(settings, [*settings.arm_tables(), *settings.all_leader_tables()]))),
        (
            "cameras",
            "; ".join(_devices(settings, cameras)) or "none",
        ),
        ("force", "; ".join(_devices(settings, ["force"])) if settings.force is not None else "none"),
        ("planner", _planner(settings)),
        ("policy", _policy(settings)),
        ("limits", _limits(settings)),
        ("clock", _clock(settings)),
        ("writes", _writes(settings)),
    )
    return [masked(f"{word:<8} {text}") for word, text in lines]


def _is_real(device: DeviceTable) -> bool:
    return not in_world(device.address) and not device.simulated


def _moving(settings: Settings) -> Iterator[str]:
    for key, arm in settings.arm_tables().items():
        if _is_real(arm):
            yield f"[{key}], a REAL arm at {arm.address or arm.driver}"
        else:
            yield f"[{key}], a simulated arm: nothing real moves"


def _devices(settings: Settings, keys: list[str]) -> Iterator[str]:
    opened = settings.device_tables()
    tables = {**settings.all_leader_tables(), **opened}
    for key in keys:
        device = tables[key]
        kind = "real" if _is_real(device) else "simulated"
        if isinstance(device, LeaderTable) and device.jogged:
            kind = "without an arm"
        unused = "" if key in opened else f", not used in mode {settings.mode}"
        name = key.removeprefix("cameras.")
        what = f"{device.driver} {device.address}".rstrip()
        yield f"{name} {kind} ({what}{_size(device)}{unused})"


def _size(device: DeviceTable) -> str:
    size = [getattr(device, key, None) for key in ("width", "height", "fps")]
    return "" if None in size else f", {size[0]}x{size[1]} at {size[2]} fps"


def _planner(settings: Settings) -> str:
    if settings.mode == "teleop":
        return "not used in mode teleop"
    planner = settings.planner
    if settings.mode == "rollout" and not any(need.mask for need in settings.policy.needs_cameras()):
        return "not used: the policy needs no mask"
    if planner.base_url is None:
        return f"the scene reader, classical vision for the simulated table only; prompt {planner.prompt!r}"
    model = planner.model or "the first model that it lists"
    return f"{model} at {planner.base_url}; prompt {planner.prompt!r}"


def _policy(settings: Settings) -> str:
    if settings.mode == "teleop":
        return "not used in mode teleop"
    policy = settings.policy
    checkpoint = getattr(policy, "checkpoint", getattr(policy, "path", None))
    where = "behind a server" if policy.behind_a_server else f"in a {policy.worker} of this machine"
    weights = "" if checkpoint is None and not policy.untrained else f", checkpoint {checkpoint}"
    return f"{policy.type}, {where}{weights}"


def _limits(settings: Settings) -> str:
    safety, rate = settings.safety, settings.control.rate_hz
    force = f"{safety.max_force_n:g} N" if settings.force is not None else "no force sensor"
    speed, acceleration = safety.max_velocity_rad_s, safety.max_acceleration_rad_s2
    return f"{speed:g} rad/s, {acceleration:g} rad/s2, {force}; {rate:g} Hz"


def _clock(settings: Settings) -> str:
    if settings.realtime.clock == "stepped":
        return "stepped: simulated time, as fast as it computes"
    world = "; the simulated tabletop runs beside it" if settings.simulated else ""
    return f"real{world}"


def _writes(settings: Settings) -> str:
    recorded = "a recording and a summary" if settings.recording.wanted(settings.mode) else "a summary"
    folder = Path(settings.runs).absolute()
    eeprom = [
        key for key, table in settings.device_tables().items() if getattr(table, "write_calibration", False)
    ]
    servos = f"; EEPROM of the servos of {', '.join(eeprom)}" if eeprom else "; nothing to the servos' EEPROM"
    return f"{recorded} in {folder}{servos}"
