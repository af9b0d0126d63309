"""LeRobot data sets of version 2.1: a parquet file and videos for each episode; GR00T's ``modality.json``.

GR00T's names for an SO-100: state and action ``single_arm`` and ``gripper``, video ``front`` and ``wrist``,
language ``annotation.human.task_description``.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from dexrun.export import lerobot, lerobot_append
from dexrun.export.errors import ExportError
from dexrun.export.job import ExportPlan, Slot
from dexrun.export.lerobot import LerobotLayout
from dexrun.export.lerobot_tables import data_table
from dexrun.export.options import ExportOptions
from dexrun.export.stats import as_json
from policies.data.recorded import DatasetShape, EpisodeRef
from policies.data.sampled import Sampled
from runtime.joints import SEPARATOR, JointLayout

VERSION = "v2.1"
CHUNK = 1000
DATA = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
VIDEOS = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"


@dataclass(frozen=True, slots=True)
class ExistingV21:
    """What is in the data set that is appended to; all zero for a new one."""

    info: Mapping[str, Any] = field(default_factory=dict)
    tasks: tuple[str, ...] = ()
    report: Mapping[str, Any] = field(default_factory=dict)

    @property
    def episodes(self) -> int:
        return int(self.info.get("total_episodes", 0))

    @property
    def frames(self) -> int:
        return int(self.info.get("total_frames", 0))


class LerobotV21:
    """The format."""

    name = "lerobot-v2.1"
    file = False
    appends = True
    force = True

    def cameras(self, shape: DatasetShape, options: ExportOptions) -> Sequence[str]:
        return shape.chosen(options)

    def depth(self, options: ExportOptions) -> bool:
        return _depth(options) != "none"

    def tasks(self, ref: EpisodeRef, options: ExportOptions) -> tuple[str, ...]:
        return lerobot.tasks(ref, options, _depth(options))

    def start(self, plan: ExportPlan) -> ExistingV21:
        if not plan.append:
            return ExistingV21()
        existing = read_existing(plan.folder)
        lerobot_append.check_same(existing.info, existing.report, plan, _layout(plan))
        return existing

    def work(self, task: str, sampled: Sampled, slot: Slot, plan: ExportPlan, prepared: ExistingV21) -> Any:
        of, number = _layout(plan), prepared.episodes + slot.number
        if task != "rows":
            key = task.removeprefix("video:")
            path = plan.folder / _path(VIDEOS, number, key)
            path.parent.mkdir(parents=True, exist_ok=True)
            return lerobot.write_video(path, key, sampled, of, plan).result(quantiles=False)
        data = lerobot.columns(sampled, slot, of)
        data["episode_index"] = np.full(slot.length, number, np.int64)
        data["index"] = np.arange(slot.length, dtype=np.int64) + prepared.frames + slot.start
        task_number = lerobot.task_numbers(plan.slots, prepared.tasks)[slot.ref.task]
        data["task_index"] = np.full(slot.length, task_number, np.int64)
        found = lerobot.row_stats(data, quantiles=False)
        pictures: dict[str, list[bytes]] = {}
        for key, camera in of.depth_images.items():
            pictures[key], seen = lerobot.depth_pngs(sampled, camera)
            found[key] = seen.result(quantiles=False)
        table = data_table(of.features(), data, pictures)
        lerobot.write_table(plan.folder / _path(DATA, number), table)
        return found

    def finish(self, plan: ExportPlan, prepared: ExistingV21, results: Sequence[Mapping[str, Any]]) -> None:
        of, meta = _layout(plan), plan.folder / "meta"
        numbers = lerobot.task_numbers(plan.slots, prepared.tasks)
        episodes, found = [], []
        for slot, result in zip(plan.slots, results, strict=True):
            number = prepared.episodes + slot.number
            stats = {**result["rows"], **{key: result[f"video:{key}"] for key in of.video_keys}}
            episodes.append({"episode_index": number, "tasks": [slot.ref.task], "length": slot.length})
            found.append({"episode_index": number, "stats": as_json(stats)})
        lerobot.append_lines(meta / "episodes.jsonl", episodes)
        lerobot.append_lines(meta / "episodes_stats.jsonl", found)
        lines = [{"task_index": number, "task": task} for task, number in numbers.items()]
        lerobot.append_lines(meta / "tasks.jsonl", lines[len(prepared.tasks) :])
        lerobot.write_json(meta / "info.json", _info(plan, of, prepared, len(numbers)))
        lerobot.write_json(meta / "modality.json", modality(plan, of))
        lerobot_append.write_report(plan, of, prepared.report, prepared.episodes)


def _depth(options: ExportOptions) -> str:
    return "none" if options.depth == "auto" else options.depth


def _layout(plan: ExportPlan) -> LerobotLayout:
    return lerobot.layout(plan.slots[0].ref.shape, plan.options, _depth(plan.options))


def _path(pattern: str, number: int, key: str = "") -> str:
    return pattern.format(episode_chunk=number // CHUNK, episode_index=number, video_key=key)


def _info(plan: ExportPlan, of: LerobotLayout, existing: ExistingV21, tasks: int) -> dict[str, Any]:
    features = existing.info.get("features") or of.features()
    if not existing.info:
        for key in of.video_keys:
            features[key]["info"] = lerobot.video_info(plan.folder / _path(VIDEOS, 0, key), key, of)
    episodes = existing.episodes + len(plan.slots)
    return {
        **existing.info,
        "codebase_version": VERSION,
        "robot_type": existing.info.get("robot_type") or lerobot.robot_type(of.shape, plan.options),
        "units": existing.info.get("units") or of.units.convention,
        "total_episodes": episodes,
        "total_frames": existing.frames + plan.rows,
        "total_tasks": tasks,
        "total_videos": episodes * len(of.video_keys),
        "total_chunks": (episodes - 1) // CHUNK + 1,
        "chunks_size": CHUNK,
        "fps": of.fps,
        "splits": {"train": f"0:{episodes}"},
        "data_path": DATA,
        "video_path": VIDEOS if of.video_keys else None,
        "features": features,
    }


def modality(plan: ExportPlan, of: LerobotLayout) -> dict[str, Any]:
    """GR00T's map from its own names to the columns and videos."""
    shape, options = of.shape, plan.options
    parts = joint_parts(shape.layout)
    state: dict[str, Any] = {name: dict(part) for name, part in parts.items()}
    if shape.force_channels:
        state["force"] = {"start": 0, "end": shape.force_channels, "original_key": lerobot.FORCE}
    head, wrist = shape.head(options), shape.wrist(options)
    names = {head: "front", wrist: "wrist"}
    video = {names.get(camera, camera): {"original_key": key} for key, camera in of.videos.items()}
    return {
        "state": state,
        "action": parts,
        "video": video,
        "annotation": {"human.task_description": {"original_key": "task_index"}},
    }


