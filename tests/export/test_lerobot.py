"""LeRobot data sets: their files, and what LeRobot's own reader gives of them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from dexrun.export import depth_video, stats
from dexrun.export.errors import ExportError
from dexrun.export.job import ExportResult
from dexrun.export.video import color_options, encode_color
from policies.data.dataset import TIP, Switches
from policies.data.opening import open_dataset
from runtime.units import UnitMap
from tests.export.synthetic import RANGES, Made, Truth

PSNR_DB = 30.0
"""Of colour after H.264 at the default quality, on the synthetic pictures with their noise."""

Run = Callable[..., tuple[Path, list[Truth]]]
Export = Callable[..., tuple[Path, ExportResult]]


def degrees(rows: Any) -> Any:
    """The robot's units as LeRobot has them, of an arm that is not calibrated in ticks."""
    out = np.degrees(1) * (np.asarray(rows) - np.array(RANGES).mean(axis=1))
    out[..., -1] = np.asarray(rows)[..., -1] * 100
    return out.astype(np.float32)


def psnr(one: Any, other: Any) -> float:
    return float(10 * np.log10(255**2 / np.mean((one.astype(float) - other.astype(float)) ** 2)))


def info(target: Path) -> Any:
    return json.loads((target / "meta" / "info.json").read_text())


def expected(truth: Truth, name: str, rows: int) -> Any:
    """The samples on the grid of an episode whose sensors all have a sample at every tick."""
    step = {"position": 3, "force": 0}.get(name, 1)
    return np.stack(truth.values[name][::step])[:rows]


def test_v3_has_the_files_columns_and_metadata_of_lerobot(run: Run, exported: Export) -> None:
    folder, _ = run(Made(seconds=0.5), Made(seconds=0.4, task="another", seed=1))
    target, _ = exported(folder, "lerobot-v3", depth="video")
    about = info(target)
    assert (about["codebase_version"], about["fps"], about["total_frames"]) == ("v3.0", 30, 29)
    assert about["features"]["observation.images.head"]["info"]["video.codec"] == "h264"
    depth = about["features"]["observation.images.head_depth"]
    assert depth["shape"] == [48, 64, 1]
    assert depth["info"] | depth_video.INFO == depth["info"]
    with pq.ParquetFile(target / "data/chunk-000/file-000.parquet") as file:
        assert file.metadata.num_row_groups == 2
        table = file.read()
    assert table.column("index").to_pylist() == list(range(29))
    assert table.column("task_index").to_pylist() == [0] * 16 + [1] * 13
    assert str(table.schema.field("observation.state").type) == "fixed_size_list<element: float>[6]"
    with pq.ParquetFile(target / "meta/episodes/chunk-000/file-000.parquet") as file:
        episodes = file.read().to_pylist()
    assert [e["length"] for e in episodes] == [16, 13]
    assert episodes[1]["videos/observation.images.head/from_timestamp"] == pytest.approx(16 / 30)
    assert episodes[1]["dataset_from_index"] == 16
    assert np.shape(episodes[0]["stats/observation.images.head/q99"]) == (3, 1, 1)
    assert not list(target.rglob("*.part*"))


@pytest.mark.parametrize("kind", ["lerobot-v3", "lerobot-v2.1"])
def test_the_language_hint_is_a_feature_and_a_sentence(run: Run, exported: Export, kind: str) -> None:
    """The numbers that the recording read as a data set has; an episode that has none is left out."""
    folder, _ = run(Made(seconds=0.5, masks=True, calibrated=True), Made(seconds=0.4, seed=1))
    target, outcome = exported(folder, kind, tip="both")
    assert [slot.number for slot in outcome.slots] == [0]
    (why,) = outcome.left_out.skipped.values()
    assert "it is not known where its object is" in why
    feature = info(target)["features"]["observation.tip"]
    assert feature == {"dtype": "float32", "shape": [3], "names": ["x", "y", "z"]}
    tips = []
    for path in (folder, target):
        dataset = open_dataset(path, Switches(use_language_tip=True))
        try:
            episode = dataset.episodes[0]
            tips.append(episode.read(TIP, np.arange(outcome.slots[0].length)))
            assert dataset.about["tip_camera"] == "head"
        finally:
            dataset.close()
    np.testing.assert_array_equal(*tips)
    x, y, z = (round(float(each), 3) for each in tips[0][0])
    said = f"put the cube into the tray. The object is at x {x:.3f} m, y {y:.3f} m, z {z:.3f} m."
    assert episode.task == said


