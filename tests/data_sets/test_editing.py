"""``dexrun data``: episodes left out, cut, put together and called otherwise, in every format."""

from __future__ import annotations

import functools
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dexrun.curation import journal
from dexrun.curation.command import main
from dexrun.export.formats import format_named
from dexrun.export.job import export
from dexrun.export.options import ExportOptions
from policies.data.dataset import ACTION, STATE, Switches
from policies.data.opening import open_dataset
from policies.data.recorded import episode_files
from runtime.recording.disk import Disk
from tests.export.synthetic import Made, write_run

THREE = (
    Made(seconds=0.5, masks=True),
    Made(seconds=0.7, task="another", seed=1, masks=True, label="failure"),
    Made(seconds=0.4, seed=2, masks=True, label="none"),
)
FORMATS = ("mcap", "lerobot-v3", "lerobot-v2.1", "dexgrasp-zarr", "umi-zarr", "act-hdf5", "dexvla-hdf5")

Make = Callable[[str], Path]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """One data set of each format, made once."""
    folder = tmp_path_factory.mktemp("made")
    write_run(folder / "run", *THREE)

    @functools.cache
    def do(name: str) -> Path:
        if name == "mcap":
            return folder / "run"
        to = folder / (f"{name}.zarr.zip" if name == "umi-zarr" else name)
        options = ExportOptions(
            jobs=1, image_size=32, missing_mask="zeros", labels=("success", "failure", "none")
        )
        export([folder / "run"], format_named(name), to, options)
        return to

    return do


@pytest.fixture
def make(made: Callable[[str], Path], tmp_path: Path) -> Make:
    """A copy of it, to be edited."""

    def do(name: str) -> Path:
        source = made(name)
        path = tmp_path / ("set.zarr.zip" if source.is_file() else "set")
        shutil.copy2(source, path) if source.is_file() else shutil.copytree(source, path)
        return path

    return do


def content(path: Path, cut: dict[int, slice] | None = None) -> list[Any]:
    """Of every episode: task, label, and all that is in its rows."""
    dataset = open_dataset(path)
    out: list[Any] = []
    for episode in dataset.episodes:
        rows = np.arange(episode.length)[(cut or {}).get(episode.number, slice(None))]
        values = {name: episode.read(name, rows) for name in dataset.features}
        out.append((episode.task, episode.label, values))
    dataset.close()
    return out


def same(one: list[Any], other: list[Any]) -> None:
    assert [each[:2] for each in one] == [each[:2] for each in other]
    for (_, _, got), (_, _, expected) in zip(one, other, strict=True):
        assert got.keys() == expected.keys()
        for name, values in got.items():
            np.testing.assert_array_equal(values, expected[name], err_msg=name)


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_edited_in_place_and_back(make: Make, name: str, capsys: Any) -> None:
    """Dropped, called otherwise, taken back; and a copy with what is kept. What is left is as it was."""
    path = make(name)
    before = content(path)
    assert (
        main(["keep", str(path), "--episodes", "2,0", "--to", str(path.with_name("kept" + path.suffix))]) == 0
    )
    same(content(path.with_name("kept" + path.suffix)), [before[2], before[0]])
    assert main(["drop", str(path), "--labels", "success"]) == 0
    after = content(path)
    same(after, before[1:])
    assert main(["relabel", str(path), "--episodes", "1", "--label", "success", "--task", "a third"]) == 0
    if name not in ("umi-zarr",):
        assert content(path)[1][:2] == ("a third", "success")
    same([("", "", content(path)[1][2])], [("", "", before[2][2])])
    assert main(["undo", str(path)]) == 0
    same(content(path), after)
    assert main(["undo", str(path)]) == 0
    same(content(path), before)
    assert main(["undo", str(path)]) == 2
    assert "there is nothing to undo" in capsys.readouterr().err
    assert not list(path.parent.glob(".*"))


@pytest.mark.parametrize("name", [name for name in FORMATS if name not in ("mcap", "lerobot-v2.1")])
def test_episodes_are_cut(make: Make, name: str) -> None:
    path = make(name)
    expected = content(path, {1: slice(3, 15)})
    assert main(["trim", str(path), "--episodes", "1", "--begin-s", "0.1", "--end-s", "0.5"]) == 0
    same(content(path), expected)


