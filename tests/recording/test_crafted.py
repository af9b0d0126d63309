"""Recordings that were made to do harm: each is one line, and asks for no more than its size."""

from __future__ import annotations

import os
import random
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
import zstandard

from dexrun.__main__ import main
from runtime.recording.bounds import CHUNK_BYTES
from runtime.recording.mcap_file import MAGIC
from runtime.recording.pictures import picture_size
from runtime.recording.reader import Episode, RecordingError
from runtime.recording.repair import RepairError, mend
from tests.export.synthetic import Made, write
from tests.recording.crafted import Content, change

FORMATS = ("lerobot-v3", "lerobot-v2.1", "dexgrasp-zarr", "umi-zarr", "act-hdf5", "dexvla-hdf5")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "episode_000000.mcap"
    made = Made(seconds=0.4, masks=True, lossless=False, planner=[(0.1, '{"a": 1}')])
    write(path, made)
    return path


def commands(path: Path, to: Path, formats: tuple[str, ...]) -> list[list[str]]:
    words = ["--to", str(to), "--jobs", "1", "--missing-mask", "zeros", "--labels", "success,none,failure"]
    exports = [["export", str(path), "--format", name, *words] for name in formats]
    return [["info", str(path)], ["replay", str(path), "--verify"], *exports]


def tried(whole: Path, folder: Path, seed: int, capsys: Any, formats: tuple[str, ...]) -> set[int]:
    """The exit codes of all that was tried."""
    codes = set()
    chance, content = random.Random(seed), Content.of(whole)
    what = [change(content, chance) for _ in range(chance.choice((1, 1, 2)))]
    try:
        path = content.write(folder / f"{seed}.mcap")
    except (struct.error, OverflowError, ValueError):  # the format itself has no place for it
        return codes
    for number, words in enumerate(commands(path, folder / f"{seed}-set", formats)):
        words = [word.replace(f"{seed}-set", f"{seed}-set-{number}") for word in words]
        code = main(words)
        said = capsys.readouterr()
        codes.add(code)
        assert code != 2 or said.err.count("\n") == 1, (what, words, said.err)
        assert "\x1b" not in said.out + said.err, (what, words)
    return codes


@pytest.mark.parametrize("seed", range(24))
def test_what_is_crafted_is_one_line(whole: Path, tmp_path: Path, capsys: Any, seed: int) -> None:
    assert tried(whole, tmp_path, seed, capsys, ("act-hdf5",)) <= {0, 1, 2}


@pytest.mark.slow
@pytest.mark.parametrize("first", range(1000, 1300, 50))
def test_what_is_crafted_is_one_line_in_every_format(
    whole: Path, tmp_path: Path, capsys: Any, first: int
) -> None:
    for seed in range(first, first + 50):
        assert tried(whole, tmp_path, seed, capsys, FORMATS) <= {0, 1, 2}


# --- bombs


def record(opcode: int, content: bytes) -> bytes:
    return struct.pack("<BQ", opcode, len(content)) + content


def chunk(stored: bytes, size: int, compression: bytes = b"zstd", crc: int = 0) -> bytes:
    head = struct.pack("<QQQII", 0, 1, size, crc, len(compression))
    return record(6, head + compression + struct.pack("<Q", len(stored)) + stored)


def zeros(size: int, told: int | None = None) -> bytes:
    """A zstd frame that unfolds into `size` zeros; `told` in its header, -1 for nothing."""
    stream = zstandard.ZstdCompressor(level=1).compressobj(size=size if told is None else told)
    block = bytes(1 << 20)
    packed = b"".join(stream.compress(block) for _ in range(size >> 20))
    return packed + stream.flush()


def empty_messages(count: int) -> bytes:
    return record(5, struct.pack("<HIQQ", 1, 0, 0, 0)) * count


