"""The decoders against anything at all: a value, or one `WireError`; nothing executed, nothing allocated."""

from __future__ import annotations

import math
import pickle
import tracemalloc
from collections.abc import Callable
from typing import Any

import cv2
import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from policies.encoding import msgpack_views, npy
from policies.encoding.limits import Limits, WireError
from policies.pickles import reader, writer
from policies.pickles.arrays import NUMPY, TORCH, storage_bytes
from policies.remote import jpeg
from policies.remote.act_zmq import codec as act
from policies.remote.extras import read_extras
from policies.remote.groot import client as groot_client
from policies.remote.groot import codec as groot
from policies.remote.lerobot import codec as lerobot
from policies.remote.lerobot import rpc
from policies.remote.openpi import client as openpi_client
from policies.remote.openpi import codec as openpi
from tests.remote import hostile

WEB_VALUE: Any = "x"
for _ in range(8):
    WEB_VALUE = [WEB_VALUE] * 20
WEB = pickle.dumps({"status": "ERROR", "message": WEB_VALUE})
CHUNK = np.linspace(-1, 1, 12).astype(np.float32).reshape(2, 6)
ACTIONS = b"".join(lerobot.encode_actions(CHUNK.astype(float), 1.0, 5, 0.1))
SETUP = b"".join(
    lerobot.encode_setup(lerobot.PolicySetup("act", "here", {"observation.state": {"shape": (6,)}}, 10))
)
GROOT_REPLY = b"".join(groot.encode([{"single_arm": CHUNK[None]}, {}]))
GROOT_PACKED = b"".join(groot.encode([{"single_arm": CHUNK[None]}, {}], groot.ArrayForm.MSGPACK_NUMPY))
OPENPI_REPLY = b"".join(openpi.encode({"actions": CHUNK}))
ACT_REPLY = b"".join(act.encode({"status": "OK", "action": CHUNK}))

READERS: dict[str, tuple[Callable[[bytes], Any], bytes]] = {
    "groot request": (groot.decode, hostile.VALID["gr00t"]()),
    "groot reply": (lambda m: groot_client.parse_actions(groot.reply(m).value), GROOT_REPLY),
    "groot reply, msgpack_numpy": (lambda m: groot_client.parse_actions(groot.reply(m).value), GROOT_PACKED),
    "openpi request": (openpi.decode, hostile.VALID["openpi"]()),
    "openpi reply": (
        lambda m: openpi_client.parse_actions(_map(openpi.decode(m)), ("actions",)),
        OPENPI_REPLY,
    ),
    "act request": (act.decode, hostile.VALID["act"]()),
    "act reply": (lambda m: act.matrix(act.reply(m).get("action")), ACT_REPLY),
    "lerobot observation": (lerobot.decode_observation, hostile.valid_lerobot()),
    "lerobot actions": (lerobot.decode_actions, ACTIONS),
    "lerobot setup": (lerobot.decode_setup, SETUP),
    "protobuf observation": (rpc.read_observation, rpc.observation_messages([ACTIONS])[0]),
    "protobuf data": (rpc.read_data, rpc.data_message([ACTIONS])),
    "npy": (lambda m: npy.load(memoryview(m)), npy.header(CHUNK.dtype, CHUNK.shape) + CHUNK.tobytes()),
    "jpeg": (jpeg.decode, jpeg.encode(hostile.IMAGE, 90)),
}


def _map(value: Any) -> dict[Any, Any]:
    if not isinstance(value, dict):
        raise WireError("not a map")
    return value


@pytest.mark.parametrize("name", READERS)
@given(data=st.data())
@settings(max_examples=50, deadline=None)
def test_a_bent_message_is_a_value_or_an_error(name: str, data: st.DataObject) -> None:
    read, valid = READERS[name]
    message = data.draw(hostile.bent(valid) | st.binary(max_size=200))
    try:
        read(message)
    except WireError as error:
        assert len(str(error).splitlines()) == 1  # noqa: PT017 - a message may as well be a value


