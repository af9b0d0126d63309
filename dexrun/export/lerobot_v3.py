"""LeRobot data sets of version 3.0: many episodes to a parquet file, and to a video.

Layout as written and read by LeRobot 0.4.4: parquet files roll at 100 MB, videos at 200 MB, one row group
per episode; ``meta/`` has info, statistics, tasks and episodes. An appended export begins new files, as
LeRobot's own resumed recordings do, so that nothing that is there is written again.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from dexrun.export import lerobot, lerobot_append, lerobot_stats, stats, video
from dexrun.export.errors import ExportError
from dexrun.export.job import ExportPlan, Slot
from dexrun.export.lerobot import LerobotLayout
from dexrun.export.lerobot_language import COLUMNS, languages
from dexrun.export.lerobot_tables import data_schema, data_table, episode_table, read_table, task_table
from dexrun.export.options import ExportOptions
from policies.data.annotated import annotated_substeps, substeps_of
from policies.data.lerobot_features import SUBTASK
from policies.data.recorded import DatasetShape, EpisodeRef, open_episode
from policies.data.sampled import Sampled

VERSION = "v3.0"
FILE = "chunk-{chunk_index:03d}/file-{file_index:03d}"
DATA = f"data/{FILE}.parquet"
VIDEOS = f"videos/{{video_key}}/{FILE}.mp4"
EPISODES = f"meta/episodes/{FILE}.parquet"
DATA_MB, VIDEO_MB = 100, 200
PARTS = ".parts"


@dataclass(frozen=True, slots=True)
class ExistingV3:
    """What is in the data set that is appended to; empty for a new one.

    Attributes:
        subtasks: sub-steps in words, those of what is exported now among them.
        files: next free file number of the data, of the episodes' metadata, and of each video.
    """

    info: dict[str, Any] = field(default_factory=dict)
    tasks: tuple[str, ...] = ()
    subtasks: tuple[str, ...] = ()
    stats: dict[str, stats.Stats] = field(default_factory=dict)
    files: dict[str, int] = field(default_factory=dict)
    episodes: int = 0
    frames: int = 0
    report: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Place:
    """A file of a rolling series, and where in it something begins."""

    number: int
    start: int

    @property
    def indices(self) -> dict[str, int]:
        chunk, file = divmod(self.number, lerobot.CHUNK_FILES)
        return {"chunk_index": chunk, "file_index": file}


class LerobotV3:
    """The format."""

    name = "lerobot-v3"
    file = False
    appends = True
    force = True

    def cameras(self, shape: DatasetShape, options: ExportOptions) -> Sequence[str]:
        return shape.chosen(options)

    def depth(self, options: ExportOptions) -> bool:
        return _depth(options) != "none"

    def tasks(self, ref: EpisodeRef, options: ExportOptions) -> tuple[str, ...]:
        return lerobot.tasks(ref, options, _depth(options))

    def start(self, plan: ExportPlan) -> ExistingV3:
        if plan.options.language == "columns" and not _layout(plan).language:
            raise ExportError("--language columns: no episode has an annotation; dexrun annotate makes one")
        (plan.folder / PARTS).mkdir()
        if not plan.append:
            return ExistingV3(subtasks=_subtasks(plan, ()))
        found = read_existing(plan.folder)
        existing = replace(found, subtasks=_subtasks(plan, found.subtasks))
        lerobot_append.check_same(existing.info, existing.report, plan, _layout(plan))
        if "units" not in existing.info:
            lerobot_append.check_plausible(existing.stats, plan, _layout(plan))
        return existing

    def work(self, task: str, sampled: Sampled, slot: Slot, plan: ExportPlan, prepared: ExistingV3) -> Any:
        of = _layout(plan)
        part = plan.folder / PARTS / f"{slot.number:06d}"
        if task != "rows":
            key = task.removeprefix("video:")
            path = part.with_name(f"{part.name}-{key}.mp4")
            return {key: lerobot.write_video(path, key, sampled, of, plan)}
        data = lerobot.columns(sampled, slot, of)
        data["episode_index"] = np.full(slot.length, prepared.episodes + slot.number, np.int64)
        data["index"] = np.arange(slot.length, dtype=np.int64) + prepared.frames + slot.start
        number = lerobot.task_numbers(plan.slots, prepared.tasks)[slot.ref.task]
        data["task_index"] = np.full(slot.length, number, np.int64)
        if of.subtasks:
            known = {text: place for place, text in enumerate(prepared.subtasks)}
            data[SUBTASK] = np.array([known[text] for text in substeps_of(sampled)], np.int64)
        pictures: dict[str, list[bytes]] = {}
        seen: dict[str, stats.ImageStats] = {}
        for key, camera in of.depth_images.items():
            pictures[key], seen[key] = lerobot.depth_pngs(sampled, camera)
        for key, camera in of.mask_images.items():
            pictures[key], seen[key] = lerobot.mask_pngs(sampled, camera)
        said = languages(sampled, lerobot.IMAGES, of.fps) if of.language else {}
        _write_part(part.with_suffix(".arrow"), data_table(of.features(), data, pictures, said))
        return data, seen

    def finish(self, plan: ExportPlan, prepared: ExistingV3, results: Sequence[Mapping[str, Any]]) -> None:
        of = _layout(plan)
        data_places = _join_data(plan, of, prepared)
        video_places = {key: _join_videos(plan, key, of, prepared) for key in of.video_keys}
        shutil.rmtree(plan.folder / PARTS)
        rows, seen = [result["rows"][0] for result in results], [_seen(of, result) for result in results]
        found = [
            {**lerobot.row_stats(data, quantiles=True), **{key: one.result() for key, one in each.items()}}
            for data, each in zip(rows, seen, strict=True)
        ]
        _write_episodes(plan, of, prepared, data_places, video_places, found)
        numbers = lerobot.task_numbers(plan.slots, prepared.tasks)
        lerobot.write_table(plan.folder / "meta" / "tasks.parquet", task_table(list(numbers)))
        if of.subtasks:
            steps = task_table(prepared.subtasks, SUBTASK)
            lerobot.write_table(plan.folder / "meta" / "subtasks.parquet", steps)
        whole = lerobot_stats.whole(plan.folder, prepared.stats, prepared.files.get("data", 0), rows, seen)
        lerobot.write_json(plan.folder / "meta" / "stats.json", stats.as_json(whole))
        _write_info(plan, of, prepared, len(numbers))
        lerobot_append.write_report(plan, of, prepared.report, prepared.episodes)


def _seen(of: LerobotLayout, result: Mapping[str, Any]) -> dict[str, stats.ImageStats]:
    """What was seen of an episode's pictures, by feature."""
    parts = (result["rows"][1], *(result[f"video:{key}"] for key in of.video_keys))
    return {key: one for part in parts for key, one in part.items()}


