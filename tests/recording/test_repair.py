from __future__ import annotations

import errno
import fcntl
import hashlib
import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.recording.mcap_file import McapFile
from runtime.recording.reader import Episode, Recording, RecordingError
from runtime.recording.repair import RepairError, _records, mend, mend_all
from tests.recording.rig import Rig


class Data(bytes):
    """Bytes that no report prints."""

    def __repr__(self) -> str:
        return f"<{len(self)} bytes>"


@pytest.fixture(scope="module")
def draft(tmp_path_factory: pytest.TempPathFactory) -> Data:
    """What a crash at the end of some two seconds leaves: everything but the ending."""
    folder = tmp_path_factory.mktemp("draft")
    found: list[Data] = []

    async def script(rig: Rig) -> None:
        rig.recorder.begin(7, "pick")
        await rig.play(200)
        rig.recorder.label("failure")
        await rig.written(450)
        found.append(Data((folder / "episode_000007.mcap.open").read_bytes()))

    Rig(folder).run(script)
    return found[0]


def left(folder: Path, data: bytes | bytearray) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "episode_000007.mcap.open"
    path.write_bytes(data)
    return path


def test_a_whole_draft_loses_nothing(tmp_path: Path, draft: Data) -> None:
    mended = mend(left(tmp_path, draft))
    assert mended is not None
    assert mended.cut_bytes == 0
    assert "mended after a crash" in str(mended)
    with Recording(tmp_path) as recording:
        (episode,) = recording.episodes
        assert (episode.index, episode.task, episode.label, episode.repaired) == (7, "pick", "failure", True)
        assert episode.array("/arm/state", "count").tolist() == list(range(400))
        assert episode.topics["/cameras/head/depth"] == 200
        assert episode.duration_s == pytest.approx(2.0, abs=0.02)


