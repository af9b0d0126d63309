"""Real processes, killed at random moments or run against a full disk."""

from __future__ import annotations

import hashlib
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.clock import RealClock
from runtime.recording.reader import Recording
from runtime.recording.repair import mend_all
from tests.small_disk import small_disk

ROOT = Path(__file__).parents[2]
LOST = 100
"""So many samples are a second's at the child's rate, and it flushes five times a second. Samples and not
seconds: a machine that lets the child rest lets all of it rest."""


def start(
    folder: Path, first: int, limit: int = 0, min_free_mib: float = 0.0, episode_s: float = 1.0
) -> subprocess.Popen[str]:
    numbers = [str(first), str(limit), str(min_free_mib), str(episode_s)]
    command = [sys.executable, "-m", "tests.recording.crash_child", str(folder), *numbers]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT)


def kill_once(folder: Path, first: int, rng: random.Random) -> list[str]:
    """Let it record for a random while, kill it, and return what it had said by then."""
    process = start(folder, first)
    assert process.stdout is not None
    lines = [process.stdout.readline()]  # the first episode has begun
    clock = RealClock()
    clock.wait_until_ns(clock.now_ns() + round(rng.uniform(0.0, 3.0) * 1e9))
    process.kill()
    lines += process.stdout.read().splitlines()
    process.stdout.close()
    process.wait()
    return [line.strip() for line in lines]


def campaign(folder: Path, kills: int, seed: int) -> int:
    """Kill and mend over and over, and check all that is there; how many episodes there are in the end."""
    rng = random.Random(seed)
    finished: dict[str, str] = {}
    first = 0
    for _ in range(kills):
        said = kill_once(folder, first, rng)
        mended, refused = mend_all([folder])
        assert not refused
        for name, digest in finished.items():
            assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest, f"{name} was touched"
        ended = {int(line.split()[1]) for line in said if line.startswith("end ")}
        at = [line.split() for line in said if line.startswith("at ") and line.endswith(";")]
        delivered: dict[int, list[int]] = {}
        for words in at:
            delivered.setdefault(int(words[1]), []).append(int(words[2][:-1]))
        check(folder, ended, delivered)
        finished = {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.mcap")
        }
        first = max((int(name[8:14]) for name in finished), default=first - 1) + 1
        assert not list(folder.glob("*.open"))
        assert all(each.draft.name.endswith(".open") for each in mended)
    return len(finished)


def check(folder: Path, ended: set[int], delivered: dict[int, list[int]]) -> None:
    """Finished episodes are whole; of an open one at most the last second's samples are missing."""
    recording = Recording(folder) if list(folder.glob("*.mcap")) else None
    episodes = {} if recording is None else {each.index: each for each in recording.episodes}
    for index in ended:
        assert not episodes[index].repaired, f"episode {index} had ended and was mended all the same"
    for index, stamps in delivered.items():
        episode = episodes.get(index)
        if episode is None:
            assert len(stamps) < LOST, f"all of episode {index} is gone"
            continue
        counts = episode.array("/arm/state", "count")
        assert (counts[1:] - counts[:-1] == 1).all()
        frames = [episode.stamps(f"/cameras/head/{kind}").tolist() for kind in ("color", "depth")]
        for kept in (episode.stamps("/arm/state").tolist(), *frames):
            assert kept == stamps[: len(kept)]
            assert len(stamps) - len(kept) < LOST
    if recording is not None:
        recording.close()


def test_killed_at_random_moments(tmp_path: Path) -> None:
    assert campaign(tmp_path, 4, seed=1) > 0


@pytest.mark.slow
def test_killed_at_fifty_random_moments(tmp_path: Path) -> None:
    assert campaign(tmp_path, 50, seed=2) > 0


def full(folder: Path, limit: int, min_free_mib: float = 0.0, episode_s: float = 30.0) -> list[str]:
    process = start(folder, 0, limit, min_free_mib, episode_s)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return output.splitlines()


def test_a_file_that_may_not_grow_is_closed_or_left_whole(tmp_path: Path) -> None:
    """RLIMIT_FSIZE: writing fails in the middle of a chunk, as on a full disk."""
    said = full(tmp_path, 1_500_000)
    assert any(line.startswith("stopped 0 episode_000000.mcap: File too large") for line in said)
    mended, refused = mend_all([tmp_path])
    assert not refused
    whole(tmp_path)
    assert said[-1] == "closed finished" or mended


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MB."""
    with small_disk(tmp_path / "disk", 8) as folder:
        yield folder


def test_a_disk_that_fills_up(disk: Path) -> None:
    said = full(disk, 0, episode_s=0.5)
    assert any("No space left on device" in line for line in said if line.startswith("stopped"))
    mend_all([disk])
    ended = {int(line.split()[1]) for line in said if line.startswith("end ")}
    whole(disk)
    with Recording(disk) as recording:
        assert ended <= {episode.index for episode in recording.episodes if not episode.repaired}


def test_a_disk_that_is_filling_ends_the_episode_before_it_is_full(disk: Path) -> None:
    said = full(disk, 0, min_free_mib=2.0)
    assert any("MiB left" in line for line in said if line.startswith("stopped"))
    assert said[-1] == "closed finished"
    assert not list(disk.glob("*.open"))
    whole(disk)
    with Recording(disk) as recording:
        assert all(not episode.repaired for episode in recording.episodes)
        assert "min_free_mib is 2" in recording.episodes[-1].metadata["stop_reason"]
        assert recording.episodes[-1].drops == {}


def whole(folder: Path) -> None:
    with Recording(folder) as recording:
        for episode in recording.episodes:
            counts = episode.array("/arm/state", "count")
            assert len(counts) > 5
            assert (counts[1:] - counts[:-1] == 1).all()
            for index in range(episode.topics["/cameras/head/depth"]):
                assert episode.depth("head", index).shape == (120, 160)