@pytest.mark.parametrize(
    ("chunks", "why"),
    [
        (lambda: [chunk(zeros(64 << 20), 4 << 30)], "unfold into more than a file of its size holds"),
        (lambda: [chunk(zeros(64 << 20), 1000)], "its first chunk is damaged"),
        (lambda: [chunk(zeros(64 << 20, -1), 1000)], "its first chunk is damaged"),
        (lambda: [chunk(b"", CHUNK_BYTES)] * 3, "unfold into more than a file of its size holds|is damaged"),
    ],
)
def test_a_draft_that_would_unfold_into_more_than_it_can_hold_stays_as_it_is(
    tmp_path: Path, chunks: Any, why: str
) -> None:
    draft = tmp_path / "episode_000000.mcap.open"
    draft.write_bytes(MAGIC + record(1, struct.pack("<II", 0, 0)) + b"".join(chunks()))
    before = draft.read_bytes()
    with pytest.raises(RepairError, match=why) as caught:
        mend(draft)
    assert "it stays as it is" in str(caught.value)
    assert draft.read_bytes() == before


def test_a_draft_of_a_great_many_small_chunks_is_no_way_round(tmp_path: Path) -> None:
    messages = empty_messages(4000)
    packed = zstandard.ZstdCompressor().compress(messages)
    one = chunk(packed, len(messages), crc=zlib.crc32(messages))
    draft = tmp_path / "episode_000000.mcap.open"
    channel = record(3, struct.pack("<HIII", 1, 0, 0, 0)) + record(4, struct.pack("<HHIII", 1, 1, 0, 0, 0))
    draft.write_bytes(MAGIC + channel + one * 400)
    mended = mend(draft)  # whose indices are missing: it is cut after the first
    assert mended is not None
    assert mended.messages == 4000


def test_a_record_as_large_as_a_disk_is_not_read(tmp_path: Path) -> None:
    draft = tmp_path / "episode_000000.mcap.open"
    with draft.open("wb") as file:
        file.write(MAGIC + struct.pack("<BQ", 6, 1 << 36))
        file.truncate(1 << 37)
    with pytest.raises(RepairError, match="which no recorder writes"):
        mend(draft)


def test_a_finished_file_does_not_unfold_beyond_its_size_either(whole: Path, tmp_path: Path) -> None:
    data = whole.read_bytes()
    with Episode(whole) as episode:
        at = int(episode._source.topic("/arm/state").chunks[0])
    (length,) = struct.unpack_from("<Q", data, at + 1)
    name = data.index(b"zstd", at)
    bomb = zeros(32 << 20)[: length - 64]
    stored = bomb + bytes(length - 44 - len(bomb))
    changed = data[: name + 4] + struct.pack("<Q", len(stored)) + stored + data[at + 9 + length :]
    (tmp_path / "bomb.mcap").write_bytes(changed)
    with (
        Episode(tmp_path / "bomb.mcap") as episode,
        pytest.raises(RecordingError, match=f"at byte {at}: a chunk"),
    ):
        episode.array("/arm/state", "position")


def test_a_pictures_size_is_known_before_it_is_decoded() -> None:
    jpeg = b"\xff\xd8\xff\xe0\x00\x04ab\xff\xc0\x00\x11\x08" + struct.pack(">HH", 65500, 65500)
    png = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + struct.pack(">II", 2**31 - 1, 1000)
    for data, said in (
        (jpeg, "says that it is 65500x65500"),
        (png, "says that it is 2147483647x1000"),
        (jpeg[:9], "without a frame header"),
        (b"\xff\xd8" + b"\xff" * 50, "without a frame header"),
        (b"\xff\xd8\x00\x00", "without a frame header"),
        (b"II*\x00" + bytes(100), "not a JPEG"),
        (b"", "not a JPEG"),
    ):
        with pytest.raises(ValueError, match=said):
            picture_size(data)


# --- where is written


def test_mending_follows_no_link(tmp_path: Path, whole: Path) -> None:
    outside = tmp_path / "outside.mcap"
    outside.write_bytes(whole.read_bytes()[:-3000])
    before = outside.read_bytes()
    folder = tmp_path / "episodes"
    folder.mkdir()
    draft = folder / "episode_000000.mcap.open"
    for make in (
        lambda: draft.symlink_to(outside),
        lambda: os.link(outside, draft),
        lambda: os.mkfifo(draft),
        draft.mkdir,
    ):
        make()
        with pytest.raises(RepairError, match="cannot be mended"):
            mend(draft)
        draft.rmdir() if draft.is_dir() else draft.unlink()
    assert outside.read_bytes() == before
