"""LeRobot's data sets of version 3.0 and 2.1 (and 2.0), read where they lie.

Rows are read from parquet and kept; pictures are decoded from video when they are asked for. Depth is
LeRobot's own, one channel that becomes true metres; colour that paints depth is none, and never read. Masks
are pictures whose ``info`` says so (``is_mask``), as `dexrun.export` writes them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from policies.data.dataset import DEPTH, MASKS, Array, DatasetError, Feature, RowNumbers, Switches
from policies.data.depth_codes import metres_by_code, unit_m
from policies.data.film import Films
from policies.data.lerobot_features import (
    LANGUAGE,
    MOST_NUMBERS,
    SUBTASK,
    LerobotPicture,
    features_of,
    subtasks_of,
    subtasks_said,
)
from policies.data.noted import NOTES, notes_at
from policies.data.opened import OpenDataset, gathered, known, reported
from policies.data.set_files import frames_per_second, json_lines, lerobot_file, small_json, table_of
from runtime.messages import Floats
from runtime.recording.bounds import BROKEN, one_line
from runtime.recording.pictures import unfolded

VERSIONS = {"v3.0": "lerobot-v3", "v2.1": "lerobot-v2.1", "v2.0": "lerobot-v2.1"}
_SHOWN = 127
"""Brighter than this is the object, in a mask of 0 and 255."""


class _Tables:
    """The rows of every parquet file that was asked for, by column."""

    def __init__(self, columns: Sequence[str]) -> None:
        self._columns = list(columns)
        self._read: dict[Path, dict[str, Array]] = {}
        self._pictures: tuple[tuple[Path, str], Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"_columns": self._columns, "_read": {}, "_pictures": None}

    def rows(self, file: Path, episode: int, column: str) -> Array:
        """Those of one episode, ``[T, ...]``."""
        if file not in self._read:
            table = table_of(file, [*self._columns, "episode_index"], MOST_NUMBERS)
            self._read[file] = {name: _column(file, name, table.column(name)) for name in table.column_names}
        columns = self._read[file]
        return np.asarray(columns[column][columns["episode_index"].ravel() == episode])

    def pictures(self, file: Path, episode: int, column: str) -> Any:
        """Encoded pictures of one episode; those of the last episode asked for are kept."""
        import pyarrow.compute as pc
        import pyarrow.parquet as pq

        if self._pictures is None or self._pictures[0] != (file, f"{column}/{episode}"):
            filtered = pc.field("episode_index") == episode
            table = pq.read_table(file, columns=[column], filters=filtered)
            self._pictures = ((file, f"{column}/{episode}"), table.column(column).to_pylist())
        return self._pictures[1]


def _column(file: Path, name: str, column: Any) -> Array:
    """``[N]`` or ``[N, D]``.

    Raises:
        DatasetError: rows are of several lengths, or one is missing.
    """
    import pyarrow as pa

    whole = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
    if whole.null_count:
        raise DatasetError(f"{file}: {name} is missing in {whole.null_count} rows")
    if not pa.types.is_nested(whole.type):
        return np.asarray(whole.to_numpy(zero_copy_only=False))
    lengths = np.unique(whole.value_lengths().to_numpy(zero_copy_only=False)) if len(whole) else np.array([0])
    if len(lengths) > 1:
        told = ", ".join(map(str, lengths[:3].tolist()))
        raise DatasetError(f"{file}: rows of {name} have {told} numbers; all must have as many")
    flat = whole.flatten()
    if pa.types.is_nested(flat.type):
        raise DatasetError(f"{file}: {name} is {whole.type}; expected a list of numbers")
    return np.asarray(flat.to_numpy(zero_copy_only=False)).reshape(len(whole), -1)


@dataclass
class LerobotEpisode:
    """One episode: its rows in a parquet file, and in videos from a second on."""

    number: int
    name: str
    length: int
    task: str
    label: str
    index: int
    file: Path
    features: Mapping[str, Feature]
    columns: Mapping[str, str]
    pictures: Mapping[str, LerobotPicture]
    videos: Mapping[str, tuple[Path, float]]
    rate_hz: float
    tables: _Tables = field(repr=False)
    films: Films = field(repr=False)
    lost: Mapping[str, str] = field(default_factory=dict)
    said: Mapping[str, Any] = field(default_factory=dict)
    known_substeps: Mapping[int, str] = field(default_factory=dict)
    language: bool = False
    _spoken: list[tuple[float, str]] | None = field(default=None, repr=False)

    def numbered(self, number: int) -> LerobotEpisode:
        """The same at another place."""
        return replace(self, number=number)

    def read(self, feature: str, rows: RowNumbers) -> Array:
        """See `policies.data.dataset.DataEpisode.read`."""
        about = known(self.features, feature)
        try:
            if feature in self.columns:
                return self._vector(feature, about)[rows]
            picture = self.pictures[feature]
            if picture.video:
                return self._from_film(picture, about, rows)
            return gathered(rows, about, self._stored(feature, picture, about))
        except (*BROKEN, OSError) as error:
            raise DatasetError(f"{self.name}: {feature}: {one_line(error)}") from None

    def substeps(self, rows: RowNumbers) -> list[str]:
        """As the language column says, where it says any (it may say other things alone), else by
        ``subtask_index``, where there is one.
        """
        if spoken := self._steps_spoken():
            begins, texts = [begin for begin, _ in spoken], [self.task, *(text for _, text in spoken)]
            places = np.searchsorted(np.array(begins), (rows + 0.5) / self.rate_hz, side="right")
            return [texts[place] or self.task for place in places.tolist()]
        if SUBTASK not in self.columns or not self.known_substeps:
            return [self.task] * len(rows)
        numbers = self.read(SUBTASK, rows).reshape(-1).tolist()
        return [self.known_substeps.get(int(number), "") or self.task for number in numbers]

    def _steps_spoken(self) -> list[tuple[float, str]]:
        if self._spoken is None:
            try:
                self._spoken = subtasks_said(self.file, self.index) if self.language else []
            except (*BROKEN, OSError) as error:
                raise DatasetError(f"{self.name}: {one_line(error)}") from None
        return self._spoken

    def _vector(self, feature: str, about: Feature) -> Array:
        values = self.tables.rows(self.file, self.index, self.columns[feature])
        if len(values) != self.length:
            raise DatasetError(
                f"{self.name}: {self.file.name} has {len(values)} rows of it, "
                f"the list of episodes {self.length}"
            )
        if values.size != self.length * int(np.prod(about.shape)):
            raise DatasetError(
                f"{self.name}: {feature} is {list(values.shape[1:])}, and info.json says {list(about.shape)}"
            )
        return values.reshape(self.length, *about.shape).astype(about.dtype, copy=False)

    def _from_film(self, picture: LerobotPicture, about: Feature, rows: RowNumbers) -> Array:
        path, from_s = self.videos[picture.key]
        unique, inverse = np.unique(rows, return_inverse=True)
        out = np.empty((len(unique), *about.shape), about.dtype)
        table = metres_by_code(picture.info) if picture.kind == DEPTH else None
        times = [from_s + row / self.rate_hz for row in unique.tolist()]
        frames = self.films.get(path).pictures(times, 0.5 / self.rate_hz, depth=picture.kind == DEPTH)
        for place, image in enumerate(frames):
            if picture.kind == MASKS:
                image = image[..., 0] > _SHOWN
            if image.shape != about.shape:
                raise DatasetError(
                    f"{path}: a picture is {list(image.shape)}, and info.json says {list(about.shape)}"
                )
            out[place] = image if table is None else table[np.minimum(image, len(table) - 1)]
        return out if len(unique) == len(rows) and (np.diff(rows) > 0).all() else out[inverse]

    def _stored(self, feature: str, picture: LerobotPicture, about: Feature) -> Callable[[int], Array]:
        encoded = self.tables.pictures(self.file, self.index, picture.key)

        def load(row: int) -> Array:
            import cv2

            kind = {DEPTH: cv2.IMREAD_UNCHANGED, MASKS: cv2.IMREAD_GRAYSCALE}.get(
                picture.kind, cv2.IMREAD_COLOR
            )
            try:
                image = unfolded(encoded[row]["bytes"] or b"", kind)
            except ValueError as error:
                raise DatasetError(f"{self.name}: {feature} at row {row}: {error}") from None
            if image.shape != about.shape:
                found = list(image.shape)
                raise DatasetError(
                    f"{self.name}: {feature} at row {row} is {found}; expected {list(about.shape)}"
                )
            if picture.kind == DEPTH:
                return np.asarray(image * np.float32(unit_m(picture.info)))
            if picture.kind == MASKS:
                return np.asarray(image > _SHOWN, np.uint8)
            return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))

        return load


def open_lerobot(path: Path, switches: Switches) -> OpenDataset:
    """The data set in the folder `path`. An episode whose files are missing costs itself alone.

    Raises:
        DatasetError: it cannot be used, or has not what is switched on.
    """
    info = small_json(path / "meta" / "info.json")
    version = info.get("codebase_version")
    if version not in VERSIONS:
        raise DatasetError(f"{path}: LeRobot data set {str(version)[:20]!r}; accepted: {', '.join(VERSIONS)}")
    about = _said(path, info)
    rate = frames_per_second(info["fps"])
    columns, pictures, features = features_of(path, info, about, switches)
    tables, films, steps = _Tables(list(columns.values())), Films(), subtasks_of(path)
    left_out: dict[str, str] = {}
    episodes: list[LerobotEpisode] = []
    keys = [picture.key for picture in pictures.values() if picture.video]
    for index, length, task, locate in _listed(path, info, keys):
        known_as = about["episodes"].get(index, {})
        name = f"{path.name}/episode {index}"
        try:
            file, videos = locate()
        except (*BROKEN, OSError) as error:
            left_out[name] = one_line(error)
            continue
        label = str(known_as.get("label", ""))
        episodes.append(
            LerobotEpisode(
                len(episodes), name, length, task, "" if label == "none" else label, index, file, features,
                columns, pictures, videos, rate, tables, films, reported(known_as), known_as, steps,
                LANGUAGE in info["features"],
            )
        )  # fmt: skip
    if not episodes:
        why = "; ".join(f"{name}: {reason}" for name, reason in list(left_out.items())[:5])
        raise DatasetError(f"{path}: no episode can be used" + (f": {why}" if why else ""))
    return OpenDataset(
        path, VERSIONS[version], rate, features, episodes, about["kept"], left_out, films.close
    )


def _said(path: Path, info: Mapping[str, Any]) -> dict[str, Any]:
    """What the export's report and ``info.json`` say: ``kept`` for the data set, ``episodes`` by number."""
    found = notes_at(path / "meta" / NOTES)
    episodes = found.pop("episodes", [])
    units = found.get("units") or info.get("units")
    kept = {**found, "robot_type": info.get("robot_type")}
    if units:
        kept["units"] = {"convention": units} if isinstance(units, str) else units
    return {"kept": kept, "episodes": {each["episode"]: each for each in episodes}}


