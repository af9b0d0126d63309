"""A robot of LeRobot's kind that moves where it is told at once; for `lerobot_peer`."""

from dataclasses import dataclass

import numpy as np
from lerobot.robots.config import RobotConfig
from lerobot.robots.robot import Robot

JOINTS = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")


@RobotConfig.register_subclass("toy")
@dataclass
class ToyRobotConfig(RobotConfig):
    pass


class ToyRobot(Robot):
    config_class = ToyRobotConfig
    name = "toy"

    def __init__(self, config):
        super().__init__(config)
        self.position = dict.fromkeys(self.action_features, 10.0)
        self.sent = []

    @property
    def observation_features(self):
        return {**self.action_features, "front": (48, 64, 3), "wrist": (24, 32, 3)}

    @property
    def action_features(self):
        return {f"{joint}.pos": float for joint in JOINTS}

    is_connected = True
    is_calibrated = True

    def connect(self, calibrate=True):
        pass

    def calibrate(self):
        pass

    def configure(self):
        pass

    def get_observation(self):
        images = {"front": np.full((48, 64, 3), 7, np.uint8), "wrist": np.full((24, 32, 3), 9, np.uint8)}
        return {**self.position, **images}

    def send_action(self, action):
        self.sent.append(action)
        self.position = dict(action)
        return action

    def disconnect(self):
        pass