def test_the_official_reader_reads_a_mended_file(tmp_path: Path, draft: Data) -> None:
    from mcap.reader import make_reader

    mend(left(tmp_path, draft[: len(draft) * 2 // 3]))
    with (tmp_path / "episode_000007.mcap").open("rb") as file:
        reader = make_reader(file, validate_crcs=True)
        count = sum(1 for _ in reader.iter_messages())
        summary = reader.get_summary()
    assert summary is not None
    assert summary.statistics is not None
    assert summary.statistics.message_count == count > 100


@settings(max_examples=60, deadline=None)
@given(share=st.floats(0, 1), junk=st.binary(max_size=64) | st.just(bytes(64)))
def test_cut_anywhere_the_beginning_is_whole(
    tmp_path_factory: pytest.TempPathFactory, draft: Data, share: float, junk: bytes
) -> None:
    cut = 8 + round(share * (len(draft) - 8))
    folder = tmp_path_factory.mktemp("cut")
    mended = mend(left(folder, draft[:cut] + junk))
    assert mended is not None
    assert not list(folder.glob("*.open"))
    if mended.path is not None:
        with Episode(mended.path) as episode:
            counts = episode.array("/arm/state", "count")
            assert counts.tolist() == list(range(len(counts)))
            frames = episode.topics["/cameras/head/depth"]
            for index in range(0, frames, max(1, frames - 1)):
                assert episode.depth("head", index).shape == (48, 64)
    shutil.rmtree(folder)


def test_at_most_one_flush_is_lost(tmp_path: Path, draft: Data) -> None:
    """Of a file cut in the last chunk, everything but the last 0.4 s is there."""
    mend(left(tmp_path, draft[:-200]))
    with Episode(tmp_path / "episode_000007.mcap") as episode:
        assert len(episode.times("/cameras/head/depth")) >= 200 - 42


def test_damaged_content_is_found(tmp_path: Path, draft: Data) -> None:
    """Power loss may leave a hole of zeros in the middle of what the file system thinks was written."""
    hole = len(draft) // 2
    mended = mend(left(tmp_path, draft[:hole] + bytes(4096) + draft[hole + 4096 :]))
    assert mended is not None
    assert mended.cut_bytes > 0
    with Episode(tmp_path / "episode_000007.mcap") as episode:
        counts = episode.array("/arm/state", "count")
        assert 0 < len(counts) < 400
        assert counts.tolist() == list(range(len(counts)))


CHANNEL, CHUNK = 4, 6


@pytest.mark.parametrize(
    ("opcode", "inside", "message"),
    [(CHUNK, 200, "its first chunk is damaged"), (CHANNEL, 16, "damaged: EndOfFile")],
    ids=["first chunk", "a topic's length"],
)
def test_a_draft_damaged_at_its_beginning_stays(
    tmp_path: Path, draft: Data, opcode: int, inside: int, message: str
) -> None:
    """Whole chunks follow: nothing of them is thrown away because their reader does not get there."""
    begin = next(at for found, at, _ in _records(io.BytesIO(draft), len(draft)) if found == opcode)
    damaged = bytearray(draft)
    damaged[begin + inside] ^= 0x80
    path = left(tmp_path, damaged)
    mended, refused = mend_all([tmp_path])
    assert not mended
    assert message in refused[0]
    assert refused[0].endswith("it stays as it is")
    assert "\n" not in refused[0]
    assert path.read_bytes() == damaged


def test_what_the_recorder_said_of_the_episode_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk was full after the episode's record, before the summary."""

    def full(file: McapFile) -> Path:
        raise OSError(errno.ENOSPC, "No space left on device")

    async def script(rig: Rig) -> None:
        rig.recorder.begin(7, "")
        await rig.rest(1)
        for _ in range(100):  # at one instant: most are overwritten before they can be read
            rig.state()
        await rig.rest(100)
        rig.recorder.end("success", "the time was over")

    rig = Rig(tmp_path, slots=8)
    with monkeypatch.context() as patched:
        patched.setattr(McapFile, "finish", full)
        rig.run(script)
    mend_all([tmp_path])
    with Episode(tmp_path / "episode_000007.mcap") as episode:
        assert episode.drops == rig.recorder.reports[0]["drops"]
        assert episode.drops["/arm/state"] == 100 - episode.topics["/arm/state"]
        assert (episode.label, episode.repaired) == ("success", True)
        assert episode.metadata["stop_reason"] == "the time was over"
        assert episode.duration_s == pytest.approx(0.101)


def test_samples_missing_in_between_are_counted(tmp_path: Path) -> None:
    async def script(rig: Rig) -> None:
        rig.recorder.begin(7, "")
        await rig.play(5)
        for _ in range(100):
            rig.state()
        await rig.play(5)
        await rig.written()
        left(tmp_path / "crashed", (tmp_path / "episode_000007.mcap.open").read_bytes())

    Rig(tmp_path, slots=8).run(script)
    mend_all([tmp_path / "crashed"])
    with Episode(tmp_path / "crashed" / "episode_000007.mcap") as episode:
        counts = episode.array("/arm/state", "count")
        assert (counts[0], counts[-1]) == (0, 119)
        assert episode.drops == {"/arm/state": 120 - len(counts)}
        assert len(counts) < 60


def test_mending_that_was_interrupted_is_done_again(tmp_path: Path, draft: Data) -> None:
    mend(left(tmp_path / "once", draft[:-100]))
    whole = (tmp_path / "once" / "episode_000007.mcap").read_bytes()
    for cut in (1, 40, 300, 1500):
        folder = tmp_path / str(cut)
        mend(left(folder, whole[:-cut]))
        with (
            Episode(folder / "episode_000007.mcap") as again,
            Episode(tmp_path / "once" / "episode_000007.mcap") as first,
        ):
            assert again.topics == first.topics
            assert again.metadata["label"] == first.metadata["label"]


def test_others_are_left_alone(tmp_path: Path, draft: Data) -> None:
    finished = tmp_path / "episode_000001.mcap"
    mend(left(tmp_path, draft))
    (tmp_path / "episode_000007.mcap").rename(finished)
    digest = hashlib.sha256(finished.read_bytes()).hexdigest()
    path = left(tmp_path, draft[:5000])
    with path.open("r+b") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert mend_all([tmp_path]) == ([], [])  # somebody is writing it
    mended, refused = mend_all([tmp_path])
    assert len(mended) == 1
    assert not refused
    assert hashlib.sha256(finished.read_bytes()).hexdigest() == digest


def test_foreign_files_stay_and_are_named(tmp_path: Path, draft: Data) -> None:
    path = left(tmp_path, b"something else entirely, and long enough")
    with pytest.raises(RepairError, match=r"episode_000007\.mcap\.open: it does not begin like an MCAP file"):
        mend(path)
    assert path.exists()
    path.write_bytes(draft)
    (tmp_path / "episode_000007.mcap").touch()
    with pytest.raises(RepairError, match="there as well"):
        mend(path)


def test_an_empty_draft_is_removed(tmp_path: Path) -> None:
    mended = mend(left(tmp_path, b""))
    assert mended is not None
    assert mended.path is None
    assert "nothing had been recorded" in str(mended)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda data: b"", "not an MCAP file"),
        (lambda data: b"PK\3\4" + data[4:], "not an MCAP file"),
        (lambda data: data[:3000], r"not finished \(cut off\)"),
        (lambda data: data[: len(data) // 2] + data[-8:], "damaged|no summary|not finished"),
    ],
)
def test_the_reader_refuses_what_it_cannot_read(
    tmp_path: Path, draft: Data, make: object, message: str
) -> None:
    mend(left(tmp_path, draft))
    path = tmp_path / "episode_000007.mcap"
    assert callable(make)
    path.write_bytes(make(path.read_bytes()))
    with pytest.raises(RecordingError, match=message) as error:
        Recording(tmp_path)
    assert "\n" not in str(error.value)


def test_a_damaged_chunk_is_named(tmp_path: Path, draft: Data) -> None:
    mend(left(tmp_path, draft))
    path = tmp_path / "episode_000007.mcap"
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 8] = bytes(8)
    path.write_bytes(bytes(data))
    with Episode(path) as episode, pytest.raises(RecordingError, match="at byte"):
        [(episode.depth("head", index), episode.color("head", index)) for index in range(200)]


def test_questions_without_an_answer(tmp_path: Path, draft: Data) -> None:
    with pytest.raises(RecordingError, match="no such file or folder"):
        Recording(tmp_path / "nowhere")
    with pytest.raises(RecordingError, match="no recorded episodes here"):
        Recording(tmp_path)
    mend(left(tmp_path, draft))
    with Episode(tmp_path / "episode_000007.mcap") as episode:
        with pytest.raises(RecordingError, match=r"no topic /force; there are: /arm/state"):
            episode.array("/force", "force")
        with pytest.raises(RecordingError, match="no field 'torque'; it has stamp_ns"):
            episode.array("/arm/state", "torque")
        with pytest.raises(RecordingError, match="has 200 images, not one numbered 200"):
            episode.depth("head", 200)
        assert np.array_equal(episode.stamps("/arm/state"), episode.array("/arm/state", "stamp_ns"))
