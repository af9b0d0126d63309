"""What LeRobot is told of the environment is what the environment is; LeRobot itself is a stand-in here."""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import gymnasium
import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "lerobot-env-dexrun"


class FeatureType(Enum):
    ACTION, STATE, VISUAL = "ACTION", "STATE", "VISUAL"


@dataclass
class PolicyFeature:
    type: FeatureType
    shape: tuple[int, ...]


class EnvConfig:
    """As LeRobot 0.4.4 has it, as far as a plug-in meets it."""

    known: ClassVar[dict[str, type]] = {}

    @classmethod
    def register_subclass(cls, name: str) -> Any:
        def keep(kind: type) -> type:
            cls.known[name] = kind
            return kind

        return keep

    @property
    def gym_id(self) -> str:
        return f"{self.package_name}/{self.task}"  # type: ignore[attr-defined]


def test_lerobot_is_told_what_the_environment_is(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {"ACTION": "action", "OBS_IMAGES": "observation.images", "OBS_STATE": "observation.state"}
    parts: dict[str, dict[str, Any]] = {
        "lerobot": {},
        "lerobot.configs": {},
        "lerobot.configs.types": {"FeatureType": FeatureType, "PolicyFeature": PolicyFeature},
        "lerobot.envs": {},
        "lerobot.envs.configs": {"EnvConfig": EnvConfig},
        "lerobot.utils": {},
        "lerobot.utils.constants": names,
    }
    for name, values in parts.items():
        module = ModuleType(name)
        module.__dict__.update(values)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.syspath_prepend(str(EXAMPLE))
    importlib.import_module("lerobot_env_dexrun")
    config = EnvConfig.known["dexrun"](cameras=["wrist"], width=48, height=32, episode_length=2)
    env = gymnasium.make(config.gym_id, disable_env_checker=True, **config.gym_kwargs)
    seen, _ = env.reset(seed=2)
    shapes = {key: feature.shape for key, feature in config.features.items()}
    assert shapes == {
        "action": env.action_space.shape,
        "agent_pos": seen["agent_pos"].shape,
        "pixels/wrist": seen["pixels"]["wrist"].shape,
    }
    assert config.features_map["pixels/wrist"] == "observation.images.wrist"
    assert env.get_wrapper_attr("_max_episode_steps") == 2
    assert env.get_wrapper_attr("task_description") == "clear the table"
    env.step(env.action_space.low * 0 + seen["agent_pos"])
    *_, cut_off, about = env.step(seen["agent_pos"])
    assert cut_off
    assert about["is_success"] is False
    env.close()
    for name in [name for name in sys.modules if name.startswith("lerobot_env_dexrun")]:
        monkeypatch.delitem(sys.modules, name)
