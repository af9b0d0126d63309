"""LeRobot's data sets put together anew: videos are linked as they are, tables are written again.

In version 3.0 an episode says from which second to which its pictures are in a video, so that one is left out
or cut without touching it. In 2.1 a video is an episode's, from its beginning on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dexrun.curation.lerobot_words import cut, renumbered
from dexrun.curation.links import link, link_tree
from dexrun.curation.pieces import Excerpt
from dexrun.curation.said import report_of
from dexrun.export import lerobot, lerobot_v3, lerobot_v21, stats
from dexrun.export.lerobot_tables import episode_table, task_table
from policies.data.dataset import DatasetError
from policies.data.lerobot_features import SUBTASK
from policies.data.noted import NOTES, notes_at
from policies.data.set_files import json_lines, lerobot_file, small_json, table_of

_MOST = 200_000_000


@dataclass
class _Made:
    """What is put together.

    Attributes:
        tasks: by text, its number. subtasks: the same of sub-steps. rows: how many there are so far.
        vectors: every column's rows, by episode.
    """

    info: dict[str, Any]
    tasks: dict[str, int] = field(default_factory=dict)
    subtasks: dict[str, int] = field(default_factory=dict)
    rows: int = 0
    vectors: list[dict[str, Any]] = field(default_factory=list)

    @property
    def videos(self) -> list[str]:
        return [key for key, one in self.info["features"].items() if one["dtype"] == "video"]

    def table(self, piece: Excerpt, number: int) -> Any:
        """The piece's rows, numbered anew."""
        import pyarrow as pa
        import pyarrow.compute as pc
        import pyarrow.parquet as pq

        with pq.ParquetFile(piece.episode.file) as file:
            whole = file.read()
        table = whole.filter(pc.equal(whole.column("episode_index"), piece.episode.index))
        table = table.slice(piece.first, piece.length)
        count = np.arange(piece.length)
        new = {
            "timestamp": (count / piece.source.rate_hz).astype(np.float32),
            "frame_index": count,
            "episode_index": np.full(piece.length, number),
            "index": count + self.rows,
            "task_index": np.full(piece.length, self.tasks.setdefault(piece.task, len(self.tasks))),
        }
        for name, values in new.items():
            at = table.schema.get_field_index(name)
            if at >= 0:
                column = pa.array(values, table.schema.field(at).type)
                table = table.set_column(at, table.schema.field(at), column)
        known = lerobot_v3.known_subtasks(piece.source.path / "meta")
        table = renumbered(table, known, self.subtasks)
        if not piece.whole:
            rate = piece.source.rate_hz
            table = cut(table, piece.first / rate, (piece.end - 1) / rate)
        self.rows += piece.length
        self.vectors.append(self._vectors(table))
        return table

    def _vectors(self, table: Any) -> dict[str, Any]:
        out = {}
        for key, one in self.info["features"].items():
            if one["dtype"] not in ("video", "image", "string", "language") and key in table.column_names:
                values = np.array(table.column(key).to_pylist(), np.float64)
                out[key] = values.reshape(len(values), -1)
        return out


