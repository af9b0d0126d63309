"""What ``--env.type=dexrun`` takes, and what a policy sees of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from lerobot.configs.types import FeatureType, PolicyFeature
from lerobot.envs.configs import EnvConfig
from lerobot.utils.constants import ACTION, OBS_IMAGES, OBS_STATE

JOINTS = 6


@EnvConfig.register_subclass("dexrun")
@dataclass
class DexrunEnvConfig(EnvConfig):  # type: ignore[misc]
    """An SO-100 at a table: joint targets in radians, the gripper 0 to 1, ten a second.

    Attributes:
        goal: ``clear`` or ``lift``, as `dexrun.gym.environment.TabletopEnv` has them.
        cameras: of ``head``, ``wrist``; width, height: of their pictures.
        objects: how many; 0 for 3 to 5 by chance. looks: how much the table's looks vary.
    """

    task: str | None = "Tabletop-v0"
    fps: int = 10
    episode_length: int = 600
    goal: str = "clear"
    cameras: list[str] = field(default_factory=lambda: ["head", "wrist"])
    width: int = 128
    height: int = 96
    objects: int = 0
    looks: float = 0.0
    features: dict[str, PolicyFeature] = field(default_factory=dict)
    features_map: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        picture = PolicyFeature(type=FeatureType.VISUAL, shape=(self.height, self.width, 3))
        pixels = {f"pixels/{name}": picture for name in self.cameras}
        self.features = {
            ACTION: PolicyFeature(type=FeatureType.ACTION, shape=(JOINTS,)),
            "agent_pos": PolicyFeature(type=FeatureType.STATE, shape=(JOINTS,)),
            **pixels,
        }
        self.features_map = {
            ACTION: ACTION,
            "agent_pos": OBS_STATE,
            **{f"pixels/{name}": f"{OBS_IMAGES}.{name}" for name in self.cameras},
        }

    @property
    def package_name(self) -> str:
        """Where the environment's name begins, and what LeRobot imports if it is not known."""
        return "dexrun"

    @property
    def gym_kwargs(self) -> dict[str, Any]:
        """For ``gymnasium.make``."""
        return {
            "task": self.goal,
            "cameras": tuple(self.cameras),
            "width": self.width,
            "height": self.height,
            "objects": self.objects or None,
            "looks": self.looks,
            "rate_hz": float(self.fps),
            "render_mode": "rgb_array",
            "max_episode_steps": self.episode_length,
        }
