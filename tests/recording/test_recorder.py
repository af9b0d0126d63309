from __future__ import annotations

import errno
import gc
import os
import threading
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from runtime.messages import Tip, TrackedMask
from runtime.recording import schemas
from runtime.recording.mcap_file import Batch, McapFile
from runtime.recording.reader import Episode, Recording
from runtime.recording.recorder import EpisodeError
from runtime.recording.repair import mend_all
from tests.recording.rig import HEIGHT, INFO, MS, OPTIONS, WIDTH, Rig, record

TIP = Tip(np.array([0.1, 0.2, 0.3]), np.array([0.01, 0.02, 0.03]), np.array([0.4, 0.5, 0.6]), 7)


def files(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def test_everything_comes_back_bit_for_bit(tmp_path: Path) -> None:
    rig = record(tmp_path, "pick")
    with Recording(tmp_path) as recording:
        (episode,) = recording.episodes
        assert episode.topics["/cameras/head/color"] == len(rig.sent) == 12
        for index, (stamp, color, depth) in enumerate(rig.sent):
            assert np.array_equal(episode.color("head", index), color)
            assert np.array_equal(episode.depth("head", index), depth)
            assert episode.times("/cameras/head/color")[index] == stamp
            assert episode.times("/cameras/head/depth")[index] == stamp
        columns = episode.columns("/arm/state")
        assert columns["count"].tolist() == list(range(24))
        assert np.isnan(columns["velocity"]).all()
        assert columns["position"].shape == (24, 6)
        assert columns["alarm"][:, 0].tolist() == list(range(24))
        assert (episode.task, episode.label, episode.repaired, episode.drops) == (
            "pick",
            "success",
            False,
            {},
        )


def test_other_readers_read_it(tmp_path: Path) -> None:
    from mcap.reader import make_reader

    record(tmp_path, "pick")
    with (tmp_path / "episode_000000.mcap").open("rb") as file:
        reader = make_reader(file, validate_crcs=True)
        messages = [(channel.topic, message) for _, channel, message in reader.iter_messages()]
        summary = reader.get_summary()
    assert summary is not None
    assert summary.statistics is not None
    assert summary.statistics.message_count == len(messages) == 12 + 12 + 24 + 2
    assert {m.log_time for t, m in messages if t.endswith("depth")} == {
        m.log_time for t, m in messages if t.endswith("color")
    }


def test_what_is_taken_before_the_end_and_comes_after_it_is_recorded(tmp_path: Path) -> None:
    async def script(rig: Rig) -> None:
        rig.state()
        await rig.rest(10)
        rig.recorder.begin(0, "")
        await rig.rest(10)
        taken_ns = rig.clock.now_ns()
        await rig.rest(10)
        rig.recorder.end("success")
        await rig.rest(50)
        rig.frame(taken_ns)
        rig.state(taken_ns)
        rig.frame()
        rig.state()
        await rig.rest(400)

    rig = Rig(tmp_path)
    rig.run(script)
    with Recording(tmp_path) as recording:
        (episode,) = recording.episodes
        assert episode.array("/arm/state", "count").tolist() == [1]
        assert episode.topics["/cameras/head/color"] == 1
        assert np.array_equal(episode.color("head", 0), rig.sent[0][1])


def test_what_is_put_in_the_instant_of_the_end_belongs_to_the_episode_that_was_on(tmp_path: Path) -> None:
    async def script(rig: Rig) -> None:
        rig.recorder.begin(0, "")
        await rig.rest(10)
        rig.recorder.event("last", number=0)
        rig.recorder.end("success")
        rig.recorder.event("between")
        rig.recorder.begin(1, "")
        rig.recorder.put_later("/events", rig.clock.now_ns(), lambda: schemas.event("first", {}))
        await rig.rest(400)
        rig.recorder.put("/events", rig.clock.now_ns(), schemas.event("last", {"number": 1}))

    Rig(tmp_path).run(script)
    with Recording(tmp_path) as recording:
        kinds = [[event["kind"] for event in episode.samples("/events")] for episode in recording.episodes]
        assert [sorted(each) for each in kinds] == [
            ["episode_end", "episode_start", "last"],
            ["between", "episode_end", "episode_start", "first", "last"],
        ]
        stamps = recording.episodes[0].stamps("/events").tolist()
        assert stamps[-1] == stamps[-2] == int(recording.episodes[0].metadata["end_ns"])


def test_a_reset_is_never_recorded_and_nothing_is_waited_for(tmp_path: Path) -> None:
    ready: list[int] = []

    async def script(rig: Rig) -> None:
        rig.recorder.begin(0, "a")
        await rig.play(5)
        rig.recorder.end("failure")
        stopped_ns = rig.clock.now_ns()
        rig.recorder.begin(1, "b")
        ready.append(rig.clock.now_ns() - stopped_ns)
        await rig.play(5)
        rig.recorder.end("success")
        await rig.play(5)  # the reset
        rig.recorder.begin(2, "c")
        await rig.play(5)

    Rig(tmp_path).run(script)
    assert ready == [0]
    with Recording(tmp_path) as recording:
        counts = [episode.array("/arm/state", "count").tolist() for episode in recording.episodes]
        assert counts == [list(range(10)), list(range(10, 20)), list(range(30, 40))]
        assert [episode.label for episode in recording.episodes] == ["failure", "success", "none"]
        assert recording.episodes[2].metadata["stop_reason"] == "the run ended"


def test_a_discarded_episode_is_gone_and_its_number_free(tmp_path: Path) -> None:
    async def script(rig: Rig) -> None:
        rig.recorder.begin(0, "bad")
        await rig.play(3)
        rig.recorder.discard("slipped")
        await rig.written()
        assert files(tmp_path) == []
        rig.recorder.begin(0, "good")
        await rig.play(3)
        rig.recorder.end()
        rig.recorder.discard("after all")
        await rig.written()
        rig.recorder.begin(0, "better")
        await rig.play(3)
        rig.recorder.end("success")

    rig = Rig(tmp_path)
    rig.run(script)
    with Recording(tmp_path) as recording:
        assert [episode.task for episode in recording.episodes] == ["better"]
        kinds = [sample["kind"] for sample in recording.episodes[0].samples("/events")]
        assert kinds == ["discard", "episode_start", "episode_end"]
    assert [report["task"] for report in rig.recorder.reports] == ["better"]


def test_a_label_may_come_late_but_not_too_late(tmp_path: Path) -> None:
    async def script(rig: Rig) -> None:
        recorder = rig.recorder
        recorder.begin(0, "")
        await rig.play(2)
        recorder.end()
        await rig.written(1000)
        assert not (tmp_path / "episode_000000.mcap").exists()
        recorder.label("failure")
        await rig.rest(100)
        with pytest.raises(EpisodeError, match="no episode left"):
            recorder.label("success")
        with pytest.raises(EpisodeError, match="no episode left"):
            recorder.discard()
        with pytest.raises(EpisodeError, match="accepted are none, success, failure"):
            recorder.end("maybe")
        with pytest.raises(EpisodeError, match="no episode is being recorded"):
            recorder.end()
        recorder.begin(1, "")
        with pytest.raises(EpisodeError, match="episode 1 is being recorded already"):
            recorder.begin(2, "")

    Rig(tmp_path).run(script)
    with Episode(tmp_path / "episode_000000.mcap") as episode:
        assert episode.label == "failure"
        assert [s["kind"] for s in episode.samples("/events")] == ["episode_start", "episode_end", "label"]


def test_what_a_ring_overwrote_is_counted_by_name(tmp_path: Path) -> None:
    async def script(rig: Rig) -> None:
        rig.recorder.begin(0, "")
        await rig.rest(1)
        for _ in range(100):  # at one instant: nobody can have read them in between
            rig.frame()
            rig.state()
        await rig.rest(100)
        rig.recorder.end("success")

    Rig(tmp_path, slots=8).run(script)
    with Episode(tmp_path / "episode_000000.mcap") as episode:
        kept = episode.array("/arm/state", "count")
        assert episode.drops["/arm/state"] == 100 - len(kept)
        assert episode.drops["/cameras/head/color"] == 100 - episode.topics["/cameras/head/color"]
        assert episode.drops["/cameras/head/depth"] == episode.drops["/cameras/head/color"]
        index = [sample.index for sample in episode.samples("/cameras/head/color")]
        assert index == [sample.index for sample in episode.samples("/cameras/head/depth")]
        assert kept.tolist() == episode.array("/arm/state", "index").tolist()


def test_frames_that_waited_for_a_slow_disk_are_recorded(tmp_path: Path) -> None:
    """The disk is behind until 0.6 s after the end, when nothing is waited for any more but what is there."""

    async def script(rig: Rig) -> None:
        behind_until_ns = rig.clock.now_ns() + 1000 * MS
        rig.recorder._intake._behind = lambda: rig.clock.now_ns() < behind_until_ns  # type: ignore[method-assign]
        rig.recorder.begin(0, "")
        await rig.play(40)
        rig.recorder.end("success")
        await rig.written(2000)  # the camera has died meanwhile: no frame of after the end comes
        assert files(tmp_path) == ["episode_000000.mcap"]

    Rig(tmp_path).run(script)
    with Episode(tmp_path / "episode_000000.mcap") as episode:
        assert episode.topics["/cameras/head/color"] == episode.topics["/cameras/head/depth"] == 40
        assert episode.drops == {}


def test_an_image_that_cannot_be_encoded_costs_itself_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = schemas.compressed_image

    def moody(stamp_ns: int, frame: str, kind: str, data: bytes) -> list[schemas.Piece]:
        if stamp_ns == broken[0]:
            raise ValueError("out of luck")
        return encode(stamp_ns, frame, kind, data)

    broken = [0]
    monkeypatch.setattr(schemas, "compressed_image", moody)

    async def script(rig: Rig) -> None:
        rig.recorder.begin(0, "")
        await rig.play(2)
        broken[0] = rig.clock.now_ns()
        await rig.play(2)
        rig.recorder.end("success")

    Rig(tmp_path).run(script)
    with Episode(tmp_path / "episode_000000.mcap") as episode:
        assert episode.drops == {"/cameras/head/color": 1, "/cameras/head/depth": 1}
        assert episode.topics["/cameras/head/color"] == 3
        assert episode.topics["/arm/state"] == 8


def test_notes_go_where_their_stamps_belong(tmp_path: Path) -> None:
    async def script(rig: Rig) -> None:
        recorder = rig.recorder
        recorder.event("before", what=float("nan"))
        recorder.begin(0, "")
        recorder.put("/cameras/head/info", rig.clock.now_ns(), schemas.calibration(0, INFO))
        mask = np.zeros((HEIGHT, WIDTH), np.uint8)
        mask[3:5, 4:9] = 1
        recorder.put_mask(TrackedMask("head", rig.clock.now_ns(), mask, 1.0, tip=TIP))
        await rig.rest(50)
        recorder.end("success")
        recorder.put_mask(TrackedMask("head", rig.clock.now_ns() + MS, mask, 1.0, tip=TIP))

    Rig(tmp_path).run(script)
    with Episode(tmp_path / "episode_000000.mcap") as episode:
        assert episode.topics["/mask/head"] == episode.topics["/tip/head"] == 1
        (row,) = episode.samples("/tip/head")
        assert row["point"].tolist() == [0.1, 0.2, 0.3]
        assert (row["sigma"][2], row["first"][0], row["seen_ns"]) == (0.03, 0.4, 7)
        assert episode.stamps("/tip/head").tolist() == episode.stamps("/mask/head").tolist()
        mask = episode.mask("head", 0)
        assert (mask.sum(), mask[3:5, 4:9].sum()) == (10, 10)
        assert episode.camera_info("head").intrinsics == INFO.intrinsics
        events = [dict(sample.values) for sample in episode.samples("/events")]
        assert events[0] == {"kind": "before", "what": None}
        assert (episode.times("/events") >= episode.start_ns).all()


def test_two_recordings_of_the_same_are_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        record(tmp_path / name, "pick", frames=30)
    with Recording(tmp_path / "a") as a, Recording(tmp_path / "b") as b:
        for topic in a.episodes[0].topics:
            assert _messages(a.episodes[0], topic) == _messages(b.episodes[0], topic)


def _messages(episode: Episode, topic: str) -> list[tuple[object, ...]]:
    return [(s.time_ns, s.stamp_ns, s.index, repr(_plain(s.values))) for s in episode.samples(topic)]


def _plain(values: object) -> object:
    assert hasattr(values, "items")
    return {k: bytes(v) if isinstance(v, memoryview) else schemas.plain(v) for k, v in values.items()}


def test_nothing_is_recorded_on_a_full_disk(tmp_path: Path) -> None:
    rig = Rig(tmp_path, OPTIONS.model_copy(update={"min_free_mib": 1e12}))

    async def script(rig: Rig) -> None:
        with pytest.raises(EpisodeError, match=r"MiB left in .*, min_free_mib is 1e\+12"):
            rig.recorder.begin(0, "")

    rig.run(script)
    assert not list(tmp_path.iterdir())


def test_two_do_not_record_into_one_folder(tmp_path: Path) -> None:
    """Two runs that go on with the same one: their episodes would have the same numbers."""

    async def script(rig: Rig) -> None:
        with pytest.raises(OSError, match="another run records into it"):
            Rig(tmp_path)
        rig.recorder.begin(0, "fine")
        await rig.play(3)
        rig.recorder.end("success")

    Rig(tmp_path).run(script)
    assert [path.name for path in tmp_path.iterdir()] == ["episode_000000.mcap"]


def test_a_task_that_no_file_can_hold_begins_nothing(tmp_path: Path) -> None:
    async def script(rig: Rig) -> None:
        with pytest.raises(EpisodeError, match=r"task '\\ud800' cannot be written as UTF-8"):
            rig.recorder.begin(0, "\ud800")
        assert rig.recorder.take is None
        rig.recorder.begin(0, "fine")
        await rig.play(3)
        rig.recorder.end("success")

    Rig(tmp_path).run(script)
    with Recording(tmp_path) as recording:
        assert [(e.index, e.task, e.topics["/arm/state"]) for e in recording.episodes] == [(0, "fine", 6)]


def test_a_defect_while_writing_costs_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(file: McapFile, batch: Batch) -> None:
        threading.Event().wait(0.02)  # simulated time does not run ahead of a slow disk
        raise ValueError("out of luck")

    async def script(rig: Rig) -> None:
        rig.recorder.begin(0, "unlucky")
        await rig.play(2)
        with monkeypatch.context() as patched:
            patched.setattr(McapFile, "write", broken)
            await rig.written()
        await rig.play(6)
        assert rig.recorder.take is None
        assert rig.recorder.stopped_early == "episode_000000.mcap: ValueError: out of luck"
        rig.recorder.begin(1, "lucky")
        await rig.play(3)
        rig.recorder.end("success")

    rig = Rig(tmp_path)
    rig.run(script)
    assert rig.recorder.reports[0]["drops"]["/arm/state"] == 4
    with Episode(tmp_path / "episode_000001.mcap") as episode:
        assert (episode.topics["/arm/state"], episode.drops) == (6, {})


def test_a_file_that_cannot_be_begun_is_not_in_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int, pieces: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    async def script(rig: Rig) -> None:
        with monkeypatch.context() as patched:
            patched.setattr(os, "writev", full)
            rig.recorder.begin(0, "no room")
            await rig.written()
        assert rig.recorder.stopped_early == "episode_000000.mcap: No space left on device"
        assert files(tmp_path) == []
        rig.recorder.discard()
        rig.recorder.begin(0, "room again")
        await rig.play(3)
        rig.recorder.end("success")

    Rig(tmp_path).run(script)
    with Episode(tmp_path / "episode_000000.mcap") as episode:
        assert (episode.task, episode.topics["/arm/state"]) == ("room again", 6)


def test_what_cannot_be_removed_is_let_go_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: Path, missing_ok: bool = False) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    async def script(rig: Rig) -> None:
        rig.recorder.begin(0, "stays")
        await rig.play(50)
        with monkeypatch.context() as patched:
            patched.setattr(Path, "unlink", refused)
            rig.recorder.discard()
            await rig.written()
        assert files(tmp_path) == ["episode_000000.mcap.open"]
        assert len(mend_all([tmp_path])[0]) == 1  # nobody holds it any more
        rig.recorder.begin(1, "next")
        await rig.play(3)
        rig.recorder.end("success")

    Rig(tmp_path).run(script)
    with Episode(tmp_path / "episode_000001.mcap") as episode:
        assert episode.topics["/arm/state"] == 6


@pytest.mark.slow
def test_an_episode_that_is_finished_costs_hardly_any_memory(tmp_path: Path) -> None:
    """Of thousands in a run only the figures are kept: no index of a file's chunks, no reader, no buffer."""
    rig = Rig(tmp_path, OPTIONS.model_copy(update={"flush_s": 0.05}))
    held: list[int] = []

    async def script(rig: Rig) -> None:
        tracemalloc.start()
        for index in range(12):
            rig.recorder.begin(index, "again")
            await rig.play(20)
            rig.recorder.end("success")
            await rig.written(400)
            rig.sent.clear()
            gc.collect()
            held.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()

    rig.run(script)
    told = [(report["drops"], report["messages"]["/arm/state"]) for report in rig.recorder.reports]
    assert told == [({}, 40)] * 12
    assert (held[-1] - held[3]) / 8 < 4_000, held