def assemble_v3(pieces: list[Excerpt], draft: Path) -> None:
    """A data set of version 3.0."""
    import pyarrow.parquet as pq

    made = _Made(_info(pieces, draft))
    said = {path: _rows_v3(path) for path in {each.source.path for each in pieces}}
    films: dict[Path, int] = {}
    of_key: dict[str, int] = {}
    listed, found = [], []
    file = draft / lerobot_v3.DATA.format(chunk_index=0, file_index=0)
    file.parent.mkdir(parents=True)
    writer: Any = None
    try:
        for number, piece in enumerate(pieces):
            table = made.table(piece, number)
            writer = writer or pq.ParquetWriter(file, table.schema, compression="snappy", use_dictionary=True)
            writer.write_table(table.cast(writer.schema), row_group_size=max(1, len(table)))
            row = dict(said[piece.source.path][piece.episode.index])
            row |= {
                "episode_index": number,
                "tasks": [piece.task],
                "length": piece.length,
                "data/chunk_index": 0,
                "data/file_index": 0,
                "dataset_from_index": made.rows - piece.length,
                "dataset_to_index": made.rows,
                "meta/episodes/chunk_index": 0,
                "meta/episodes/file_index": 0,
            }
            for key in made.videos:
                row |= _film(row, key, piece, draft, films, of_key)
            own = {key: stats.of_rows(values) for key, values in made.vectors[-1].items()}
            row |= {f"stats/{key}/{n}": v.tolist() for key, one in own.items() for n, v in one.items()}
            listed.append(row)
            found.append(_stats_of(row))
    finally:
        if writer is not None:
            writer.close()
    common = set(listed[0]).intersection(*listed)
    lerobot.write_table(
        draft / lerobot_v3.EPISODES.format(chunk_index=0, file_index=0),
        episode_table([{k: v for k, v in row.items() if k in common} for row in listed]),
    )
    lerobot.write_table(draft / "meta" / "tasks.parquet", task_table(list(made.tasks)))
    if made.subtasks:
        listed_steps = task_table(list(made.subtasks), SUBTASK)
        lerobot.write_table(draft / "meta" / "subtasks.parquet", listed_steps)
    _write_stats(draft, made, found)
    _finish(pieces, draft, made)


def _film(
    row: Mapping[str, Any],
    key: str,
    piece: Excerpt,
    draft: Path,
    films: dict[Path, int],
    of_key: dict[str, int],
) -> dict[str, Any]:
    """Where the piece's pictures are: in a video of the source, linked under a number of its own."""
    path, rate = piece.source.path, piece.source.rate_hz
    at = {name: row[f"videos/{key}/{name}"] for name in ("chunk_index", "file_index")}
    source = lerobot_file(path, small_json(path / "meta" / "info.json")["video_path"], video_key=key, **at)
    if source not in films:
        films[source] = of_key.get(key, 0)
        of_key[key] = films[source] + 1
        chunk, number = divmod(films[source], lerobot.CHUNK_FILES)
        link(source, draft / lerobot_v3.VIDEOS.format(video_key=key, chunk_index=chunk, file_index=number))
    chunk, number = divmod(films[source], lerobot.CHUNK_FILES)
    from_s = float(row[f"videos/{key}/from_timestamp"])
    return {
        f"videos/{key}/chunk_index": chunk,
        f"videos/{key}/file_index": number,
        f"videos/{key}/from_timestamp": from_s + piece.first / rate,
        f"videos/{key}/to_timestamp": from_s + piece.end / rate,
    }


def _rows_v3(path: Path) -> dict[int, dict[str, Any]]:
    files = sorted((path / "meta" / "episodes").glob("*/*.parquet"))
    rows = (row for file in files for row in table_of(file, None, _MOST).to_pylist())
    return {int(row["episode_index"]): row for row in rows}


def _stats_of(row: Mapping[str, Any]) -> dict[str, stats.Stats]:
    out: dict[str, stats.Stats] = {}
    for name, value in row.items():
        if name.startswith("stats/") and value is not None:
            _, key, part = name.split("/", 2)
            out.setdefault(key, {})[part] = np.array(value, np.float64)
    return out


def _write_stats(draft: Path, made: _Made, found: list[dict[str, stats.Stats]]) -> None:
    """Of vectors over all rows; of pictures put together from the episodes', as they were."""
    pictures = [{key: one for key, one in each.items() if key not in made.vectors[0]} for each in found]
    every = stats.aggregate(pictures) if all(each.keys() == pictures[0].keys() for each in pictures) else {}
    for key in made.vectors[0]:
        every[key] = stats.of_rows(np.concatenate([each[key] for each in made.vectors]))
    lerobot.write_json(draft / "meta" / "stats.json", stats.as_json(every))


