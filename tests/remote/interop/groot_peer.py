"""Runs in GR00T's environment: the client and the server of NVIDIA's own ``gr00t/policy/server_client.py``.

``groot_peer.py client CHECKOUT PORT [TOKEN]`` asks everything once and prints what it got as JSON;
``groot_peer.py server CHECKOUT [TOKEN]`` prints its port and serves a policy that adds to the state, until
its input ends. What that server prints of itself, tracebacks included, goes to its error stream.
"""

import json
import os
import sys
import threading
from pathlib import Path
from types import ModuleType

import numpy as np
import zmq

# Packages whose own first lines would import torch and the model; only what lies in them is wanted.
for name in ("gr00t", "gr00t.policy", "gr00t.data", "gr00t.configs", "gr00t.configs.data"):
    package = sys.modules[name] = ModuleType(name)
    package.__path__ = [str(Path(sys.argv[2], *name.split(".")))]

from gr00t.data.types import ModalityConfig  # noqa: E402
from gr00t.policy.policy import BasePolicy  # noqa: E402
from gr00t.policy.server_client import PolicyClient, PolicyServer  # noqa: E402

TEXT = "annotation.human.task_description"
STEPS = 4


class Ramp(BasePolicy):
    """Row `k` is the state plus ``k``; it checks what NVIDIA's policies check of an observation."""

    def check_observation(self, observation):
        for name in ("video", "state", "language"):
            assert name in observation, f"observation must contain a {name!r} key"
        for key, value in (*observation["video"].items(), *observation["state"].items()):
            assert isinstance(value, np.ndarray), f"{key!r} must be a numpy array. Got {type(value)}"
        assert {value.dtype for value in observation["video"].values()} == {np.dtype(np.uint8)}
        assert {value.ndim for value in observation["video"].values()} == {5}
        assert {value.dtype for value in observation["state"].values()} == {np.dtype(np.float32)}
        assert {value.ndim for value in observation["state"].values()} == {3}

    def check_action(self, action):
        pass

    def _get_action(self, observation, options=None):
        if observation["language"][TEXT] == [["fail"]]:
            raise ValueError("told to fail")
        ramp = np.arange(STEPS, dtype=np.float32)[None, :, None]
        return {key: value + ramp for key, value in observation["state"].items()}, {}

    def reset(self, options=None):
        return {}

    def get_modality_config(self):
        return {
            "video": ModalityConfig([0], ["front", "wrist"]),
            "state": ModalityConfig([0], ["single_arm", "gripper"]),
            "action": ModalityConfig(list(range(STEPS)), ["single_arm", "gripper"]),
            "language": ModalityConfig([0], [TEXT]),
        }


def observation():
    return {
        "video": {
            "front": np.full((1, 1, 48, 64, 3), 7, np.uint8),
            "wrist": np.full((1, 1, 24, 32, 3), 9, np.uint8),
        },
        "state": {
            "single_arm": np.array([[[0.1, -1.5, 1.2, 0.3, -0.2]]], np.float32),
            "gripper": np.array([[[0.4]]], np.float32),
        },
        "language": {TEXT: [["pick the red cube"]]},
    }


def client(port, token=None):
    policy = PolicyClient("127.0.0.1", int(port), api_token=token)
    out = {}
    try:
        out["ping"] = policy.ping()
        out["modalities"] = {
            name: found.modality_keys for name, found in policy.get_modality_config().items()
        }
        actions, out["info"] = policy.get_action(observation())
        out["actions"] = {key: value.tolist() for key, value in actions.items()}
        out["dtype"] = str(actions["gripper"].dtype)
        out["reset"] = policy.reset()
        bad = observation()
        del bad["video"]["front"]
        policy.get_action(bad)
    except RuntimeError as error:
        out["error"] = str(error)
    print(json.dumps(out), flush=True)


def server(token=None):
    made = PolicyServer(Ramp(), "127.0.0.1", "*", token)
    out, sys.stdout = sys.stdout, sys.stderr
    print(made.socket.getsockopt_string(zmq.LAST_ENDPOINT).rsplit(":", 1)[1], file=out, flush=True)
    threading.Thread(target=made.run, daemon=True).start()
    sys.stdin.read()
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    {"client": client, "server": server}[sys.argv[1]](*sys.argv[3:])
