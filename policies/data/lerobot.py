"""LeRobot's data sets of version 3.0 and 2.1 (and 2.0), read where they lie.

Rows are read from parquet and kept; pictures are decoded from video when they are asked for. Depth is
LeRobot's own, one channel that becomes true metres; colour that paints depth is none, and never read.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from policies.data.dataset import (
    ACTION,
    DEPTH,
    FORCE,
    IMAGES,
    STATE,
    TIP,
    Array,
    DatasetError,
    Feature,
    RowNumbers,
    Switches,
)
from policies.data.depth_codes import metres_by_code, unit_m
from policies.data.film import Films
from policies.data.opened import OpenDataset, gathered, known, reported
from policies.data.set_files import frames_per_second, json_lines, lerobot_file, small_json, table_of
from runtime.messages import Floats
from runtime.recording.bounds import BROKEN, one_line

VERSIONS = {"v3.0": "lerobot-v3", "v2.1": "lerobot-v2.1", "v2.0": "lerobot-v2.1"}
_COUNTED = ("timestamp", "frame_index", "episode_index", "index", "task_index")
_SUBTASK = "subtask_index"
_DEPTHS = ("_depth_raw", "_depth")
_MOST = 200_000_000
"""Numbers of one file that are read."""


@dataclass(frozen=True)
class _Picture:
    """Where a picture's feature is: its key there, in a video or not, and of depth how it is coded."""

    key: str
    video: bool
    depth: bool
    info: Mapping[str, Any] = field(default_factory=dict)


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
            table = table_of(file, [*self._columns, "episode_index"], _MOST)
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
    pictures: Mapping[str, _Picture]
    videos: Mapping[str, tuple[Path, float]]
    rate_hz: float
    tables: _Tables = field(repr=False)
    films: Films = field(repr=False)
    lost: Mapping[str, str] = field(default_factory=dict)
    said: Mapping[str, Any] = field(default_factory=dict)
    known_substeps: Mapping[int, str] = field(default_factory=dict)

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
        """By ``subtask_index``, where there is one."""
        if _SUBTASK not in self.columns or not self.known_substeps:
            return [self.task] * len(rows)
        numbers = self.read(_SUBTASK, rows).reshape(-1).tolist()
        return [self.known_substeps.get(int(number), "") or self.task for number in numbers]

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

    def _from_film(self, picture: _Picture, about: Feature, rows: RowNumbers) -> Array:
        path, from_s = self.videos[picture.key]
        unique, inverse = np.unique(rows, return_inverse=True)
        out = np.empty((len(unique), *about.shape), about.dtype)
        table = metres_by_code(picture.info) if picture.depth else None
        times = [from_s + row / self.rate_hz for row in unique.tolist()]
        frames = self.films.get(path).pictures(times, 0.5 / self.rate_hz, depth=picture.depth)
        for place, image in enumerate(frames):
            if image.shape != about.shape:
                raise DatasetError(
                    f"{path}: a picture is {list(image.shape)}, and info.json says {list(about.shape)}"
                )
            out[place] = image if table is None else table[np.minimum(image, len(table) - 1)]
        return out if len(unique) == len(rows) and (np.diff(rows) > 0).all() else out[inverse]

    def _stored(self, feature: str, picture: _Picture, about: Feature) -> Callable[[int], Array]:
        encoded = self.tables.pictures(self.file, self.index, picture.key)

        def load(row: int) -> Array:
            import cv2

            kind = cv2.IMREAD_UNCHANGED if picture.depth else cv2.IMREAD_COLOR
            image: Any = cv2.imdecode(np.frombuffer(encoded[row]["bytes"] or b"", np.uint8), kind)
            if image is None or image.shape != about.shape:
                found = "cannot be decoded" if image is None else f"is {list(image.shape)}"
                raise DatasetError(
                    f"{self.name}: {feature} at row {row} {found}; expected {list(about.shape)}"
                )
            if picture.depth:
                return np.asarray(image * np.float32(unit_m(picture.info)))
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
    columns, pictures, features = _features(path, info, about, switches)
    tables, films, steps = _Tables(list(columns.values())), Films(), _substeps(path)
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
    report = path / "meta" / "dexrun.json"
    found = small_json(report) if report.is_file() else {}
    episodes = found.pop("episodes", [])
    units = found.get("units") or info.get("units")
    kept = {**found, "robot_type": info.get("robot_type")}
    if units:
        kept["units"] = {"convention": units} if isinstance(units, str) else units
    return {"kept": kept, "episodes": {each["episode"]: each for each in episodes}}