def joint_parts(layout: JointLayout) -> dict[str, dict[str, int]]:
    """Columns of arm and gripper by GR00T's names; a part that goes on elsewhere is numbered from 2 on.

    Of several arms ``left_arm``, ``left_gripper`` and so on.
    """
    parts: dict[str, dict[str, int]] = {}
    times: Counter[str] = Counter()
    arm_of = [name.rpartition(SEPARATOR)[0] for name in layout.names]
    runs = groupby(range(layout.joints), lambda joint: (arm_of[joint], joint in layout.grippers))
    for (arm, is_gripper), run in runs:
        columns, name = list(run), "gripper" if is_gripper else "arm" if arm else "single_arm"
        name = f"{arm}_{name}" if arm else name
        times[name] += 1
        key = name if times[name] == 1 else f"{name}_{times[name]}"
        parts[key] = {"start": columns[0], "end": columns[-1] + 1}
    return parts


def read_existing(folder: Path) -> ExistingV21:
    """What a data set holds.

    Raises:
        ExportError: it is not one of version 2.1.
    """
    meta = folder / "meta"
    try:
        info = json.loads((meta / "info.json").read_text(encoding="utf-8"))
        if info["codebase_version"] != VERSION:
            raise ExportError(f"{folder}: LeRobot data set {info['codebase_version']}; expected {VERSION}")
        lines = (meta / "tasks.jsonl").read_text(encoding="utf-8").splitlines()
        tasks = sorted((json.loads(line) for line in lines), key=lambda row: row["task_index"])
        report = lerobot_append.read_report(meta)
    except (OSError, ValueError, KeyError) as error:
        raise ExportError(f"{folder}: not a LeRobot {VERSION} data set: {error}") from None
    return ExistingV21(info, tuple(row["task"] for row in tasks), report)