@pytest.mark.parametrize("name", READERS)
def test_the_valid_message_is_a_value(name: str) -> None:
    read, valid = READERS[name]
    assert read(valid) is not None


@pytest.mark.parametrize("name", hostile.pickles())
def test_a_malicious_pickle_is_refused_without_doing_anything(
    name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    message = hostile.pickles()[name]
    tracemalloc.start()
    try:
        for read in (act.decode, lerobot.decode_observation, lerobot.decode_actions, lerobot.decode_setup):
            if name == "class by value" and read is act.decode:
                continue  # a class is a value; no message takes it for one
            with pytest.raises(WireError):
                read(message)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("name", hostile.packs())
def test_msgpack_that_asks_for_too_much_is_refused(name: str) -> None:
    message = hostile.packs()[name]
    tracemalloc.start()
    try:
        for read in (groot.decode, openpi.decode):
            ours = b"__nd" in message or b"__np" in message
            if ours and (b"__ndarray_class__" in message) != (read is groot.decode):
                continue
            with pytest.raises(WireError):
                read(message)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


def test_a_message_over_the_size_is_refused_unread() -> None:
    small = Limits(size_bytes=1000)
    for read, valid in (
        (groot.decode, GROOT_REPLY * 99),
        (openpi.decode, OPENPI_REPLY * 99),
        (act.decode, ACT_REPLY * 99),
    ):
        with pytest.raises(WireError, match="at most 1000") as caught:
            read(valid, small)
        assert caught.value.kind == "too_large"


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=40)
    | st.binary(max_size=300),
    lambda inner: st.lists(inner, max_size=20) | st.dictionaries(st.text(max_size=8), inner, max_size=20),
    max_leaves=40,
)
ARRAYS = hnp.arrays(
    st.sampled_from(["u1", "i2", "u2", "f4", "f8", "i8", "?"]),
    hnp.array_shapes(min_dims=0, max_dims=4, max_side=5),
)


def same(one: Any, other: Any) -> bool:
    """Equal, with views for bytes and no difference between lists and tuples."""
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    if isinstance(one, bytes):
        return one == bytes(other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other) or (isinstance(one, float) and math.isnan(one))


@given(PLAIN)
@settings(max_examples=80, deadline=None)
def test_msgpack_both_ways_as_the_package_does(value: Any) -> None:
    message = b"".join(msgpack_views.pack(value))
    assert message == msgpack.packb(value)
    assert same(value, msgpack_views.unpack(message))


@given(st.dictionaries(st.text(max_size=8), ARRAYS, max_size=4))
@settings(max_examples=60, deadline=None)
def test_arrays_cross_every_codec(value: Any) -> None:
    for codec in (groot, openpi, act):
        assert same(value, codec.decode(b"".join(codec.encode(value))))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(1 << 100), 1 << 100) | st.floats(allow_nan=False) | ARRAYS,
        lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=8), inner, max_size=6),
        max_leaves=12,
    )
)
@settings(max_examples=80, deadline=None)
def test_pickles_both_ways_as_the_package_does(value: Any) -> None:
    ours = b"".join(writer.dumps(value))
    assert same(value, pickle.loads(ours))
    assert same(value, reader.load(ours, NUMPY))
    for protocol in (2, 3, 4, 5):
        if protocol > 2:  # 2 writes bytes as text
            assert same(value, reader.load(pickle.dumps(value, protocol=protocol), NUMPY))


def test_large_arrays_are_written_as_the_package_does() -> None:
    value = {
        "a": np.arange(60_000, dtype="<i4"),
        "b": np.zeros((300, 300), np.uint8),
        "c": [1.5, "x" * 300, -7],
    }
    ours = b"".join(writer.dumps(value, "numpy._core.multiarray"))
    assert ours == pickle.dumps(value, protocol=4)