def test_a_hint_where_there_is_none_is_refused(run: Run, exported: Export) -> None:
    folder, _ = run(Made(seconds=0.4, masks=True))
    with pytest.raises(ExportError, match="calibrated to the arm; --tip none exports without"):
        exported(folder, "lerobot-v3", tip="feature")
    with pytest.raises(ExportError, match="act-hdf5 has none; --tip task says it in words"):
        exported(folder, "act-hdf5", tip="feature")


def test_lerobots_own_reader_gives_back_the_recording(run: Run, exported: Export, reader: Any) -> None:
    folder, truths = run(Made(seconds=0.7), Made(seconds=0.5, task="another", seed=1))
    target, outcome = exported(folder, "lerobot-v3", depth="both")
    got = reader(".venv-lerobot-data", "read_lerobot.py", target)
    assert str(got["version"]) == "0.4.4"
    lengths = [slot.length for slot in outcome.slots]
    start = 0
    for truth, rows in zip(truths, lengths, strict=True):
        part = slice(start, start + rows)
        assert (got["action"][part] == degrees(expected(truth, "sent", rows))).all()
        assert (got["observation.state"][part] == degrees(expected(truth, "position", rows))).all()
        raw = got["observation.images.head_depth_raw"][part, 0].view(np.uint16)
        assert (raw == expected(truth, "head depth", rows)).all()
        for camera in ("head", "wrist"):
            frames = np.rint(got[f"observation.images.{camera}"][part] * 255).transpose(0, 2, 3, 1)
            assert psnr(frames, expected(truth, f"{camera} color", rows)) > PSNR_DB
        start += rows
    assert got["task"].tolist() == ["put the cube into the tray"] * lengths[0] + ["another"] * lengths[1]
    assert got["frame_index"].tolist() == [*range(lengths[0]), *range(lengths[1])]
    whole = stats.of_rows(got["action"])
    assert np.allclose(got["stats/action/mean"], whole["mean"], atol=1e-4)
    assert np.allclose(got["stats/action/max"], whole["max"], atol=1e-4)


def test_an_encoder_puts_no_thread_before_the_arm_s(tmp_path: Path) -> None:
    """SVT-AV1, run by root, asks for SCHED_FIFO at the highest priority, for its threads and its caller's."""
    before, seen, real = os.sched_getscheduler(0), set[int](), {os.SCHED_FIFO, os.SCHED_RR}

    def images() -> Iterator[Any]:
        for _ in range(4):
            seen.update(os.sched_getscheduler(int(each)) for each in os.listdir("/proc/self/task"))
            yield np.zeros((48, 64, 3), np.uint8)

    assert encode_color(tmp_path / "film.mp4", images(), (48, 64), 30, color_options("av1", 0, 1)) == 4
    assert before in seen
    assert not real & seen
    assert os.sched_getscheduler(0) == before


def test_lerobots_reader_serves_sequences(run: Run, exported: Export, reader: Any) -> None:
    folder, _ = run(Made(seconds=0.4, wrist=None, head_depth=False))
    target, _ = exported(folder, "lerobot-v3", codec="av1")
    key = "observation.images.head"
    got = reader(".venv-lerobot-data", "read_lerobot.py", target, key, -1 / 30, 0.0)
    assert got[key].shape == (13, 2, 3, 48, 64)
    assert np.array_equal(got[key][3, 1], got[key][4, 0])
    assert info(target)["features"][key]["info"]["video.codec"] == "av1"


