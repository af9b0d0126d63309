"""Messages that nobody should send: bent valid ones, and pickles that would do something."""

from __future__ import annotations

import io
import pickle
import struct
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import msgpack
import numpy as np
from hypothesis import strategies as st

from policies.pickles.writer import Writer
from policies.remote import jpeg
from policies.remote.act_zmq import codec as act
from policies.remote.groot import codec as groot
from policies.remote.lerobot import codec as lerobot
from policies.remote.lerobot import rpc
from policies.remote.openpi import codec as openpi

IMAGE = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
STATE = np.linspace(-1, 1, 6).astype(np.float32)
JOINTS = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")


def joined(pieces: list[Any]) -> bytes:
    return b"".join(pieces)


def groot_tree() -> dict[str, Any]:
    observation = {
        "video": {"front": IMAGE[None, None], "wrist": IMAGE[None, None]},
        "state": {"single_arm": STATE[None, None, :5], "gripper": STATE[None, None, 5:]},
        "language": {"annotation.human.task_description": [["pick"]]},
    }
    data = {"observation": observation, "options": dict(OURS)}
    return {"endpoint": "get_action", "data": data, "api_token": ""}


def openpi_tree() -> dict[str, Any]:
    observation = {
        "observation/image": IMAGE,
        "observation/wrist_image": {"__jpeg__": jpeg.encode(IMAGE, 90)},
    }
    return {**observation, "observation/state": STATE, "prompt": "pick", "dexrun": dict(OURS)}


def act_tree() -> dict[str, Any]:
    images = {"rgb_main": IMAGE, "rgb_left": jpeg.encode(IMAGE, 90)}
    return {"qpos": STATE, "images": images, "token": "", "command": "step", "dexrun": dict(OURS)}


def lerobot_tree() -> dict[str, Any]:
    values = {f"{j}.pos": 1.0 for j in JOINTS} | {"front": IMAGE, "wrist": IMAGE, "task": "pick"}
    return {"timestamp": 1.0, "timestep": 1, "observation": {**values, "dexrun": dict(OURS)}, "must_go": True}


def lerobot_body(tree: Any) -> list[Any]:
    if not isinstance(tree, dict):
        return act.encode(tree)
    writer = Writer()
    writer.value(lerobot._Object(lerobot.HELPERS, "TimedObservation", tree))
    return writer.finish()


OURS = {"step": 1, "prefix": np.zeros((2, 6), np.float32), "frozen_steps": 1, "steps": 2}
TREES = {"gr00t": groot_tree, "openpi": openpi_tree, "act": act_tree, "lerobot": lerobot_tree}
ENCODERS = {
    "gr00t": groot.encode,
    "openpi": openpi.encode,
    "act": act.encode,
    "lerobot": lambda tree: rpc.observation_messages(lerobot_body(tree)),
}
ODD = (
    *(np.zeros(shape, "f") for shape in ((), (2,), (1, 6), (2, 3, 1), (0, 1 << 40))),
    *(None, True, -1, 1 << 63, float("nan"), "", "RESET", b"\xff\xd8\xff\xff"),
    *([], [None], [[1.0]], [[], [1]], {}, {"__jpeg__": b"\xff\xd8"}),
)


def odd(protocol: str) -> Iterator[bytes]:
    """A valid message of which one value is a well-formed value of another kind: each place, each kind."""
    for place in _places(TREES[protocol]()):
        for value in ODD:
            tree = _with(TREES[protocol](), place, value)
            yield joined(ENCODERS[protocol](tree))


def _places(tree: Any) -> Iterator[tuple[str, ...]]:
    yield ()
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from ((key, *rest) for rest in _places(value))


def _with(tree: Any, place: tuple[str, ...], value: Any) -> Any:
    return {**tree, place[0]: _with(tree[place[0]], place[1:], value)} if place else value


def valid_lerobot() -> bytes:
    return joined(lerobot_body(lerobot_tree()))


VALID = {p: lambda p=p: joined(ENCODERS[p](TREES[p]())) for p in ("gr00t", "openpi", "act")}
VALID["lerobot"] = valid_lerobot


@st.composite
def bent(draw: st.DrawFn, message: bytes) -> bytes:
    """`message` cut short, with bytes changed, put in, taken out or repeated."""
    data = bytearray(message)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        end = min(len(data), at + draw(st.integers(1, 12)))
        match draw(st.sampled_from(["cut", "flip", "insert", "delete", "repeat", "count"])):
            case "cut":
                del data[at:]
            case "flip":
                data[at:end] = bytes(b ^ draw(st.integers(1, 255)) for b in data[at:end])
            case "insert":
                data[at:at] = draw(st.binary(min_size=1, max_size=12))
            case "delete":
                del data[at:end]
            case "repeat":
                data[at:at] = data[at:end]
            case _:  # what lengths are made of
                data[at:end] = draw(st.sampled_from([b"\xff" * 4, b"\x7f\xff\xff\xff", b"\0" * 4]))
    return bytes(data)


class _Calls:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self._reduced = (function, arguments)

    def __reduce__(self) -> Any:
        return self._reduced