def _depth(options: ExportOptions) -> str:
    return "none" if options.depth == "auto" else options.depth


def _layout(plan: ExportPlan) -> LerobotLayout:
    of = lerobot.layout(plan.slots[0].ref.shape, plan.options, _depth(plan.options))
    refs = [slot.ref for slot in plan.slots]
    masked = [name for name in of.videos.values() if any(name in ref.masks for ref in refs)]
    wanted = masked if plan.options.masks == "images" else []
    annotated = any(ref.annotated for ref in refs)
    return replace(
        of,
        mask_images={f"{lerobot.IMAGES}{name}_mask": name for name in wanted},
        subtasks=annotated and plan.options.language == "index",
        language=COLUMNS if annotated and plan.options.language == "columns" else (),
    )


def _subtasks(plan: ExportPlan, known: Sequence[str]) -> tuple[str, ...]:
    """Every sub-step in words, in order of appearance after the `known` ones."""
    if not _layout(plan).subtasks:
        return tuple(known)
    texts = dict.fromkeys(known)
    for slot in plan.slots:
        with open_episode(slot.ref.path) as episode:
            texts |= dict.fromkeys(
                [slot.ref.task, *(text for _, text in annotated_substeps(slot.ref, episode))]
            )
    return tuple(texts)


def _write_part(path: Path, table: Any) -> None:
    import pyarrow as pa

    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def _read_part(path: Path) -> Any:
    import pyarrow as pa

    with pa.OSFile(str(path), "rb") as source:
        return pa.ipc.open_file(source).read_all()


