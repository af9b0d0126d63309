"""Data sets that came from anywhere: what ``dexrun view`` does with them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dexrun.data.view import main
from dexrun.data.view_sets import episodes_of
from dexrun.export.errors import ExportError
from policies.data import set_files

CAMERA = "observation.images.c"
FEATURE = {"dtype": "float32", "shape": [2], "names": ["a", "b"]}
DATA, FILM = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet", "{video_key}-{file_index}.mp4"


def lerobot(
    folder: Path,
    values: Any = ((0.1, 0.2),) * 4,
    rows: Callable[[dict[str, Any]], dict[str, Any]] = lambda row: row,
    **info: Any,
) -> Path:
    """A v3.0 data set of one episode, but for what is given."""
    features = {
        "observation.state": FEATURE,
        "action": FEATURE,
        CAMERA: {"dtype": "video", "shape": [4, 4, 3]},
    }
    about = {
        "codebase_version": "v3.0",
        "fps": 30,
        "features": features,
        "data_path": DATA,
        "video_path": FILM,
    }
    place = {f"videos/{CAMERA}/{key}": 0 for key in ("chunk_index", "file_index", "from_timestamp")}
    row = rows({"episode_index": 0, "length": 4, "data/chunk_index": 0, "data/file_index": 0, **place})
    table = {"observation.state": list(values), "action": list(values), "episode_index": [0] * len(values)}
    for name in ("meta/episodes/chunk-000", "data/chunk-000"):
        (folder / name).mkdir(parents=True)
    (folder / "meta/info.json").write_text(json.dumps({**about, **info}))
    pq.write_table(pa.Table.from_pylist([row]), folder / "meta/episodes/chunk-000/file-000.parquet")
    pq.write_table(pa.table(table), folder / "data/chunk-000/file-000.parquet")
    (folder / f"{CAMERA}-0.mp4").write_bytes(b"a film")
    return folder


def hdf5(folder: Path, fill: Callable[[h5py.File], None] = lambda root: None) -> Path:
    """An HDF5 data set of one episode of five rows, to which `fill` does something."""
    folder.mkdir()
    with h5py.File(folder / "episode_0.hdf5", "w") as root:
        root["observations/qpos"] = root["action"] = np.zeros((5, 2))
        root["observations/images/c"] = np.zeros((5, 4, 4, 3), np.uint8)
        fill(root)
    return folder


def refused(path: Path) -> str:
    with pytest.raises(ExportError) as error:
        episodes_of(path)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_whole_ones_are_shown(tmp_path: Path) -> None:
    for path in (lerobot(tmp_path / "lerobot"), hdf5(tmp_path / "hdf5")):
        (episode,) = episodes_of(path) or []
        assert episode.values["action"].shape[1] == 2
    (folder,) = (path for path in tmp_path.iterdir() if path.name == "lerobot")
    film = folder / f"{CAMERA}-0.mp4"
    film.rename(tmp_path / "blob")
    film.symlink_to(tmp_path / "blob")  # as in Hugging Face's cache
    assert episodes_of(folder)


@pytest.mark.parametrize("key", ["data_path", "video_path"])
@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        ("/etc/passwd", "leads out of the data set's folder"),
        ("/dev/zero", "leads out of the data set's folder"),
        ("data/../../secret", "leads out of the data set's folder"),
        ("data", "is no file in it"),
        ("{nope}", "is not known"),
        ("{chunk_index.__class__}", "is no file in it"),
        ("{chunk_index:999999999}", "is no file in it"),
        (7, "expected string"),
    ],
)
def test_its_words_lead_nowhere_else(tmp_path: Path, key: str, pattern: Any, says: str) -> None:
    assert says in refused(lerobot(tmp_path / "set", **{key: pattern}))


def test_a_device_in_a_films_place_is_not_read(tmp_path: Path) -> None:
    folder = lerobot(tmp_path / "set")
    (folder / f"{CAMERA}-0.mp4").unlink()
    (folder / f"{CAMERA}-0.mp4").symlink_to("/dev/zero")
    assert "is no file in it" in refused(folder)


@pytest.mark.parametrize(
    "info",
    [
        *({"fps": fps} for fps in (0, -30, 1e-300, float("nan"), 10**400, "x")),
        *({"features": features} for features in (None, [1], {}, {"x": "y"}, {CAMERA: {"dtype": "video"}})),
        {"features": {"observation.state": {**FEATURE, "names": 5}}},
        {"codebase_version": "v9"},
        {"codebase_version": "v2.1", "total_episodes": 1, "chunks_size": 0},
        {"codebase_version": "v2.1", "total_episodes": -1},
    ],
)
def test_impossible_words_are_a_line(tmp_path: Path, info: dict[str, Any]) -> None:
    assert refused(lerobot(tmp_path / "set", **info))


@pytest.mark.parametrize("values", [(1.0,) * 4, (None,) * 4, ("x",) * 4, ((0.1,), (0.1, 0.2))])
def test_rows_of_another_shape_are_a_line(tmp_path: Path, values: Any) -> None:
    assert refused(lerobot(tmp_path / "set", values))


def test_an_episode_without_rows_and_a_deep_file_are_a_line(tmp_path: Path) -> None:
    folder = lerobot(tmp_path / "set", rows=lambda row: {**row, "episode_index": -5})
    assert "episode -5 has state [0]" in refused(folder)
    (folder / "meta/info.json").write_text("[" * 200_000)
    assert main([str(folder), "--save", str(tmp_path / "x.rrd")]) == 2


def test_a_file_of_too_many_numbers_is_not_unfolded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal numbers take a bit each, or less, however many they are said to be."""
    folder = lerobot(tmp_path / "set", ((0.0, 0.0),) * 100)
    assert episodes_of(folder)
    monkeypatch.setattr(set_files, "_VALUES", 499)  # two of the state, two of the action, one number
    assert "file-000.parquet holds 500 numbers; at most 499 are read" in refused(folder)