def test_torch_reads_our_tensors_and_we_read_torchs() -> None:
    import torch

    rows = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    for tensors in (list(rows), [rows, rows.T, rows[1:3, 2:5], rows.double(), rows.bool(), rows.long()]):
        message = pickle.dumps(tensors)
        read = reader.load(message, {**NUMPY, **TORCH})
        assert all((mine == theirs.numpy()).all() for mine, theirs in zip(read, tensors, strict=True))
    storage = torch.storage._load_from_bytes(storage_bytes(rows.numpy().reshape(-1)))
    assert torch.equal(torch.tensor([], dtype=torch.float32).set_(storage._untyped_storage), rows.reshape(-1))


@pytest.mark.parametrize("attack", ["offset", "size", "stride", "negative"])
def test_a_tensor_beyond_its_storage_is_refused(attack: str) -> None:
    offset, size, stride = {
        "offset": (20, (6,), (1,)),
        "size": (0, (5, 6), (6, 1)),
        "stride": (0, (4, 6), (100, 1)),
        "negative": (-8, (6,), (1,)),
    }[attack]
    storage = npy.view(memoryview(bytes(96)), np.dtype("f4"), (24,))
    build = TORCH[("torch._utils", "_rebuild_tensor_v2")]
    with pytest.raises(WireError):
        build((storage, offset, size, stride, False, {}), None)


@pytest.mark.parametrize("before", [b"\xff\x01", b"\xff\xd0", b"\xff", b"\xff\xff\xff"])
def test_a_jpegs_size_is_read_where_the_decoder_reads_it(before: bytes) -> None:
    """A reader that takes what follows these markers for a length finds the other header, far behind."""
    image = np.zeros((48, 64, 3), np.uint8)
    real = before + jpeg.encode(image, 90)[2:]
    other = b"\xff\xc0\x00\x11\x08\x00\x10\x00\x10\x03\x01\x11\x00\x02\x11\x00\x03\x11\x00"
    crafted = b"\xff\xd8" + real.ljust(70_000, b"\0")
    for at in (4 + 0xFF01, 4 + 0xFFE0, 4 + 0xE000, 4 + 0xFFFF):
        crafted = crafted[:at] + other + crafted[at + len(other) :]
    assert jpeg.size_of(crafted) == (48, 64)
    assert jpeg.decode(crafted).shape == (48, 64, 3)


def test_a_jpeg_that_asks_to_be_turned_is_not() -> None:
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    head = b"\xff\xd8\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif
    assert jpeg.decode(head + jpeg.encode(np.zeros((48, 64, 3), np.uint8), 90)[2:]).shape == (48, 64, 3)