def _join_data(plan: ExportPlan, of: LerobotLayout, existing: ExistingV3) -> list[_Place]:
    """Parquet files with a row group for each episode."""
    import pyarrow.parquet as pq

    number, size, writer = existing.files.get("data", 0), 0, None
    places = []
    schema = data_schema(of.features())
    try:
        for slot in plan.slots:
            part = plan.folder / PARTS / f"{slot.number:06d}.arrow"
            table = _read_part(part)
            if writer is not None and size + table.nbytes >= DATA_MB << 20:
                writer.close()
                writer, number, size = None, number + 1, 0
            if writer is None:
                path = plan.folder / DATA.format(**_Place(number, 0).indices)
                path.parent.mkdir(parents=True, exist_ok=True)
                writer = pq.ParquetWriter(path, schema, compression="snappy", use_dictionary=True)
            writer.write_table(table, row_group_size=max(1, len(table)))
            part.unlink()
            size += table.nbytes
            places.append(_Place(number, 0))
    finally:
        if writer is not None:
            writer.close()
    return places


def _join_videos(plan: ExportPlan, key: str, of: LerobotLayout, existing: ExistingV3) -> list[_Place]:
    """Video files of one camera, filled with whole episodes."""
    number, size, start = existing.files.get(key, 0), 0, 0
    places: list[_Place] = []
    groups: dict[int, list[Slot]] = {}
    for slot in plan.slots:
        length = _part(plan, slot, key).stat().st_size
        if size and size + length >= VIDEO_MB << 20:
            number, size, start = number + 1, 0, 0
        places.append(_Place(number, start))
        groups.setdefault(number, []).append(slot)
        size, start = size + length, start + slot.length
    for file, slots in groups.items():
        path = plan.folder / VIDEOS.format(video_key=key, **_Place(file, 0).indices)
        path.parent.mkdir(parents=True, exist_ok=True)
        parts = [_part(plan, slot, key) for slot in slots]
        if len(parts) == 1:
            parts[0].rename(path)
        else:
            video.join(path, parts, [slot.length for slot in slots], of.fps)
            for part in parts:
                part.unlink()
    return places


def _part(plan: ExportPlan, slot: Slot, key: str) -> Path:
    return plan.folder / PARTS / f"{slot.number:06d}-{key}.mp4"


def _write_episodes(
    plan: ExportPlan,
    of: LerobotLayout,
    existing: ExistingV3,
    data: Sequence[_Place],
    videos: Mapping[str, Sequence[_Place]],
    found: Sequence[Mapping[str, stats.Stats]],
) -> None:
    place = _Place(existing.files.get("episodes", 0), 0)
    rows = []
    for slot, at, one in zip(plan.slots, data, found, strict=True):
        first = existing.frames + slot.start
        row: dict[str, Any] = {
            "episode_index": existing.episodes + slot.number,
            "tasks": [slot.ref.task],
            "length": slot.length,
            "data/chunk_index": at.indices["chunk_index"],
            "data/file_index": at.indices["file_index"],
            "dataset_from_index": first,
            "dataset_to_index": first + slot.length,
        }
        for key, places in videos.items():
            where = places[slot.number]
            row.update({f"videos/{key}/{name}": value for name, value in where.indices.items()})
            row[f"videos/{key}/from_timestamp"] = where.start / of.fps
            row[f"videos/{key}/to_timestamp"] = (where.start + slot.length) / of.fps
        for key, values in one.items():
            row.update({f"stats/{key}/{name}": value.tolist() for name, value in values.items()})
        row.update({f"meta/episodes/{name}": value for name, value in place.indices.items()})
        rows.append(row)
    lerobot.write_table(plan.folder / EPISODES.format(**place.indices), episode_table(rows))


