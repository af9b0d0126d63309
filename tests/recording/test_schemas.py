from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime import protobuf as pb
from runtime.messages import ActionChunk, CameraInfo, Intrinsics, PolicyStatus
from runtime.recording import schemas
from runtime.recording.schemas import Rows
from runtime.recording.source import _decode_chunk
from runtime.recording.tracks import chunk_message
from tests.recording.rig import INFO

doubles = st.floats(width=64)


@given(st.integers(0, 2**63 - 1))
def test_numbers_come_back(value: int) -> None:
    assert list(pb.fields(pb.field_int(5, value))) == [(5, value)]


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        for _, value in pb.fields(data):
            assert isinstance(value, (int, memoryview))
    except pb.ProtobufError:
        pass


@given(
    st.lists(st.tuples(doubles, doubles, doubles), min_size=1, max_size=5),
    st.integers(-(2**63), 2**63 - 1),
    st.integers(0, 2**40),
)
def test_rows_keep_every_bit(vectors: list[tuple[float, float, float]], stamp: int, index: int) -> None:
    rows = Rows("dexrun.Test", {"a": ((3,), "<f8"), "n": ((), "<i8"), "b": ((1,), "|u1"), "e": ((0,), "<f8")})
    values = [
        {"a": np.array(v), "n": np.int64(-k), "b": np.array([k]), "e": []} for k, v in enumerate(vectors)
    ]
    data = b"".join(rows.encode(stamp, index + k, each) for k, each in enumerate(values))
    columns = rows.decode(np.frombuffer(data, np.uint8).reshape(-1, rows.size))
    assert columns["a"].tobytes() == np.array(vectors).tobytes()
    assert columns["n"].tolist() == [-k for k in range(len(vectors))]
    assert columns["b"].dtype == np.uint8
    assert columns["e"].shape == (len(vectors), 0)
    assert set(columns["stamp_ns"]) == {stamp}
    assert columns["index"].tolist() == [index + k for k in range(len(vectors))]


def test_rows_of_another_layout_are_refused() -> None:
    wide = Rows("dexrun.Test", {"a": ((2,), "<f8")})
    data = np.frombuffer(
        Rows("dexrun.Test", {"a": ((), "<f8"), "b": ((), "<i8")}).encode(0, 0, {"a": 1, "b": 2}), "u1"
    )
    with pytest.raises(pb.ProtobufError, match=r"dexrun\.Test"):
        wide.decode(data[None])


def test_calibration_comes_back() -> None:
    got = schemas.info_of("head", schemas.info_metadata(INFO))
    assert got.intrinsics == INFO.intrinsics
    assert got.depth_scale_m == INFO.depth_scale_m
    assert np.array_equal(got.base_from_camera, INFO.base_from_camera)


def test_a_chunk_comes_back_with_what_the_policy_said() -> None:
    chunk = ActionChunk(np.arange(12.0).reshape(2, 6), 3, 1, status=PolicyStatus.DONE, reasoning="go down")
    read = _decode_chunk(memoryview(chunk_message(chunk, 5, 4)))
    assert (read["step"], read["status"], read["why"], read["reasoning"]) == (3, "done", "", "go down")
    assert read["actions"].tolist() == chunk.actions.tolist()


def test_an_uncalibrated_camera_comes_back() -> None:
    nan = float("nan")
    got = schemas.info_of("w", schemas.info_metadata(CameraInfo("w", Intrinsics(8, 6, nan, nan, nan, nan))))
    assert got.intrinsics.width == 8
    assert np.isnan(got.intrinsics.fx)
    assert got.base_from_camera is None


def test_definitions_are_foxgloves_own() -> None:
    messages = pytest.importorskip("foxglove.messages")
    descriptors = pytest.importorskip("google.protobuf.descriptor_pb2")
    for name, ours in (
        ("CompressedImage", schemas.COMPRESSED_IMAGE),
        ("RawImage", schemas.RAW_IMAGE),
        ("CameraCalibration", schemas.CALIBRATION),
    ):
        theirs = getattr(messages, name).get_schema()
        assert (ours.name, ours.encoding) == (theirs.name, theirs.encoding)

        def outline(data: bytes) -> dict[str, set[tuple[object, ...]]]:
            found = descriptors.FileDescriptorSet.FromString(data)
            return {
                message.name: {(f.name, f.number, f.type, f.label, f.type_name) for f in message.field}
                for file in found.file
                for message in file.message_type
            }

        assert outline(ours.data) == outline(theirs.data)


def test_messages_are_read_by_protobufs_own_library() -> None:
    descriptors = pytest.importorskip("google.protobuf.descriptor_pb2")
    from google.protobuf import descriptor_pool, message_factory

    def parsed(schema: schemas.Schema, data: bytes) -> object:
        pool = descriptor_pool.DescriptorPool()
        for file in descriptors.FileDescriptorSet.FromString(schema.data).file:
            pool.Add(file)
        kind = message_factory.GetMessageClass(pool.FindMessageTypeByName(schema.name))
        return kind.FromString(data)

    stamp = 1_700_000_000_123_456_789
    image = parsed(schemas.RAW_IMAGE, b"".join(schemas.raw_depth(stamp, "head", 4, 2, b"x" * 16)))
    assert (image.width, image.height, image.step, image.encoding) == (4, 2, 8, "16UC1")  # type: ignore[attr-defined]
    assert (image.timestamp.seconds, image.timestamp.nanos) == (1_700_000_000, 123_456_789)  # type: ignore[attr-defined]
    color = parsed(schemas.COMPRESSED_IMAGE, b"".join(schemas.compressed_image(stamp, "head", "png", b"abc")))
    assert (color.format, color.data, color.frame_id) == ("png", b"abc", "head")  # type: ignore[attr-defined]
    info = parsed(schemas.CALIBRATION, schemas.calibration(stamp, INFO))
    assert list(info.K)[:3] == [60.5, 0.0, 31.5]  # type: ignore[attr-defined]
    rows = Rows("dexrun.Test", {"a": ((2,), "<f8"), "n": ((), "<i8"), "s": ((), "<f8")})
    row = parsed(rows.schema, rows.encode(-3, 9, {"a": [1.5, np.inf], "n": -1, "s": 2.5}))
    assert (row.stamp_ns, row.index, list(row.a), row.n, row.s) == (-3, 9, [1.5, np.inf], -1, 2.5)  # type: ignore[attr-defined]