def test_appending_makes_one_data_set(run: Run, exported: Export, reader: Any) -> None:
    first, one = run(Made(seconds=0.4), name="first")
    second, two = run(Made(seconds=0.5, task="another", seed=2), Made(seconds=0.4, seed=3), name="second")
    target, _ = exported(first, "lerobot-v3")
    before = {p: p.read_bytes() for p in target.rglob("file-*.*")}
    assert len(before) == 4
    exported(second, "lerobot-v3", append=True)
    assert all(path.read_bytes() == content for path, content in before.items())
    got = reader(".venv-lerobot-data", "read_lerobot.py", target)
    assert (int(got["episodes"]), int(got["frames"])) == (3, 42)
    wanted = np.concatenate([expected(t, "sent", n) for t, n in zip([*one, *two], (13, 16, 13), strict=True)])
    assert (got["action"] == degrees(wanted)).all()
    assert got["tasks"].tolist() == ["put the cube into the tray", "another"]
    about = json.loads((target / "meta" / "dexrun.json").read_text())
    assert [e["episode"] for e in about["episodes"]] == [0, 1, 2]


def test_lerobot_0_6_reads_depth_in_millimetres(run: Run, exported: Export, reader: Any) -> None:
    folder, (truth,) = run(Made(seconds=0.4))
    target, _ = exported(folder, "lerobot-v3", depth="both")
    got = reader(".venv-lerobot-depth", "read_lerobot.py", target)
    depth = expected(truth, "head depth", 13).astype(float)
    seen = got["observation.images.head_depth"][:, 0]
    assert np.abs(seen - depth)[depth > 0].max() <= 1.6
    assert (seen[depth == 0] == 10).all()
    assert np.array_equal(got["observation.images.head_depth_raw"][:, 0].astype(np.uint16), depth)


@pytest.mark.parametrize("scale", [0.001, 0.0001])
def test_depth_codes_keep_what_lerobot_keeps(scale: float) -> None:
    depth = np.arange(20, 65536)
    known = depth * scale
    low, high = np.log(0.01 + 3.5), np.log(10 + 3.5)  # as LeRobot's reader decodes it
    seen = np.exp(depth_video.code_table(scale)[depth] * ((high - low) / 4095) + low) - 3.5
    error = np.abs(np.clip(seen, 0.01, 10) - known)
    assert error[(known > 0.2) & (known < 1.0)].max() < 0.75e-3
    assert depth_video.code_table(scale)[0] == 0


def test_v21_is_what_groot_reads(run: Run, exported: Export) -> None:
    folder, (truth, _) = run(Made(seconds=0.5), Made(seconds=0.4, task="another"))
    target, _ = exported(folder, "lerobot-v2.1")
    exported(folder, "lerobot-v2.1", append=True)
    about = info(target)
    assert (about["codebase_version"], about["total_episodes"], about["total_videos"]) == ("v2.1", 4, 8)
    for episode in range(4):
        path = about["data_path"].format(episode_chunk=0, episode_index=episode)
        with pq.ParquetFile(target / path) as file:
            table = file.read()
        assert table.column("episode_index").to_pylist() == [episode] * len(table)
        for key in ("observation.images.head", "observation.images.wrist"):
            name = about["video_path"].format(episode_chunk=0, episode_index=episode, video_key=key)
            assert (target / name).stat().st_size > 0
    lines = {
        name: [json.loads(line) for line in (target / "meta" / f"{name}.jsonl").read_text().splitlines()]
        for name in ("episodes", "tasks", "episodes_stats")
    }
    assert [line["length"] for line in lines["episodes"]] == [16, 13, 16, 13]
    assert [line["task"] for line in lines["tasks"]] == ["put the cube into the tray", "another"]
    assert set(lines["episodes_stats"][0]["stats"]["action"]) == {"min", "max", "mean", "std", "count"}
    modality = json.loads((target / "meta" / "modality.json").read_text())
    assert modality["action"] == {"single_arm": {"start": 0, "end": 5}, "gripper": {"start": 5, "end": 6}}
    assert modality["video"]["front"] == {"original_key": "observation.images.head"}
    assert modality["annotation"]["human.task_description"] == {"original_key": "task_index"}
    with pq.ParquetFile(target / "data/chunk-000/episode_000000.parquet") as file:
        action = np.stack(file.read().column("action").to_pylist())
    assert (action.astype(np.float32) == degrees(expected(truth, "sent", 16))).all()


