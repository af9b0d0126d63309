"""What ``dexrun info`` says about recordings and about every kind of data set."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dexrun.data.info import main
from dexrun.export.command import main as export_main
from dexrun.export.job import ExportResult
from tests.export.synthetic import Made, Truth

Run = Callable[..., tuple[Path, list[Truth]]]
Export = Callable[..., tuple[Path, ExportResult]]


@pytest.fixture
def about(capsys: pytest.CaptureFixture[str]) -> Callable[[Path], Any]:
    def ask(path: Path) -> Any:
        assert main([str(path), "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    return ask


def test_a_recording(run: Run, about: Any) -> None:
    folder, _ = run(Made(seconds=0.5), Made(seconds=0.3, label="failure", task="another"))
    found = about(folder)
    assert (found["kind"], found["labels"]) == ("recording", {"success": 1, "failure": 1})
    assert found["bytes"] == sum(p.stat().st_size for p in folder.rglob("*.mcap"))
    assert found["features"]["/cameras/head/depth"] == "64x48 uint16, unit 0.001 m"
    first, second = found["episodes"]
    assert first["rates"]["/force"] == 200.0
    assert first["rates"]["/arm/state"] == 90.0
    assert (first["rows"], first["drops"], second["task"]) == (16, {}, "another")


@pytest.mark.parametrize(
    ("name", "kind", "feature", "like"),
    [
        ("lerobot-v3", "LeRobot v3.0", "observation.images.head_depth", "video [48, 64, 1], hevc gray12le"),
        ("lerobot-v2.1", "LeRobot v2.1", "action", "float32 [6]"),
        ("dexgrasp-zarr", "DexGraspVLA replay buffer", "data/rgbm", "|u1 [29, 48, 64, 4]"),
        ("umi-zarr", "UMI replay buffer", "data/robot0_eef_pos", "<f4 [29, 3]"),
        ("act-hdf5", "ACT HDF5", "observations/images/wrist", "uint8 [16, 32, 40, 3]"),
        ("dexvla-hdf5", "DexVLA HDF5", "observations/joint_positions", "float64 [16, 5]"),
    ],
)
def test_a_data_set(
    run: Run, exported: Export, about: Any, name: str, kind: str, feature: str, like: str
) -> None:
    folder, _ = run(Made(seconds=0.5), Made(seconds=0.4, label="failure", task="another"))
    depth = "video" if name == "lerobot-v3" else "auto"
    target, _ = exported(folder, name, labels=("success", "failure"), depth=depth)
    found = about(target)
    assert (found["kind"], found["rows"], found["features"][feature]) == (kind, 29, like)
    assert [e["rows"] for e in found["episodes"]] == [16, 13]
    assert [e["label"] for e in found["episodes"]] == ["success", "failure"]
    assert found["labels"] == {"success": 1, "failure": 1}


def test_for_people(run: Run, exported: Export, capsys: pytest.CaptureFixture[str]) -> None:
    folder, _ = run(Made(seconds=0.5))
    target, _ = exported(folder, "lerobot-v3")
    assert main([str(folder), str(target)]) == 0
    out = capsys.readouterr().out
    assert "/force                force [2], 200 Hz" in out
    assert "episode_000000.mcap: 0.50 s, 16 rows, label success, no drops" in out
    assert "stamp error up to 3.3 ms" in out


def test_what_is_neither_is_said_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "bad.mcap").write_bytes(b"GIF89a" + bytes(99))
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta" / "info.json").write_text("{")
    for name, message in (
        ("notes", "neither a recording"),
        ("absent", "no such file"),
        ("bad.mcap", "not an MCAP file"),
        (".", "cannot be read"),
    ):
        assert main([str(tmp_path / name)]) == 2
        err = capsys.readouterr().err
        assert message in err
        assert err.count("\n") == 1


def test_a_store_that_asks_for_a_codec_that_executes_what_it_reads_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Owned:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "owned",)

    import pickle

    store = tmp_path / "store"
    (store / "meta" / "episode_ends").mkdir(parents=True)
    (store / ".zgroup").write_text('{"zarr_format": 2}')
    about = {"shape": [1], "chunks": [1], "dtype": "<i8", "compressor": {"id": "pickle"}}
    (store / "meta" / "episode_ends" / ".zarray").write_text(json.dumps(about))
    (store / "meta" / "episode_ends" / "0").write_bytes(pickle.dumps(Owned()))
    assert main([str(store)]) == 2
    assert "compressed by 'pickle'; accepted: blosc," in capsys.readouterr().err
    assert not (tmp_path / "owned").exists()


def test_what_a_recording_says_commands_no_terminal(
    run: Run, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folder, _ = run(Made(seconds=0.2, task="pick \x1b]0;owned\x07\x1b[2J\u202e", label="fail\x1b[1mure"))
    assert main([str(folder)]) == 0
    assert export_main([str(folder), "--format", "act-hdf5", "--to", str(tmp_path / "x")]) == 1
    said = capsys.readouterr()
    assert "fail\\x1b[1mure" in said.out
    assert "fail\\x1b[1mure" in said.err
    assert not set("\x1b\x07\u202e") & set(said.out + said.err)
    assert main(["--json", str(folder)]) == 0
    assert not set("\x1b\x07\u202e") & set(capsys.readouterr().out)


def test_a_task_of_several_lines_or_none_stays_on_its_line(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """It could else say things of the recording."""
    forged = "first\n  labels: success: 999"
    folder, _ = run(Made(seconds=0.2, task=forged), Made(seconds=0.2, task=""))
    assert main([str(folder)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert [row for row in said if row.startswith("  tasks: ")] == [f"  tasks: {forged!r}: 1, '': 1"]
    assert [row for row in said if row.startswith("  labels: ")] == ["  labels: success: 2"]
