"""The simulated tabletop in one process: as an engine (`dexrun.gym.engine`) and as a Gymnasium environment.

``import dexrun.gym`` registers ``dexrun/Tabletop-v0`` where Gymnasium is installed, and so does
``gymnasium.make("dexrun.gym:dexrun/Tabletop-v0")`` by itself.
"""

from __future__ import annotations

from importlib.util import find_spec

ENVIRONMENT = "dexrun/Tabletop-v0"


def register_environments() -> None:
    """Register `ENVIRONMENT`, once. Importing this module has done it."""
    import gymnasium

    if ENVIRONMENT not in gymnasium.registry:
        gymnasium.register(ENVIRONMENT, entry_point="dexrun.gym.environment:TabletopEnv")


if find_spec("gymnasium") is not None:
    register_environments()
