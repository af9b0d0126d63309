"""The force sensor's bytes: any bytes, in any pieces."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.force.config import ForceConfig
from drivers.force.wire import crc16, encode, parser_for

FORMATS: list[dict[str, Any]] = [
    {"format": "text"},
    {"format": "text", "separator": " "},
    {"format": "text", "separator": " ; "},
    {"format": "frames", "value": "int16", "checksum": "crc16"},
    {"format": "frames", "value": "int16", "checksum": "sum8"},
    {"format": "frames", "value": "float32", "checksum": "crc16"},
]
formats = st.sampled_from(FORMATS)
rows = st.lists(st.lists(st.integers(-32768, 32767), min_size=3, max_size=3), max_size=8)
cuts = st.lists(st.integers(0, 400), max_size=12)


def config(options: dict[str, Any]) -> ForceConfig:
    return ForceConfig.model_validate({"port": "/dev/null", **options})


def stream(options: dict[str, Any], sent: list[list[int]]) -> bytes:
    """As it comes, from the end of a line on."""
    begun = b"\r\n" if options["format"] == "text" else b""
    return begun + b"".join(encode(config(options), row) for row in sent)


def parse(options: dict[str, Any], data: bytes, at: list[int]) -> tuple[list[list[float]], int]:
    parser = parser_for(config(options))
    edges = [0, *sorted(min(a, len(data)) for a in at), len(data)]
    samples = [s for a, b in pairwise(edges) for s in parser.feed(data[a:b])]
    return [s.tolist() for s in samples], parser.bad


@given(formats, rows, cuts)
def test_what_goes_in_comes_out_however_it_is_cut(
    options: dict[str, Any], sent: list[list[int]], at: list[int]
) -> None:
    assert parse(options, stream(options, sent), at) == (sent, 0)


@given(formats, rows.filter(lambda r: len(r) > 1), st.data(), cuts)
def test_a_stream_that_is_joined_anywhere_gives_nothing_that_was_not_sent(
    options: dict[str, Any], sent: list[list[int]], data: st.DataObject, at: list[int]
) -> None:
    first = encode(config(options), sent[0])
    joined = first[data.draw(st.integers(1, len(first) - 1)) :]
    samples, bad = parse(options, joined + b"".join(encode(config(options), row) for row in sent[1:]), at)
    assert (samples, bad) == (sent[1:], 0)


def test_the_end_of_a_number_is_no_sample() -> None:
    options = {"format": "text", "channels": 1}
    assert parse(options, b"34.0\r\n-31234.0\r\n", []) == ([[-31234.0]], 0)


@given(formats, st.binary(max_size=400), cuts)
def test_any_bytes_give_the_same_samples_however_they_are_cut(
    options: dict[str, Any], data: bytes, at: list[int]
) -> None:
    whole = parse(options, data, [])
    assert parse(options, data, at) == whole
    assert all(np.isfinite(s).all() and len(s) == 3 for s in whole[0])


@given(formats, st.binary(max_size=300), rows.filter(lambda r: len(r) > 2), cuts)
def test_it_finds_its_way_back_after_garbage(
    options: dict[str, Any], garbage: bytes, sent: list[list[int]], at: list[int]
) -> None:
    data = garbage + b"".join(encode(config(options), row) for row in sent)
    samples, _ = parse(options, data, at)
    # The garbage may swallow what it touches, and no more.
    assert samples[-len(sent) + 1 :] == sent[1:]


def test_a_spoiled_sample_is_left_out_and_counted_once() -> None:
    for options in FORMATS:
        parts = [bytearray(encode(config(options), [i, i + 1, i + 2])) for i in (10, 20, 30)]
        parts[1][4] ^= 0x80
        samples, bad = parse(options, stream(options, []) + b"".join(parts), [])
        assert (samples, bad) == ([[10, 11, 12], [30, 31, 32]], 1), options


def test_the_torn_line_that_a_stream_begins_with_is_nobodys_fault() -> None:
    assert parse({"format": "text"}, b"3,4\r\n1,2,3\r\n", []) == ([[1, 2, 3]], 0)


@pytest.mark.parametrize(
    "line",
    [
        *("1,2", "1,2,3,4", "a,b,c", "nan,1,2", "1e999,0,0", "1_0,2,3", "1,,3", "9" * 300),
        *("F_x,1,2,3", "1_0,2,3,4", "1,5;2,5;3,5", "1,2,3N", "\x001,2,3"),
    ],
)
def test_a_line_that_is_no_sample_is_counted(line: str) -> None:
    text = f"\n0,0,0\n{line}\n\n1,2,3\n"
    assert parse({"format": "text"}, text.encode(), []) == ([[0, 0, 0], [1, 2, 3]], 1)


@given(rows, cuts, st.sampled_from([b"\r", b"\n", b"\r\n", b"\n\r", b"\r\r\n"]))
def test_a_line_may_end_in_any_way(sent: list[list[int]], at: list[int], end: bytes) -> None:
    data = b"torn" + end + b"".join(f"{','.join(map(str, row))}".encode() + end for row in sent)
    assert parse({"format": "text"}, data, at) == (sent, 0)


def test_numbers_that_are_not_finite_are_no_sample() -> None:
    options = {"format": "frames", "value": "float32"}
    data = encode(config(options), [1, float("nan"), 2]) + encode(config(options), [1, 2, 3])
    assert parse(options, data, [])[0] == [[1, 2, 3]]


def test_the_check_is_the_published_one() -> None:
    assert crc16(b"123456789") == (0x29B1).to_bytes(2, "little")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"calibration": [[1, 2], [3, 4]]}, "calibration must be 3 rows of 3 numbers"),
        ({"separator": "."}, "separator '.' may not be part of a number"),
        ({"header": "xyz"}, "header"),
        ({"port": ""}, "give port .a path. or serial_number"),
        ({"channels": 0}, "channels"),
        ({"speed": 1}, "speed"),
    ],
)
def test_a_configuration_that_cannot_work_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(options)