def assemble_v21(pieces: list[Excerpt], draft: Path) -> None:
    """A data set of version 2.1.

    Raises:
        DatasetError: a piece is cut, and there are videos, which begin with the episode.
    """
    made = _Made(_info(pieces, draft))
    measured = {path: _stats_v21(path) for path in {each.source.path for each in pieces}}
    cut = [each for each in pieces if not each.whole]
    if cut and made.videos:
        raise DatasetError(
            f"{cut[0].source.path}: episodes of LeRobot 2.1 with videos are not cut; "
            "dexrun data convert makes them 3.0, which are"
        )
    listed, found = [], []
    for number, piece in enumerate(pieces):
        at = {"episode_chunk": number // lerobot_v21.CHUNK, "episode_index": number}
        lerobot.write_table(draft / lerobot_v21.DATA.format(**at), made.table(piece, number))
        for key in made.videos:
            source = _film_v21(piece, key)
            link(source, draft / lerobot_v21.VIDEOS.format(video_key=key, **at))
        listed.append({"episode_index": number, "tasks": [piece.task], "length": piece.length})
        of = dict(measured[piece.source.path].get(piece.episode.index, {}))
        own = {key: stats.of_rows(values, quantiles=False) for key, values in made.vectors[-1].items()}
        found.append({"episode_index": number, "stats": {**of, **stats.as_json(own)}})
    meta = draft / "meta"
    lerobot.append_lines(meta / "episodes.jsonl", listed)
    lerobot.append_lines(meta / "episodes_stats.jsonl", found)
    lines = [{"task_index": number, "task": task} for task, number in made.tasks.items()]
    lerobot.append_lines(meta / "tasks.jsonl", lines)
    modality = pieces[0].source.path / "meta" / "modality.json"
    if modality.is_file():
        link(modality, meta / "modality.json")
    _finish(pieces, draft, made)


def _film_v21(piece: Excerpt, key: str) -> Path:
    path, index = piece.source.path, piece.episode.index
    info = small_json(path / "meta" / "info.json")
    chunk = index // int(info.get("chunks_size", lerobot_v21.CHUNK))
    return lerobot_file(path, info["video_path"], video_key=key, episode_chunk=chunk, episode_index=index)


def _stats_v21(path: Path) -> dict[int, dict[str, Any]]:
    file = path / "meta" / "episodes_stats.jsonl"
    rows: Iterator[dict[str, Any]] = iter(json_lines(file) if file.is_file() else [])
    return {int(row["episode_index"]): row["stats"] for row in rows}


def _info(pieces: list[Excerpt], draft: Path) -> dict[str, Any]:
    source = pieces[0].source.path
    link_tree(source, draft, leave=("data", "videos", "meta"))
    return small_json(source / "meta" / "info.json")


def _finish(pieces: list[Excerpt], draft: Path, made: _Made) -> None:
    """``info.json`` and the report."""
    count = len(pieces)
    v3 = made.info["codebase_version"] == lerobot_v3.VERSION
    info = {
        **made.info,
        "total_episodes": count,
        "total_frames": made.rows,
        "total_tasks": len(made.tasks),
        "splits": {"train": f"0:{count}"},
        "data_path": lerobot_v3.DATA if v3 else lerobot_v21.DATA,
        "video_path": (lerobot_v3.VIDEOS if v3 else lerobot_v21.VIDEOS) if made.videos else None,
    }
    if not v3:
        info |= {
            "codebase_version": lerobot_v21.VERSION,
            "chunks_size": lerobot_v21.CHUNK,
            "total_chunks": (count - 1) // lerobot_v21.CHUNK + 1,
            "total_videos": count * len(made.videos),
        }
    lerobot.write_json(draft / "meta" / "info.json", info)
    about = notes_at(pieces[0].source.path / "meta" / NOTES)
    lerobot.write_json(draft / "meta" / NOTES, report_of(about, pieces))
