"""What a recorded configuration may say, and what it may not.

A recording comes from anywhere. Numbers of its control loop are needed to work out the same targets again,
which moves nothing. What moves an arm, and where anything is read, written or sent, is the local
configuration's to say.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dexrun.config.addresses import in_world
from dexrun.config.earlier import constant_weights, targets_alone
from dexrun.config.load import dump, load, load_tables, renamed
from dexrun.config.mode_options import TeleopOptions
from dexrun.config.scene_options import SceneOptions
from dexrun.config.settings import Settings
from dexrun.config.sources import ConfigError, parse_arguments
from drivers.world.config import WorldConfig
from runtime.blends import SplicingOptions
from runtime.control_options import ControlOptions
from runtime.limits import SafetyOptions
from runtime.options import Options
from runtime.recording.bounds import reading
from runtime.recording.reader import Episode, RecordingError
from runtime.table_model import FixedBox

_SCENE = ("seed", "objects", "placed", "start_rad", "start_gripper")
_TOLD = ("runs", "control", "safety", "faults", "arm", "arms", "force")
_NOT_TOLD = ("port", "serial_number", "model", "base", "body", "driver")
_MOST = 12


class LoopTables(Options):
    """The numbers that decide what control, blending and safety make of their inputs; nothing else."""

    control: ControlOptions = ControlOptions()
    safety: SafetyOptions = SafetyOptions()
    policy: SplicingOptions = SplicingOptions()
    teleop: TeleopOptions = TeleopOptions()
    mode: str = "grasp"
    scene: SceneOptions = SceneOptions(tray=False)
    simulated: bool = False

    @property
    def boxes(self) -> tuple[FixedBox, ...]:
        """What stood there and was kept off; nothing in recordings made before such things were."""
        return self.scene.fixed(simulated=self.simulated)

    @property
    def engage_speed_rad_s(self) -> float:
        """As `Settings` has it."""
        return self.teleop.engages(self.control) if self.mode == "teleop" else self.control.engage_speed_rad_s


def recorded_settings(episode: Episode, overrides: Sequence[str] = ()) -> LoopTables:
    """The numbers under which `episode` was recorded, changed by command line `overrides`.

    Raises:
        RecordingError: the configuration is not in it.
        ConfigError: it does not fit this version, or an override is wrong.
    """
    with reading(episode.path, "record 'config'"):
        return _loop_tables(episode, _tables(episode), overrides)


def _loop_tables(episode: Episode, tables: Mapping[str, Any], overrides: Sequence[str]) -> LoopTables:
    tables = constant_weights(targets_alone(tables))
    kept = {name: tables[name] for name in LoopTables.model_fields if isinstance(tables.get(name), dict)}
    kept["mode"] = str(tables.get("mode"))
    kept["simulated"] = _on_the_simulated_table(tables)
    if "policy" in kept:
        kept["policy"] = {k: v for k, v in kept["policy"].items() if k in SplicingOptions.model_fields}
    return load_tables(LoopTables, kept, overrides, str(episode.path))


def _on_the_simulated_table(tables: Mapping[str, Any]) -> bool:
    several = tables.get("arms")
    arms = [tables.get("arm"), *(several.values() if isinstance(several, Mapping) else ())]
    given = [value for arm in arms if isinstance(arm, Mapping) for value in arm.values()]
    return any(isinstance(value, str) and in_world(value) for value in given)


def local_settings(episode: Episode, arguments: Sequence[str]) -> Settings:
    """The local configuration, as a replay of `episode` runs it: arms and force sensor, and nothing recorded.

    Of the recording it takes the simulated scene, where every device is simulated, as far as the command line
    does not say it.

    Raises:
        RecordingError: the configuration is not in it.
        ConfigError: the local configuration is wrong, or has another control rate.
    """
    tables, settings = _tables(episode), load(arguments)
    rate = _at(tables, "control", "rate_hz")
    if rate != settings.control.rate_hz:
        raise ConfigError(
            f"control.rate_hz = {settings.control.rate_hz:g}: the episode was recorded at {rate}, and one "
            f"target is sent each tick; give --control.rate_hz {rate}"
        )
    world = settings.world
    if not settings.real_addresses():
        given = {path[1:2] for path in parse_arguments(arguments)[1] if path[0] == "world"}
        world = _scene(episode, tables, world, [key for key in _SCENE if (key,) not in given])
    recording = settings.recording.model_copy(update={"grasp": False, "teleop": False, "resume": None})
    # No leader, no camera, no policy takes part.
    absent: dict[str, Any] = {"mode": "teleop", "leader": None, "leaders": {}, "cameras": {}}
    return settings.model_copy(update={**absent, "world": world, "recording": recording})


def _scene(
    episode: Episode, tables: Mapping[str, Any], world: WorldConfig, keys: Sequence[str]
) -> WorldConfig:
    recorded = tables.get("world")
    there = {key: recorded[key] for key in keys if key in recorded} if isinstance(recorded, dict) else {}
    scene = load_tables(WorldConfig, there, [], f"{episode.path}: world")
    return world.model_copy(update={key: getattr(scene, key) for key in there})


def differences(episode: Episode, settings: Settings) -> list[str]:
    """What the recording says otherwise than the local configuration, which holds; a line for each key."""
    before, here = (dict(_flat(tables)) for tables in (_tables(episode), json.loads(dump(settings))))
    keys = [key for key in here if before.get(key, here[key]) != here[key]]
    lines = [
        f"{key} was {_shown(before[key])} when it was recorded; {_shown(here[key])} holds" for key in keys
    ]
    more = len(lines) - _MOST
    return lines if more <= 0 else [*lines[:_MOST], f"{more} more keys differ from the recording's"]


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _flat(tables: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tables.items():
        if (not above and key not in _TOLD) or key in _NOT_TOLD:
            continue
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def _tables(episode: Episode) -> dict[str, Any]:
    if not episode.config:
        raise RecordingError(f"{episode.path}: the configuration is not in it")
    return renamed(episode.config)


def _at(tables: Mapping[str, Any], table: str, key: str) -> Any:
    inner = tables.get(table)
    return inner.get(key) if isinstance(inner, Mapping) else None