def elsewhere(root: h5py.File) -> None:
    del root["action"]
    root["action"] = h5py.ExternalLink("another.hdf5", "action")


def raw(root: h5py.File) -> None:
    del root["action"]
    root.create_dataset("action", shape=(5, 2), dtype="f8", external=[("/etc/passwd", 0, 80)])


def large(root: h5py.File) -> None:
    del root["action"]
    root.create_dataset("action", shape=(10**9, 14), chunks=(1000, 14), dtype="f8")


def scalar(root: h5py.File) -> None:
    del root["action"]
    root["action"] = 1.0


def another(shape: tuple[int, ...]) -> Callable[[h5py.File], None]:
    def fill(root: h5py.File) -> None:
        root.create_dataset("observations/images/d", shape=shape, chunks=(1, *shape[1:]), dtype="u1")

    return fill


@pytest.mark.parametrize(
    ("fill", "says"),
    [
        (elsewhere, "no array action"),
        (raw, "action leads into another file"),
        (large, "numbers; at most"),
        (scalar, ""),
        (another((4, 4, 4, 3)), "expected uint8 [5, H, W, 3]"),
        (another((5, 4, 4, 7)), "expected uint8 [5, H, W, 3]"),
        (another((10**6, 480, 640, 3)), "expected uint8 [5, H, W, 3]"),
        (another((5, 100_000, 100_000, 3)), "expected uint8 [5, H, W, 3]"),
        (lambda root: root.create_group("observations/images/d"), "no array observations/images/d"),
    ],
)
def test_arrays_that_are_none_are_a_line(tmp_path: Path, fill: Any, says: str) -> None:
    assert says in refused(hdf5(tmp_path / "set", fill))


def test_pictures_are_read_one_by_one(tmp_path: Path) -> None:
    """Those of a real data set do not fit into memory together."""

    def fill(root: h5py.File) -> None:
        root["observations/images/c"][3] = 9

    (episode,) = episodes_of(hdf5(tmp_path / "set", fill)) or []
    assert [int(picture.max()) for picture in episode.images["c"]] == [0, 0, 0, 9, 0]
