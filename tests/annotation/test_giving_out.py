"""What the pipeline gives to whom, and takes back: without a process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dexrun.annotation.mask_file import MaskWriter
from dexrun.annotation.masks import kept
from dexrun.annotation.options import AnnotateOptions
from dexrun.annotation.reading import ReaderRole
from dexrun.annotation.writing import WriterRole
from runtime.frame_channel import FrameError, FrameMessage
from runtime.recording.annotations import Anchor, FrameMask, annotation_path
from tests.annotation.drawn import drawn, run_of
from tests.annotation.roles_rig import Arrivals, Listener, Rig, Taker

OPTIONS = AnnotateOptions(moment=0.5)
ANCHOR = Anchor(15, "red cube", (50.0, 37.0, 64.0, 51.0))


@pytest.fixture
def recordings(tmp_path: Path) -> list[Path]:
    run = run_of(tmp_path / "run", drawn(), drawn(), drawn())
    return sorted((run / "episodes").iterdir())


def reader() -> tuple[ReaderRole, Listener, Taker]:
    listener, taker = Listener(), Taker()
    return ReaderRole(OPTIONS, listener, lambda address: taker), listener, taker  # type: ignore[arg-type]


def surveyed(rig: Rig) -> None:
    """The reader's real answers to what it is asked."""
    role, listener, _ = reader()
    rig.go_on()
    for command in rig.worker("reader").asked("survey"):
        role.handle(command)
    for said in listener.said:
        rig.heard("reader", **said)


def followed(rig: Rig) -> None:
    """The anchors of all are there, and their stretches are given out."""
    surveyed(rig)
    for job in rig.jobs:
        job.anchors = [ANCHOR]
        rig.pipeline._planned(job)
    rig.go_on()


def test_a_reader_that_ends_over_one_episode_costs_only_that_one(recordings: list[Path]) -> None:
    rig = Rig(recordings, OPTIONS)
    for _ in range(4):
        rig.go_on()
        rig.lose("reader")
    rig.go_on()
    assert [job.lost for job in rig.jobs] == [4, 0, 0]
    rig.lose("reader")
    assert [job.state for job in rig.jobs] == ["refused", "new", "new"]


def test_what_came_further_since_is_not_given_up(recordings: list[Path]) -> None:
    rig = Rig(recordings[:1], OPTIONS)
    followed(rig)
    for _ in range(4):
        rig.lose("tracker 1")
        rig.go_on()
    assert rig.jobs[0].lost == 4
    (lease,) = rig.pipeline._leases
    rig.heard("writer", lease=lease, kept=15)
    assert rig.jobs[0].lost == 0


def test_a_command_is_small_however_long_an_episode_is(recordings: list[Path]) -> None:
    rig = Rig(recordings[:1], OPTIONS)
    followed(rig)
    (asked,) = rig.worker("reader").asked("frames")
    assert asked["frames"] == [["head", 15, -1, -1]]
    role, _, taker = reader()
    role.handle(asked)
    while role.step():
        pass
    assert [each.about["frame"] for each in taker.sent] == list(range(15, -1, -1))


def test_the_disk_is_asked_for_anchors_once(recordings: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(recordings, OPTIONS)
    surveyed(rig)
    read: list[Path] = []
    text = Path.read_text

    def counted(self: Path, **how: Any) -> str:
        read.append(self)
        return text(self, **how)

    monkeypatch.setattr(Path, "read_text", counted)
    for _ in range(3):
        rig.go_on()
    assert [each.name for each in read] == ["anchors.json"] * len(recordings)


def test_again_begins_from_the_beginning(recordings: list[Path]) -> None:
    first = Rig(recordings[:1], OPTIONS)
    followed(first)
    work = first.jobs[0].work
    assert work.is_dir()
    other = Rig(recordings[:1], OPTIONS)
    other.pipeline._again = True
    surveyed(other)
    assert not work.exists()


def test_a_reader_goes_on_after_an_episode_with_which_anything_is_wrong(
    recordings: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    role, listener, taker = reader()
    monkeypatch.setattr("dexrun.annotation.surveying.survey", lambda *_: 1 // 0)
    role.handle({"do": "survey", "job": 3, "path": str(recordings[0]), "again": False})
    assert listener.said[0]["job"] == 3
    assert "ZeroDivisionError" in listener.said[0]["refused"]

    def too_large(message: FrameMessage, timeout_ns: int) -> bool:
        raise FrameError("a picture of 9 bytes; the ring takes 6")

    monkeypatch.setattr(taker, "send", too_large)
    frames = [["head", 0, 5, 1]]
    role.handle({"do": "frames", "lease": 4, "path": str(recordings[0]), "frames": frames, "to": "x"})
    assert not role.step()
    assert listener.said[1] == {"lease": 4, "refused": "a picture of 9 bytes; the ring takes 6"}


def test_a_reader_has_open_what_it_reads(recordings: list[Path]) -> None:
    role, _, _ = reader()
    for lease, path in enumerate(recordings):
        frames = [["head", 0, 2 + 2 * lease, 1]]
        role.handle({"do": "frames", "lease": lease, "path": str(path), "frames": frames, "to": "x"})
    opened = []
    while role.step():
        opened.append(len(role._open))
    assert max(opened) == 3
    assert opened[-1] == 1
    assert not role._open


def test_a_writer_that_finds_a_file_gone_says_so_and_it_is_made_again(recordings: list[Path]) -> None:
    rig = Rig(recordings[:1], OPTIONS)
    followed(rig)
    (job,) = rig.jobs
    for lease in list(rig.pipeline._leases):
        rig.heard("writer", lease=lease, kept=15)
    rig.go_on()
    for lease in list(rig.pipeline._leases):
        rig.heard("writer", lease=lease, kept=16)
    rig.go_on()
    (asked,) = rig.worker("writer").asked("assemble")
    listener = Listener()
    WriterRole(OPTIONS, listener, Arrivals()).handle(asked)  # type: ignore[arg-type]
    (said,) = listener.said
    assert said["damaged"] == asked["files"][0]
    rig.heard("writer", **said)
    assert (job.state, len(job.todo)) == ("following", 2)
    for _ in range(4):  # not for ever
        rig.heard("writer", **said)
    assert job.state == "refused"


def test_an_episode_is_done_before_what_it_was_made_of_is_removed(recordings: list[Path]) -> None:
    rig = Rig(recordings[:1], OPTIONS)
    followed(rig)
    (job,) = rig.jobs
    png = kept(0, np.zeros((96, 128), np.uint8), 1.0, 0).png
    for path in job.files(OPTIONS):
        writer = MaskWriter(path)
        for frame in range(31):
            writer.add(FrameMask(frame, png, 1.0, 0))
        writer.finish()
    command: dict[str, Any] = {
        "do": "assemble",
        "job": 0,
        "path": str(job.path),
        "task": job.task,
        "survey": job.surveyed.as_json(),
        "anchors": [ANCHOR.as_json()],
        "files": [str(each) for each in job.files(OPTIONS)],
    }
    listener = Listener()
    role = WriterRole(OPTIONS, listener, Arrivals())  # type: ignore[arg-type]
    role.handle(command)
    role.handle(command)  # by one that takes over from one that was killed before it said so
    assert [each.get("done") for each in listener.said] == [31, 31]
    assert annotation_path(job.path, "head").is_file()
    assert job.work.is_dir()
    rig.heard("writer", **listener.said[0])
    assert job.state == "done"
    assert not job.work.exists()
