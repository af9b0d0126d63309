"""One episode annotated in this process: masks, where they are kept, and what exports make of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pytest

from dexrun.annotation.inside import annotate_file
from dexrun.annotation.masks import unpacked
from dexrun.annotation.options import AnnotateOptions
from dexrun.annotation.stretches import Stretch, corrected, stretches
from dexrun.annotation.surveying import survey_file
from dexrun.curation.command import main as data_command
from dexrun.curation.lerobot_words import cut
from dexrun.exit_codes import OK
from dexrun.export.errors import ExportError
from dexrun.export.formats import format_named
from dexrun.export.job import export
from dexrun.export.lerobot import write_table
from dexrun.export.lerobot_language import PERSISTENT, array
from dexrun.export.lerobot_tables import read_table, task_table
from dexrun.export.lerobot_v3 import known_subtasks
from dexrun.export.options import ExportOptions
from policies.data.dataset import MASKS, DatasetError, Switches, substeps_at
from policies.data.opening import open_dataset
from policies.data.recorded import describe
from runtime.interfaces import PerceptionError
from runtime.recording.annotations import Anchor, annotation_path
from runtime.recording.reader import Episode, RecordingError
from tests.annotation.drawn import COVERED, drawn, overlap, place, run_of, truth

FIRST = "episodes/episode_000000.mcap"


def described(path: Path) -> Any:
    ref = describe(path)
    assert ref is not None
    return ref


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    return run_of(tmp_path / "run", drawn()) / FIRST


def test_every_frame_gets_its_mask_and_the_recording_stays_as_it_is(recording: Path) -> None:
    before = recording.read_bytes()
    about = annotate_file(described(recording), AnnotateOptions())
    assert recording.read_bytes() == before
    assert (about.phrase, about.anchors[0].by) == ("red cube", "scene_reader")
    with Episode(recording) as episode:
        frames = len(episode.times("/cameras/head/color"))
        masks = [episode.mask("head", frame) for frame in range(frames)]
        rows = episode.columns("/annotation/head")
        assert (episode.times("/mask/head") == episode.times("/cameras/head/color")).all()
        kept = episode.annotation("head")
    assert np.mean([overlap(mask, truth(frame)) for frame, mask in enumerate(masks)]) > 0.97
    assert rows["frame"].tolist() == list(range(frames))
    assert set(COVERED) <= set(about.low)
    y, x = place(20)
    assert rows["box"][20] == pytest.approx([x, y, x + 14, y + 14], abs=1)
    assert rows["point"][20] == pytest.approx([x + 6.5, y + 6.5], abs=1)
    assert np.isnan(rows["box"][COVERED[1]]).all()
    assert kept == about


def test_it_is_followed_backwards_and_forwards_from_any_frame(recording: Path) -> None:
    y, x = place(20)
    said = Anchor(20, "cube", (x, y, x + 14, y + 14), by="person", person="Ann")
    about = annotate_file(described(recording), AnnotateOptions(), (said,))
    assert about.anchors == (said,)
    with Episode(recording) as episode:
        seen = [overlap(episode.mask("head", frame), truth(frame)) for frame in range(31)]
    assert np.mean(seen) > 0.97


def test_masks_made_afterwards_are_exported_as_recorded_ones_are(recording: Path, tmp_path: Path) -> None:
    annotate_file(described(recording), AnnotateOptions())
    run = [recording.parent.parent]
    options = ExportOptions(jobs=1, missing_mask="refuse")
    export(run, format_named("dexgrasp-zarr"), tmp_path / "zarr", options)
    dataset = open_dataset(tmp_path / "zarr", Switches(use_mask=True))
    (episode,) = dataset.episodes
    masks = episode.read(f"{MASKS}head", np.arange(episode.length))
    dataset.close()
    assert np.mean([overlap(mask, truth(row)) for row, mask in enumerate(masks)]) > 0.97
    assert json.loads((tmp_path / "zarr/.zattrs").read_text())["masks"] == "1 episodes: annotated"
    export(run, format_named("dexvla-hdf5"), tmp_path / "hdf5", options)
    with h5py.File(tmp_path / "hdf5/episode_0.hdf5") as file:
        assert file["substep_reasonings"].asstr()[0] == "Reach for the red cube."


def test_an_annotation_of_another_recording_is_not_taken_for_this_ones(tmp_path: Path) -> None:
    first = run_of(tmp_path / "one", drawn()) / FIRST
    annotate_file(described(first), AnnotateOptions())
    other = run_of(tmp_path / "two", drawn(picture=lambda rng, size, row: np.full((*size, 3), row, np.uint8)))
    target = annotation_path(other / FIRST, "head")
    target.parent.mkdir(parents=True)
    target.write_bytes(annotation_path(first, "head").read_bytes())
    with Episode(other / FIRST) as episode, pytest.raises(RecordingError, match="of another recording"):
        episode.mask("head", 0)
    with pytest.raises((DatasetError, RecordingError), match="dexrun annotate"):
        describe(other / FIRST)


def test_what_nobody_sees_is_said(tmp_path: Path) -> None:
    recording = run_of(tmp_path / "run", drawn(task="pick up the green ball")) / FIRST
    with pytest.raises(PerceptionError, match="green ball"):
        annotate_file(described(recording), AnnotateOptions())
    assert not annotation_path(recording, "head").exists()


def test_every_frame_is_followed_once_from_the_anchor_that_counts_there() -> None:
    def owners(*anchors: Anchor) -> list[int]:
        found = [-1] * 50
        for stretch in stretches(anchors, 50):
            assert stretch.first == anchors[stretch.anchor].frame
            for frame in stretch.masks:
                assert found[frame] == -1
                found[frame] = stretch.anchor
        return found

    start = Anchor(20, "x", (0, 0, 1, 1))
    assert owners(start) == [0] * 50
    assert owners(replace(start, frame=0)) == owners(replace(start, frame=49)) == [0] * 50
    later = corrected((start,), Anchor(30, "x"), low=(27, 28, 29, 30, 31, 40))
    assert owners(*later) == [0] * 27 + [1] * 23
    earlier = corrected((start,), Anchor(10, "x"), low=(9, 10, 11, 12))
    assert owners(*earlier) == [1] * 13 + [0] * 37
    again = corrected(later, Anchor(30, "y"), low=())
    assert owners(*again) == [0] * 30 + [1] * 20
    assert Stretch(0, 20, 0, kept=False).masks == range(19, -1, -1)


def test_an_annotation_says_the_same_after_it_was_written(recording: Path) -> None:
    said = Anchor(3, "杯子", None, ((4.0, 5.0, True), (1.0, 1.0, False)), "person", person="Bo")
    assert Anchor.of(json.loads(json.dumps(said.as_json()))) == said


def test_annotations_go_along_when_a_run_is_edited(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", drawn(seconds=0.4), drawn(seconds=0.6))
    for name in ("episode_000000.mcap", "episode_000001.mcap"):
        annotate_file(described(run / "episodes" / name), AnnotateOptions())
    assert data_command(["drop", str(run), "--episodes", "0"]) == OK
    assert [path.name for path in (run / "episodes").iterdir()] == ["episode_000000.mcap"]
    with Episode(run / FIRST) as episode:
        assert len(episode.times("/mask/head")) == len(episode.times("/cameras/head/color")) == 19
        assert overlap(episode.mask("head", 5), truth(5)) > 0.9


def test_lerobots_data_sets_have_masks_and_subtasks(recording: Path, tmp_path: Path) -> None:
    annotate_file(described(recording), AnnotateOptions())
    target = tmp_path / "lerobot"
    options = ExportOptions(jobs=1, masks="images")
    export([recording], format_named("lerobot-v3"), target, options)
    info = json.loads((target / "meta/info.json").read_text())
    key = "observation.images.head_mask"
    assert info["features"][key] == {
        "dtype": "image",
        "shape": [96, 128, 1],
        "names": ["height", "width", "channels"],
        "info": {"is_mask": True},
    }
    assert info["features"]["subtask_index"] == {"dtype": "int64", "shape": [1], "names": None}
    table = read_table(target / "data/chunk-000/file-000.parquet")
    masks = [unpacked(each["bytes"]) for each in table.column(key).to_pylist()]
    assert np.mean([overlap(mask, truth(row)) for row, mask in enumerate(masks)]) > 0.97
    steps = read_table(target / "meta/subtasks.parquet").to_pydict()
    names = dict(zip(steps["subtask_index"], steps["__index_level_0__"], strict=True))
    assert names[table.column("subtask_index").to_pylist()[0]] == "Reach for the red cube."
    export([recording], format_named("lerobot-v3"), target, options, append=True)
    assert read_table(target / "meta/subtasks.parquet").to_pydict() == steps
    dataset = open_dataset(target, Switches(use_mask=True))
    seen = [name for name in dataset.features if name.startswith(("observation.images", MASKS))]
    assert seen == ["observation.images.head", "observation.images.wrist", "observation.masks.head"]
    got = dataset.episodes[1].read(f"{MASKS}head", np.array([2, 0]))
    dataset.close()
    np.testing.assert_array_equal(got, np.stack([masks[2], masks[0]]).astype(np.uint8))
    del info["features"][key]
    (target / "meta/info.json").write_text(json.dumps(info))
    with pytest.raises(DatasetError, match="use_mask, and the data set has no masks"):
        open_dataset(target, Switches(use_mask=True))


def test_a_relabelled_episode_has_no_masks_of_the_old_object(recording: Path, tmp_path: Path) -> None:
    annotate_file(described(recording), AnnotateOptions())
    run = recording.parent.parent
    new = ["--task", "pick up the grey wall", "--episodes", "0"]
    assert data_command(["relabel", str(run), *new]) == OK
    surveyed = survey_file(run / FIRST, AnnotateOptions(), again=False)
    assert (surveyed.ref.task, surveyed.there) == ("pick up the grey wall", None)
    with Episode(run / FIRST) as episode, pytest.raises(RecordingError, match="/mask/head"):
        episode.mask("head", 0)
    options = ExportOptions(jobs=1, missing_mask="refuse")
    with pytest.raises(ExportError, match="masks"):
        export([run], format_named("dexgrasp-zarr"), tmp_path / "zarr", options)
    assert described(run / FIRST).annotated == ()


def test_a_damaged_annotation_is_made_anew(recording: Path) -> None:
    annotate_file(described(recording), AnnotateOptions())
    annotation_path(recording, "head").write_bytes(b"no recording")
    surveyed = survey_file(recording, AnnotateOptions(), again=False)
    assert surveyed.there is None
    annotate_file(surveyed.ref, AnnotateOptions())
    assert survey_file(recording, AnnotateOptions(), again=False).same(AnnotateOptions())


def test_lerobots_language_columns_say_what_is_done_when_and_where_things_are(
    recording: Path, tmp_path: Path
) -> None:
    target, options = tmp_path / "lerobot", ExportOptions(jobs=1, language="columns")
    with pytest.raises(ExportError, match="no episode has an annotation; dexrun annotate makes one"):
        export([recording], format_named("lerobot-v3"), target, options)
    annotate_file(described(recording), AnnotateOptions())
    export([recording], format_named("lerobot-v3"), target, options)
    features = json.loads((target / "meta/info.json").read_text())["features"]
    assert features["language_persistent"] == {"dtype": "language", "shape": [1], "names": None}
    assert "language_events" in features
    assert "subtask_index" not in features
    table = read_table(target / "data/chunk-000/file-000.parquet")
    kept = table.column("language_persistent").to_pylist()
    assert all(rows == kept[0] for rows in kept)
    assert {key: kept[0][0][key] for key in ("role", "style", "content", "camera", "tool_calls")} == {
        "role": "assistant",
        "style": "subtask",
        "content": "Reach for the red cube.",
        "camera": None,
        "tool_calls": None,
    }
    stamps = table.column("timestamp").to_pylist()
    assert all(row["timestamp"] in stamps for row in kept[0])
    events = table.column("language_events").to_pylist()
    (asked,) = (row for row, rows in enumerate(events) if rows)
    question, answer = events[asked]
    assert (question["role"], answer["role"]) == ("user", "assistant")
    assert question["style"] == answer["style"] == "vqa"
    assert answer["camera"] == "observation.images.head"
    (found,) = json.loads(answer["content"])["detections"]
    x1, y1, x2, y2 = (round(edge) for edge in found["bbox"])
    boxed = np.zeros((96, 128), np.uint8)
    boxed[y1:y2, x1:x2] = 1
    assert truth(asked)[boxed == 0].sum() == 0
    assert found["bbox_format"] == "xyxy"
    export([recording], format_named("lerobot-v3"), target, options, append=True)
    dataset = open_dataset(target, Switches())
    assert len(dataset.episodes) == 2
    dataset.close()


def test_sub_steps_in_a_language_column_are_read_back(recording: Path, tmp_path: Path) -> None:
    annotate_file(described(recording), AnnotateOptions())
    target = tmp_path / "lerobot"
    export([recording], format_named("lerobot-v3"), target, ExportOptions(jobs=1, language="columns"))
    file = target / "data/chunk-000/file-000.parquet"
    table = read_table(file)
    (first,) = table.column(PERSISTENT)[0].as_py()
    begins = {0.0: "Reach.", 4 / 30: "Close.", 9 / 30: None}
    said = [{**first, "timestamp": np.float32(at), "content": text} for at, text in reversed(begins.items())]
    column = array([[*said, {**said[0], "style": "memory", "content": "no"}]] * len(table), PERSISTENT)
    at = table.schema.get_field_index(PERSISTENT)
    write_table(file, table.set_column(at, table.schema.field(at), column))
    dataset = open_dataset(target, Switches())
    told = substeps_at(dataset.episodes[0], np.array([9, 0, 3, 4, 8]))
    dataset.close()
    assert told == [dataset.episodes[0].task, "Reach.", "Reach.", "Close.", "Close."]


def test_a_language_column_that_says_no_sub_steps_hides_none(recording: Path, tmp_path: Path) -> None:
    annotate_file(described(recording), AnnotateOptions())
    target = tmp_path / "lerobot"
    export([recording], format_named("lerobot-v3"), target, ExportOptions(jobs=1))
    file, about = target / "data/chunk-000/file-000.parquet", target / "meta/info.json"
    table = read_table(file)
    memory = {"role": "assistant", "content": "no", "style": "memory", "timestamp": np.float32(0.0)}
    memory |= {"camera": None, "tool_calls": None}
    write_table(file, table.append_column(PERSISTENT, array([[memory]] * len(table), PERSISTENT)))
    info = json.loads(about.read_text())
    info["features"][PERSISTENT] = {"dtype": "language", "shape": [1], "names": None}
    about.write_text(json.dumps(info))
    dataset = open_dataset(target, Switches())
    told = substeps_at(dataset.episodes[0], np.array([0]))
    dataset.close()
    assert told == ["Reach for the red cube."]


def test_subtasks_keep_their_words_when_sets_are_cut_and_merged(recording: Path, tmp_path: Path) -> None:
    about = annotate_file(described(recording), AnnotateOptions())
    first, second = tmp_path / "first", tmp_path / "second"
    export([recording], format_named("lerobot-v3"), first, ExportOptions(jobs=1))
    words = [step.text for step in about.substeps]
    other = task_table([*reversed(words), about.task], "subtask_index")
    export([recording], format_named("lerobot-v3"), second, ExportOptions(jobs=1))
    known = known_subtasks(second / "meta")
    numbers = {len(words) - 1 - place: word for place, word in enumerate(words)}
    rows = read_table(second / "data/chunk-000/file-000.parquet")
    moved = [
        next(n for n, w in numbers.items() if w == known[old]) for old in rows["subtask_index"].to_pylist()
    ]
    at = rows.schema.get_field_index("subtask_index")
    write_table(
        second / "data/chunk-000/file-000.parquet", rows.set_column(at, rows.schema.field(at), [moved])
    )
    write_table(second / "meta/subtasks.parquet", other)
    both = tmp_path / "both"
    assert data_command(["merge", str(first), str(second), "--to", str(both)]) == OK
    said = known_subtasks(both / "meta")
    steps = [
        said[each]
        for each in read_table(both / "data/chunk-000/file-000.parquet")["subtask_index"].to_pylist()
    ]
    assert steps[: len(steps) // 2] == steps[len(steps) // 2 :]
    assert set(steps) <= {*words, about.task}
    assert words[0] in steps


def test_language_columns_are_counted_anew_from_a_cut() -> None:
    rows = [
        {
            "role": "assistant",
            "content": text,
            "style": "subtask",
            "timestamp": at,
            "camera": None,
            "tool_calls": None,
        }
        for text, at in (("reach", 0.0), ("grasp", 0.5), ("lift", 1.0), ("place", 2.0))
    ]
    table = pa.table({PERSISTENT: array([rows] * 3, PERSISTENT)})
    left = cut(table, 0.75, 1.5)[PERSISTENT].to_pylist()
    assert left == [left[0]] * 3
    assert [(row["content"], row["timestamp"]) for row in left[0]] == [("grasp", 0.0), ("lift", 0.25)]