_Where = Callable[[], tuple[Path, dict[str, tuple[Path, float]]]]


def _listed(
    path: Path, info: Mapping[str, Any], keys: Sequence[str]
) -> Iterator[tuple[int, int, str, _Where]]:
    """Number, rows, task, and where its files are, of every episode."""
    if info["codebase_version"] != "v3.0":
        yield from _listed_v2(path, info, keys)
        return
    columns = ["episode_index", "length", "tasks", "data/chunk_index", "data/file_index"]
    parts = ("chunk_index", "file_index", "from_timestamp")
    columns += [f"videos/{key}/{part}" for key in keys for part in parts]
    files = sorted((path / "meta" / "episodes").glob("*/*.parquet"))
    if not files:
        raise DatasetError(f"{path}: meta/episodes holds no list of episodes")
    for row in (row for file in files for row in table_of(file, columns, MOST_NUMBERS).to_pylist()):

        def locate(row: Mapping[str, Any] = row) -> tuple[Path, dict[str, tuple[Path, float]]]:
            at = {name: row[f"data/{name}"] for name in ("chunk_index", "file_index")}
            videos = {}
            for key in keys:
                where = {name: row[f"videos/{key}/{name}"] for name in ("chunk_index", "file_index")}
                film = lerobot_file(path, info["video_path"], video_key=key, **where)
                videos[key] = film, float(row[f"videos/{key}/from_timestamp"])
            return lerobot_file(path, info["data_path"], **at), videos

        yield int(row["episode_index"]), int(row["length"]), str((row["tasks"] or [""])[0]), locate