def _substeps(path: Path) -> dict[int, str]:
    """Their texts by number, where the data set names sub-steps."""
    file = path / "meta" / "subtasks.parquet"
    if not file.is_file():
        return {}
    found = table_of(file, most=_MOST).to_pydict()
    texts: list[Any] = next((found[name] for name in found if name != _SUBTASK), [])
    return {int(n): str(t) for n, t in zip(found.get(_SUBTASK, []), texts, strict=False)}


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
    for row in (row for file in files for row in table_of(file, columns, _MOST).to_pylist()):

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


# --- features


def _features(
    path: Path, info: Mapping[str, Any], about: Mapping[str, Any], switches: Switches
) -> tuple[dict[str, str], dict[str, _Picture], dict[str, Feature]]:
    """Columns and pictures by our names, and what they are; only what is switched on."""
    said: Mapping[str, Mapping[str, Any]] = info["features"]
    for name in (STATE, ACTION):
        if name not in said:
            raise DatasetError(f"{path}: there is no {name}; the data set has {', '.join(said)}")
    off = {FORCE: not switches.use_force, TIP: not switches.use_language_tip}
    unit = about["kept"].get("units", {}).get("convention", "")
    units = {STATE: unit, ACTION: unit, FORCE: "N", TIP: "m"}
    columns, features = {}, {}
    for key, one in said.items():
        if one["dtype"] in ("video", "image", "string", "language") or key in _COUNTED or off.get(key):
            continue
        shape = () if list(one["shape"]) == [1] and key not in (STATE, ACTION, FORCE) else tuple(one["shape"])
        columns[key] = key
        features[key] = Feature(shape, one["dtype"], units.get(key, ""), _names(one))
    pictures = _pictures(path, said, switches)
    for name, picture in pictures.items():
        height, width = said[picture.key]["shape"][:2]
        if list(said[picture.key].get("names") or [])[:1] == ["channels"]:
            height, width = said[picture.key]["shape"][1:]
        features[name] = (
            Feature((height, width), "float32", "m")
            if picture.depth
            else Feature((height, width, 3), "uint8", "rgb")
        )
    wanted = {
        "use_force": switches.use_force and FORCE not in columns and FORCE,
        "use_language_tip": switches.use_language_tip and TIP not in columns and TIP,
        "use_mask": switches.use_mask and "tracked masks",
        "use_depth": switches.use_depth
        and not any(picture.depth for picture in pictures.values())
        and "depth of one channel (colour that paints depth is none)",
    }
    for switch, what in wanted.items():
        if what:
            raise DatasetError(f"{path}: {switch}, and the data set has no {what}; switch it off")
    return columns, pictures, features


def _names(feature: Mapping[str, Any]) -> tuple[str, ...]:
    names = feature.get("names")
    if isinstance(names, Mapping):
        names = next(iter(names.values()), None)
    return tuple(str(name).removesuffix(".pos") for name in names) if isinstance(names, list) else ()


def _pictures(path: Path, said: Mapping[str, Mapping[str, Any]], switches: Switches) -> dict[str, _Picture]:
    colours: dict[str, _Picture] = {}
    depths: dict[str, _Picture] = {}
    keys = {key: one for key, one in said.items() if one["dtype"] in ("video", "image")}
    for key, one in keys.items():
        camera = key.removeprefix(IMAGES).removeprefix("observation.")
        info = {**(one.get("video_info") or {}), **(one.get("info") or {})}
        is_depth = bool(info.get("is_depth_map") or info.get("video.is_depth_map"))
        of = next((camera.removesuffix(end) for end in _DEPTHS if camera.endswith(end)), camera)
        picture = _Picture(key, one["dtype"] == "video", is_depth, info)
        if is_depth:
            if of not in depths or not picture.video:  # as lossless images, where there are both
                depths[of] = picture
        elif of == camera or not {f"{IMAGES}{of}", f"observation.{of}"} & set(keys):
            colours[camera] = picture
    for name in switches.cameras:
        if name not in colours:
            raise DatasetError(f"{path}: no camera {name!r}; there is: {', '.join(colours) or 'none'}")
    chosen = [name for name in colours if not switches.cameras or name in switches.cameras]
    found = {f"{IMAGES}{name}": colours[name] for name in chosen}
    if switches.use_depth:
        found |= {f"{DEPTH}{name}": each for name, each in depths.items() if name in chosen}
    return found


def stored_statistics(path: Path) -> dict[str, dict[str, Floats]]:
    """What the data set says of its vectors (``mean``, ``std``, ``min``, ``max``...); nothing in v2.1."""
    file = path / "meta" / "stats.json"
    if not file.is_file():
        return {}
    found: dict[str, dict[str, Floats]] = {}
    for name, values in json.loads(file.read_text(encoding="utf-8")).items():
        each = {key: np.asarray(value, np.float64) for key, value in values.items()}
        if all(value.ndim <= 1 for value in each.values()):
            found[name] = each
    return found
