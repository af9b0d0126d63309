"""Runs in LeRobot's environment: its own arm, its own `RobotClient`, or its own `PolicyServer`, unchanged.

``lerobot_peer.py arm PORT FOLDER UNITS`` drives an arm on a serial port with its own `SO100Follower` and the
calibration ``arm.json`` of FOLDER; UNITS is ``degrees`` or ``percent``. It prints an observation for every
empty line, and sends the action of every other line, which is JSON.
``lerobot_peer.py setup PORT FOLDER`` sets the servos up with its own ``setup_motors``: after ``ASK`` comes
what it asks, an empty line is the answer, and ``SET`` says that it is done and could talk to all of them.
``lerobot_peer.py calibrate PORT FOLDER`` calibrates an arm with its own ``calibrate``, in the same way; it
writes ``arm.json`` in FOLDER. While the joints are moved it asks after every look, and looks again at a line
that is not empty.
``lerobot_peer.py find-port FOLDER`` runs its own ``find_port`` with FOLDER in the place of ``/dev``.
``lerobot_peer.py client PORT STEPS`` lets its client drive a toy robot for so many steps and prints them;
``lerobot_peer.py server FOLDER`` makes a tiny ACT checkpoint in FOLDER, serves, and prints its port and the
checkpoint's path, then every chunk that it computes.
"""

import json
import os
import sys
import threading

import torch

try:
    import torchvision  # noqa: F401
except RuntimeError:
    # The wheel's compiled operators want the CUDA build of torch. Nothing here uses them, but importing
    # torchvision does look for two names.
    for _module in [name for name in sys.modules if name.startswith("torchvision")]:
        del sys.modules[_module]
    _operators = torch.library.Library("torchvision", "DEF")
    for _name in ("nms", "qnms"):
        _operators.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))


ANSWER_MS = 60_000.0
"""How long an answer may take. LeRobot's 50 ms are of wall time, of which a busy emulator may get nothing."""


def connected_arm(config):
    """Theirs, unchanged but for the one timeout.

    Nothing is asked a second time: LeRobot throws nothing away before it asks again, so the answer that came
    too late for the first question is taken for the second's, and every later one for the next.
    """
    from lerobot.robots.so_follower import SO100Follower

    robot = SO100Follower(config)
    port = robot.bus.port_handler
    port.setPacketTimeout = lambda length: port.setPacketTimeoutMillis(ANSWER_MS)
    robot.connect(calibrate=False)
    return robot


def arm(port, folder, units):
    from pathlib import Path

    from lerobot.robots.so_follower import SO100FollowerConfig

    config = SO100FollowerConfig(
        port=port,
        id="arm",
        calibration_dir=Path(folder),
        use_degrees=units == "degrees",
        disable_torque_on_disconnect=False,
    )
    robot = connected_arm(config)
    print(f"CALIBRATED {json.dumps(robot.is_calibrated)}", flush=True)
    for line in sys.stdin:
        if line.strip():
            robot.send_action(json.loads(line))
        seen = {key: float(value) for key, value in robot.get_observation().items()}
        print("OBSERVATION " + json.dumps(seen), flush=True)
    robot.disconnect()


def ask(text=""):
    print("ASK " + text, flush=True)
    return sys.stdin.readline().rstrip("\n")


def find_port(folder):
    import builtins
    from pathlib import Path

    from lerobot.scripts import lerobot_find_port

    builtins.input = ask
    lerobot_find_port.Path = lambda path: Path(folder if path == "/dev" else path)
    lerobot_find_port.find_port()


def by_hand(what, port, folder):
    import builtins
    from pathlib import Path

    from lerobot.motors import motors_bus
    from lerobot.robots.so_follower import SO100Follower, SO100FollowerConfig

    builtins.input = ask
    robot = SO100Follower(SO100FollowerConfig(port=port, id="arm", calibration_dir=Path(folder)))
    handler = robot.bus.port_handler
    handler.setPacketTimeout = lambda length: handler.setPacketTimeoutMillis(ANSWER_MS)
    if what == "calibrate":
        motors_bus.enter_pressed = lambda: not ask("moved")
        robot.bus.connect()
        robot.calibrate()
    else:
        robot.setup_motors()
        ask("all")
        robot.bus._handshake()
        robot.bus.configure_motors()
    print("SET", flush=True)
    robot.bus.disconnect(disable_torque=False)


