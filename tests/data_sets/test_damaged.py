"""Files that were cut off, changed or made up: the commands that read data sets say it in a line each."""

from __future__ import annotations

import json
import random
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dexrun.__main__ import main
from policies.data.dataset import DatasetError
from policies.data.lerobot import stored_statistics
from policies.data.opening import open_dataset
from tests.data_sets.mutations import change
from tests.export.synthetic import Made

Said = pytest.CaptureFixture[str]
FORMATS = ("lerobot-v3", "lerobot-v2.1", "dexgrasp-zarr", "umi-zarr", "act-hdf5", "dexvla-hdf5")
TWO = (Made(seconds=0.5, masks=True), Made(seconds=0.3, seed=1, masks=True))


def edit(path: Path, how: Callable[[Any], None]) -> None:
    found = json.loads(path.read_text())
    how(found)
    path.write_text(json.dumps(found))


def refused(said: Said, *command: str | Path) -> str:
    assert main([str(each) for each in command]) == 2
    err = said.readouterr().err
    assert err.count("\n") == 1
    assert "Traceback" not in err
    return err


@pytest.mark.parametrize("name", ["lerobot-v3", "act-hdf5", "dexgrasp-zarr"])
def test_what_an_export_noted_is_looked_at_before_it_is_used(
    run: Any, exported: Any, capsys: Said, name: str
) -> None:
    target, _ = exported(run(*TWO)[0], name)
    notes = target / {"lerobot-v3": "meta/dexrun.json", "act-hdf5": "dexrun.json"}.get(name, ".zattrs")

    def spoil(found: Any) -> None:
        found = found.get("dexrun", found)
        found["episodes"][1]["sensors"]["head"]["largest_stamp_error_s"] = "late"

    edit(notes, spoil)
    for command in (["info"], ["data", "info"], ["data", "check"], ["data", "stats"]):
        err = refused(capsys, *command, target)
        assert "episodes.1.sensors.head.largest_stamp_error_s: Input should be a valid number" in err


def test_notes_without_figures_are_taken(run: Any, exported: Any, tmp_path: Path) -> None:
    target, _ = exported(run(*TWO)[0], "lerobot-v3")

    def forget(found: Any) -> None:
        del found["largest_stamp_error_s"], found["gaps"]
        del found["episodes"][0]["sensors"]["head"]["largest_stamp_error_s"]

    edit(target / "meta/dexrun.json", forget)
    assert main(["info", str(target)]) == 0
    assert main(["data", "convert", str(target), "--format", "lerobot-v3", "--to", str(tmp_path / "b")]) == 0


def test_statistics_that_are_no_numbers(run: Any, exported: Any, capsys: Said) -> None:
    target, _ = exported(run(*TWO)[0], "lerobot-v3")
    edit(target / "meta/stats.json", lambda found: found["action"].update(mean=[[1.0], 2.0]))
    with pytest.raises(DatasetError, match=r"stats\.json: no statistics: "):
        stored_statistics(target)
    assert "stats.json: no statistics: " in refused(capsys, "data", "check", target)


def test_a_shape_without_end(run: Any, exported: Any, capsys: Said, tmp_path: Path) -> None:
    target, _ = exported(run(*TWO)[0], "lerobot-v2.1")
    head = "observation.images.head"
    edit(
        target / "meta/info.json",
        lambda found: found["features"][head].update(shape=[float("inf"), 64, 3]),
    )
    err = refused(capsys, "data", "convert", target, "--format", "act-hdf5", "--to", tmp_path / "out")
    assert f"{head} has the shape [inf, 64, 3]; expected whole numbers above 0" in err


def test_fewer_names_than_numbers(run: Any, exported: Any, capsys: Said) -> None:
    target, _ = exported(run(*TWO)[0], "lerobot-v2.1")
    edit(target / "meta/info.json", lambda found: found["features"]["action"]["names"].pop())
    assert "action has 5 names for 6 numbers" in refused(capsys, "data", "stats", target)


def test_a_link_to_itself_costs_its_episode_alone(run: Any, exported: Any) -> None:
    import h5py

    target, _ = exported(run(*TWO)[0], "act-hdf5")
    with h5py.File(target / "episode_1.hdf5", "r+") as root:
        root["intervention"] = h5py.SoftLink("/intervention")
    dataset = open_dataset(target)
    assert len(dataset.episodes) == 1
    assert list(dataset.left_out.values()) == ["RuntimeError: Special link traversal failed (too many links)"]
    dataset.close()


def test_pictures_that_are_no_bytes_cost_their_episode_alone(run: Any, exported: Any) -> None:
    import h5py
    import numpy as np

    target, _ = exported(run(*TWO)[0], "act-hdf5")
    with h5py.File(target / "episode_1.hdf5", "r+") as root:
        del root["observations/images/head"]
        root["observations/images/head"] = np.zeros((2, 2, 2, 2, 2), "i1")
    dataset = open_dataset(target)
    said = "a picture is int8 [2, 2, 2, 2]; expected the bytes of a JPEG"
    assert list(dataset.left_out.values()) == [said]
    dataset.close()


def test_a_zip_whose_members_are_not_where_it_says(run: Any, exported: Any, capsys: Said) -> None:
    target, _ = exported(run(*TWO)[0], "umi-zarr", "set")
    with zipfile.ZipFile(target) as archive:
        at = archive.getinfo("meta/episode_ends/.zarray").header_offset
    data = bytearray(target.read_bytes())
    data[at + 28 : at + 30] = b"\xff\xff"  # how long what comes before its bytes is
    target.write_bytes(data)
    for command in (["info"], ["data", "stats"]):
        assert "meta/episode_ends/.zarray" in refused(capsys, *command, target)


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_any_change_of_any_file_is_a_line_or_none(
    run: Any, exported: Any, tmp_path: Path, capsys: Said, name: str
) -> None:
    source, _ = exported(run(*TWO)[0], name, "whole")
    for seed in range(60):
        chance, target = random.Random(f"{name} {seed}"), tmp_path / "set"
        if source.is_file():
            shutil.copy(source, target)
        else:
            shutil.copytree(source, target)
        files = sorted(each for each in [target, *target.rglob("*")] if each.is_file())
        texts = [each for each in files if each.suffix in (".json", ".jsonl") or each.name.startswith(".z")]
        change(chance.choice(texts if texts and chance.random() < 0.6 else files), chance)
        command = chance.choice((["info"], ["data", "check"], ["data", "stats"], ["data", "convert"]))
        more = ["--format", "act-hdf5", "--to", str(tmp_path / "out")] if command[-1] == "convert" else []
        code = main([*command, str(target), *more])
        err = capsys.readouterr().err
        assert code in (0, 1, 2), seed
        assert "Traceback" not in err, seed
        assert err.count("\n") <= 4, (seed, err)
        for made in (target, tmp_path / "out"):
            shutil.rmtree(made, ignore_errors=True)
            made.unlink(missing_ok=True)