def test_a_recording_is_cut(make: Make) -> None:
    """By its sensors' stamps: rows begin where every sensor has given something."""
    path = make("mcap")
    whole = content(path)
    assert main(["trim", str(path), "--episodes", "1", "--begin-s", "0.1", "--end-s", "0.5"]) == 0
    got = content(path)
    same([got[0], got[2]], [whole[0], whole[2]])
    states, cut = whole[1][2][STATE], got[1][2][STATE]
    first = int(np.flatnonzero((states == cut[0]).all(axis=1))[0])
    assert first == 3
    assert 11 <= len(cut) <= 12
    np.testing.assert_array_equal(cut, states[first : first + len(cut)])
    np.testing.assert_array_equal(
        got[1][2]["observation.images.head"], whole[1][2]["observation.images.head"][first : first + len(cut)]
    )


def test_lerobots_2_1_says_how_it_is_cut(make: Make, capsys: Any) -> None:
    assert main(["trim", str(make("lerobot-v2.1")), "--episodes", "1", "--begin-s", "0.1"]) == 2
    assert "are not cut; dexrun data convert makes them 3.0" in capsys.readouterr().err


@pytest.mark.parametrize("name", FORMATS)
def test_split_and_merged(make: Make, name: str, tmp_path: Path) -> None:
    path = make(name)
    before = content(path)
    one, two, whole = (tmp_path / f"{n}{path.suffix}" for n in ("one", "two", "whole"))
    assert main(["split", str(path), "--share", "0.3", "--to", str(one), "--rest", str(two)]) == 0
    parts = content(one) + content(two)
    assert len(content(two)) == 1
    assert main(["merge", str(one), str(two), "--to", str(whole)]) == 0
    same(content(whole), parts)
    assert sorted(len(each[2][STATE]) for each in parts) == sorted(len(each[2][STATE]) for each in before)


def test_what_does_not_go_together_is_not_merged(make: Make, tmp_path: Path, capsys: Any) -> None:
    path = make("mcap")
    write_run(tmp_path / "other", Made(seconds=0.4, wrist=None))
    assert main(["merge", str(path), str(tmp_path / "other"), "--to", str(tmp_path / "all")]) == 2
    assert "do not go together: features is" in capsys.readouterr().err
    assert not (tmp_path / "all").exists()