def client(port, steps):
    from lerobot.async_inference.configs import RobotClientConfig
    from lerobot.async_inference.robot_client import RobotClient
    from lerobot_robot import ToyRobotConfig

    config = RobotClientConfig(
        policy_type="act",
        pretrained_name_or_path="whatever",
        robot=ToyRobotConfig(id="toy"),
        actions_per_chunk=10,
        task="stack",
        server_address=f"127.0.0.1:{port}",
        fps=60,
    )
    running = RobotClient(config)
    assert running.start()
    threads = [
        threading.Thread(target=running.receive_actions),
        threading.Thread(target=running.control_loop, args=("stack",)),
    ]
    for thread in threads:
        thread.start()
    pause = threading.Event()
    while len(running.robot.sent) < steps and not pause.wait(0.02):
        pass
    running.shutdown_event.set()
    for thread in threads:
        thread.join(10)
    sent = [list(action.values()) for action in running.robot.sent]
    running.stop()
    print("RESULT " + json.dumps({"sent": sent, "latest": running.latest_action}), flush=True)


def checkpoint(folder):
    from lerobot.configs.types import FeatureType, NormalizationMode, PolicyFeature
    from lerobot.policies.act.configuration_act import ACTConfig
    from lerobot.policies.act.modeling_act import ACTPolicy
    from lerobot.policies.factory import make_pre_post_processors

    torch.manual_seed(0)
    identity = dict.fromkeys(("VISUAL", "STATE", "ACTION"), NormalizationMode.IDENTITY)
    config = ACTConfig(
        input_features={
            "observation.state": PolicyFeature(FeatureType.STATE, (6,)),
            "observation.images.front": PolicyFeature(FeatureType.VISUAL, (3, 48, 64)),
            "observation.images.wrist": PolicyFeature(FeatureType.VISUAL, (3, 48, 64)),
        },
        output_features={"action": PolicyFeature(FeatureType.ACTION, (6,))},
        normalization_mapping=identity,
        chunk_size=8,
        n_action_steps=8,
        dim_model=32,
        dim_feedforward=32,
        n_heads=2,
        n_encoder_layers=1,
        n_vae_encoder_layers=1,
        pretrained_backbone_weights=None,
        device="cpu",
    )
    ACTPolicy(config).save_pretrained(folder)
    before, after = make_pre_post_processors(config)
    before.save_pretrained(folder)
    after.save_pretrained(folder)


def server(folder):
    from concurrent import futures

    import grpc
    from lerobot.async_inference.configs import PolicyServerConfig
    from lerobot.async_inference.policy_server import PolicyServer
    from lerobot.transport import services_pb2_grpc

    checkpoint(folder)
    served = PolicyServer(PolicyServerConfig(host="127.0.0.1", port=8080, inference_latency=0.0))
    predict = served._predict_action_chunk

    def told(observation):
        actions = predict(observation)
        said = {"timestep": observation.get_timestep(), "task": observation.get_observation()["task"]}
        said["actions"] = [a.get_action().tolist() for a in actions]
        print("CHUNK " + json.dumps(said), flush=True)
        return actions

    served._predict_action_chunk = told
    running = grpc.server(futures.ThreadPoolExecutor(max_workers=4))
    services_pb2_grpc.add_AsyncInferenceServicer_to_server(served, running)
    port = running.add_insecure_port("127.0.0.1:0")
    running.start()
    print(f"PORT {port}", flush=True)
    sys.stdin.read()
    running.stop(None)


if __name__ == "__main__":
    if sys.argv[1] == "client":
        client(int(sys.argv[2]), int(sys.argv[3]))
    elif sys.argv[1] == "arm":
        arm(*sys.argv[2:5])
    elif sys.argv[1] in ("setup", "calibrate"):
        by_hand(*sys.argv[1:4])
    elif sys.argv[1] == "find-port":
        find_port(sys.argv[2])
    else:
        server(sys.argv[2])
