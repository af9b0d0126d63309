"""The configuration of a simulation where nobody gives one, and what is cheaper in one process."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dexrun.config.checkpoint_folders import Sources, with_checkpoints
from dexrun.config.load import load
from dexrun.config.settings import Settings

_MESH_CELL_M, _FINGER_CELL_M = 0.009, 0.004
"""The arm's looks: small pictures show no more, and every triangle is paid for."""

_TABLES: Mapping[str, Any] = {
    "arm": {"driver": "feetech", "port": "world:follower"},
    "cameras": {
        "head": {
            "driver": "realsense",
            "serial": "world:head",
            "width": 640,
            "height": 480,
            "fps": 30,
            "extrinsics": {"position_m": (0.05, 0.045, 0.62), "look_at_m": (0.165, 0.045, 0.0)},
        },
        "wrist": {"driver": "opencv", "source": "world:wrist", "width": 320, "height": 240, "fps": 30},
    },
    "force": {"driver": "serial", "port": "world:force", "rate_hz": 200},
}


def default_settings(tables: Mapping[str, Any] | None = None) -> Settings:
    """What ``config.toml`` says of the simulated SO-100, and `tables` besides."""
    return Settings(**{**_TABLES, **dict(tables or {})})


def settings_for(config: Path | None, checkpoint: Path | None = None) -> Settings:
    """Those of the file `config`, or the defaults; with the policy of the folder `checkpoint`, if given.

    Raises:
        ConfigError: something cannot be used; one line for each mistake.
    """
    if config is not None:
        return load(["--config", str(config), *_policy(checkpoint)])
    if checkpoint is None:
        return default_settings()
    given: Sources = {"command line": {("policy", "checkpoint"): str(checkpoint)}}
    tables, _ = with_checkpoints(
        {**_TABLES, "policy": {"checkpoint": str(checkpoint)}}, given, "the default configuration"
    )
    return Settings(**tables)


def _policy(checkpoint: Path | None) -> list[str]:
    return [] if checkpoint is None else ["--policy.checkpoint", str(checkpoint)]


def lighter(settings: Settings) -> Settings:
    """`settings` with the arm drawn as coarsely as small pictures allow, unless it is said how."""
    render = settings.world.render
    given = render.model_fields_set & {"mesh_cell_m", "finger_cell_m"}
    if given:
        return settings
    update = {"mesh_cell_m": _MESH_CELL_M, "finger_cell_m": _FINGER_CELL_M}
    world = settings.world.model_copy(update={"render": render.model_copy(update=update)})
    return settings.model_copy(update={"world": world})
