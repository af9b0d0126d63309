"""Looks into recordings, and finds who looks into anything else."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dexrun.export.contents import Content, Row, counted, size_of
from dexrun.export.errors import ExportError
from dexrun.export.look_sets import KINDS
from policies.data.dataset import DatasetError
from runtime.recording.bounds import BROKEN, one_line, reading

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runtime.recording.reader import Episode


def inspect(path: Path) -> Content:
    """Look inside.

    Raises:
        ExportError: it is neither a recording nor a data set that is known.
    """
    if not path.exists():
        raise ExportError(f"{path}: no such file or folder")
    for fits, look in (*KINDS, (_is_recording, _recording)):
        if fits(path):
            try:
                return look(path)
            except DatasetError as error:
                raise ExportError(str(error)) from None
            except (*BROKEN, OSError) as error:
                raise ExportError(f"{path}: cannot be read: {one_line(error)}") from None
    raise ExportError(
        f"{path}: neither a recording (a run's folder, an .mcap file) nor a data set that dexrun exports"
    )


# --- recordings


def _is_recording(path: Path) -> bool:
    if path.is_file():
        return path.suffix == ".mcap"
    return bool(list(path.glob("episodes/*.mcap*")) or list(path.glob("*.mcap*")))


def _recording(path: Path) -> Content:
    from runtime.recording.reader import Recording, RecordingError

    try:
        with Recording(path) as recording:
            unreadable = {file.name: why for file, why in recording.unreadable.items()}
            episodes, first = _rows(recording.episodes, unreadable)
            content = Content("recording", path, size_of(path), episodes=episodes)
            content.features = {topic: _topic(first, topic) for topic, count in first.topics.items() if count}
            robot = first.robot
            content.facts = {
                "robot": robot.get("model", ""),
                "joints": robot.get("joint_names", []),
                "seconds": round(sum(row.seconds for row in episodes), 3),
                "labels": counted([row.label for row in episodes]),
                "tasks": counted([row.task for row in episodes]),
            }
            if unreadable:
                content.facts["unreadable"] = unreadable
            if recording.unfinished:
                content.facts["unfinished"] = [draft.name for draft in recording.unfinished]
            return content
    except RecordingError as error:
        raise ExportError(str(error)) from None


def _rows(episodes: Sequence[Episode], unreadable: dict[str, str]) -> tuple[list[Row], Episode]:
    """A row for each, and the first that has one; a damaged one goes to `unreadable` and costs itself alone.

    Raises:
        RecordingError: none has one.
    """
    from runtime.recording.reader import RecordingError

    rows, first = [], None
    for number, episode in enumerate(episodes, 1):
        try:
            rows.append(_row(episode))
        except RecordingError as error:
            if first is None and number == len(episodes):
                raise
            unreadable[episode.path.name] = str(error)
        else:
            first = first or episode
    return rows, first or episodes[0]


def _row(episode: Episode) -> Row:
    with reading(episode.path):
        return _episode(episode)


def _episode(episode: Episode) -> Row:
    rates = {}
    for topic, count in episode.topics.items():
        stamps = episode.stamps(topic) if count > 2 else np.zeros(0)
        span = (stamps[-1] - stamps[0]) / 1e9 if len(stamps) else 0.0
        if span > 0 and not topic.endswith("/info"):
            rates[topic] = round(float((count - 1) / span), 2)
    notes = [
        "repaired" if episode.repaired else "",
        "discarded" if episode.metadata.get("discarded") == "true" else "",
    ]
    return Row(
        episode.path.name,
        round(episode.duration_s, 3),
        episode.label,
        episode.task,
        episode.topics.get("/ticks", 0),
        rates,
        episode.drops,
        " ".join(note for note in notes if note),
    )


def _topic(episode: Episode, topic: str) -> str:
    """What a topic's messages are like."""
    from runtime.recording.reader import RecordingError

    parts = topic.split("/")
    if topic.startswith("/mask/"):
        return "tracked masks"
    if topic.startswith("/cameras/"):
        camera, kind = parts[2], parts[3]
        if kind == "color":
            height, width = episode.color(camera, 0).shape[:2]
            return f"{width}x{height} {episode.color_bytes(camera, 0)[1]}"
        if kind == "info":
            return "intrinsics"
        if kind == "depth":
            height, width = episode.depth(camera, 0).shape
            return f"{width}x{height} uint16, unit {episode.camera_info(camera).depth_scale_m} m"
    try:
        columns = episode.columns(topic)
    except RecordingError:
        return "events"
    return ", ".join(f"{name} {list(v.shape[1:])}" for name, v in columns.items() if v.ndim > 1) or "rows"
