"""LeRobot's own teleoperation, unchanged, for `bench.teleop`. Runs in LeRobot's environment.

``lerobot_teleop_peer.py FOLDER SECONDS FPS CAMERA...``: its SO-100 leader and follower on ``leader`` and
``follower`` of FOLDER with the calibrations there, its OpenCV cameras, and its `teleop_loop`.
"""

import contextlib
import importlib.util
import os
import sys
import types
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import lerobot_peer  # noqa: F401 - lets LeRobot be imported

if importlib.util.find_spec("rerun") is None:
    sys.modules["rerun"] = types.ModuleType("rerun")  # its viewer, which stays shut

ANSWER_MS = 1000.0
"""How long an answer may take, instead of 50 ms of which a busy emulator may get nothing."""


def patient(arm):
    port = arm.bus.port_handler
    port.setPacketTimeout = lambda length: port.setPacketTimeoutMillis(ANSWER_MS)
    return arm


def main(folder, seconds, fps, *cameras):
    from lerobot.cameras.opencv import OpenCVCameraConfig
    from lerobot.processor import make_default_processors
    from lerobot.robots.so_follower import SO100Follower, SO100FollowerConfig
    from lerobot.scripts.lerobot_teleoperate import teleop_loop
    from lerobot.teleoperators.so_leader import SO100Leader, SO100LeaderConfig

    home = Path(folder)
    size = {"fps": 30, "width": 640, "height": 480}
    seen = {f"camera{number}": OpenCVCameraConfig(url, **size) for number, url in enumerate(cameras)}
    follower = patient(
        SO100Follower(
            SO100FollowerConfig(
                port=str(home / "follower"),
                id="follower",
                calibration_dir=home,
                cameras=seen,
                disable_torque_on_disconnect=False,
            )
        )
    )
    leader = patient(
        SO100Leader(SO100LeaderConfig(port=str(home / "leader"), id="leader", calibration_dir=home))
    )
    for camera in follower.cameras.values():  # a stream is as large as it is: none of it can be set
        camera.width = camera.height = camera.fps = None
    leader.connect(calibrate=False)
    follower.connect(calibrate=False)
    try:
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            teleop_loop(leader, follower, int(fps), *make_default_processors(), duration=float(seconds))
    finally:
        leader.disconnect()
        follower.disconnect()


if __name__ == "__main__":
    main(*sys.argv[1:])