def test_lerobot_0_3_reads_v21_by_groots_names(run: Run, exported: Export, reader: Any) -> None:
    folder, (one, two) = run(Made(seconds=0.4), Made(seconds=0.3, task="another", seed=1))
    target, _ = exported(folder, "lerobot-v2.1")
    got = reader(".venv-lerobot-v21", "read_lerobot_v21.py", target)
    assert (int(got["episodes"]), int(got["fps"])) == (2, 30)
    wanted = degrees(np.concatenate([expected(one, "sent", 13), expected(two, "sent", 10)]))
    assert (got["action.single_arm"] == wanted[:, :5]).all()
    assert (got["action.gripper"] == wanted[:, 5:]).all()
    state = degrees(np.concatenate([expected(one, "position", 13), expected(two, "position", 10)]))
    assert (np.concatenate([got["state.single_arm"], got["state.gripper"]], axis=1) == state).all()
    assert got["state.force"].shape == (23, 2)
    frames = np.rint(got["video.wrist"][:13] * 255).transpose(0, 2, 3, 1)
    assert psnr(frames, expected(one, "wrist color", 13)) > PSNR_DB
    assert got["language"].tolist() == ["put the cube into the tray"] * 13 + ["another"] * 10


def test_what_is_appended_must_fit(run: Run, exported: Export) -> None:
    first, _ = run(Made(seconds=0.3), name="first")
    second, _ = run(Made(seconds=0.3, force=0), name="second")
    exported(first, "lerobot-v3")
    with pytest.raises(ExportError, match=r"observation\.force is float32"):
        exported(second, "lerobot-v3", append=True)
    with pytest.raises(ExportError, match="has 30 fps, the export 10; give --fps 30"):
        exported(first, "lerobot-v3", append=True, fps=10)
    with pytest.raises(ExportError, match=r"v3.0; expected v2.1"):
        exported(first, "lerobot-v2.1", append=True)