def _laughs() -> bytes:
    """Ten lists of ten lists of ..., which is little to write and much to walk."""
    value: Any = ["x"]
    for _ in range(40):
        value = [value] * 10
    return pickle.dumps(value)


def _deep() -> bytes:
    return b"\x80\x04" + b"](" * 5000 + b"e" * 5000 + b"."


def _array(shape: Any, dtype: Any, data: bytes) -> bytes:
    """An array whose parts do not fit together."""
    import numpy

    class Bad:
        def __reduce__(self) -> Any:
            return (
                numpy._core.multiarray._reconstruct,
                (np.ndarray, (0,), b"b"),
                (1, shape, dtype, False, data),
            )

    return pickle.dumps(Bad(), protocol=4)


def pickles() -> dict[str, bytes]:
    """Each must be refused, and none may do what it says."""
    import os
    import subprocess

    return {
        "os.system": pickle.dumps(_Calls(os.system, "echo hacked")),
        "eval": pickle.dumps(_Calls(eval, "1+1")),
        "popen": pickle.dumps(_Calls(subprocess.Popen, ["true"])),
        "getattr": pickle.dumps(_Calls(getattr, "x", "upper")),
        "numpy load": pickle.dumps(_Calls(np.load, "/etc/passwd", None, True)),
        "importer": b"cos\nsystem\n(S'true'\ntR.",
        "old importer": b"\x80\x02cposix\nsystem\nX\x04\x00\x00\x00true\x85R.",
        "object array": pickle.dumps(np.array([object], dtype=object)),
        "structured array": pickle.dumps(np.zeros(2, [("a", "i4")])),
        "laughs": _laughs(),
        "deep": _deep(),
        "circle": b"\x80\x04]\x94h\x00a.",
        "far memo": b"\x80\x04Nr\xff\xff\xff\x7fj\xfe\xff\xff\x7f.",
        "giant bytes": b"\x80\x04\x8e" + struct.pack("<Q", 1 << 60) + b"x.",
        "giant bytearray": b"\x80\x05\x96" + struct.pack("<Q", 1 << 40) + b".",
        "giant text": b"\x80\x04X\xff\xff\xff\x7fx.",
        "giant integer": b"\x80\x04\x8b\xff\xff\xff\x7f" + b"1" * 64 + b".",
        "giant array": _array((1 << 40, 1 << 20), np.dtype("f8"), b"xxxx"),
        "negative array": _array((-1, -4), np.dtype("u1"), b"xxxx"),
        "object data": _array((1,), np.dtype("O"), b"\0" * 8),
        "empty and wide": _array((0, 1 << 62, 1 << 62), np.dtype("f4"), b""),
        "empty and wider": _array((0, 10**30), np.dtype("f4"), b""),
        "wrong length": _array((5,), np.dtype("f4"), b"xxxx"),
        "extension": b"\x80\x04\x82\x01.",
        "persistent": b"\x80\x02X\x01\x00\x00\x00aQ.",
        "next buffer": b"\x80\x05\x97.",
        "class by value": b"\x80\x04\x8c\x05numpy\x8c\x07ndarray\x93.",
        "ordered dictionary": pickle.dumps(OrderedDict(a=1)),
        "nothing": b"",
        "only stop": b".",
        "two values": b"\x80\x04NN.",
        "after the end": b"\x80\x04N.N.",
    }


def _npy(shape: str) -> bytes:
    described = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00v\x00" + described.ljust(117) + b"\n"


def packs() -> dict[str, bytes]:
    """msgpack that asks for more than it brings."""
    npy = io.BytesIO()
    np.save(npy, np.array([None], dtype=object), allow_pickle=True)

    def array(data: bytes, dtype: str, shape: list[int]) -> bytes:
        return bytes(msgpack.packb({b"__ndarray__": True, b"data": data, b"dtype": dtype, b"shape": shape}))

    return {
        "giant array": b"\xdd\xff\xff\xff\xff",
        "giant map": b"\xdf\xff\xff\xff\xff",
        "giant bin": b"\xc6\xff\xff\xff\xff",
        "deep": b"\x91" * 100_000 + b"\xc0",
        "wide": b"\xdd\x00\x01\x00\x00" + b"\xc0" * 65536,
        "extension": msgpack.packb(msgpack.ExtType(5, b"x")),
        "list key": b"\x81\x91\x01\x01",
        "object npy": msgpack.packb({"__ndarray_class__": True, "as_npy": npy.getvalue()}),
        "huge npy": msgpack.packb({"__ndarray_class__": True, "as_npy": _npy("(999999999999,)")}),
        "object dtype": array(bytes(8), "|O", [1]),
        "wrong shape": array(bytes(8), "<f8", [2]),
        "empty and wide": array(b"", "<f4", [0, 1 << 62, 1 << 62]),
        "empty and wide npy": msgpack.packb(
            {"__ndarray_class__": True, "as_npy": _npy("(0, 999999999999, 999999999999)")}
        ),
        "dtype as code": array(b"", "i4,(2)O", [0]),
        "huge scalar": msgpack.packb({b"__npgeneric__": True, b"data": 300, b"dtype": "|u1"}),
        "not utf-8": b"\xa2\xff\xfe",
        "nothing": b"",
        "two values": b"\xc0\xc0",
    }
