"""dexrun's simulated tabletop as an environment of LeRobot: ``--env.type=dexrun``.

LeRobot imports installed distributions called ``lerobot_env_*`` by themselves (before it did, say
``--env.discover_packages_path=lerobot_env_dexrun``). Importing this one registers the environment with
Gymnasium, and its configuration with LeRobot.
"""

from __future__ import annotations

import dexrun.gym
from lerobot_env_dexrun.configuration_dexrun import DexrunEnvConfig

__all__ = ["DexrunEnvConfig"]

dexrun.gym.register_environments()