@pytest.mark.parametrize("kind", ["lerobot-v3", "lerobot-v2.1"])
@pytest.mark.parametrize(
    ("made", "options", "message"),
    [
        (
            {},
            {"units": UnitMap()},
            "the data set is in lerobot_degrees, the export in rad; give --units lerobot_degrees",
        ),
        ({}, {"action": "requested"}, "action is sent in the data set and requested in the export"),
        ({}, {"latency_s": {"head": 0.1}}, "latency_s.head is absent in the data set and 0.1 in the export"),
        ({"depth_scale_m": 0.0001}, {}, "head_depth is in units of 0.001 m, the export's camera in 0.0001 m"),
    ],
)
def test_what_is_appended_must_mean_the_same(
    run: Run, exported: Export, kind: str, made: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    first, _ = run(Made(seconds=0.2), name="first")
    second, _ = run(Made(seconds=0.2, **made), name="second")
    target, _ = exported(first, kind, depth="images")
    before = {p: p.read_bytes() for p in target.rglob("*") if p.is_file()}
    with pytest.raises(ExportError, match=re.escape(message)):
        exported(second, kind, append=True, depth="images", **options)
    assert {p: p.read_bytes() for p in target.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize("kind", ["lerobot-v3", "lerobot-v2.1"])
def test_a_data_set_keeps_what_it_says_of_itself(run: Run, exported: Export, kind: str) -> None:
    folder, _ = run(Made(seconds=0.2))
    target, _ = exported(folder, kind, robot_type="my_arm")
    (target / "meta" / "dexrun.json").unlink()  # as in one that LeRobot made
    path = target / "meta" / "info.json"
    path.write_text(json.dumps({**info(target), "license": "mine"}))
    for _ in range(2):
        exported(folder, kind, append=True, action="clipped")
    assert (info(target)["robot_type"], info(target)["license"]) == ("my_arm", "mine")
    assert info(target)["total_episodes"] == 3
    report = json.loads((target / "meta" / "dexrun.json").read_text())
    assert (report["action"], len(report["episodes"])) == ("clipped", 2)


def test_a_broken_frame_rate_is_refused(run: Run, exported: Export) -> None:
    folder, _ = run(Made(seconds=0.3))
    with pytest.raises(ExportError, match="whole number"):
        exported(folder, "lerobot-v3", fps=29.97)


def test_statistics_are_those_of_everything() -> None:
    rng = np.random.default_rng(0)
    parts = [rng.normal(size=(n, 3)) for n in (5, 50, 17)]
    whole, joined = (
        stats.of_rows(np.concatenate(parts)),
        stats.aggregate([{"x": stats.of_rows(p)} for p in parts]),
    )
    for name in ("min", "max", "mean", "std", "count"):
        assert np.allclose(joined["x"][name], whole[name])


def test_statistics_of_a_merged_and_appended_data_set_are_computed_from_all_of_it(
    run: Run, exported: Export
) -> None:
    first, _ = run(Made(seconds=0.3), Made(seconds=1.2, task="another", seed=1), name="first")
    second, _ = run(Made(seconds=0.5, seed=2, task="a third"), name="second")
    both, _ = exported([first, second], "lerobot-v3", to="both", depth="both")
    grown, _ = exported(first, "lerobot-v3", to="grown", depth="both")
    exported(second, "lerobot-v3", to="grown", depth="both", append=True)
    found = [json.loads((folder / "meta" / "stats.json").read_text()) for folder in (both, grown)]
    tables = [pq.read_table(path) for path in sorted((grown / "data").rglob("*.parquet"))]
    for key in ("action", "observation.state", "observation.force", "timestamp", "task_index", "index"):
        rows = np.concatenate([np.array(table.column(key).to_pylist(), float) for table in tables])
        for name, values in stats.of_rows(rows).items():
            for one in found:
                assert np.allclose(one[key][name], values, atol=1e-6), (key, name)
    assert found[0]["task_index"]["q01"] == [0.0]
    assert found[0]["task_index"]["q99"] == [2.0]
    images = [key for key in found[0] if "images" in key]
    assert len(images) == 4
    for key in images:
        assert found[0][key].keys() == found[1][key].keys()
        for name, values in found[0][key].items():
            assert np.allclose(values, found[1][key][name]), (key, name)
    (grown / "meta" / "dexrun_seen.npz").unlink()  # as in LeRobot's own
    exported(second, "lerobot-v3", to="grown", depth="both", append=True)


def test_image_statistics_are_of_the_pixels_looked_at() -> None:
    images = np.random.default_rng(0).integers(0, 256, (20, 30, 40, 3), dtype=np.uint8)
    seen = stats.ImageStats(20, 3)
    for row, image in enumerate(images):
        seen.add(row, image)
    found, pixels = seen.result(), images.reshape(-1, 3) / 255
    assert np.allclose(found["mean"][:, 0, 0], pixels.mean(axis=0))
    assert np.allclose(found["std"][:, 0, 0], pixels.std(axis=0))
    assert np.allclose(found["q50"][:, 0, 0], np.quantile(pixels, 0.5, axis=0), atol=1 / 255)
    assert found["count"].tolist() == [20]
