"""Makes ``tests/remote/data/*.json``: messages as the reference serialisers write them.

Run in an environment with numpy 1 (``.venv-openpi``), for the ACT server's robots have that. What is written
down here is the serialisation alone, as documented: GR00T's is msgpack with `numpy.save` inside (see
``gr00t/policy/server_client.py``), ACT's is ``pickle.dumps`` of the dictionaries of its usage notes.
"""

import base64
import io
import json
import pathlib
import pickle

import msgpack
import numpy as np

HERE = pathlib.Path(__file__).resolve().parent.parent / "data"


def images():
    ramp = np.arange(24 * 32 * 3, dtype=np.int64).reshape(24, 32, 3)
    return (ramp % 251).astype(np.uint8), (ramp % 241).astype(np.uint8)


def as_groot(value):
    if isinstance(value, np.ndarray):
        out = io.BytesIO()
        np.save(out, value, allow_pickle=False)
        return {"__ndarray_class__": True, "as_npy": out.getvalue()}
    return value


def groot(value):
    return msgpack.packb(value, default=as_groot)


def modality(steps, keys):
    names = ("sin_cos_embedding_keys", "mean_std_embedding_keys", "action_configs")
    described = {"delta_indices": steps, "modality_keys": keys, **dict.fromkeys(names)}
    return {"__ModalityConfig_class__": True, "as_json": described}


def groot_exchange():
    front, wrist = images()
    state = np.array([0.125, -1.5, 1.25, 0.5, -0.25, 0.5], np.float32)
    observation = {
        "video": {"front": front[None, None], "wrist": wrist[None, None]},
        "state": {"single_arm": state[None, None, :5], "gripper": state[None, None, 5:]},
        "language": {"annotation.human.task_description": [["pick the red cube"]]},
    }
    rows = state[None] + (np.arange(4, dtype=np.float32) / 8)[:, None]
    action = {"single_arm": rows[None, :, :5], "gripper": rows[None, :, 5:]}
    config = {
        "video": modality([0], ["front", "wrist"]),
        "state": modality([0], ["single_arm", "gripper"]),
        "action": modality([0, 1, 2, 3], ["single_arm", "gripper"]),
        "language": modality([0], ["annotation.human.task_description"]),
    }
    ok = {"status": "ok", "message": "Server is running"}
    data = {"observation": observation, "options": None}
    return [
        ("ping", groot({"endpoint": "ping"}), groot(ok)),
        ("get_modality_config", groot({"endpoint": "get_modality_config"}), groot(config)),
        ("get_action", groot({"endpoint": "get_action", "data": data}), groot([action, {}])),
        ("reset", groot({"endpoint": "reset", "data": {"options": None}}), groot({})),
        (
            "token",
            groot({"endpoint": "ping", "api_token": "wrong"}),
            groot({"error": "Unauthorized: Invalid API token"}),
        ),
        ("unknown", groot({"endpoint": "nothing"}), groot({"error": "Unknown endpoint: nothing"})),
    ]


def act_exchange():
    main, left = images()
    qpos = np.array([0.125, -1.5, 1.25, 0.5, -0.25, 0.5], np.float32)
    step = {"qpos": qpos, "images": {"rgb_main": main, "rgb_left": left}}
    answer = {"status": "OK", "action": qpos.copy()}
    pairs = [("reset", "RESET", {"status": "OK"}), ("step", step, answer)]
    return [(name, pickle.dumps(asked), pickle.dumps(answered)) for name, asked, answered in pairs]


def write(name, exchange):
    rows = [
        {"name": n, "request": base64.b64encode(q).decode(), "reply": base64.b64encode(r).decode()}
        for n, q, r in exchange
    ]
    versions = {"numpy": np.__version__, "msgpack": ".".join(map(str, msgpack.version))}
    (HERE / name).write_text(json.dumps({"made_with": versions, "exchange": rows}, indent=1) + "\n")


if __name__ == "__main__":
    HERE.mkdir(exist_ok=True)
    write("groot.json", groot_exchange())
    write("act.json", act_exchange())
