"""What the pipeline gives to whom, and takes back: without a process."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import numpy as np
import pytest

from dexrun.annotation.command import main
from dexrun.annotation.commands import LineReader
from dexrun.annotation.errors import AnnotateError
from dexrun.annotation.jobs import AnnotationOutcome
from dexrun.annotation.mask_file import MaskWriter, read_masks
from dexrun.annotation.masks import kept
from dexrun.annotation.options import AnnotateOptions
from dexrun.annotation.processes import WorkerProcess
from dexrun.annotation.reading import ReaderRole
from dexrun.annotation.review import _user
from dexrun.annotation.steps import loaded
from dexrun.annotation.tracking import TrackerRole
from dexrun.annotation.writing import WriterRole
from dexrun.exit_codes import OK
from runtime.clock import NS_PER_S, RealClock
from runtime.frame_channel import FrameError, FrameMessage
from runtime.interfaces import PerceptionError
from runtime.parts import DetectorTable
from runtime.recording.annotations import Anchor, FrameMask, annotation_path
from runtime.recording.reader import Episode
from tests.annotation.drawn import drawn, run_of
from tests.annotation.roles_rig import Arrivals, Hand, Listener, Rig, Taker

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


def waited(rig: Rig, seconds: int, *alive: str) -> None:
    """Time goes by; the workers so called say that they live."""
    for _ in range(seconds):
        rig.clock.at_ns += NS_PER_S
        for name in alive:
            rig.heard(name, alive=True)
        rig.pipeline._end_hung()


ALL = ("reader", "namer", "tracker 1", "writer")


def test_one_that_hangs_over_an_episodes_numbers_is_ended(recordings: list[Path]) -> None:
    rig = Rig(recordings, OPTIONS)
    rig.go_on()
    first = rig.worker("reader")
    waited(rig, 301, *ALL[1:])
    assert first.killed
    assert [job.lost for job in rig.jobs] == [1, 0, 0]
    assert [job.state for job in rig.jobs] == ["new"] * 3


def test_one_that_hangs_is_ended_and_nobody_else(recordings: list[Path]) -> None:
    rig = Rig(recordings[:1], OPTIONS)
    followed(rig)
    before = {name: rig.worker(name) for name in ALL}
    waited(rig, 301, "reader", "namer", "writer")
    assert [name for name in ALL if before[name].killed] == ["tracker 1"]
    assert not rig.pipeline._leases


def test_who_lives_is_let_live_but_a_stretch_that_comes_no_further_is_given_out_anew(
    recordings: list[Path],
) -> None:
    rig = Rig(recordings[:1], OPTIONS)
    followed(rig)
    (lease,) = rig.pipeline._leases
    waited(rig, 300, *ALL)
    assert list(rig.pipeline._leases) == [lease]
    waited(rig, 1, *ALL)
    assert not rig.pipeline._leases
    assert not any(rig.worker(name).killed for name in ALL)
    rig.go_on()
    assert list(rig.pipeline._leases) == [lease + 1]
    rig.jobs[0].state = "assembling"  # the writer takes no masks meanwhile
    waited(rig, 900, *ALL)
    assert list(rig.pipeline._leases) == [lease + 1]


def test_a_command_that_was_stopped_for_a_while_takes_nobody_for_hung(recordings: list[Path]) -> None:
    rig = Rig(recordings[:1], OPTIONS)
    followed(rig)
    rig.clock.at_ns += 3600 * NS_PER_S
    rig.pipeline._end_hung()
    assert not any(rig.worker(name).killed for name in ALL)
    assert rig.pipeline._leases


def test_a_lost_workers_own_port_is_forgotten_by_those_who_sent_there(recordings: list[Path]) -> None:
    rig = Rig(recordings[:1], OPTIONS)
    rig.lose("tracker 1")
    assert list(rig.worker("reader").asked("gone")) == [{"do": "gone", "address": "tcp://tracker 1"}]


def follow(lease: int, first: int, last: int) -> dict[str, Any]:
    anchor = Anchor(first, "red cube", (50.0, 37.0, 64.0, 51.0)).as_json()
    stretch = [0, first, last, True]
    return {"do": "follow", "lease": lease, "anchor": anchor, "camera": "head", "stretch": stretch, "to": "x"}


def sent(lease: int, n: int, frame: int, **about: Any) -> FrameMessage:
    image = np.zeros((96, 128) if about else (96, 128, 3), np.uint8)
    return FrameMessage({"lease": lease, "n": n, "frame": frame, **about}, image)


def tracker(*messages: FrameMessage) -> tuple[TrackerRole, Listener, Taker]:
    listener, taker, inbox = Listener(), Taker(), Arrivals(*messages)
    role = TrackerRole(OPTIONS, listener, inbox, lambda address: taker, Hand())  # type: ignore[arg-type]
    return role, listener, taker


def test_pictures_that_come_before_their_command_is_read_wait_for_it(recordings: list[Path]) -> None:
    with Episode(recordings[0]) as episode:
        images = [np.array(episode.color("head", frame)) for frame in (15, 16)]
    pictures = [FrameMessage({"lease": 2, "n": n, "frame": 15 + n}, image) for n, image in enumerate(images)]
    role, listener, taker = tracker(sent(1, 0, 15), *pictures)
    role.handle(follow(0, 15, 16))
    role.step()
    assert not role.step()  # the pictures are of a lease that no command told of yet
    role.handle({"do": "drop", "lease": 1})
    role.handle(follow(2, 15, 16))
    while role.step():
        pass
    assert [each.about["frame"] for each in taker.sent] == [15, 16]
    assert [each for each in listener.said if "at" not in each] == []


def test_a_tracker_whose_pictures_are_others_says_so(recordings: list[Path]) -> None:
    role, listener, _ = tracker(sent(2, 1, 16))
    role.handle(follow(2, 15, 16))
    role.step()
    assert listener.said == [{"lease": 2, "lost": "picture 1 of frame 16 came instead of frame 15's"}]


def test_what_nobody_foresaw_costs_the_episode_and_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("planner.perception.following.Follower.follow", lambda *_: 1 // 0)
    role, listener, _ = tracker(sent(2, 0, 15))
    role.handle(follow(2, 15, 16))
    with pytest.raises(ZeroDivisionError):
        role.step()
    assert listener.said[0]["lease"] == 2
    assert "ZeroDivisionError" in listener.said[0]["refused"]


def keep(path: Path, lease: int) -> dict[str, Any]:
    return {"do": "keep", "lease": lease, "path": str(path), "frames": [0, 2, 1]}


def test_masks_that_come_before_their_command_is_read_are_kept(tmp_path: Path) -> None:
    masks = [sent(2, n, n, confidence=1.0, anchor=0) for n in range(2)]
    listener = Listener()
    role = WriterRole(OPTIONS, listener, Arrivals(*masks))  # type: ignore[arg-type]
    role.handle(keep(tmp_path / "a.masks", 1))
    role.step()
    assert not role.step()
    role.handle(keep(tmp_path / "b.masks", 2))
    while role.step() and "b.masks" not in {each.name for each in tmp_path.iterdir()}:
        pass
    assert listener.said == [{"lease": 2, "kept": 2}]
    role.close()


def test_a_disk_that_is_full_costs_the_episode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(MaskWriter, "add", full)
    listener = Listener()
    mask = sent(2, 0, 0, confidence=1.0, anchor=0)
    role = WriterRole(OPTIONS, listener, Arrivals(mask))  # type: ignore[arg-type]
    role.handle(keep(tmp_path / "a.masks", 2))
    role.step()
    assert "No space left" in listener.said[0]["refused"]
    assert not list(tmp_path.iterdir())
    assert not role.step()


def test_two_writers_at_one_stretch_do_not_write_into_one_file(tmp_path: Path) -> None:
    path = tmp_path / "a.masks"
    old, new = MaskWriter(path), MaskWriter(path)
    png = kept(0, np.zeros((96, 128), np.uint8), 1.0, 0).png
    old.add(FrameMask(0, png, 1.0, 0))
    new.add(FrameMask(0, png, 1.0, 0))
    new.finish()
    old.add(FrameMask(1, png, 1.0, 0))
    assert [mask.frame for mask in read_masks(path)] == [0]
    old.discard()
    assert [each.name for each in tmp_path.iterdir()] == ["a.masks"]


def test_a_writer_whose_command_has_gone_puts_nothing_in_anothers_place(recordings: list[Path]) -> None:
    rig = Rig(recordings[:1], OPTIONS)
    followed(rig)
    (job,) = rig.jobs
    png = kept(0, np.zeros((96, 128), np.uint8), 1.0, 0).png
    writer = MaskWriter(job.files(OPTIONS)[0])
    for frame in range(31):
        writer.add(FrameMask(frame, png, 1.0, 0))
    writer.finish()
    listener = Listener()
    listener.gone = True
    role = WriterRole(OPTIONS, listener, Arrivals())  # type: ignore[arg-type]
    command = {"path": str(job.path), "task": job.task, "survey": job.surveyed.as_json()}
    files = [str(job.files(OPTIONS)[0])]
    role.handle({**command, "do": "assemble", "job": 0, "anchors": [ANCHOR.as_json()], "files": files})
    assert "has gone" in listener.said[0]["refused"]
    folder = annotation_path(job.path, "head").parent
    assert [each for each in folder.iterdir() if each.is_file()] == []


def test_nobody_waits_for_a_worker_that_does_not_read() -> None:
    stopped = WorkerProcess("tracker 1", "tracker", "sh -c 'kill -STOP $$' x", {}, RealClock())
    stopped.say(do="x" * 1_000_000)
    assert stopped.waits_for
    stopped.kill()


def test_what_has_come_already_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    out, into = os.pipe()
    os.write(into, b'{"do": 1}\n')
    lines = LineReader(out)
    lines.look()
    waited_s: list[float] = []

    def waits(*arguments: Any) -> Any:
        waited_s.append(arguments[3])
        return [], [], []

    monkeypatch.setattr("select.select", waits)
    assert list(lines.lines(60.0)) == [{"do": 1}]
    assert waited_s == [0.0]
    os.close(out)
    os.close(into)


def test_a_shared_memory_that_is_too_small_is_one_line(
    recordings: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig(recordings[:1], OPTIONS)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("dexrun.annotation.pipeline.FrameRings", full)
    with pytest.raises(AnnotateError, match=r"shm: No space left on device; make it larger"):
        rig.pipeline._made(1000)


def test_whom_the_configuration_names_is_asked_unless_another_is_named() -> None:
    planner = {"base_url": "http://gpu:8000/v1", "model": "qwen"}
    options = AnnotateOptions.model_validate({"planner": planner})
    assert options.has_vlm
    assert (options.asked().base_url, options.asked().model) == ("http://gpu:8000/v1", "qwen")
    other = AnnotateOptions.model_validate({"planner": planner, "vlm_url": "http://other/v1"})
    assert (other.asked().base_url, other.asked().model) == ("http://other/v1", None)
    assert not AnnotateOptions().has_vlm


def test_a_user_without_a_name_is_asked_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> str:
        raise KeyError("getpwuid(): uid not found: 4711")

    monkeypatch.setattr("getpass.getuser", nobody)
    with pytest.raises(AnnotateError, match="--person"):
        _user()


def test_an_episode_that_is_named_twice_is_annotated_once(
    recordings: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[Path]] = []

    def run(paths: list[Path], *_: Any) -> AnnotationOutcome:
        seen.append(paths)
        return AnnotationOutcome(())

    monkeypatch.setattr("dexrun.annotation.command._run", run)
    link = recordings[0].parent / "again.mcap"
    link.symlink_to(recordings[0])
    assert main([str(recordings[0]), str(link), str(recordings[0])]) == OK
    assert seen == [[recordings[0].resolve()]]


class CountedTable(DetectorTable):
    """A detector whose weights take their time."""

    type: str = "counted"
    built: ClassVar[int] = 0

    def build(self) -> NoReturn:
        CountedTable.built += 1
        raise PerceptionError("no weights")


def test_a_detector_is_loaded_once_for_all_episodes() -> None:
    assert loaded(AnnotateOptions().perception.detector) is None
    told = loaded.cache_info().misses
    assert loaded(AnnotateOptions().perception.detector) is None
    assert loaded.cache_info().misses == told
    for _ in range(2):  # what could not be loaded is tried again: a folder may be there by then
        with pytest.raises(PerceptionError, match="no weights"):
            loaded(CountedTable())
    assert CountedTable.built == 2