def test_trained_peers_read_what_was_edited(make: Make) -> None:
    """Indices go on without a gap, statistics are of what is left, and every picture's second is right."""
    import pyarrow.parquet as pq

    path = make("lerobot-v3")
    assert main(["drop", str(path), "--episodes", "0"]) == 0
    table = pq.read_table(path / "data/chunk-000/file-000.parquet")
    assert table.column("index").to_pylist() == list(range(len(table)))
    assert set(table.column("episode_index").to_pylist()) == {0, 1}
    info = json.loads((path / "meta/info.json").read_text())
    assert (info["total_episodes"], info["total_frames"], info["total_tasks"]) == (2, len(table), 2)
    stats = json.loads((path / "meta/stats.json").read_text())
    actions = np.array(table.column("action").to_pylist())
    np.testing.assert_allclose(stats["action"]["max"], actions.max(axis=0), rtol=1e-6)
    episodes = pq.read_table(path / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    assert [each["dataset_from_index"] for each in episodes] == [0, episodes[0]["length"]]
    assert episodes[0]["videos/observation.images.head/from_timestamp"] == pytest.approx(16 / 30)


def test_unchanged_files_are_shared(make: Make, tmp_path: Path) -> None:
    path, to = make("mcap"), tmp_path / "kept"
    assert main(["drop", str(path), "--episodes", "2", "--to", str(to)]) == 0
    for name in ("episode_000000.mcap", "episode_000001.mcap"):
        assert os.stat(to / "episodes" / name).st_ino == os.stat(path / "episodes" / name).st_ino


@pytest.mark.parametrize("step", ["draft", "swap", "after", "renames"])
def test_a_kill_leaves_the_old_or_the_new(make: Make, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process ends at a moment of the edit; the next command finds a whole data set and no leftovers."""
    path = make("act-hdf5")
    before = content(path)

    def end(*given: Any) -> Any:
        os._exit(9)

    if (child := os.fork()) == 0:
        if step == "draft":
            journal.lasting = end  # type: ignore[attr-defined]
        elif step == "swap":
            journal._swap = end  # type: ignore[assignment]
        elif step == "after":
            real = journal._swap
            journal._swap = lambda *given: (real(*given), end())  # type: ignore[assignment, func-returns-value]
        else:
            journal._exchange = lambda *given: False
            Path.rename = lambda self, to, r=Path.rename: (r(self, to), to == path and end())  # type: ignore
            Path.rename = lambda self, to, r=Path.rename: end() if to == path else r(self, to)  # type: ignore
        main(["drop", str(path), "--episodes", "0"])
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    with journal.held(path):
        pass
    got = content(path)
    same(got, before[1:] if step == "after" else before)
    assert len(journal.entries(path)) == (1 if step == "after" else 0)
    if step == "after":
        assert main(["undo", str(path)]) == 0
        same(content(path), before)


def test_two_do_not_edit_at_once(make: Make, capsys: Any) -> None:
    path = make("act-hdf5")
    with journal.held(path):
        assert main(["drop", str(path), "--episodes", "0"]) == 2
    assert "is being edited by another command" in capsys.readouterr().err


def test_what_a_run_records_into_is_not_taken_from_under_it(make: Make, tmp_path: Path, capsys: Any) -> None:
    path = make("mcap")
    disk = Disk(path / "episodes")  # between two episodes: no file is open
    for words in (["drop", str(path), "--episodes", "0"], ["undo", str(path)]):
        assert main(words) == 2
        assert f"{path}: a run records into it; end the run first, or give --to" in capsys.readouterr().err
    assert main(["drop", str(path), "--episodes", "0", "--to", str(tmp_path / "rest")]) == 0
    disk.close()
    with journal.held(path), pytest.raises(OSError, match="another command edits it"):
        Disk(path / "episodes")
    assert main(["drop", str(path), "--episodes", "0"]) == 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["drop", "SET", "--episodes", "9"], "there are 0 to 2, and no 9"),
        (["drop", "SET", "--episodes", "a"], "expected numbers and ranges, as in 3,7-9"),
        (["drop", "SET"], "which episodes? give --episodes 3,7-9, --labels failure or --task-is TEXT"),
        (["drop", "SET", "--episodes", "0-2"], "nothing would be left of the data set"),
        (["keep", "SET", "--task-is", "no such"], "no episode fits"),
        (["relabel", "SET", "--episodes", "0"], "relabel to what?"),
        (["trim", "SET", "--episodes", "0", "--begin-s", "9"], "nothing is left from 9 s"),
        (["split", "SET", "--share", "2", "--to", "a", "--rest", "b"], "--share 2: expected more than 0"),
        (["merge", "SET", "--to", "SET"], "is there already|is not empty"),
        (["drop", "SET", "--episodes", "²"], "expected numbers and ranges, as in 3,7-9"),
        (["drop", "SET", "--episodes", "2-1"], "expected numbers and ranges, as in 3,7-9"),
        (["drop", "SET", "--episodes", "9" * 5000], "expected numbers and ranges, as in 3,7-9"),
        (["drop", "SET", "--episodes", "0-999999999"], "there are 0 to 2, and no 999999999"),
        (["trim", "SET", "--episodes", "0", "--begin-s", "nan"], "--begin-s nan: expected seconds"),
        (["trim", "SET", "--episodes", "0", "--end-s", "inf"], "--end-s inf: expected seconds"),
        (["split", "SET", "--to", "new", "--rest", "SET"], "is not empty"),
        (["split", "SET", "--to", "new", "--rest", "./new"], "two data sets need two places"),
        (["merge", "SET", "SET", "--to", "new"], "is given twice"),
        (["merge", "SET", "--to", "SET/in"], "give a place outside of it"),
        (["keep", "SET", "--episodes", "0", "--to", "SET/in"], "give a place outside of it"),
        (["frobnicate"], "invalid choice: 'frobnicate'"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    make: Make, arguments: list[str], told: str, capsys: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import re

    monkeypatch.chdir(tmp_path)
    path = make("act-hdf5")
    before = content(path)
    assert main([each.replace("SET", str(path)) for each in arguments]) == 2
    error = capsys.readouterr().err
    assert re.search(told if "|" in told else re.escape(told), error), error
    assert error.count("\n") == 1
    same(content(path), before)
    assert os.listdir(tmp_path) == [path.name]


def test_an_episode_that_is_still_to_be_mended_is_not_left_behind(
    make: Make, tmp_path: Path, capsys: Any
) -> None:
    path = make("mcap")
    draft = path / "episodes" / "episode_000002.mcap.open"
    draft.with_suffix("").rename(draft)
    assert main(["drop", str(path), "--episodes", "0"]) == 2
    assert f"{draft}: was not finished, and is mended at the start of the next run" in capsys.readouterr().err
    assert draft.exists()
    assert main(["drop", str(path), "--episodes", "0", "--to", str(tmp_path / "rest")]) == 0
    assert sorted(os.listdir(tmp_path)) == ["rest", "set"]


def test_a_run_that_was_gone_on_with_is_found_once(make: Make, tmp_path: Path, capsys: Any) -> None:
    first = make("mcap")
    (tmp_path / "second").mkdir()
    (tmp_path / "second" / "episodes").symlink_to("../set/episodes")
    assert episode_files([first, tmp_path / "second"]) == episode_files([first])
    assert main(["drop", str(tmp_path / "second"), "--episodes", "0"]) == 2
    assert f"its episodes are those of {first}; edit that, or give --to" in capsys.readouterr().err
    assert main(["merge", str(first), str(tmp_path / "second"), "--to", str(tmp_path / "all")]) == 2
    assert "goes on with another of them; give it once" in capsys.readouterr().err


@pytest.mark.parametrize("name", [name for name in FORMATS if name not in ("mcap", "umi-zarr")])
def test_converted_into_another(make: Make, name: str, tmp_path: Path) -> None:
    """Numbers and what they are stay; pictures come through a video but slightly changed."""
    path = make(name)
    kind = "lerobot-v3" if name != "lerobot-v3" else "act-hdf5"
    assert main(["convert", str(path), "--format", kind, "--to", str(tmp_path / "new")]) == 0
    one, two = open_dataset(path), open_dataset(tmp_path / "new")
    assert two.format == kind
    assert (one.rate_hz, one.features[STATE].unit) == (two.rate_hz, two.features[STATE].unit)
    for got, expected in zip(two.episodes, one.episodes, strict=True):
        assert (got.length, got.task, got.label) == (expected.length, expected.task, expected.label)
        rows = np.arange(got.length)
        for feature in (STATE, ACTION):
            np.testing.assert_allclose(got.read(feature, rows), expected.read(feature, rows), atol=1e-6)
        head = "observation.images.head"
        off = np.abs(got.read(head, rows).astype(int) - expected.read(head, rows)).mean()
        assert off < 6


def test_a_recording_is_converted_by_its_calibration(make: Make, tmp_path: Path) -> None:
    path = make("mcap")
    to = tmp_path / "new"
    how = ["--format", "dexgrasp-zarr", "--units", "rad", "--jobs", "1", "--to", str(to)]
    assert main(["convert", str(path), *how]) == 0
    one, two = (open_dataset(p, Switches(use_mask=True)) for p in (path, to))
    rows = np.arange(5)
    for feature in (STATE, "observation.masks.head"):
        np.testing.assert_array_equal(
            two.episodes[1].read(feature, rows), one.episodes[1].read(feature, rows)
        )
    assert main(["convert", str(to), "--format", "umi-zarr", "--to", str(tmp_path / "umi")]) == 2
    assert (
        main(["convert", str(to), "--format", "act-hdf5", "--units", "rad", "--to", str(tmp_path / "x")]) == 2
    )


def test_stats(make: Make, capsys: Any) -> None:
    path = make("act-hdf5")
    assert main(["stats", str(path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    every = np.concatenate([each[2][STATE] for each in content(path)])
    np.testing.assert_allclose(told[STATE]["mean"], every.mean(axis=0), rtol=1e-5)
    assert told[STATE]["count"] == len(every)
    assert main(["stats", str(path)]) == 0
    assert "observation.state [rad], 50 rows" in capsys.readouterr().out