@pytest.mark.parametrize("error", [cv2.error("assertion failed"), None])
def test_what_opencv_cannot_decode_is_refused(error: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def imdecode(*_: Any) -> Any:
        if error is None:
            return np.zeros((9, 9, 3), np.uint8)  # another size than the header's
        raise error

    data = jpeg.encode(np.zeros((48, 64, 3), np.uint8), 90)
    monkeypatch.setattr(cv2, "imdecode", imdecode)
    with pytest.raises(WireError, match="cannot be decoded"):
        jpeg.decode(data)


def padded_storage(operations: int, value: float, count: int = 4) -> bytes:
    """A valid storage whose first pickle keeps its value so many times for nothing."""
    made = storage_bytes(np.full(count, value, np.float32))
    head = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19"
    assert made.startswith(head)
    return head + b"q\0" * operations + made[len(head) :]


def storages_of(*datas: bytes, times: int) -> bytes:
    """A list that names each of these bytes once and reads it that often."""
    call = b"ctorch.storage\n_load_from_bytes\n"
    parts = [b"\x80\x04]("]
    for index, data in enumerate(datas):
        parts.append(call + b"B" + len(data).to_bytes(4, "little") + data + b"q" + bytes([index]) + b"\x85R")
        parts.append((call + b"h" + bytes([index]) + b"\x85R") * (times - 1))
    return b"".join([*parts, b"e."])


@pytest.mark.parametrize("count", [4, 1 << 19])
def test_a_storage_that_is_named_often_is_read_once(count: int) -> None:
    """The larger one is not compared with others: it is told by where it is."""
    arrays = reader.load(storages_of(padded_storage(3000, 1.0, count), times=50), TORCH)
    assert len(arrays) == 50
    assert all(array is arrays[0] for array in arrays)


def test_all_storages_of_a_message_share_its_operations() -> None:
    datas = [padded_storage(3000, float(value)) for value in range(20)]
    assert len(reader.load(storages_of(*datas[:5], times=1), TORCH)) == 5
    with pytest.raises(WireError, match="pickle operations"):
        reader.load(storages_of(*datas, times=1), TORCH)


def test_one_large_tensor_in_many_steps_is_refused_before_it_is_copied() -> None:
    with pytest.raises(WireError, match=r"\[size\] is wanted"):
        lerobot.ACTIONS[(lerobot.HELPERS, "TimedAction")](
            (), {"timestamp": 1.0, "timestep": 1, "action": np.zeros(4096, np.float32)}
        )


ARRAY_PAIR = np.zeros(2)


@pytest.mark.parametrize(
    ("name", "args", "state"),
    [
        (("torch._utils", "_rebuild_tensor_v2"), (np.zeros(4), 0, (0, 10**30), (1, 1)), None),
        (("torch._utils", "_rebuild_tensor_v2"), (np.zeros(4), 0, (0, 1 << 62, 1 << 62), (1, 1, 1)), None),
        (("numpy", "dtype"), ("f4",), (3, ARRAY_PAIR)),
        (("numpy._core.multiarray", "_reconstruct"), (ARRAY_PAIR, (0,), b"b"), None),
        (("collections", "OrderedDict"), (), ARRAY_PAIR),
    ],
)
def test_parts_of_arrays_that_are_themselves_odd_are_refused(name: Any, args: Any, state: Any) -> None:
    with pytest.raises(WireError):
        {**NUMPY, **TORCH}[name](args, state)


def test_a_tensor_of_one_row_may_say_any_stride() -> None:
    build = TORCH[("torch._utils", "_rebuild_tensor_v2")]
    assert build((np.arange(4.0), 0, (1, 4), (10**30, 1), False, {}), None).tolist() == [[0, 1, 2, 3]]


@pytest.mark.parametrize(
    "answer",
    [
        {"status": np.zeros(2)},
        {"status": "ERROR", "message": np.zeros(2)},
        {"action": [np.zeros(3), [1.0]]},
        {"action": [[1.0], {}]},
        {"action": [[[1.0]]]},
        {"action": np.zeros((0, 1 << 40))},
    ],
)
def test_odd_answers_of_an_act_server_are_refused(answer: Any) -> None:
    with pytest.raises(WireError):
        act.matrix(act.reply(b"".join(act.encode(answer))).get("action"))


def test_one_large_row_named_often_is_refused_before_it_is_copied() -> None:
    large = np.zeros(60_000)
    for value in ([large] * 5000, [list(large)] * 5000):
        with pytest.raises(WireError, match="more than 100000 numbers"):
            act.matrix(value)
    assert act.matrix([np.ones(2), [2.0, 3]]).tolist() == [[1, 1], [2, 3]]


def test_an_answer_that_is_a_web_of_itself_is_not_written_out() -> None:
    with pytest.raises(WireError, match="answered: a list"):
        act.reply(WEB)


def test_an_older_client_of_ours_says_tick_where_a_newer_one_says_step() -> None:
    assert read_extras({"step": 4}) == read_extras({"tick": 4})
    assert read_extras({"tick": 4}).step == 4
    assert not read_extras({}).asked