def _write_info(plan: ExportPlan, of: LerobotLayout, existing: ExistingV3, tasks: int) -> None:
    features = existing.info.get("features") or of.features()
    if not existing.info:
        for key in of.video_keys:
            path = plan.folder / VIDEOS.format(video_key=key, chunk_index=0, file_index=0)
            features[key]["info"] = lerobot.video_info(path, key, of)
    episodes = existing.episodes + len(plan.slots)
    info = {
        "codebase_version": VERSION,
        "robot_type": existing.info.get("robot_type") or lerobot.robot_type(of.shape, plan.options),
        "units": existing.info.get("units") or of.units.convention,
        "total_episodes": episodes,
        "total_frames": existing.frames + plan.rows,
        "total_tasks": tasks,
        "chunks_size": lerobot.CHUNK_FILES,
        "data_files_size_in_mb": DATA_MB,
        "video_files_size_in_mb": VIDEO_MB,
        "fps": of.fps,
        "splits": {"train": f"0:{episodes}"},
        "data_path": DATA,
        "video_path": VIDEOS if of.video_keys else None,
        "features": features,
    }
    lerobot.write_json(plan.folder / "meta" / "info.json", {**existing.info, **info})


def read_existing(folder: Path) -> ExistingV3:
    """What a data set holds.

    Raises:
        ExportError: it is not one of version 3.0.
    """
    meta = folder / "meta"
    try:
        info = json.loads((meta / "info.json").read_text(encoding="utf-8"))
        if info["codebase_version"] != VERSION:
            raise ExportError(f"{folder}: LeRobot data set {info['codebase_version']}; expected {VERSION}")
        found = json.loads((meta / "stats.json").read_text(encoding="utf-8"))
        tasks = read_table(meta / "tasks.parquet").to_pydict()
        report = lerobot_append.read_report(meta)
    except (OSError, ValueError, KeyError) as error:
        raise ExportError(f"{folder}: not a LeRobot {VERSION} data set: {error}") from None
    names = next(name for name in tasks if name != "task_index")
    ordered = sorted(zip(tasks["task_index"], tasks[names], strict=True))
    keys = [key for key, feature in info["features"].items() if feature["dtype"] == "video"]
    series = {"data": folder / "data", "episodes": meta / "episodes"}
    series.update({key: folder / "videos" / key for key in keys})
    return ExistingV3(
        info=info,
        tasks=tuple(name for _, name in ordered),
        subtasks=known_subtasks(meta),
        stats={key: {n: np.array(v) for n, v in one.items()} for key, one in found.items()},
        files={name: _next_file(path) for name, path in series.items()},
        episodes=info["total_episodes"],
        frames=info["total_frames"],
        report=report,
    )


def known_subtasks(meta: Path) -> tuple[str, ...]:
    """Sub-steps in words, by their number; none in a data set that has no list of them."""
    path = meta / "subtasks.parquet"
    if not path.exists():
        return ()
    found = read_table(path).to_pydict()
    names = next(name for name in found if name != SUBTASK)
    return tuple(name for _, name in sorted(zip(found[SUBTASK], found[names], strict=True)))


def _next_file(folder: Path) -> int:
    taken = [
        int(path.parent.name[6:]) * lerobot.CHUNK_FILES + int(path.stem[5:])
        for path in folder.glob("chunk-*/file-*.*")
    ]
    return max(taken, default=-1) + 1
