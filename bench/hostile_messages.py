"""Messages that nobody should send: noise, bent valid ones, and ones made to cost time or memory."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable, Iterator
from typing import Any

import msgpack
import numpy as np

from policies.remote.act_zmq import codec as act
from policies.remote.groot import codec as groot
from policies.remote.lerobot import codec as lerobot
from policies.remote.lerobot import rpc
from policies.remote.openpi import codec as openpi

JOINTS = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
_IMAGE = np.zeros((48, 64, 3), np.uint8)
_STATE = np.zeros(6, np.float32)
_FLOOD = [(n << 40) | 1 for n in range(1, 4000)]
"""Keys that are their own hash, and meet."""


class _Runs:
    """A pickle that would run something."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return print, ("executed",)


def _joined(pieces: list[Any]) -> bytes:
    return b"".join(pieces)


def _groot(token: str) -> bytes:
    observation = {
        "video": {"front": _IMAGE[None, None], "wrist": _IMAGE[None, None]},
        "state": {"single_arm": _STATE[None, None, :5], "gripper": _STATE[None, None, 5:]},
        "language": {"annotation.human.task_description": [["pick"]]},
    }
    body = {"endpoint": "get_action", "data": {"observation": observation, "options": {}}}
    return _joined(groot.encode({**body, "api_token": token}))


def _openpi(token: str) -> bytes:
    images = {"observation/image": _IMAGE, "observation/wrist_image": _IMAGE}
    return _joined(openpi.encode({**images, "observation/state": _STATE, "prompt": "pick"}))


def _act(token: str) -> bytes:
    images = {"rgb_main": _IMAGE, "rgb_left": _IMAGE}
    return _joined(act.encode({"qpos": _STATE, "images": images, "token": token, "command": "step"}))


def _lerobot(token: str) -> bytes:
    values = {f"{joint}.pos": 1.0 for joint in JOINTS} | {"front": _IMAGE, "wrist": _IMAGE, "task": "pick"}
    body = lerobot.encode_observation(lerobot.TimedObservation(1.0, 1, values, must_go=True))
    return b"".join(rpc.observation_messages(body))


VALID = {"gr00t": _groot, "openpi": _openpi, "act": _act, "lerobot": _lerobot}


def _costly(protocol: str) -> list[bytes]:
    """Small messages that ask for much."""
    if protocol in ("act", "lerobot"):
        flood = b"\x80\x04}(" + b"".join(b"\x8a\x08" + struct.pack("<q", k) + b"N" for k in _FLOOD) + b"u."
        made = [
            pickle.dumps(_Runs()),
            b"\x80\x04" + b"(" * 5000,
            b"\x80\x04]" + b"\x94h\x00a" * 4000 + b".",
            b"\x80\x04X\xff\xff\xff\xff",
            flood,
            pickle.dumps({f"k{n}": [n] for n in range(4000)}),
        ]
        wrap = (lambda body: rpc.observation_message(rpc.END, [body])) if protocol == "lerobot" else bytes
        return [wrap(each) for each in made]
    flood = b"\xde" + struct.pack(">H", len(_FLOOD))
    return [
        b"\xdd\xff\xff\xff\xff",
        b"\x91" * 5000,
        b"\xc6\xff\xff\xff\xff",
        flood + b"".join(b"\xcf" + struct.pack(">Q", key) + b"\xc0" for key in _FLOOD),
        msgpack.packb([[{"a": None}] * 40] * 40),
        msgpack.packb({b"__ndarray__": True, b"data": b"", b"dtype": "<f8", b"shape": [1 << 40, 1 << 40]}),
        msgpack.packb({"__ndarray_class__": True, "as_npy": pickle.dumps(_Runs())}),
    ]


def messages(protocol: str, count: int, seed: int, token: str = "") -> Iterator[bytes]:
    """`count` messages, the same for the same seed."""
    random = np.random.default_rng(seed)
    valid, costly = VALID[protocol](token), _costly(protocol)
    for _ in range(count):
        kind = int(random.integers(0, 10))
        if kind == 0:
            yield random.bytes(int(random.integers(0, 2000)))
        elif kind == 1:
            yield valid[: int(random.integers(0, len(valid)))]
        elif kind <= 3:
            yield costly[int(random.integers(0, len(costly)))]
        else:  # bent where the structure is: values of arrays are most of the bytes
            bent = bytearray(valid)
            for place in random.integers(0, min(len(bent), 700), int(random.integers(1, 6))):
                bent[place] = int(random.integers(0, 256))
            yield bytes(bent)


def requests(count: int, seed: int, key: str) -> Iterator[tuple[str, bytes]]:
    """Bodies for the scene reader's ``POST /v1/chat/completions``, and odd headers."""
    random = np.random.default_rng(seed)
    bomb = "data:image/jpeg;base64,/9j/wAARCP/c/9wDASIAAhEBAxEB"
    bodies = [
        b"{" * 2000,
        b"[" * 20_000,
        b'{"model": "m", "messages": [' + b'{"role": "user", "content": "x"},' * 40 + b"1]}",
        b'{"model": "m", "messages": [{"role": "user", "content": ['
        + b",".join(b'{"type": "image_url", "image_url": {"url": "%s"}}' % bomb.encode() for _ in range(8))
        + b"]}]}",
        b'{"model": "m", "messages": [{"role": "user", "content": "Is the table empty? '
        + b"<<<" * 3000
        + b'"}]}',
        b'{"model": 7, "messages": null}',
    ]
    heads = [
        f"Authorization: Bearer {key}\r\nContent-Type: application/json\r\n",
        f"Authorization: Bearer {key}\r\nContent-Type: text/plain\r\n",
        f"Authorization: Bearer {key}\r\nContent-Type: application/json\r\nOrigin: http://evil.example\r\n",
    ]
    for _ in range(count):
        kind = int(random.integers(0, 8))
        body = random.bytes(int(random.integers(0, 500))) if kind > 5 else bodies[kind]
        yield heads[0 if random.random() < 0.9 else int(random.integers(1, 3))], body