def _listed_v2(
    path: Path, info: Mapping[str, Any], keys: Sequence[str]
) -> Iterator[tuple[int, int, str, _Where]]:
    for row in json_lines(path / "meta" / "episodes.jsonl"):
        index = int(row["episode_index"])
        at = {"episode_chunk": index // int(info.get("chunks_size", 1000)), "episode_index": index}

        def locate(at: dict[str, int] = at) -> tuple[Path, dict[str, tuple[Path, float]]]:
            videos = {key: (lerobot_file(path, info["video_path"], video_key=key, **at), 0.0) for key in keys}
            return lerobot_file(path, info["data_path"], **at), videos

        yield index, int(row["length"]), str((row.get("tasks") or [""])[0]), locate


def stored_statistics(path: Path) -> dict[str, dict[str, Floats]]:
    """What the data set says of its vectors (``mean``, ``std``, ``min``, ``max``...); nothing in v2.1.

    Raises:
        DatasetError: the file holds something else.
    """
    file = path / "meta" / "stats.json"
    if not file.is_file():
        return {}
    found: dict[str, dict[str, Floats]] = {}
    try:
        for name, values in small_json(file).items():
            each = {key: np.asarray(value, np.float64) for key, value in values.items()}
            if all(value.ndim <= 1 for value in each.values()):
                found[name] = each
    except (*BROKEN, OSError) as error:
        raise DatasetError(f"{file}: no statistics: {one_line(error)}") from None
    return found
